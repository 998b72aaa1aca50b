"""Helpers for the reports' pictures: matplotlib without a display, PNG without metadata."""

import io

from reports.page import visible

KEPT, DROPPED = "#2a7f62", "#c0563b"


def new_plot(width: float, height: float):
    """(figure, axes) of a plain plot; sizes in inches."""
    figure, panels = new_plots(width, height, 1, 1)
    return figure, panels[0, 0]


def new_plots(width: float, height: float, rows: int, columns: int):
    """(figure, axes [rows, columns]) of plain plots; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def png(figure) -> bytes:
    """The figure as a PNG."""
    file = io.BytesIO()
    figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
    return file.getvalue()


def label(name: str, longest: int = 32) -> str:
    """A name as a label in a plot: on one line, not too long, no mathematics, never hidden."""
    name = " ".join(visible(name).split())
    if len(name) > longest:
        name = name[: longest - 1] + "…"
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name  # matplotlib hides labels that begin with _
