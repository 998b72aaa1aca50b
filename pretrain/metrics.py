"""Run logs: metrics.jsonl (one object per logged step), a terminal line, curves.png, a tracker."""

import contextlib
import json
import sys
from pathlib import Path

from tqdm import tqdm

from data_utils import atomic_files
from pretrain import trackers

FILE = "metrics.jsonl"
# The engine's own figures; an objective's have other names.
NAMES = frozenset(
    "step loss valid_loss lr grad_norm loss_scale skipped tokens sequences tokens_per_second "
    "data_wait seconds memory mfu".split()
)
CURVES = {
    "loss": "training loss, nats per token",
    "valid_loss": "held-out loss",
    "grad_norm": "gradient norm before clipping",
    "lr": "learning rate",
}


def read_metrics(folder: Path) -> list[dict]:
    """All complete lines of a run's metrics, without one that a kill has torn."""
    path = folder / FILE
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Metrics:
    """Writes the metrics of steps `done`..`total`; used by rank 0 only."""

    def __init__(self, folder: Path, done: int, total: int, settings: dict):
        self.folder = folder
        self.tracker = settings["tracker"]
        self.tracked = trackers.start(folder, settings)
        kept = [row for row in read_metrics(folder) if row["step"] <= done]
        with atomic_files.atomic_file(folder / FILE, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self.file = open(folder / FILE, "a", encoding="utf-8")
        self.bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            desc=folder.name,
            mininterval=1 if sys.stderr.isatty() else 30,
        )

    def step(self, row: dict, due: bool) -> None:
        """One step is done; its figures are logged when due or if they have a held-out loss.

        A step whose batch was left out has none.
        """
        self.bar.update()
        if row and (due or "valid_loss" in row):
            self.log(row)

    def log(self, row: dict) -> None:
        """Append a step's figures and show the most important ones."""
        with atomic_files.named(self.file.name):
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
            atomic_files.fsync(self.file.fileno())
        shown = {"loss": f"{row['loss']:.4f}", "lr": f"{row['lr']:.2e}"}
        if "valid_loss" in row:
            shown["valid"] = f"{row['valid_loss']:.4f}"
        self.bar.set_postfix(shown, tok_s=f"{row['tokens_per_second']:.0f}", refresh=False)
        if self.tracked is not None:
            self.tracked.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])

    def close(self) -> None:
        """End bar and file, draw the curves; the tracker, which may wait for its network, stays."""
        self.bar.close()
        with atomic_files.named(self.file.name):
            self.file.close()
        draw_curves(self.folder)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """End what an error has left open, so that its message is not printed behind the bar."""
        self.bar.close()
        with contextlib.suppress(OSError):  # a full disk: the error is on its way
            self.file.close()
        if self.tracked is not None:
            trackers.end(self.tracked, self.tracker, code=0 if kind is None else 1)


def draw_curves(folder: Path) -> None:
    """curves.png: loss, held-out loss, gradient norm and learning rate over the steps."""
    rows = read_metrics(folder)
    if not rows:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4), layout="constrained")
    panels = [("loss", "valid_loss"), ("grad_norm",), ("lr",)]
    for axis, names in zip(figure.subplots(1, 3), panels, strict=True):
        for name in names:
            shown = [row for row in rows if name in row]
            steps, values = [row["step"] for row in shown], [row[name] for row in shown]
            axis.plot(steps, values, "o-" if name == "valid_loss" else "-", label=CURVES[name])
        axis.set_xlabel("step")
        axis.legend()
    with atomic_files.atomic_file(folder / "curves.png") as file:
        figure.savefig(file, dpi=100, format="png")
