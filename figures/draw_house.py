"""Draw the rooms of the code: packages on floors, with arrows for their imports.

    python3 figures/draw_house.py

Writes figures/house.png. The arrows are read from the code; tests/test_house.py checks that all of
them go down. One that others imply (a to c, where a goes to b and b to c) is not drawn.
"""

import ast
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from data_utils.program import CODE_ROOT
from reports.files import save
from reports.plots import png

TARGET = Path(__file__).with_name("house.png")
# From the ground up: the rooms of a floor, each with the middle of its place. A room may import
# only from floors below its own.
FLOORS = (
    {"data_utils": 50},
    {"tokenization": 22, "cluster": 76},
    {"pretrain": 76},
    {"miniplm": 62},
    {"reports": 44},
    {"eval": 16, "tools": 84},
    {"experiments": 16},
    {"scripts": 36, "figures": 61, "benchmarks": 86},
)
WIDTH, HEIGHT, STEP = 22, 5.6, 9.4  # of a room; from floor to floor
INK, PALE = "#1c2430", "#5a6573"


def files(package: str) -> list[Path]:
    """The Python files of a package."""
    return sorted((CODE_ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Names of the top-level packages that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def arrows() -> Counter[tuple[str, str]]:
    """How many files of one room import another room, by (importing, imported)."""
    rooms = {room for floor in FLOORS for room in floor}
    return Counter(
        (room, other)
        for room in rooms
        for path in files(room)
        for other in imported(path) & rooms - {room}
    )


def drawn() -> list[tuple[str, str]]:
    """The arrows without those that others imply."""
    below: dict[str, set[str]] = {}
    for upper, lower in arrows():
        below.setdefault(upper, set()).add(lower)

    def reached(room: str) -> set[str]:
        return {room}.union(*map(reached, below.get(room, ())))

    return [
        (upper, lower)
        for upper, rooms in sorted(below.items())
        for lower in sorted(rooms)
        if not any(lower in reached(other) for other in rooms - {lower})
    ]


def main() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.8))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 100)
    axes.set_ylim(-1, STEP * len(FLOORS) - 1)
    axes.axis("off")
    places = {
        room: (x, STEP * level + HEIGHT / 2)
        for level, floor in enumerate(FLOORS)
        for room, x in floor.items()
    }
    style = {"arrowstyle": "-|>", "color": PALE, "linewidth": 1.4, "mutation_scale": 14}
    for upper, lower in drawn():
        x, y = places[lower]
        x = places[upper][0] if lower == "data_utils" else x  # as wide as the house
        start = places[upper][0], places[upper][1] - HEIGHT / 2
        axes.annotate("", xy=(x, y + HEIGHT / 2), xytext=start, arrowprops=style)
    for level, floor in enumerate(FLOORS):
        for room in floor:
            draw_room(axes, room, places[room], f"C{level}")
    save(TARGET, png(figure))
    print(TARGET)


def draw_room(axes, room: str, place: tuple[float, float], tint: str) -> None:
    """A box with the room's name and its lines of Python."""
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    width = 96 if room == "data_utils" else WIDTH
    corner = x - width / 2, y - HEIGHT / 2
    style = {"boxstyle": "round,pad=0,rounding_size=0.7", "facecolor": "white", "linewidth": 1.8}
    axes.add_patch(FancyBboxPatch(corner, width, HEIGHT, edgecolor=tint, **style))
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files(room))
    style = {"ha": "center", "va": "center", "color": INK}
    axes.text(x, y + 1.1, room, fontsize=13, weight="bold", **style)
    axes.text(x, y - 1.4, f"{lines:,} lines", fontsize=9, **style)


if __name__ == "__main__":
    run(main)
