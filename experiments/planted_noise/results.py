"""What a selection made of planted noise and boiler-plate, and what students gained by it.

    bash scripts/experiments/planted_noise.sh BASE_PATH     # makes everything that is read here
    python3 experiments/planted_noise/results.py BASE_PATH [--shares "0 0.1"] [--seeds "1 2"]

Reads the reports of the selections and the better halves, the students and their held-out losses.
Prints the tables; writes BASE_PATH/results/planted_noise: report.html (needs no other file),
gain.png, gain.csv, keep_rates.csv and result.json.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_utils import artefact, atomic_files
from data_utils.corpus import Corpus, recorded_corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from eval.compare import Run, check_comparable, paired_difference, read_run
from eval.compare_page import read_selection
from experiments.planted_noise import page
from experiments.planted_noise.plant import BOILERPLATE, NOISE
from reports import html_page, terminal
from reports.files import save, write_csv

EXPERIMENT = "run scripts/experiments/planted_noise.sh to its end"
ORDINARY = "ordinary text"


@dataclass
class Settings:
    """Gather the results of the experiment with planted sequences."""

    base_path: str = flag(".", "BASE_PATH of the experiment")
    shares: str = flag("0 0.1 0.3 0.5", "shares of noise, separated by spaces")
    seeds: str = flag("1 2 3", "seeds of the students, separated by spaces")
    teacher_name: str = flag("smollm2_135M", "the teacher's store")
    ref_name: str = flag("llama_5M", "the reference's store")
    corpus_name: str = flag("smollm2-129", "last part of the corpora's folders")
    save: str = flag("results/planted_noise", "folder of the results")

    def __post_init__(self) -> None:
        if not self.shares.split() or not self.seeds.split():
            raise ValueError("--shares and --seeds name at least one each")
        if any(not 0 <= float(share) <= 1 for share in self.shares.split()):
            raise ValueError("--shares are numbers from 0 to 1")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    groups, sources = keep_rates(base, "planted", settings)
    gains = [gain_row(base, share, settings) for share in settings.shares.split()]
    result = {
        "keep_rates": groups,
        "sources": sources,
        "gain": gains,
        "findings": [*keep_findings(groups), *(gain_finding(row) for row in gains)],
    }
    folder = under(base, settings.save)
    folder.mkdir(parents=True, exist_ok=True)
    png = page.draw_gain(gains)
    shown = page.page(result, png)
    write_csv(folder / "keep_rates.csv", [*groups, *sources])
    write_csv(folder / "gain.csv", gains)
    save(folder / "gain.png", png)
    save(folder / "report.html", html_page.render(shown))
    atomic_files.write_json(folder / "result.json", result)
    print(f"{terminal.render(shown)}\n\nReport: {folder / 'report.html'}")


def keep_rates(base: Path, name: str, settings: Settings) -> tuple[list[dict], list[dict]]:
    """Rows (ordinary text and what is planted; each source of ordinary text) of a planted corpus.

    From the report of its selection, which must be the one that the better half was made by.
    """
    half = Corpus(under(base, f"processed_data/pretrain/{name}-better_half/{settings.corpus_name}"))
    scores = under(base, f"results/scores/{name}/{settings.corpus_name}")
    store = scores / f"diff-{settings.teacher_name}-{settings.ref_name}"
    rows = read_selection(store, []).sources
    expected = artefact.identity(store, "scores", EXPERIMENT)["fingerprint"], total(rows, "kept")
    found = half.manifest.input_fingerprint("scores"), len(half)
    if found != expected:
        raise InputError(
            "the better half is not the one that the scores select",
            where=half.folder,
            expected=f"{expected[1]} sequences by {expected[0][:12]}",
            found=f"{found[1]} sequences by {found[0][:12]}",
            fix=f"remove this folder and {EXPERIMENT}",
        )
    planted = [row for row in rows if row["source"] in (NOISE, BOILERPLATE)]
    planted.sort(key=lambda row: row["source"] == BOILERPLATE)
    ordinary = [row for row in rows if row not in planted]
    whole = [keep_row(ORDINARY, ordinary)] if ordinary else []
    return whole + each(planted), each(ordinary)


def each(rows: list[dict]) -> list[dict]:
    """A row of the table of keep rates for each row of a report's sources."""
    return [keep_row(row["source"], [row]) for row in rows]


def total(rows: list[dict], name: str) -> int:
    """The sum of a column of counts."""
    return int(sum(row[name] for row in rows))


def keep_row(source: str, rows: list[dict]) -> dict:
    """A row of the table of keep rates: these sources of the report together."""
    sequences, kept = total(rows, "sequences"), total(rows, "kept")
    low, high = wilson(kept, sequences)
    found = {"source": source, "sequences": sequences, "kept": kept}
    found |= {"keep_rate": kept / sequences, "low": low, "high": high}
    weights = [row["sequences"] for row in rows]
    for name in ("mean_r", "mean_teacher_loss", "mean_reference_loss"):
        found[name] = float(np.average([row[name] for row in rows], weights=weights))
    return found


