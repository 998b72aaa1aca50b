"""What a comparison of runs shows beside their last losses: lists of blocks, which may be empty."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.corpus import Corpus
from eval import paper
from eval.costs import UNKNOWN, run_flops
from eval.run_curves import Curve, draw, has_curve, read_curve
from eval.runs import Run
from reports.page import (
    Column,
    Heading,
    Picture,
    Table,
    Text,
    decimal,
    integer,
    percent,
    scientific,
    signed,
)
from reports.selection_report import report_folder

HARNESS = "results/eval/harness"
REACHED = (
    Column("student", "student"),
    Column("steps", "steps", lambda value: integer(value) if value == value else "–"),
    Column("tokens", "tokens", scientific),
    Column("student_flops", "student FLOPs", scientific),
    Column("flops", "FLOPs, teacher's included", scientific),
    Column("share", "of the control's FLOPs", percent),
)
EQUAL = (
    Column("student", "student"),
    Column("flops", "FLOPs, teacher's included", scientific),
    Column("loss", "last loss", decimal),
    Column("control", "the control's at as many", decimal),
    Column("difference", "difference", signed),
)
SPREAD = (
    Column("students", "students"),
    Column("seeds", "seeds", integer),
    Column("mean", "mean held-out loss", decimal),
    Column("low", "95 % from", decimal),
    Column("high", "to", decimal),
    Column("deviation", "standard deviation", decimal),
    Column("student_flops", "student FLOPs", scientific),
    Column("teacher_flops", "teacher FLOPs", scientific),
    Column("flops", "FLOPs", scientific),
    Column("control", "the control's loss at as many", decimal),
    Column("tasks", "tasks, mean", percent),
    Column("tasks_low", "95 % from", percent),
    Column("tasks_high", "to", percent),
)
SEEDS_ONLY = (
    "Student's 95 % intervals of the mean over the seeds. FLOPs are those of one student; a pass "
    "of a teacher that serves several stands in each of their rows."
)
PRINTED = (
    Column("method", "the paper's method"),
    Column("size", "size"),
    Column("accuracy", "nine tasks, %"),
    Column("loss", "loss on DCLM"),
)


def curves(runs: Sequence[Run]) -> list:
    """Held-out losses during training, and where each run reaches the last run's final one."""
    found = {run.name: curve_of(run) for run in runs if has_curve(run.folder)}
    control = runs[-1]
    if not found:
        return []
    blocks = [Heading("During training"), Picture(draw(found), "Loss on VALID_DATA.")]
    if control.name not in found or len(found) < 2:
        return blocks
    goal = float(found[control.name].losses[-1])
    names = [run.name for run in runs if run.tokens == control.tokens and run.name in found]
    rows = [{"student": name, **reached(found[name], goal)} for name in names]
    for row in rows:
        row["share"] = row["flops"] / rows[-1]["flops"]
    words = f"Where each student first has the last loss of {control.name}, {goal:.3f} (– never):"
    blocks += [Text(words), Table(rows, REACHED), Heading("At equal FLOPs")]
    words = f"The loss of {control.name} when it had cost what each student did in the end"
    equal = [at_equal_flops(name, found[name], found[control.name]) for name in names]
    return [*blocks, Text(f"{words} (– beyond its curve):"), Table(equal, EQUAL)]


def at_equal_flops(name: str, curve: Curve, control: Curve) -> dict:
    """A run's last loss, and the control's where it had cost as many FLOPs; nan where unknown."""
    flops, loss = float(curve.flops[-1]), float(curve.losses[-1])
    there = control.at(flops)
    row = {"student": name, "flops": flops, "loss": loss}
    return row | {"control": there, "difference": loss - there}


