"""Tables (reports/page.py) as Markdown."""

from collections.abc import Sequence

from reports.page import Column, visible


def table(rows: Sequence[dict], columns: Sequence[Column]) -> str:
    """A table; columns of numbers are aligned to the right."""
    lines = [[column.title for column in columns]]
    lines.append(["---:" if column.show else "---" for column in columns])
    lines += [[column.cell(row) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(map(escaped, line))} |\n" for line in lines)


def escaped(cell: str) -> str:
    """A cell on one line, with the bars in it escaped."""
    return " ".join(visible(cell).split()).replace("|", "\\|")
