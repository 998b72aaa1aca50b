"""What a selection made of planted noise and boiler-plate, and what students gained by it.

    bash scripts/experiments/planted_noise.sh BASE_PATH     # makes everything that is read here
    python3 experiments/planted_noise/results.py BASE_PATH [--shares "0 0.1"] [--seeds "1 2"]

Reads the planted corpora, their scores and selected halves, the students and their held-out losses.
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
from data_utils.corpus import BOILERPLATE, NOISE, Corpus, recorded_corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from eval.compare import Run, check_comparable, paired_difference, read_run
from experiments.planted_noise import page
from miniplm.difference import FILE
from miniplm.scores import Scores
from reports.page import write_csv, write_png, write_text

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
    save = under(base, settings.save)
    save.mkdir(parents=True, exist_ok=True)
    png = page.draw_gain(gains)
    write_csv(save / "keep_rates.csv", [*groups, *sources])
    write_csv(save / "gain.csv", [flat(row) for row in gains])
    write_png(save / "gain.png", png)
    write_text(save / "report.html", page.html(result, png))
    atomic_files.write_json(save / "result.json", result)
    print(page.terminal(result))
    print(f"\nReport: {save / 'report.html'}")


def keep_rates(base: Path, name: str, settings: Settings) -> tuple[list[dict], list[dict]]:
    """Rows (what is planted and the rest; each source of the rest) of the scored part of a corpus.

    A row: sequences scored and kept, the share kept with its 95 % interval, mean and standard
    deviation of r, mean losses of teacher and reference.
    """
    place = under(base, "processed_data/pretrain")
    whole = Corpus(place / name / settings.corpus_name)
    half = Corpus(place / f"{name}-better_half" / settings.corpus_name)
    scores = under(base, f"results/scores/{name}/{settings.corpus_name}")
    store = scores / f"diff-{settings.teacher_name}-{settings.ref_name}"
    manifest = artefact.require(store, "scores", EXPERIMENT)
    for what, found, expected in (
        ("scores are of", manifest.input_fingerprint("corpus"), whole.identity["fingerprint"]),
        ("half is from", half.manifest.input_fingerprint("scores"), manifest.fingerprint),
    ):
        if found != expected:
            raise InputError(
                f"the {what} another run",
                where=half.folder,
                expected=expected[:12],
                found=str(found)[:12],
                fix=f"remove this folder and {EXPERIMENT}",
            )
    r = np.load(store / FILE, allow_pickle=False)
    losses = {
        f"mean_{model}_loss": -Scores(scores / store_name, EXPERIMENT).means()[0]
        for model, store_name in (
            ("teacher", settings.teacher_name),
            ("reference", settings.ref_name),
        )
    }
    first = manifest.counts["first_row"]
    domains = whole.side("domain", first + np.arange(len(r)))
    kept = np.zeros(len(r), bool)
    kept[half.side("source_row", np.arange(len(half))) - first] = True
    numbers = {source: number for number, source in enumerate(whole.domains)}
    planted = {source: numbers.pop(source) for source in (NOISE, BOILERPLATE)}
    ordinary = np.isin(domains, list(numbers.values()))
    groups = [keep_row(ORDINARY, ordinary, kept, r, losses)]
    groups += [
        keep_row(source, domains == number, kept, r, losses) for source, number in planted.items()
    ]
    sources = [
        keep_row(source, domains == number, kept, r, losses) for source, number in numbers.items()
    ]
    return [[row for row in rows if row["sequences"]] for rows in (groups, sources)]


def keep_row(
    source: str, mine: np.ndarray, kept: np.ndarray, r: np.ndarray, losses: dict[str, np.ndarray]
) -> dict:
    """A line of the table of keep rates; all arrays are [scored rows]."""
    sequences, chosen = int(mine.sum()), int((mine & kept).sum())
    low, high = wilson(chosen, sequences)
    known = mine & np.isfinite(r)
    return {
        "source": source,
        "sequences": sequences,
        "kept": chosen,
        "keep_rate": chosen / sequences if sequences else np.nan,
        "low": low,
        "high": high,
        "mean_r": mean(r[known]),
        "deviation_r": float(r[known].std()) if known.any() else np.nan,
        **{name: mean(values[known]) for name, values in losses.items()},
    }


def mean(values: np.ndarray) -> float:
    """The mean; NaN of no values."""
    return float(values.mean()) if len(values) else np.nan


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    from scipy.stats import binomtest

    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def gain_row(base: Path, share: str, settings: Settings) -> dict:
    """A line of the table of gains: the random half's held-out loss minus the better half's.

    low, high: Student's 95 % interval over the held-out sequences, of the mean over the seeds;
    seed_low, seed_high: the one over the seeds, of the mean over the sequences.
    """
    groups, _ = keep_rates(base, f"noise-{share}", settings)
    pairs = [read_pair(base, share, seed) for seed in settings.seeds.split()]
    better, random = (np.array([run.losses for run in runs]) for runs in zip(*pairs, strict=True))
    gain, low, high = paired_difference(random.mean(axis=0), better.mean(axis=0))
    by_seed = random.mean(axis=1), better.mean(axis=1)
    _, seed_low, seed_high = paired_difference(*by_seed) if len(pairs) > 1 else [np.nan] * 3
    scored, kept = (sum(row[name] for row in groups) for name in ("sequences", "kept"))
    noise = next((row for row in groups if row["source"] == NOISE), {"sequences": 0, "kept": 0})
    return {
        "share": float(share),
        "scored": scored,
        "noise_scored": noise["sequences"],
        "noise_kept": noise["kept"],
        "noise_in_better_half": noise["kept"] / kept,
        "noise_in_random_half": float(np.mean([noise_share(run) for _, run in pairs])),
        "better_loss": float(better.mean()),
        "random_loss": float(random.mean()),
        "gain": gain,
        "low": low,
        "high": high,
        "seed_low": seed_low,
        "seed_high": seed_high,
        "held_out_sequences": better.shape[1],
        "source_gains": by_source(base, pairs[0][0], (random - better).mean(axis=0)),
        "seed_gains": dict(
            zip(settings.seeds.split(), (by_seed[0] - by_seed[1]).tolist(), strict=True)
        ),
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
    """Mean of the gains of the held-out sequences, [n], in each of their sources."""
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


def flat(row: dict) -> dict:
    """A gain row with a column a seed and a column a held-out source."""
    seeds = {f"gain_seed_{seed}": gain for seed, gain in row["seed_gains"].items()}
    sources = {f"gain {source}": gain for source, gain in row["source_gains"].items()}
    rest = {name: value for name, value in row.items() if not name.endswith("_gains")}
    return rest | seeds | sources


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
        words = "not beyond chance apart from those on a random half"
    elif row["seed_low"] <= 0 <= row["seed_high"]:
        words = f"{side} those on a random half, but not by more than seeds do"
    else:
        words = f"{side} those on a random half"
    return (
        f"With {100 * row['share']:.0f} % of noise students on the better half are {words}: "
        f"{row['gain']:+.3f} nats a token (95 % interval over the held-out sequences "
        f"{row['low']:+.3f} to {row['high']:+.3f}, over the seeds {row['seed_low']:+.3f} to "
        f"{row['seed_high']:+.3f})."
    )


if __name__ == "__main__":
    run(main)
