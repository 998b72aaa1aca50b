"""What a selection made of planted noise and boiler-plate, and what students gained by it.

    bash scripts/experiments/planted_noise.sh BASE_PATH     # makes everything that is read here
    python3 experiments/planted_noise/results.py BASE_PATH [--shares 0 0.1] [--seeds 1 2]

Reads the selections' reports, the better halves, the students and their held-out losses. Prints the
tables; writes report.html (needs no other file), gain.png, gain.csv and keep_rates.csv to
BASE_PATH/results/planted_noise.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass

import numpy as np

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from eval.compare import paired_difference, read_selection, verdict
from eval.runs import read_runs
from experiments.planted_noise.plant import BOILERPLATE, NOISE
from reports import html_page, plots, terminal
from reports.files import save, write_csv
from reports.page import Column, Findings, Page, Picture, Table, decimal, integer, percent, signed

EXPERIMENT = "run scripts/experiments/planted_noise.sh to its end"
CORPUS, DIFFERENCE = "smollm2-129", "diff-smollm2_135M-llama_5M"  # names in the script
ORDINARY = "ordinary text"
KEEP_RATES = (
    Column("source", "source"),
    Column("sequences", "scored", integer),
    Column("kept", "kept", integer),
    Column("keep_rate", "keep rate", percent),
    Column("low", "95 % from", percent),
    Column("high", "to", percent),
    Column("mean_r", "mean r", decimal),
)
CAPTION = (
    "Gain: held-out loss of students on a random half minus that of students on the better half, "
    "nats per token. Bars and low, high: Student's 95 % interval over the held-out sequences, for "
    "the mean of the seeds. Dots: seeds (of the initial weights and the random half; reference and "
    "plant are the same for all). seed low, seed high: the interval over the seeds. What leaving "
    "the noise out is worth is the difference to the gain at no noise. All copies of the "
    "boiler-plate have one r and are kept or dropped together."
)


@dataclass
class Settings:
    """Gather the results of the experiment with planted sequences."""

    base_path: str = flag(".", "BASE_PATH of the experiment")
    shares: list[str] = flag(["0", "0.1", "0.3", "0.5"], "shares of noise")
    seeds: list[str] = flag(["1", "2", "3"], "seeds of the students")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    rates = keep_rates(base, "planted")
    gains = [gain_row(base, share, settings.seeds) for share in settings.shares]
    png = draw_gains(gains)
    shown = {"noise": percent, "better_loss": decimal, "random_loss": decimal}
    columns = [Column(n, n.replace("_", " "), shown.get(n, signed)) for n in gains[0]]
    blocks = [
        Findings([*keep_findings(rates), *map(gain_finding, gains)]),
        Picture(png, CAPTION, "gain.csv"),
        Table(gains, columns, "gain.csv"),
        Table(rates, KEEP_RATES, "keep_rates.csv"),
    ]
    page = Page("Planted noise: what selection keeps, and what students gain", blocks)
    folder = under(base, "results/planted_noise")
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "keep_rates.csv", rates)
    write_csv(folder / "gain.csv", gains)
    save(folder / "gain.png", png)
    save(folder / "report.html", html_page.render(page))
    print(f"{terminal.render(page)}\n\nReport: {folder / 'report.html'}")


def keep_rates(base: Path, name: str) -> list[dict]:
    """One row per source of a planted corpus, from its selection's report; ordinary text first.

    InputError if the better half is not the one that the report is about.
    """
    store = under(base, f"results/scores/{name}/{CORPUS}/{DIFFERENCE}")
    half = Corpus(under(base, f"processed_data/pretrain/{name}-better_half/{CORPUS}"))
    sources = read_selection(store)
    scores = artefact.identity(store, "scores", EXPERIMENT)["fingerprint"]
    kept = sum(row["kept"] for row in sources)
    if (half.manifest.input_fingerprint("scores"), len(half)) != (scores, kept):
        what = "the better half is not the one that the scores select"
        raise InputError(what, where=half.folder, fix=f"remove this folder and {EXPERIMENT}")
    ordinary = [row for row in sources if row["source"] not in (NOISE, BOILERPLATE)]
    return [keep_row(ORDINARY, ordinary), *(keep_row(row["source"], [row]) for row in sources)]


def keep_row(source: str, rows: list[dict]) -> dict:
    """A row of the keep rates: these sources of the report together."""
    sequences, kept = (int(sum(row[name] for row in rows)) for name in ("sequences", "kept"))
    found = {"source": source, "sequences": sequences, "kept": kept, "keep_rate": kept / sequences}
    found["low"], found["high"] = wilson(kept, sequences)
    found["mean_r"] = sum(row["mean_r"] * row["sequences"] for row in rows) / sequences
    return found


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; trials: at least 1."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def gain_row(base: Path, share: str, seeds: list[str]) -> dict:
    """A row of the gains: the random half's held-out loss minus the better half's.

    low, high: Student's 95 % interval over the held-out sequences, of the mean over the seeds;
    seed_low, seed_high: over the seeds, of the mean over the sequences (NaN for one seed).
    """
    halves = [f"noise-{share}-{half}_half-seed" for half in ("better", "random")]
    names = [half + seed for half in halves for seed in seeds]
    runs = read_runs(base, {name: f"results/students/{name}" for name in names})
    better, random = np.split(np.array([run.losses for run in runs]), 2)  # [seeds, sequences]
    found = {"noise": float(share), "better_loss": better.mean(), "random_loss": random.mean()}
    gain = paired_difference(random.mean(axis=0), better.mean(axis=0))
    found |= zip(("gain", "low", "high"), gain, strict=True)
    by_seed = random.mean(axis=1), better.mean(axis=1)
    spread = paired_difference(*by_seed) if len(seeds) > 1 else [np.nan] * 3
    found |= zip(("seed_low", "seed_high"), spread[1:], strict=True)
    return found | {
        f"seed {seed}": g for seed, g in zip(seeds, by_seed[0] - by_seed[1], strict=True)
    }


def keep_findings(rates: list[dict]) -> list[str]:
    """Whether the planted sources are kept less than ordinary text, in a sentence each."""
    ordinary = rates[0]
    return [
        f"Of {row['source']} {percent(row['keep_rate'])} is kept, "
        f"{'' if row['high'] < ordinary['low'] else 'not clearly '}less than of {ORDINARY} "
        f"({percent(ordinary['keep_rate'])})."
        for row in rates
        if row["source"] in (NOISE, BOILERPLATE)
    ]


def gain_finding(row: dict) -> str:
    """What the gain at a share of noise says, in a sentence."""
    words = verdict("the better half", "a random half", -row["gain"], -row["high"], -row["low"])
    seeds = row["seed_low"] <= 0 <= row["seed_high"]
    return f"{percent(row['noise'])} noise: {words}{' Seeds alone can do that.' if seeds else ''}"


def draw_gains(gains: list[dict]) -> bytes:
    """The gains over the share of noise, as PNG."""
    figure, axes = plots.new_plot(8, 4.4)
    names = ("noise", "gain", "low", "high")
    share, gain, low, high = (np.array([row[name] for row in gains]) for name in names)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.errorbar(100 * share, gain, [gain - low, high - gain], fmt="o-", capsize=4)
    for name in gains[0]:
        if name.startswith("seed "):
            axes.plot(100 * share + 0.8, [row[name] for row in gains], "o", color="#e0a526")
    axes.set_xlabel("share of the sequences that is planted noise, %")
    axes.set_ylabel("gain of the better half, nats per token")
    return plots.png(figure)


if __name__ == "__main__":
    run(main)
