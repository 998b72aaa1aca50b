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

from figures.shapes import INK, PALE, arrow, box, canvas, write
from reports.files import save
from reports.plots import DROPPED, KEPT, png

BLUE, GOLD = "#3b6fb5", "#b9851c"
STAGES = (  # middle, title, what it does
    (12.5, "1  Corpus", "sequences of 1,024 tokens"),
    (40, "2  Score once", "mean log-probability per token"),
    (73.5, "3  Difference sampling", r"$r = \log p - \log p_\mathrm{ref}$, keep the top half"),
    (114.5, "4  Pre-train any student", "plain language modelling, no teacher"),
)
STUDENTS = ("Qwen 200M", "Qwen 500M", "Qwen 1.2B", "Llama 3.1 212M", "Mamba 130M")
FOOT = (
    "The teacher runs once, before any training: what it selects serves students of every size "
    "and, re-tokenized, of every family."
)
MIDDLE = 24.5  # of the height


def main() -> None:
    figure, axes = canvas(130, 53)
    for x, title, words in STAGES:
        write(axes, x, 49.6, title, 15, weight="bold")
        write(axes, x, 46.2, words, 11, PALE)
    stack(axes, 12.5, 15, BLUE, 6)
    score(axes, 32.5, BLUE, "Teacher $p$", "Qwen1.5-1.8B")
    score(axes, 16, GOLD, r"Reference $p_\mathrm{ref}$", "104M")
    sketch(figure)
    arrow(axes, (92, MIDDLE), (98, MIDDLE))
    stack(axes, 103.5, 9, KEPT, 3)
    for number, name in enumerate(STUDENTS):
        y = MIDDLE + 6.6 * (2 - number)
        box(axes, 121.25, y, 14.5, 4.8, KEPT if number < 3 else GOLD, 0.15)
        write(axes, 121.25, y, name, 11)
        arrow(axes, (108.8, MIDDLE), (113.4, y))
    write(axes, 65, 2.7, FOOT, 12, PALE)
    save(Path(__file__).with_name("method.png"), png(figure))


def stack(axes, x: float, width: float, tint: str, count: int) -> None:
    """A pile of sequences."""
    for number in range(count):
        y = MIDDLE + 5 * (number - (count - 1) / 2)
        box(axes, x, y, width, 3.6, tint, 0.25)
        for line, share in ((0.6, 0.86), (-0.6, 0.62 + 0.05 * (number % 4))):
            ends = [x - width / 2 + 1, x + width * (share - 0.5)]
            axes.plot(ends, [y + line] * 2, color=tint, linewidth=1.6)


def score(axes, y: float, tint: str, name: str, size: str) -> None:
    """A model that scores the corpus."""
    box(axes, 40, y, 18, 8.5, tint, 0.18)
    write(axes, 40, y + 1, name, 13)
    write(axes, 40, y - 2, size, 10.5, PALE)
    arrow(axes, (21.5, MIDDLE), (30, y))
    arrow(axes, (50, y), (57, MIDDLE))


def sketch(figure) -> None:
    """The distribution of r, cut at its median."""
    axes = figure.add_axes((0.455, 0.235, 0.235, 0.5), xlim=(-3.2, 5), ylim=(0, 1.3))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.set_xlabel("$r$ of a sequence →", fontsize=11, color=INK)
    r = np.linspace(-3.2, 5, 400)
    density = np.exp(-((r - 1.4) ** 2) / 2) + 0.34 * np.exp(-((r + 1.6) ** 2) / 0.5)
    middle = r[np.searchsorted(np.cumsum(density), density.sum() / 2)]
    axes.fill_between(r, density, where=r >= middle, color=KEPT, alpha=0.75, linewidth=0)
    axes.fill_between(r, density, where=r <= middle, color=DROPPED, alpha=0.5, linewidth=0)
    axes.axvline(middle, color=INK, linewidth=1.4, ymax=0.93)
    write(axes, 3.55, 1.0, "kept: hard\nand valuable", 10.5, KEPT)
    write(axes, -1.15, 0.85, "dropped: easy\nand common", 10.5, DROPPED)
    write(axes, -2.0, 0.46, "dropped: noise", 10.5, DROPPED)


if __name__ == "__main__":
    run(main)
