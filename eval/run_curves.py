"""Held-out losses of a run over steps, tokens and FLOPs, as metrics.jsonl and its manifest say."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.errors import InputError
from pretrain.metrics import read_metrics
from reports.plots import label, new_plots, png

FIX = "train with VALID_DATA and a smaller VALID_EVERY, on this version of the code"
AXES = {
    "steps": "steps",
    "tokens": "tokens",
    "student_flops": "FLOPs of the student",
    "flops": "FLOPs, the teacher's included",
}


@dataclass(frozen=True)
class Curve:
    """[n] each; flops: of all models in training, and what was spent before it."""

    losses: np.ndarray
    steps: np.ndarray
    tokens: np.ndarray
    student_flops: np.ndarray
    flops: np.ndarray

    def reaches(self, loss: float, axis: str) -> float:
        """Where it first has this loss, between two points linearly; nan if it never has."""
        x, below = getattr(self, axis), np.flatnonzero(self.losses <= loss)
        if not len(below):
            return float("nan")
        at = below[0]
        if at == 0:
            return float(x[0])
        share = (self.losses[at - 1] - loss) / (self.losses[at - 1] - self.losses[at])
        return float(x[at - 1] + share * (x[at] - x[at - 1]))

    def at(self, flops: float) -> float:
        """Its loss at these FLOPs, between two points linearly; nan outside of its points."""
        if np.isnan(self.flops).any():
            return float("nan")
        return float(np.interp(flops, self.flops, self.losses, left=np.nan, right=np.nan))


def newest_manifest(folder: Path) -> artefact.Manifest | None:
    """That of a finished run, else of its last checkpoint."""
    last = max(folder.glob("step_*[0-9]"), default=folder)
    return artefact.read_manifest(folder) or artefact.read_manifest(last)


def has_curve(folder: Path) -> bool:
    """Whether a run has held-out losses and FLOPs."""
    manifest = newest_manifest(folder)
    known = manifest is not None and "student_flops" in manifest.counts
    return known and any("valid_loss" in row for row in read_metrics(folder))


def read_curve(folder: Path, before: float = 0.0, from_step: int = 0) -> Curve:
    """A run's held-out losses from a step on; InputError if it has none or not its FLOPs.

    before: FLOPs that its corpus or teacher had cost before it began.
    """
    manifest = newest_manifest(folder)
    rows = [r for r in read_metrics(folder) if "valid_loss" in r and r["step"] >= from_step]
    if manifest is None or "student_flops" not in manifest.counts or not rows:
        raise InputError("the run has no held-out losses, or no FLOPs", where=folder, fix=FIX)
    total = manifest.counts
    names = ("valid_loss", "step", "tokens")
    losses, steps, tokens = (np.array([row[name] for row in rows], float) for name in names)
    student, teacher = (total[f"{name}_flops"] / total["tokens"] for name in ("student", "teacher"))
    return Curve(losses, steps, tokens, student * tokens, before + (student + teacher) * tokens)


def draw(curves: dict[str, Curve]) -> bytes:
    """Held-out loss over steps, tokens and FLOPs, a line per run."""
    figure, panels = new_plots(9, 6, 2, 2)
    for axes, (name, title) in zip(panels.flat, AXES.items(), strict=True):
        for run, curve in curves.items():
            axes.plot(getattr(curve, name), curve.losses, ".-", linewidth=1, label=label(run))
        axes.set_xlabel(title)
    panels[0, 0].set_ylabel("held-out loss")
    panels[1, 0].set_ylabel("held-out loss")
    panels[0, 1].legend()
    return png(figure)
