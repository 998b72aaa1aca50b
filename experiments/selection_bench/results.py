"""What each criterion of the bench is worth: losses, steps, what is kept, what it costs.

    bash scripts/experiments/selection_bench.sh BASE_PATH     # makes everything that is read here
    python3 experiments/selection_bench/results.py BASE_PATH [--seeds 1 2 3]

Reads the selections, the students and their held-out losses. Prints the tables; writes report.html
(needs no other file), criteria.png, criteria.csv, sources.csv and keep_rates.csv to
BASE_PATH/results/selection_bench.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass

import numpy as np

from data_utils.corpus import Corpus
from data_utils.flags import base_folder, flag, parse, under
from eval.comparisons import mean_interval
from eval.costs import run_flops
from eval.run_curves import read_curve
from eval.runs import Run, read_runs
from experiments.selection_bench.bench import CONTROL, Bench, Student
from experiments.selection_bench.frequencies import frequency_loss
from experiments.selection_bench.kept import keep_rows, plants
from reports import html_page, plots, terminal
from reports.files import save, write_csv
from reports.page import (
    Column,
    Findings,
    Heading,
    Page,
    Picture,
    Table,
    Text,
    decimal,
    percent,
    scientific,
    signed,
)

FOLDER = "results/selection_bench"
LOSSES = (
    Column("criterion", "criterion"),
    Column("loss", "held-out loss", decimal),
    Column("low", "95 % from", decimal),
    Column("high", "to", decimal),
    Column("difference", f"minus {CONTROL}", signed),
    Column("difference_low", "95 % from", signed),
    Column("difference_high", "to", signed),
    Column("steps", "steps to its loss", lambda steps: f"{steps:.0f}" if steps == steps else "–"),
    Column("plant_kept", "plant kept", percent),
    Column("plant_share", "plant in the selection", percent),
    Column("scoring_flops", "FLOPs of scores", scientific),
    Column("student_flops", "FLOPs of a student", scientific),
)
CAPTION = (
    "Held-out loss minus that of students on a random half, nats per token; left of 0 is better. "
    "Dots: seeds. Bars: Student's 95 % interval over the seeds."
)
CAVEATS = (
    "All students of a condition have the same size, steps and rows per step; a seed sets initial "
    "weights, order and whatever is drawn, and is the same for the control it is compared with. "
    "Intervals are over seeds, for one pool of text, one reference and one set of held-out "
    "sequences: another text can move all of them. The reference and the plants are the same in "
    "all conditions; the reference has seen both plants. Held-out text has none. Steps: where the "
    "held-out loss during training first reaches the control's last one, the mean of the seeds; – "
    "if a student never does. FLOPs of scores: the passes that the criterion reads, and the "
    "reference's training where it reads that; one student's FLOPs beside it."
)


@dataclass
class Settings(Bench):
    """Gather the results of the bench of selection criteria."""

    held_out: str = flag("processed_data/held_out/students", "the students' held-out corpus")
    reference: str = flag("checkpoints/llama/5M_ref", "the reference model")
    reference_data: str = flag("processed_data/pretrain/pool_ref/{corpus}", "its corpus")
    reference_held_out: str = flag("processed_data/held_out/{corpus}", "its held-out corpus")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    runs = read_all(base, settings)
    losses = [row for c in settings.conditions for row in loss_rows(base, c, runs, settings)]
    sources = [row for c in settings.conditions for row in source_rows(c, runs, settings)]
    rates = [row for c in settings.conditions for row in keep_rows(base, c, settings)]
    folder, png, shown = under(base, FOLDER), draw(losses, settings), settings.conditions
    page = Page(
        "What selection is worth, by criterion",
        [
            Findings([finding(c, losses) for c in settings.conditions]),
            Picture(png, CAPTION, "criteria.csv"),
            Text(f"Held-out loss minus that of {CONTROL}, with 95 % intervals over the seeds:"),
            Table(matrix(losses, settings), [Column(n, n) for n in ["criterion", *shown]]),
            *(block for c in settings.conditions for block in tables(c, losses, sources, rates)),
            Text(CAVEATS, "note"),
            *learned(base, runs, settings),
        ],
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("criteria", losses), ("sources", sources), ("keep_rates", rates)):
        write_csv(folder / f"{name}.csv", rows)
    save(folder / "criteria.png", png)
    save(folder / "report.html", html_page.render(page))
    print(f"{terminal.render(page)}\n\nReport: {folder / 'report.html'}")


def read_all(base: Path, settings: Settings) -> dict[Student, Run]:
    """Every student's run; InputError if one is missing or has other held-out sequences."""
    students = settings.students()
    runs = read_runs(base, {student.name: student.folder for student in students})
    return dict(zip(students, runs, strict=True))


