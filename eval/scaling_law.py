"""Scaling laws of trained runs: held-out loss over compute, and the compute a method saves.

    bash scripts/eval/scaling_law.sh BASE_PATH
    python3 eval/scaling_law.py BASE_PATH --runs FOLDER,FOLDER

Reads metrics.jsonl and the manifests of runs that were trained with VALID_DATA. Writes
BASE_PATH/results/eval/scaling_law.json, .png and .html. A curve per method and size, the paper's
form (arXiv 2410.17215, section 3.3): L(C) = A C^-alpha + L_inf, C the FLOPs of training, a live
teacher's among them. Where a method has three sizes or more, also L = E + A / N^a + B / D^b
(Hoffmann et al., arXiv 2203.15556) over parameters and tokens.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass

import numpy as np

from data_utils import atomic_files
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from eval import fits, paper
from eval.run_curves import FIX, newest_manifest, read_curve
from pretrain.metrics import read_metrics
from reports import html_page, terminal
from reports.files import save
from reports.page import Column, Findings, Page, Picture, Table, Text, decimal, integer, scientific
from reports.plots import label, new_plot, png

CAVEATS = (
    "Intervals are 95 % ones and cover the noise of a run's held-out losses around its curve. They "
    "cover neither seeds nor whether the law holds so far out. Checkpoints of one run share its "
    "learning-rate schedule, so that its last points lie lower than runs that end there would."
)


CURVES = (
    Column("method", "method"),
    Column("size", "size"),
    Column("points", "points", integer),
    Column("A", "A", scientific),
    Column("alpha", "alpha", decimal),
    Column("L_inf", "L_inf", decimal),
    Column("interval", "95 %"),
    Column("L_1T", "at 1 T tokens", decimal),
    Column("L_10T", "at 10 T", decimal),
    Column("doubt", "in doubt"),
)
PRINTED = tuple(c for c in CURVES if c.key not in ("points", "interval", "doubt"))
SIZES = (
    Column("method", "method"),
    *(Column(name, name, decimal) for name in ("E", "a", "b")),
    *(Column(name, name, scientific) for name in ("A", "B")),
    Column("interval", "E, 95 %"),
    Column("doubt", "in doubt"),
)


@dataclass
class Settings:
    """Fit scaling laws to the held-out losses of runs."""

    base_path: str = flag(".", "folder that contains results/")
    runs: str = flag(
        "", "folders of runs, comma-separated; default: all results/METHOD/FAMILY/SIZE"
    )
    control: str = flag("pretrain", "the method that the others are compared with")
    from_step: int = flag(0, "leave out earlier held-out losses; 0: those of the warm-up")
    save: str = flag("results/eval/scaling_law", "path of the results, without the suffix")


@dataclass
class Points:
    """A run's held-out losses [n] over FLOPs [n] and tokens [n] of training."""

    method: str
    size: str
    held_out: str
    parameters: int
    student_flops: float  # per token
    flops: np.ndarray
    tokens: np.ndarray
    losses: np.ndarray
    curve: fits.Fit | None = None

    def cost(self, trillions: float) -> float:
        """FLOPs of so many trillion tokens of training without a teacher, as in the paper."""
        return self.student_flops * trillions * 1e12

    def points(self) -> dict[str, list[float]]:
        """The points as plain lists."""
        return {name: getattr(self, name).tolist() for name in ("flops", "tokens", "losses")}


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    runs = [read_points(folder, settings.from_step) for folder in run_folders(base, settings.runs)]
    held_out = sorted({run.held_out for run in runs})
    if len(held_out) > 1:
        raise InputError(
            "the runs' held-out losses are of different corpora",
            found=", ".join(held_out),
            fix="name runs with one VALID_DATA with --runs",
        )
    for run in runs:
        run.curve = fits.fit([run.flops], run.losses)
    plot, savings, sizes = draw(runs), compared(runs, settings.control), over_sizes(runs)
    rows = [curve_row(run) for run in runs]
    result = {"held_out": held_out[0], "savings": savings, "over_sizes": sizes}
    result["curves"] = [row | run.points() for row, run in zip(rows, runs, strict=True)]
    blocks = [
        Findings([saving["words"] for saving in savings]),
        Table(rows, CURVES),
        Picture(plot, "Held-out loss over FLOPs; the curves go on to 10 T tokens."),
        *([Table(sizes, SIZES)] if sizes else []),
        *([Table(printed, PRINTED)] if (printed := printed_rows(runs)) else []),
        Text(CAVEATS, "note"),
    ]
    page, path = Page("Scaling laws", blocks), under(base, settings.save)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(path.with_suffix(".json"), result)
    save(path.with_suffix(".png"), plot)
    save(path.with_suffix(".html"), html_page.render(page))
    print(f"{terminal.render(page)}\n\nReport: {path.with_suffix('.html')}")


def run_folders(base: Path, named: str) -> list[Path]:
    """The runs to read; InputError if there is none with held-out losses."""
    if named:
        return [under(base, name) for name in named.split(",")]
    found = sorted(path.parent for path in (base / "results").glob("*/*/*/metrics.jsonl"))
    found = [folder for folder in found if any("valid_loss" in r for r in read_metrics(folder))]
    if not found:
        raise InputError("no run has held-out losses", where=base / "results", fix=FIX)
    return found


