"""Compare trained students on held-out text; the last run given is the control.

    python3 eval/compare.py BASE_PATH --runs better_half=results/miniplm/qwen/7M,random_half=...

Of each run it reads the model's folder, its held-out losses during training (VALID_DATA) and those
that scripts/eval/lm.sh wrote under its name, and what scripts/eval/harness.sh wrote of its weights;
with --scores also the report of a selection, with --stages a list of stages and times. Prints the
tables and writes them to --report (HTML, needs no other file).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from data_utils import artefact, atomic_files
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from eval import comparisons
from eval.runs import Run, read_runs
from miniplm.difference import PROGRAM
from reports import html_page, terminal
from reports.files import read_csv, save
from reports.page import (
    Column,
    Findings,
    Page,
    Table,
    Text,
    decimal,
    integer,
    percent,
    scientific,
    signed,
)
from reports.selection_report import report_folder

CAVEATS = (
    "Losses are in nats per token, means over them; a negative difference is better than "
    "the control. The interval covers the choice of the sequences, not the seeds: another seed or "
    "data order would move the losses too. Short runs show that every stage works and what is "
    "selected, not what selection is worth for a real student. Where noise was planted, the "
    "difference includes what leaving it out is worth. Teacher FLOPs are all that a run needed of "
    "a teacher: in its own steps, for scores (with the reference's training and scoring), for "
    "generated text, for what is stored of it. What serves several runs stands in each of their "
    "rows."
)
STUDENTS = (
    Column("student", "student"),
    Column("unique_tokens", "unique tokens", integer),
    Column("epochs", "epochs", decimal),
    Column("steps", "steps", integer),
    Column("loss", "held-out loss", decimal),
    Column("bits_per_byte", "bits per byte", decimal),
    Column("difference", "difference to the control", signed),
    Column("low", "95 % from", signed),
    Column("high", "to", signed),
    Column("student_flops", "student FLOPs", scientific),
    Column("teacher_flops", "teacher FLOPs", scientific),
    Column("flops", "FLOPs", scientific),
)
SOURCES = (
    Column("source", "source"),
    Column("sequences", "scored", integer),
    Column("kept", "kept", integer),
    Column("keep_rate", "keep rate", percent),
)
STAGES = (
    Column("stage", "stage"),
    Column("artefact", "artefact"),
    Column("seconds", "time", lambda seconds: str(timedelta(seconds=round(seconds)))),
)


@dataclass
class Settings:
    """Compare trained students on held-out text; the last run is the control."""

    base_path: str = flag(".", "folder that contains results/ and processed_data/")
    runs: str = flag("", "NAME=MODEL_FOLDER,NAME=MODEL_FOLDER,...")
    scores: str = flag("", "difference store whose selection is shown too")
    stages: str = flag("", "list of stages, tab-separated: stage, artefact, ..., seconds")
    report: str = flag("report.html", "the page to write")

    def __post_init__(self) -> None:
        pairs = [item.partition("=") for item in self.runs.split(",")]
        self.folders = {check_name("a name in --runs", name): path for name, _, path in pairs}
        if len(self.folders) < max(2, len(pairs)) or not all(self.folders.values()):
            raise ValueError("--runs needs two different runs or more: NAME=FOLDER,NAME=FOLDER")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    *students, control = runs = read_runs(base, settings.folders)
    held_out = f"{len(control.losses):,} held-out sequences of {control.result['corpus']['path']}."
    blocks = [
        Findings([finding for run in students for finding in findings(run, control)]),
        Table([row(run, control) for run in runs], STUDENTS),
        Text(f"{held_out} {CAVEATS}", "note"),
        *comparisons.curves(runs),
        *comparisons.over_seeds(base, runs),
        *comparisons.tasks(base, runs),
        *comparisons.differing_settings(runs),
        *comparisons.printed(runs),
        *comparisons.selections(runs),
    ]
    if settings.scores:
        store = under(base, settings.scores)
        blocks.append(Table(read_selection(store), SOURCES, f"{report_folder(store)}/sources.csv"))
    if settings.stages:
        blocks.append(Table(read_stages(under(base, settings.stages)), STAGES))
    page = Page("Students compared on held-out text", blocks)
    path = under(base, settings.report)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, html_page.render(page))
    print(f"{terminal.render(page)}\n\nReport: {path}")


def read_selection(store: Path) -> list[dict]:
    """The sources of a difference store's report that have scores.

    InputError if there is no report of these scores.
    """
    folder, fix = report_folder(store), f"run {PROGRAM} again"
    scores = artefact.identity(store, "scores", f"run {PROGRAM}")["fingerprint"]
    summary = folder / "summary.json"
    if not summary.is_file() or atomic_files.read_json(summary, fix)["scores"] != scores:
        raise InputError("there is no report of these scores", where=folder, fix=fix)
    return [row for row in read_csv(folder / "sources.csv", ["source"]) if row["sequences"]]


def read_stages(path: Path) -> list[dict]:
    """The lines of the stage list and their sum: first field, second, and seconds, the last one."""
    if not path.is_file():
        raise InputError("there is no list of stages", where=path, fix="leave out --stages")
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    lines.append(["all", "", str(sum(float(line[-1]) for line in lines))])
    return [{"stage": x[0], "artefact": x[1], "seconds": float(x[-1])} for x in lines]


def paired_difference(losses: np.ndarray, control: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of losses - control: Student's 95 % interval over the sequences."""
    return comparisons.mean_interval(losses - control)


def row(run: Run, control: Run) -> dict:
    """A run's row of the table; the control's differences are 0, NaN for another tokenizer."""
    trained, sequences = run.manifest.counts, len(run.corpus)
    unique_tokens = trained["tokens"]  # within the first epoch each is used once
    if trained["sequences"] >= sequences:
        unique_tokens = int(run.corpus.lengths(np.arange(sequences)).sum())
    difference, low, high = [float("nan")] * 3
    if run.tokens == control.tokens:
        difference, low, high = paired_difference(run.losses, control.losses)
    return {
        "student": run.name,
        "unique_tokens": unique_tokens,
        "epochs": trained["sequences"] / sequences,
        "steps": trained["step"],
        "loss": run.result["loss"],
        "bits_per_byte": run.result.get("bits_per_byte") or float("nan"),
        "difference": difference,
        "low": low,
        "high": high,
    } | comparisons.costs_of(run)


def findings(run: Run, control: Run) -> list[str]:
    """What the difference says, and whether the runs differ in more than the data."""
    if run.tokens != control.tokens:
        return [
            f"{run.name} has other tokens than {control.name}: their losses "
            "per token cannot be compared, their bits per byte of text can."
        ]
    found = [verdict(run.name, control.name, *paired_difference(run.losses, control.losses))]
    found += comparisons.steps_needed(run, control)
    mine, its = run.described(), control.described()
    names = sorted(name for name in mine | its if mine.get(name) != its.get(name))
    if names:
        found.append(f"{run.name} and {control.name} also differ in {', '.join(names)}.")
    return found


def verdict(name: str, control: str, difference: float, low: float, high: float) -> str:
    """What a difference and its interval (nats per token, below 0 is better) say of a student."""
    beats = "is ahead of" if high < 0 else "does not beat"
    side = "lower" if difference < 0 else "higher"
    chance = " (the 95 % interval includes 0)" if low <= 0 <= high else ""
    loss = f"its held-out loss is {abs(difference):.3f} nats per token {side}{chance}"
    return f"{name} {beats} {control}: {loss}."


if __name__ == "__main__":
    run(main)
