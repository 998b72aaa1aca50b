"""The page of eval/compare.py."""

import json
from dataclasses import dataclass
from pathlib import Path

from data_utils import artefact
from data_utils.errors import InputError
from miniplm.difference import PROGRAM
from pretrain.metrics import read_metrics
from reports import plots
from reports.files import read_csv
from reports.page import Column, Findings, Heading, Page, Picture, Table, Text, integer, percent
from reports.selection_examples import block
from reports.selection_report import report_folder

SMALL = 100_000_000  # tokens of training below which the notes on small runs are shown
SEEDS = (
    "The interval covers the choice of held-out sequences, not the seeds: another seed or data "
    "order would move the losses too."
)
SMALL_RUN = (
    "A run as small as this shows that every stage works and what is selected. It does not show "
    "what selection is worth for a real student; scripts/experiments/planted_noise.sh looks longer."
)
PLANTED_POOL = (
    "The pool held planted sequences, so the difference says what leaving those out is worth, not "
    "what selection does for clean text."
)
CURVES = (
    "Thin: training loss, each on its own data, so not to be compared. Dots: loss on the held-out "
    "text during training, which can be compared."
)
PICTURES = {
    "keep_rate": "Green: kept more than the average; red: less.",
    "histogram": "Sequences by r = reference loss − teacher loss; right of the line is kept.",
}
SOURCES = (
    Column("source", "source"),
    Column("sequences", "sequences", integer),
    Column("keep_rate", "keep rate", percent),
    Column("share_before", "share before", percent),
    Column("share_after", "share after", percent),
)
STAGES = (
    Column("stage", "stage"),
    Column("artefact", "artefact"),
    Column("seconds", "time", lambda seconds: duration(seconds)),
)
STUDENTS = (
    Column("student", "student"),
    Column("unique_tokens", "unique tokens", integer),
    Column("epochs", "epochs", lambda epochs: f"{epochs:.2f}"),
    Column("steps", "steps", integer),
    Column("loss", "held-out loss", lambda loss: f"{loss:.4f}"),
    Column("against", "difference to the control (95 % interval)", str),
)


@dataclass
class Selection:
    """What the report of a difference store says; planted: sources that were planted."""

    folder: Path
    sources: list[dict]
    examples: list[dict]
    planted: list[str]


def duration(seconds: float) -> str:
    """12 s, 3 min 4 s, 2 h 5 min"""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def read_selection(store: Path, planted: list[str]) -> Selection:
    """The report beside a difference store; one that is missing or of other scores is an error."""
    folder, fix = report_folder(store), f"run {PROGRAM} again"
    scores = artefact.identity(store, "scores", f"run {PROGRAM}")["fingerprint"]
    summary = folder / "summary.json"
    found = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    if found.get("scores") != scores:
        what = "the report is of other scores" if found else "the scores have no report"
        raise InputError(what, where=folder, fix=fix)
    sources = [row for row in read_csv(folder / "sources.csv", ["source"]) if row["sequences"]]
    examples = read_csv(folder / "examples.csv", ["place", "shard", "source", "text"])
    return Selection(folder, sources, examples, planted)


def planted_sentences(selection: Selection) -> list[str]:
    """What became of the planted sources that were scored."""
    planted = [row for row in selection.sources if row["source"] in selection.planted]
    rest = [row for row in selection.sources if row["source"] not in selection.planted]
    if not rest:
        return []
    others = sum(row["kept"] for row in rest) / sum(row["sequences"] for row in rest)
    return [
        f"{percent(row['share_before'])} of the scored sequences were planted ({row['source']}): "
        f"{percent(row['keep_rate'])} of these are kept, and {percent(others)} of the others."
        for row in planted
    ]


def student_rows(report: dict) -> list[dict]:
    """The rows of the table of students with the difference in words."""
    rows = []
    for row in report["runs"]:
        words = "control"
        if row["difference"] is not None:
            words = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        rows.append({**row, "against": words})
    return rows


def page(report: dict, selection: Selection | None, folders: dict[str, Path]) -> Page:
    """The whole page; folders: the models' folders, which contain each run's metrics."""
    held_out = report["held_out"]
    planted = planted_sentences(selection) if selection else []
    notes = [*report["unequal"], SEEDS]
    if max(row["tokens"] for row in report["runs"]) < SMALL:
        notes.append(SMALL_RUN)
    if planted:
        notes.append(PLANTED_POOL)
    blocks = [
        Findings([*report["findings"], *planted]),
        Table(student_rows(report), STUDENTS),
        Text(
            f"Losses in nats per token, mean of {held_out['sequences']:,} held-out sequences of "
            f"{held_out['corpus']['path']}. A negative difference is a gain over the control."
        ),
        *(Text(note, "note") for note in notes),
        Heading("Training"),
        Picture(draw_curves(folders), CURVES, "metrics.jsonl of the runs"),
        *(selection_blocks(selection) if selection else []),
    ]
    if report["stages"]:
        total = sum(stage["seconds"] for stage in report["stages"])
        stages = [*report["stages"], {"stage": "all", "artefact": "", "seconds": total}]
        blocks += [Heading("Stages"), Table(stages, STAGES)]
    return Page("Students compared on held-out text", blocks)


def selection_blocks(selection: Selection) -> list:
    """What was selected: from the report beside the difference store."""
    pictures = {name: (selection.folder / f"{name}.png").read_bytes() for name in PICTURES}
    ends = [
        block(row)
        for end in ("top", "bottom")
        for row in selection.examples
        if end in row["place"].split(", ")
    ]
    return [
        Heading("What was selected"),
        *(Picture(png, PICTURES[name]) for name, png in pictures.items()),
        Table(selection.sources, SOURCES, "sources.csv"),
        Heading("Examples from both ends"),
        *ends,
        Text(f"More, and the files named here: {selection.folder.name}/report.html.", "from"),
    ]


def draw_curves(folders: dict[str, Path]) -> bytes:
    """Training and held-out loss of all runs over their steps, as PNG."""
    figure, axes = plots.new_plot(8, 4.2)
    for number, (name, folder) in enumerate(folders.items()):
        rows, tint = read_metrics(folder), f"C{number}"
        steps = [row["step"] for row in rows]
        axes.plot(steps, [row["loss"] for row in rows], color=tint, linewidth=0.9, alpha=0.6)
        valid = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
        xs, ys = zip(*valid, strict=True) if valid else ((), ())
        label = plots.label(name)
        axes.plot(xs, ys, "o-", color=tint, linewidth=1.8, markersize=5, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return plots.png(figure)