def steps_needed(run: Run, control: Run) -> list[str]:
    """How many times the steps the one behind needs; nothing where a curve is missing."""
    if run.tokens != control.tokens or not (has_curve(run.folder) and has_curve(control.folder)):
        return []
    curves = {one.name: curve_of(one) for one in (run, control)}
    ahead, behind = sorted(curves, key=lambda name: (curves[name].losses[-1], name))
    goal, last = curves[behind].losses[-1], curves[behind].steps[-1]
    steps = curves[ahead].reaches(goal, "steps")
    return [
        f"{behind} needs {last / steps:.1f} times the steps: {ahead} reaches its last loss on "
        f"VALID_DATA ({goal:.3f}, after {integer(last)} steps) after {integer(round(steps))}."
    ]


def curve_of(run: Run) -> Curve:
    """A run's curve; what it had cost before it began is nan where that is not known."""
    totals, own = run_flops(run.folder, run.manifest), run.manifest.counts
    before = sum(float("nan") if isinstance(total, str) else total for total in totals)
    return read_curve(run.folder, before - own["student_flops"] - own["teacher_flops"])


def reached(curve: Curve, loss: float) -> dict[str, float]:
    """Steps, tokens and FLOPs to a loss, nan if it is never reached."""
    return {
        axis: curve.reaches(loss, axis) for axis in ("steps", "tokens", "student_flops", "flops")
    }


def over_seeds(base: Path, runs: Sequence[Run]) -> list:
    """Mean, interval and spread of the runs that differ in nothing but seeds."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        contents = [run.manifest.content, *made_by(run.corpus)]
        same = [{k: v for k, v in content.items() if k != "seed"} for content in contents]
        key = artefact.canonical_hash([*same, sorted(run.manifest.inputs)])
        found.setdefault(key, []).append(run)
    rows = [spread(base, group, runs[-1]) for group in found.values() if len(group) > 1]
    return [Heading("Over seeds"), Text(SEEDS_ONLY, "note"), Table(rows, SPREAD)] if rows else []


def made_by(corpus: Corpus) -> list[dict]:
    """What decided a corpus and the corpora that it was made from: a conversion, a selection."""
    found, manifest = [], corpus.manifest
    while manifest is not None:
        found.append(manifest.content)
        source = manifest.inputs.get("corpus")
        place = artefact.input_place(manifest.folder, source) if source else None
        manifest = artefact.read_manifest(place) if place and place.is_dir() else None
    return found


def spread(base: Path, group: Sequence[Run], control: Run) -> dict:
    """A group's row; of the tasks nan unless the harness has evaluated all of its runs."""
    losses = np.array([run.losses.mean() for run in group])
    row = {"students": ", ".join(run.name for run in group), "seeds": len(group)}
    row |= zip(("mean", "low", "high"), mean_interval(losses), strict=True)
    row["deviation"] = float(losses.std(ddof=1))
    costs = [costs_of(run) for run in group]
    row |= {name: mean_cost([cost[name] for cost in costs]) for name in costs[0]}
    row["control"] = np.nan  # on VALID_DATA
    comparable = group[0].tokens == control.tokens and row["flops"] != UNKNOWN
    if comparable and has_curve(control.folder):
        row["control"] = curve_of(control).at(row["flops"])
    results = [harness_result(base, run.manifest) or {} for run in group]
    averages = [result.get("average", {}).get("value", np.nan) for result in results]
    names = ("tasks", "tasks_low", "tasks_high")
    return row | dict(zip(names, mean_interval(np.array(averages)), strict=True))


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of values: Student's 95 % interval of the mean, NaN of a single one."""
    from scipy.stats import t

    n, mean = len(values), float(values.mean())
    if n < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def costs_of(run: Run) -> dict[str, float | str]:
    """FLOPs of the student, of all that it needed of a teacher, and of both; or "unknown"."""
    student, teacher = run_flops(run.folder, run.manifest)
    known = UNKNOWN not in (student, teacher)
    total = student + teacher if known else UNKNOWN
    return {"student_flops": student, "teacher_flops": teacher, "flops": total}


def mean_cost(costs: Sequence[float | str]) -> float | str:
    """Their mean, "unknown" as soon as one is."""
    return UNKNOWN if UNKNOWN in costs else float(np.mean(costs))


