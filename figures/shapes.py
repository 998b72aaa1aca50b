"""Boxes and arrows, which the drawings here consist of."""

import numpy as np

INK, PALE = "#1c2430", "#5a6573"


def canvas(width: float, height: float):
    """(figure, axes) of an empty drawing; sizes and coordinates are in tenths of an inch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 10, height / 10))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def box(axes, x: float, y: float, width: float, height: float, tint: str, fill: float = 0) -> None:
    """A box with round corners around (x, y), filled with this share of its border's colour."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    pale = 1 - fill * (1 - np.array(to_rgb(tint)))
    corner = x - width / 2, y - height / 2
    style = {"boxstyle": "round,pad=0,rounding_size=0.7", "facecolor": pale, "linewidth": 1.5}
    axes.add_patch(FancyBboxPatch(corner, width, height, edgecolor=tint, **style))


def write(axes, x: float, y: float, words: str, size: float, color: str = INK, **style) -> None:
    """Centred words."""
    axes.text(x, y, words, ha="center", va="center", fontsize=size, color=color, **style)


def arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow from start to end."""
    style = {"arrowstyle": "-|>", "color": PALE, "linewidth": 1.5, "mutation_scale": 15}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
