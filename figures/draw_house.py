"""Draw the rooms of the code: packages on floors, with arrows for their imports.

    python3 figures/draw_house.py

Writes figures/house.png. The arrows are read from the code; tests/test_house.py checks that all of
them go down. One that others imply (a to c, where a goes to b and b to c) is not drawn.
"""

import ast
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from data_utils.program import CODE_ROOT
from figures.shapes import arrow, box, canvas, write
from reports.files import save
from reports.plots import png

# From the ground up: the rooms of a floor, each with the middle of its place. A room may import
# only from floors below its own.
FLOORS = (
    {"data_utils": 50},
    {"tokenization": 22, "cluster": 76},
    {"pretrain": 76},
    {"miniplm": 62},
    {"reports": 44, "baselines": 84},
    {"eval": 16},
    {"experiments": 16, "tools": 84},
    {"scripts": 36, "figures": 61, "benchmarks": 86},
)
HEIGHT, STEP = 6, 9.6  # of a room; from floor to floor


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


def arrows() -> set[tuple[str, str]]:
    """(room, another room that it imports)"""
    rooms = {room for floor in FLOORS for room in floor}
    found = {(room, other) for room in rooms for path in files(room) for other in imported(path)}
    return {(room, other) for room, other in found if other in rooms - {room}}


def drawn() -> list[tuple[str, str]]:
    """The arrows without those that others imply."""
    direct, implied = arrows(), set()
    paths = direct
    for _ in FLOORS:
        paths = {(start, end) for start, by in paths for room, end in direct if by == room}
        implied |= paths
    return sorted(direct - implied)


def main() -> None:
    figure, axes = canvas(100, STEP * len(FLOORS))
    places = {
        room: (x, STEP * (level + 0.5))
        for level, floor in enumerate(FLOORS)
        for room, x in floor.items()
    }
    for upper, lower in drawn():
        start, (x, y) = places[upper], places[lower]
        x = start[0] if lower == "data_utils" else x  # which is as wide as the house
        arrow(axes, (start[0], start[1] - HEIGHT / 2), (x, y + HEIGHT / 2))
    for level, floor in enumerate(FLOORS):
        for room in floor:
            x, y = places[room]
            box(axes, x, y, 96 if room == "data_utils" else 22, HEIGHT, f"C{level}")
            lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files(room))
            write(axes, x, y + 1.1, room, 13, weight="bold")
            write(axes, x, y - 1.4, f"{lines:,} lines", 9)
    save(Path(__file__).with_name("house.png"), png(figure))


if __name__ == "__main__":
    run(main)
