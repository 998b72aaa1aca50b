"""What the harness writes: figures by task, their average, tables, and the curve of a run.

NAME.json is ours, NAME.lm_eval.json is lm-eval's own result as its command line writes it, NAME.md
the table.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_utils import artefact, atomic_files
from eval.harness_tasks import NINE
from reports import markdown, terminal
from reports.files import save
from reports.page import Column
from reports.plots import label, new_plot, png

BINS = 15  # Guo et al., arXiv 1706.04599
ACCURACIES = ("acc_norm", "acc")  # the first that a task has


def points(value: float) -> str:
    """A share as points of 100; a dash where there is no value."""
    return f"{100 * value:.2f}" if value == value else "–"


BY_TASK = (
    Column("task", "task"),
    Column("metric", "metric"),
    Column("value", "value", points),
    Column("stderr", "± stderr", points),
    Column("n", "n", str),
    Column("calibration_error", "calibration error", points),
    Column("version", "version"),
)


def summarise(outcome: dict) -> tuple[dict[str, dict], dict]:
    """(figures by task, their average) of lm-eval's results, samples included."""
    tasks = {name: task_figures(outcome, name) for name in outcome["n-samples"]}
    counted = [task for task in tasks.values() if task["metric"] in ACCURACIES]
    average = {"tasks": len(counted)}
    if set(tasks) <= set(NINE):
        average["of"] = len(NINE)
    if counted:
        errors = [task["stderr"] for task in counted]
        average["value"] = float(np.mean([task["value"] for task in counted]))
        # Of a mean of independent values; unknown as soon as one is.
        known = None not in errors
        average["stderr"] = math.hypot(*errors) / len(counted) if known else None
    return tasks, average


def task_figures(outcome: dict, name: str) -> dict:
    """Metric, value, standard error, documents and calibration error of one task."""
    found = outcome["results"][name]
    metrics = [key for key in found if "," in key and "_stderr," not in key]
    key = next((k for m in ACCURACIES for k in metrics if k.startswith(f"{m},")), metrics[0])
    metric, kind = key.split(",", 1)
    error = found.get(f"{metric}_stderr,{kind}")
    multiple = outcome["configs"][name]["output_type"] == "multiple_choice"
    return {
        "metric": metric,
        "value": float(found[key]),
        "stderr": None if isinstance(error, str) else error,
        "n": outcome["n-samples"][name]["effective"],
        "documents": outcome["n-samples"][name]["original"],
        "calibration_error": calibration_error(outcome["samples"][name]) if multiple else None,
        "version": outcome["versions"][name],
    }


def calibration_error(samples: list[dict]) -> float | None:
    """Expected calibration error of a multiple-choice task (Guo et al., arXiv 1706.04599).

    Confidence is the largest of the choices' probabilities, normalised over the choices of a
    document; |accuracy - mean confidence| is weighted by the documents in each of BINS equal bins.
    """
    if not samples or any("acc" not in sample for sample in samples):
        return None
    right = np.array([sample["acc"] for sample in samples], float)
    confidence = np.array([largest_share(sample["filtered_resps"]) for sample in samples])
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, right - confidence, BINS)
    return float(np.abs(gaps).sum() / len(samples))


def largest_share(responses: Sequence[tuple[float, bool]]) -> float:
    """exp of the largest log-likelihood over the sum of all choices'."""
    values = np.array([float(value) for value, _ in responses])
    return float(1 / np.exp(values - values.max()).sum())


def rows_by_task(result: dict) -> list[dict]:
    """The table's rows, the average last; NaN where there is no value."""
    rows = [{"task": name, **figures} for name, figures in result["tasks"].items()]
    average = result["average"]
    rows.append({"task": average_title(average), "metric": "", "n": "", "version": "", **average})
    shown = [column.key for column in BY_TASK]
    return [{key: nan_for_none(row.get(key)) for key in shown} for row in rows]


def nan_for_none(value: object) -> object:
    return math.nan if value is None else value


def average_title(average: dict) -> str:
    """Which tasks an average is over."""
    count = average["tasks"]
    whole = average.get("of", count)
    return f"average over {count} of {whole}" if count != whole else f"average over {count}"


def table_of(result: dict, show) -> str:
    """The table of one checkpoint; show: terminal.table or markdown.table."""
    return show(rows_by_task(result), BY_TASK)


def table_of_all(results: Sequence[dict], show) -> str:
    """One row per checkpoint, one column per task, the average last."""
    names = list(results[0]["tasks"])
    columns = [Column("name", "checkpoint"), *(Column(name, name, points) for name in names)]
    columns.append(Column("average", average_title(results[0]["average"]), points))
    rows = [
        {"name": result["name"], "average": result["average"].get("value", math.nan)}
        | {name: result["tasks"][name]["value"] for name in names}
        for result in results
    ]
    return show(rows, columns)


def write(folder: Path, result: dict, outcome: dict) -> None:
    """Write a checkpoint's files: lm-eval's result and the table first, ours last."""
    from lm_eval.utils import handle_non_serializable

    name = result["name"]
    theirs = {key: value for key, value in outcome.items() if key != "samples"}
    text = json.dumps(theirs, indent=2, default=handle_non_serializable, ensure_ascii=False)
    save(folder / f"{name}.lm_eval.json", text)
    finish(folder, result)


def finish(folder: Path, result: dict) -> None:
    """Write the table and NAME.json, which says that this checkpoint is evaluated."""
    save(folder / f"{result['name']}.md", table_of(result, markdown.table))
    atomic_files.write_json(folder / f"{result['name']}.json", result)


def copy(folder: Path, known: str, result: dict) -> None:
    """Write under another name what was evaluated under the name `known`."""
    atomic_files.copy_file(
        folder / f"{known}.lm_eval.json", folder / f"{result['name']}.lm_eval.json"
    )
    finish(folder, result)


def evaluated(folder: Path, key: str) -> dict | None:
    """An earlier result with this key (`key_of`), under whatever name."""
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".lm_eval.json"):
            continue
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        theirs = path.with_name(f"{path.stem}.lm_eval.json")
        if isinstance(result, dict) and result.get("key") == key and theirs.exists():
            return result
    return None


def key_of(model: dict, settings: dict, tasks: dict) -> str:
    """What decides an evaluation's figures: the weights, the settings, the tasks and their data."""
    return artefact.canonical_hash([model["weights"], settings, tasks])


def curve(results: Sequence[dict], steps: Sequence[int]) -> bytes:
    """Accuracy in points over training steps, the average in front of the tasks; a PNG."""
    figure, axes = new_plot(7, 4)
    for name in results[0]["tasks"]:
        if results[0]["tasks"][name]["metric"] in ACCURACIES:
            values = [100 * result["tasks"][name]["value"] for result in results]
            axes.plot(steps, values, linewidth=1, alpha=0.6, label=label(name))
    averages = [100 * result["average"].get("value", math.nan) for result in results]
    title = average_title(results[0]["average"])
    axes.plot(steps, averages, linewidth=2.5, color="black", marker="o", label=title)
    axes.set_xlabel("training step")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def markdown_of_all(results: Sequence[dict]) -> str:
    """The table of several checkpoints as Markdown."""
    return table_of_all(results, markdown.table)


def show(results: Sequence[dict]) -> str:
    """The tables for the terminal."""
    if len(results) == 1:
        return table_of(results[0], terminal.table)
    return table_of_all(results, terminal.table)
