"""Draw the picture of the method for the README.

    python3 figures/draw_method.py

Writes figures/method.png. The histogram in it is a sketch, not measured.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import numpy as np

from reports.files import save
from reports.plots import png

TARGET = Path(__file__).with_name("method.png")
BLUE, GREEN, RED, GOLD, INK, PALE = "#3b6fb5", "#2a7f62", "#c0563b", "#b9851c", "#1c2430", "#5a6573"
SEQUENCES = 6


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(13, 5.3))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 130)
    axes.set_ylim(0, 53)
    axes.axis("off")
    stage(axes, 12.5, "1  Corpus", "sequences of 1,024 tokens")
    stage(axes, 40, "2  Score once", "mean log-probability per token")
    stage(
        axes,
        73.5,
        "3  Difference sampling",
        r"$r = \log p - \log p_\mathrm{ref}$, keep the top half",
    )
    stage(axes, 114.5, "4  Pre-train any student", "plain language modelling, no teacher")
    stack(axes, 5, 9.5, 15, [BLUE] * SEQUENCES)
    box(axes, 31, 28, 18, 9, BLUE, "Teacher $p$", "Qwen1.5-1.8B")
    box(axes, 32, 12.2, 16, 7.6, GOLD, r"Reference $p_\mathrm{ref}$", "104M")
    for height in (32.5, 16):
        arrow(axes, (21.5, 24.5), (30 if height > 20 else 31, height))
        arrow(axes, (50 if height > 20 else 49, height), (57, 24.5))
    sketch(figure)
    arrow(axes, (92, 24.5), (98, 24.5))
    students(axes)
    axes.text(
        65,
        2.2,
        "The teacher runs once, before any training: what it selects serves students of every size "
        "and, re-tokenised, of every family.",
        ha="center",
        fontsize=12,
        color=PALE,
    )
    save(TARGET, png(figure))
    print(TARGET)


def stage(axes, x: float, title: str, words: str) -> None:
    """The heading of a stage, centred at x."""
    axes.text(x, 49, title, ha="center", fontsize=15, weight="bold", color=INK)
    axes.text(x, 45.7, words, ha="center", fontsize=11, color=PALE)


def stack(axes, x: float, y: float, width: float, tints: list[str]) -> None:
    """A pile of sequences, the first one at the top."""
    for number, tint in enumerate(reversed(tints)):
        rounded(axes, x, y + 5 * number, width, 3.6, tint, 0.25)
        for line, share in ((2.4, 0.86), (1.2, 0.62 + 0.05 * (number % 4))):
            ends = [x + 1, x + width * share]
            axes.plot(ends, [y + 5 * number + line] * 2, color=tint, linewidth=1.6)


def box(axes, x: float, y: float, width: float, height: float, tint: str, *words: str) -> None:
    """A model: its name and what it is."""
    rounded(axes, x, y, width, height, tint, 0.18)
    middle = x + width / 2
    axes.text(middle, y + 0.6 * height, words[0], ha="center", va="center", fontsize=13, color=INK)
    axes.text(
        middle, y + 0.27 * height, words[1], ha="center", va="center", fontsize=10.5, color=PALE
    )


def rounded(axes, x: float, y: float, width: float, height: float, tint: str, fill: float) -> None:
    """A box with round corners, its inside a paler shade of its border."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    pale = 1 - fill * (1 - np.array(to_rgb(tint)))
    shape = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.7",
        facecolor=pale,
        edgecolor=tint,
        linewidth=1.4,
    )
    axes.add_patch(shape)


def arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow from start to end."""
    style = {"arrowstyle": "-|>", "color": PALE, "linewidth": 1.6, "mutation_scale": 16}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def sketch(figure) -> None:
    """The distribution of r, cut at its median."""
    axes = figure.add_axes((0.455, 0.235, 0.235, 0.5))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([])
    r = np.linspace(-3.2, 5, 400)
    density = np.exp(-((r - 1.4) ** 2) / 2) + 0.34 * np.exp(-((r + 1.6) ** 2) / 0.5)
    middle = r[np.searchsorted(np.cumsum(density), density.sum() / 2)]
    axes.fill_between(r, density, where=r >= middle, color=GREEN, alpha=0.75, linewidth=0)
    axes.fill_between(r, density, where=r <= middle, color=RED, alpha=0.5, linewidth=0)
    axes.axvline(middle, color=INK, linewidth=1.4, ymax=0.93)
    axes.set_ylim(0, 1.3)
    axes.set_xlim(r[0], r[-1])
    style = {"ha": "center", "fontsize": 10.5}
    axes.text(3.55, 1.0, "kept: hard\nand valuable", color=GREEN, va="center", **style)
    axes.text(-1.15, 0.85, "dropped: easy\nand common", color=RED, va="center", **style)
    axes.text(-2.0, 0.43, "dropped: noise", color=RED, va="center", **style)
    axes.set_xlabel("$r$ of a sequence →", fontsize=11, color=INK)


def students(axes) -> None:
    """The selected half, and the models that are trained on it."""
    stack(axes, 99, 17, 9, [GREEN] * (SEQUENCES // 2))
    names = ("Qwen 200M", "Qwen 500M", "Qwen 1.2B", "Llama 3.1 212M", "Mamba 130M")
    for number, name in enumerate(names):
        y = 36.2 - 6.6 * number
        rounded(axes, 114, y, 14.5, 4.8, GREEN if number < 3 else GOLD, 0.15)
        axes.text(121.25, y + 2.4, name, ha="center", va="center", fontsize=11, color=INK)
        arrow(axes, (108.8, 24.5), (113.4, y + 2.4))


if __name__ == "__main__":
    run(main)