def of_seeds(runs: dict, condition: str, criterion: str, settings: Settings) -> list[Run]:
    """The runs of a cell, in the order of the seeds."""
    return [runs[student] for student in settings.cell(condition, criterion)]


def loss_rows(base: Path, condition: str, runs: dict, settings: Settings) -> list[dict]:
    """A row of each criterion under a condition, the lowest loss first."""
    control = of_seeds(runs, condition, CONTROL, settings)
    its = np.array([run.losses.mean() for run in control])
    goals = [read_curve(run.folder).losses[-1] for run in control]
    rows = []
    for criterion in settings.criteria:
        mine = of_seeds(runs, condition, criterion, settings)
        losses = np.array([run.losses.mean() for run in mine])
        row = {"condition": condition, "criterion": criterion}
        row |= zip(("loss", "low", "high"), mean_interval(losses), strict=True)
        differences = mean_interval(losses - its) if criterion != CONTROL else (0.0, 0.0, 0.0)
        names = ("difference", "difference_low", "difference_high")
        row |= zip(names, differences, strict=True)
        curves = [read_curve(run.folder) for run in mine]
        reached = [c.reaches(goal, "steps") for c, goal in zip(curves, goals, strict=True)]
        row["steps"] = float(np.mean(reached))
        kept = np.sum([plants(base, s, settings) for s in settings.cell(condition, criterion)], 0)
        row["plant_kept"] = kept[0] / kept[1] if kept[1] else float("nan")
        row["plant_share"] = kept[0] / kept[2]
        row["student_flops"], row["scoring_flops"] = run_flops(mine[0].folder, mine[0].manifest)
        row |= {f"seed {seed}": d for seed, d in zip(settings.seeds, losses - its, strict=True)}
        rows.append(row)
    return sorted(rows, key=lambda row: row["loss"])


def source_rows(condition: str, runs: dict, settings: Settings) -> list[dict]:
    """A row of each criterion: held-out loss by source minus the control's, mean of the seeds."""
    rows = []
    control = of_source(of_seeds(runs, condition, CONTROL, settings))
    for criterion in settings.criteria:
        mine = of_source(of_seeds(runs, condition, criterion, settings))
        row = {"condition": condition, "criterion": criterion}
        rows.append(row | {name: loss - control[name] for name, loss in mine.items()})
    return rows


def of_source(runs: list[Run]) -> dict[str, float]:
    """Held-out loss of each source, the mean of the runs."""
    names = [row["source"] for row in runs[0].result["sources"]]
    found = [[row["loss"] for row in run.result["sources"]] for run in runs]
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def tables(condition: str, losses: list[dict], sources: list[dict], rates: list[dict]) -> list:
    """The blocks of a condition."""
    parts = [[row for row in rows if row["condition"] == condition] for rows in (sources, rates)]
    there = [[n for n, value in list(rows[0].items())[2:] if value == value] for rows in parts]
    shown = [
        [Column("criterion", "criterion"), *(Column(n, n, show) for n in names)]
        for names, show in zip(there, (signed, percent), strict=True)
    ]
    return [
        Heading(condition),
        Table([row for row in losses if row["condition"] == condition], LOSSES, "criteria.csv"),
        Text(f"Held-out loss by source, minus that of {CONTROL}:"),
        Table(parts[0], shown[0], "sources.csv"),
        Text("Share of each source that is kept:"),
        Table(parts[1], shown[1], "keep_rates.csv"),
    ]