def read_points(folder: Path, from_step: int) -> Points:
    """A run's points; InputError if it has none or does not say what it cost."""
    manifest = newest_manifest(folder)
    first = from_step or (manifest.content.get("warmup_steps", 0) if manifest else 0)
    curve, (method, *size) = read_curve(folder, from_step=first), folder.parts[-3:]
    counts, valid_data = manifest.counts, manifest.made_by["settings"]["valid_data"]
    student = counts["student_flops"] / counts["tokens"]
    points = curve.flops, curve.tokens, curve.losses
    return Points(method, "/".join(size), valid_data, counts["parameters"], student, *points)


def curve_row(run: Points) -> dict:
    """A run's row of the table and of the JSON file."""
    row = {"method": run.method, "size": run.size, "points": len(run.losses)}
    if run.curve is None:
        blank = dict.fromkeys(("A", "alpha", "L_inf", "L_1T", "L_10T"), float("nan"))
        return row | blank | {"interval": "", "doubt": "five points or more are needed"}
    limit, factor, exponent = run.curve.values
    row |= {"A": factor, "alpha": exponent, "L_inf": limit}
    row |= {f"L_{n}T": run.curve.at(run.cost(n)) for n in (1, 10)}
    low, high = run.curve.interval(lambda values: values[:, 0])
    return row | {"interval": f"{low:.3f} to {high:.3f}", "doubt": run.curve.doubt}


def compared(runs: list[Points], control: str) -> list[dict]:
    """The compute that each run saves at its control's last loss; one size has one control."""
    controls = {run.size: run for run in runs if run.method == control and run.curve}
    pairs = [(run, controls.get(run.size)) for run in runs if run.curve]
    return [saving(run, other) for run, other in pairs if other and other is not run]


def saving(run: Points, control: Points) -> dict:
    """The control's compute over the run's, where both curves have the control's last loss."""
    cost = control.flops.max()
    loss = control.curve.at(cost)
    factor = float(ratio(run.curve.values[None], control.curve.values[None], cost)[0])
    count = min(len(run.curve.samples), len(control.curve.samples))
    samples = ratio(run.curve.samples[:count], control.curve.samples[:count], cost)
    low, high = fits.middle(samples)
    words = f"{run.method}/{run.size} reaches {control.method}'s loss of {loss:.3f} with "
    words += f"{share(factor)} of its {cost:.2e} FLOPs (95 %: {share(high)} to {share(low)})."
    if not factor > 0:
        words = f"{run.method}/{run.size} does not reach {control.method}'s loss of {loss:.3f}."
    if doubts := [r.method for r in (run, control) if r.curve.doubt]:
        words += f" The points do not determine the curve of {' and '.join(doubts)}."
    found = {"method": run.method, "size": run.size, "control": control.method, "loss": loss}
    return found | {"factor": factor, "low": low, "high": high, "words": words}


def share(factor: float) -> str:
    """Of the control's compute: 1 / factor; a factor of 0 is a loss that is never reached."""
    return f"{100 / factor:.0f} %" if factor > 0 else "never"


def ratio(run: np.ndarray, control: np.ndarray, cost: float) -> np.ndarray:
    """[S] cost over that at which the run's laws [S, 3] have the controls' loss; 0: never."""
    above = fits.law(control, cost) - run[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = (above / run[:, 1]) ** (-1 / run[:, 2])
    return np.where(above > 0, cost / needed, 0.0)


def over_sizes(runs: list[Points]) -> list[dict]:
    """L = E + A / N^a + B / D^b of each method that has three sizes or more."""
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method]
        parameters = np.repeat([run.parameters for run in mine], [len(run.losses) for run in mine])
        tokens, losses = (
            np.concatenate([getattr(r, n) for r in mine]) for n in ("tokens", "losses")
        )
        law = fits.fit([parameters, tokens], losses)
        if law is not None:
            low, high = law.interval(lambda values: values[:, 0])
            row = dict(zip(("E", "A", "B", "a", "b"), map(float, law.values), strict=True))
            row |= {"interval": f"{low:.3f} to {high:.3f}", "doubt": law.doubt}
            rows.append({"method": method, **row})
    return rows


def printed_rows(runs: list[Points]) -> list[dict]:
    """The paper's own curves of the sizes that were read."""
    names = ("A", "alpha", "L_inf", "L_1T", "L_10T")
    sizes = {run.size for run in runs}
    return [
        {"method": f"the paper: {method}", "size": size, **dict(zip(names, values, strict=True))}
        for (size, method), values in paper.SCALING.items()
        if size in sizes
    ]


def draw(runs: list[Points]) -> bytes:
    """All runs' points and curves on one picture."""
    figure, axes = new_plot(9, 5)
    for run in runs:
        (line,) = axes.plot(run.flops, run.losses, ".", label=label(f"{run.method}/{run.size}"))
        if run.curve is not None:
            cost = np.geomspace(run.flops.min(), run.cost(10), 200)
            losses = [run.curve.at(c) for c in cost]
            style = "--" if run.curve.doubt else "-"
            axes.plot(cost, losses, style, color=line.get_color(), linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("FLOPs of training")
    axes.set_ylabel("held-out loss, nats per token")
    axes.legend()
    return png(figure)


if __name__ == "__main__":
    run(main)
