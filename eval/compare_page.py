"""The output of eval/compare.py: tables for the terminal and the HTML page."""

from dataclasses import dataclass
from pathlib import Path

from data_utils import artefact
from data_utils.corpus import NOISE
from pretrain.metrics import read_metrics
from reports.page import (
    Column,
    example,
    findings,
    heading,
    integer,
    new_plot,
    page,
    paragraph,
    percent,
    picture,
    plain,
    plot_png,
    read_csv,
    table,
    text_table,
)

SCORE_FIX = "run scripts/miniplm/difference_sampling/compute_difference_scores.py"
SMALL = 100_000_000  # tokens of training below which the notes on small runs are shown
SEEDS = (
    "The interval covers the choice of held-out sequences, not the seeds: another seed or data "
    "order would move the losses too."
)
SMALL_RUN = (
    "A run as small as this shows that every stage works and what is selected. It does not show "
    "what selection is worth for a real student; scripts/experiments/planted_noise.sh looks longer."
)
NOISY_POOL = (
    "The pool held planted noise, so the difference says what leaving that noise out is worth, not "
    "what selection does for clean text."
)
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
    """What the report of a difference store says."""

    folder: Path
    sources: list[dict]
    examples: list[dict]
    pictures: dict[str, bytes]


def duration(seconds: float) -> str:
    """12 s, 3 min 4 s, 2 h 5 min"""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def read_selection(store: Path) -> Selection:
    """Read the report's files; a store without them is an error."""
    artefact.require(store, "scores", f"remove the store and {SCORE_FIX}", contents=True)
    folder = store / "report"
    return Selection(
        store,
        [row for row in read_csv(folder / "sources.csv", ["source"]) if row["sequences"]],
        read_csv(folder / "examples.csv", ["place", "shard", "source", "text"]),
        {name: (folder / f"{name}.png").read_bytes() for name in ("keep_rate", "histogram")},
    )


def noise_sentence(selection: Selection | None) -> list[str]:
    """What became of planted noise, if there was any."""
    if selection is None:
        return []
    noise = [row for row in selection.sources if row["source"] == NOISE]
    rest = [row for row in selection.sources if row["source"] != NOISE]
    if not noise or not rest:
        return []
    others = sum(row["kept"] for row in rest) / sum(row["sequences"] for row in rest)
    return [
        f"Planted noise was {percent(noise[0]['share_before'])} of the scored sequences; "
        f"{percent(noise[0]['keep_rate'])} of it is kept, of everything else {percent(others)}."
    ]


def notes(report: dict) -> list[str]:
    """What the comparison shows and what not."""
    found = [*report["unequal"], SEEDS]
    if max(row["tokens"] for row in report["runs"]) < SMALL:
        found.append(SMALL_RUN)
    if any(row["source"] == NOISE for row in report["sources"]):
        found.append(NOISY_POOL)
    return found


def student_rows(report: dict) -> list[dict]:
    """The rows of the table of students with the difference in words."""
    rows = []
    for row in report["runs"]:
        words = "control"
        if row["difference"] is not None:
            words = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        rows.append({**row, "against": words})
    return rows


def stage_rows(stages: list[dict]) -> list[dict]:
    """The stages and their sum."""
    total = sum(stage["seconds"] for stage in stages)
    return [*stages, {"stage": "all", "artefact": "", "seconds": total}]


def terminal(report: dict, selection: Selection | None) -> str:
    """Everything that is printed."""
    parts = []
    if report["stages"]:
        parts.append(text_table(stage_rows(report["stages"]), STAGES))
    if selection is not None:
        parts.append(text_table(selection.sources, SOURCES))
    parts.append(text_table(student_rows(report), STUDENTS))
    sentences = [*report["findings"], *noise_sentence(selection), *notes(report)]
    return "\n\n".join([*parts, "\n".join(f"* {sentence}" for sentence in sentences)])


def html(report: dict, selection: Selection | None, folders: dict[str, Path]) -> str:
    """The whole page; folders: where each run's metrics lie."""
    held_out = report["held_out"]
    parts = [
        findings([*report["findings"], *noise_sentence(selection)]),
        table(student_rows(report), STUDENTS),
        paragraph(
            f"Losses in nats a token, mean of {held_out['sequences']:,} held-out sequences of "
            f"{held_out['corpus']['path']}. A negative difference is a gain over the control."
        ),
        *(paragraph(note, "note") for note in notes(report)),
        heading("Training"),
        picture(
            draw_curves(folders),
            "Thin: training loss, each on its own data, so not to be compared. Dots: loss on the "
            "held-out text during training, which can be compared.",
            "metrics.jsonl of the runs",
        ),
    ]
    if selection is not None:
        parts += selection_parts(selection)
    if report["stages"]:
        parts += [heading("Stages"), table(stage_rows(report["stages"]), STAGES)]
    return page("Students compared on held-out text", parts)


def selection_parts(selection: Selection) -> list[str]:
    """What was selected: from the report of the difference store."""
    ends = [row for row in selection.examples if "top" in row["place"].split(", ")]
    ends += [row for row in selection.examples if "bottom" in row["place"].split(", ")]
    return [
        heading("What was selected"),
        picture(
            selection.pictures["keep_rate"],
            "Green: kept more than the average; red: less.",
            "report/sources.csv",
        ),
        table(selection.sources, SOURCES, "report/sources.csv"),
        picture(
            selection.pictures["histogram"],
            "Sequences by r = reference loss − teacher loss; right of the line is kept.",
            "report/histogram.csv",
        ),
        heading("Examples from both ends"),
        *(example(row) for row in ends),
        paragraph(
            f"More, and the files named here, in the folder {selection.folder.name} of the scores: "
            "report.html.",
            "from",
        ),
    ]


def draw_curves(folders: dict[str, Path]) -> bytes:
    """Training and held-out loss of all runs over their steps."""
    figure, axes = new_plot(8, 4.2)
    for number, (name, folder) in enumerate(folders.items()):
        rows, tint = read_metrics(folder), f"C{number}"
        steps = [row["step"] for row in rows]
        axes.plot(steps, [row["loss"] for row in rows], color=tint, linewidth=0.9, alpha=0.6)
        valid = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
        xs, ys = zip(*valid, strict=True) if valid else ((), ())
        axes.plot(xs, ys, "o-", color=tint, linewidth=1.8, markersize=5, label=plain(name))
    axes.set_xlabel("step")
    axes.set_ylabel("nats a token")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return plot_png(figure)