def tasks(base: Path, runs: Sequence[Run]) -> list:
    """What the harness found of the runs' weights, the best of each task marked."""
    results = {run.name: harness_result(base, run.manifest) for run in runs}
    results = {name: result for name, result in results.items() if result}
    if not results:
        return []
    values = {
        name: {task: (f["value"], f["stderr"]) for task, f in result["tasks"].items()}
        | {"average": (result["average"].get("value"), result["average"].get("stderr"))}
        for name, result in results.items()
    }
    columns = list(dict.fromkeys(task for row in values.values() for task in row))
    best = {
        task: max((row[task][0] or 0 for row in values.values() if task in row), default=0)
        for task in columns
    }
    rows = [
        {"student": name} | {task: marked(row.get(task), best[task]) for task in columns}
        for name, row in values.items()
    ]
    table = Table(rows, [Column("student", "student"), *(Column(t, t) for t in columns)])
    return [Heading("Zero-shot tasks"), table, Text("Points ± standard error; * the best.", "from")]


def harness_result(base: Path, manifest: artefact.Manifest) -> dict | None:
    """The newest result of scripts/eval/harness.sh that is of this model's weights."""
    entries = {entry["name"]: entry["sha256"] for entry in manifest.files}
    paths = sorted((base / HARNESS).glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(paths):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["model"]["weights"] == entries["model.safetensors"] and result["tasks"]:
                return result
        except (ValueError, KeyError, TypeError):
            continue  # lm-eval's own file, or one that is being written
    return None


def marked(figure: tuple[float | None, float | None] | None, best: float) -> str:
    """A value and its error in points of 100, a star behind the best one."""
    if figure is None or figure[0] is None:
        return "–"
    value, error = figure
    spread = f" ± {100 * error:.1f}" if error is not None else ""
    return f"{100 * value:.1f}{spread}{' *' if value == best else ''}"


def differing_settings(runs: Sequence[Run]) -> list:
    """The settings in which the runs differ, a column per run."""
    known = {run.name: run.described() for run in runs}
    names = sorted({name for settings in known.values() for name in settings})
    rows = []
    for name in names:
        row = {run: short(settings.get(name, "–")) for run, settings in known.items()}
        if len(set(row.values())) > 1:
            rows.append({"setting": name, **row})
    columns = [Column("setting", "setting"), *(Column(name, name) for name in known)]
    return [Heading("Settings that differ"), Table(rows, columns)] if rows else []


def short(value: object) -> str:
    """A setting as shown; of a hash its beginning."""
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text


def printed(runs: Sequence[Run]) -> list:
    """The paper's own figures for the sizes among the runs."""
    sizes = list(dict.fromkeys("/".join(run.folder.parts[-2:]) for run in runs))
    rows = []
    for size in sizes:
        if size in paper.SIZES:
            at = paper.SIZES.index(size)
            rows += [
                {"method": method, "size": size, "accuracy": f"{values[at]:.1f}", "loss": ""}
                for method, values in paper.ACCURACY.items()
            ]
        rows += [
            {"method": method, "size": size, "accuracy": f"{accuracy:.1f}", "loss": f"{loss:.2f}"}
            for (of, method), (accuracy, loss) in paper.FAMILIES.items()
            if of == size
        ]
    return [Heading("What the paper printed"), Table(rows, PRINTED)] if rows else []


def selections(runs: Sequence[Run]) -> list:
    """Where the reports of the selections behind the runs' corpora are."""
    found = {}
    for run in runs:
        manifest = run.corpus.manifest
        if manifest and "scores" in manifest.inputs:
            store = artefact.input_place(run.corpus.folder, manifest.inputs["scores"])
            page = report_folder(store) / "report.html"
            if page.is_file():
                found.setdefault(page, []).append(run.name)
    return [Text(f"Selection behind {', '.join(n)}: {page}", "from") for page, n in found.items()]