def mean(values: np.ndarray) -> float:
    """The mean; NaN of no values."""
    return float(values.mean()) if len(values) else np.nan


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; trials: at least 1."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def gain_row(base: Path, share: str, settings: Settings) -> dict:
    """A row of the table of gains: the random half's held-out loss minus the better half's.

    low, high: Student's 95 % interval over the held-out sequences, of the mean over the seeds;
    seed_low, seed_high: the one over the seeds, of the mean over the sequences.
    """
    groups, _ = keep_rates(base, f"noise-{share}", settings)
    pairs = [read_pair(base, share, seed) for seed in settings.seeds.split()]
    better, random = (np.array([run.losses for run in runs]) for runs in zip(*pairs, strict=True))
    gain, low, high = paired_difference(random.mean(axis=0), better.mean(axis=0))
    by_seed = random.mean(axis=1), better.mean(axis=1)
    _, seed_low, seed_high = paired_difference(*by_seed) if len(pairs) > 1 else [np.nan] * 3
    noise = next((row for row in groups if row["source"] == NOISE), {"sequences": 0, "kept": 0})
    sources = by_source(base, pairs[0][0], (random - better).mean(axis=0))
    return {
        "share": float(share),
        "scored": total(groups, "sequences"),
        "noise_scored": noise["sequences"],
        "noise_kept": noise["kept"],
        "noise_in_better_half": noise["kept"] / total(groups, "kept"),
        "noise_in_random_half": float(np.mean([noise_share(run) for _, run in pairs])),
        "better_loss": float(better.mean()),
        "random_loss": float(random.mean()),
        "gain": gain,
        "low": low,
        "high": high,
        "seed_low": seed_low,
        "seed_high": seed_high,
        "held_out_sequences": better.shape[1],
        **{
            f"gain_seed_{seed}": float(theirs - ours)
            for seed, theirs, ours in zip(settings.seeds.split(), *by_seed, strict=True)
        },
        **{f"gain {source}": gain for source, gain in sources.items()},
    }


def read_pair(base: Path, share: str, seed: str) -> tuple[Run, Run]:
    """The students of one share and seed: (better half, random half)."""
    results = under(base, "results/eval/lm")
    names = [f"noise-{share}-{half}_half-seed{seed}" for half in ("better", "random")]
    better, random = (
        read_run(name, under(base, f"results/students/{name}"), results) for name in names
    )
    check_comparable(better, random, results)
    return better, random


def by_source(base: Path, run: Run, gains: np.ndarray) -> dict[str, float]:
    """Mean of the held-out sequences' gains, [n], by their source."""
    fix = f"remove results/eval/lm and {EXPERIMENT}"
    corpus = recorded_corpus(base, run.result["corpus"], "of the held-out losses", fix)
    domains = corpus.side("domain", np.arange(len(gains)))
    return {source: mean(gains[domains == number]) for number, source in enumerate(corpus.domains)}


def noise_share(run: Run) -> float:
    """Share of planted noise among the sequences of a student's corpus."""
    entry = run.manifest.inputs["corpus"]
    corpus = recorded_corpus(run.folder, entry, f"that {run.name} was trained on", EXPERIMENT)
    noise = corpus.domains.index(NOISE)
    return float((corpus.side("domain", np.arange(len(corpus))) == noise).mean())


def keep_findings(groups: list[dict]) -> list[str]:
    """What became of the planted rows, against ordinary text."""
    rows = {row["source"]: row for row in groups}
    ordinary = rows.pop(ORDINARY)
    goals: dict[str, tuple[str, Callable[[dict], bool]]] = {
        NOISE: ("under a tenth of that", lambda row: row["high"] < ordinary["low"] / 10),
        BOILERPLATE: ("clearly under it", lambda row: row["high"] < ordinary["low"]),
    }
    found = [f"Of {ORDINARY} {rate(ordinary)} is kept."]
    for source, row in rows.items():
        words, reached = goals[source]
        ratio = row["keep_rate"] / ordinary["keep_rate"] if ordinary["kept"] else np.nan
        found.append(
            f"Of {source} {rate(row)} is kept, {ratio:.2f} times the rate of {ORDINARY}: "
            f"{'' if reached(row) else 'not '}{words}, intervals included."
        )
    return found


def rate(row: dict) -> str:
    """12.3 % (95 % interval 10.1 to 14.0 %, 50 of 400)"""
    return (
        f"{100 * row['keep_rate']:.1f} % (95 % interval {100 * row['low']:.1f} to "
        f"{100 * row['high']:.1f} %, {row['kept']:,} of {row['sequences']:,})"
    )


def gain_finding(row: dict) -> str:
    """Who is ahead at a share of noise."""
    side = "ahead of" if row["gain"] > 0 else "behind"
    if row["low"] <= 0 <= row["high"]:
        words = "not distinguishable from those on a random half"
    elif row["seed_low"] <= 0 <= row["seed_high"]:
        words = f"{side} those on a random half, but not by more than seeds do"
    else:
        words = f"{side} those on a random half"
    return (
        f"With {100 * row['share']:.0f} % of noise students on the better half are {words}: "
        f"{row['gain']:+.3f} nats per token (95 % interval over the held-out sequences "
        f"{row['low']:+.3f} to {row['high']:+.3f}, over the seeds {row['seed_low']:+.3f} to "
        f"{row['seed_high']:+.3f})."
    )


if __name__ == "__main__":
    run(main)