def matrix(losses: list[dict], settings: Settings) -> list[dict]:
    """A row of each criterion: its difference to the control under each condition, in words."""
    rows = {name: {"criterion": name} for name in settings.criteria if name != CONTROL}
    for row in losses:
        if row["criterion"] != CONTROL:
            mean, low, high = (signed(row[f"difference{end}"]) for end in ("", "_low", "_high"))
            words = mean if low == "–" else f"{mean} ({low} to {high})"
            rows[row["criterion"]][row["condition"]] = words
    return list(rows.values())


def finding(condition: str, losses: list[dict]) -> str:
    """Which criteria are ahead of the control beyond the seeds under a condition, and behind."""
    rows = [row for row in losses if row["condition"] == condition and row["criterion"] != CONTROL]
    ahead = [row["criterion"] for row in rows if row["difference_high"] < 0]
    behind = [row["criterion"] for row in rows if row["difference_low"] > 0]
    words = "; ".join(
        f"{which} {CONTROL} beyond the spread of the seeds: {', '.join(names) or 'none'}"
        for which, names in (("ahead of", ahead), ("behind", behind))
    )
    if rows and np.isnan(rows[0]["difference_low"]):
        words = "one seed, so its spread is not known"
    lowest = f"{rows[0]['criterion']} ({signed(rows[0]['difference'])})" if rows else CONTROL
    return f"{condition}: {words}. The lowest mean loss is that of {lowest}."


def learned(base: Path, runs: dict, settings: Settings) -> list:
    """Whether reference and students have learned more than how frequent tokens are."""
    held_out = Corpus(under(base, settings.held_out), "test")
    places = (settings.reference_data, settings.reference_held_out)
    data, reference_held_out = (under(base, p.format(corpus=settings.corpus)) for p in places)
    pairs = [
        (
            "reference",
            float(read_curve(under(base, settings.reference)).losses[-1]),
            frequency_loss(Corpus(data), Corpus(reference_held_out, "test")),
        )
    ]
    for condition in settings.conditions:
        run = runs[Student(condition, CONTROL, settings.seeds[0])]
        name, loss = f"student on {CONTROL}, {condition}", float(run.losses.mean())
        pairs.append((name, loss, frequency_loss(run.corpus, held_out)))
    rows = [dict(zip(("model", "loss", "frequencies"), pair, strict=True)) for pair in pairs]
    columns = (
        Column("model", "model"),
        Column("loss", "held-out loss", decimal),
        Column("frequencies", "loss of its corpus's token frequencies alone", decimal),
    )
    return [Heading("What the models have learned"), Table(rows, columns)]


def draw(losses: list[dict], settings: Settings) -> bytes:
    """The differences to the control, a panel for each condition, as PNG."""
    figure, panels = plots.new_plots(10, 7, -(-len(settings.conditions) // 2), 2)
    names = [name for name in reversed(settings.criteria) if name != CONTROL]
    for axes, condition in zip(panels.flat, settings.conditions, strict=False):
        rows = {row["criterion"]: row for row in losses if row["condition"] == condition}
        axes.axvline(0, color="black", linewidth=0.8)
        for at, name in enumerate(names):
            row = rows[name]
            axes.plot([row["difference_low"], row["difference_high"]], [at, at], "-", color="#888")
            axes.plot([row[f"seed {seed}"] for seed in settings.seeds], [at] * len(settings.seeds),
                      ".", color="#e0a526")  # fmt: skip
            axes.plot(row["difference"], at, "o", color="#2a7f62")
        axes.set_yticks(range(len(names)), names)
        axes.set_title(condition)
    for axes in panels[-1]:
        axes.set_xlabel(f"held-out loss minus that of {CONTROL}, nats per token")
    for axes in panels.flat[len(settings.conditions) :]:
        axes.set_visible(False)
    return plots.png(figure)


if __name__ == "__main__":
    run(main)
