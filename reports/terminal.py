"""A page (reports/page.py) as text for the terminal: no pictures, no examples, findings last."""

from collections.abc import Sequence

from reports.page import Column, Findings, Heading, Page, Table, Text, visible


def render(page: Page) -> str:
    """The page's tables and sentences."""
    parts = []
    for block in sorted(page.blocks, key=lambda block: isinstance(block, Findings)):
        match block:
            case Table(rows, columns):
                parts.append(table(rows, columns))
            case Findings(sentences):
                parts.append("\n".join(f"* {visible(sentence)}" for sentence in sentences))
            case Heading(words) | Text(words):
                parts.append(visible(words))
    return "\n\n".join(parts)


def table(rows: Sequence[dict], columns: Sequence[Column]) -> str:
    """A table with aligned columns; numbers stand at the right."""
    cells = [[column.title for column in columns]]
    cells += [[" ".join(visible(c.cell(row)).split()) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    cells.insert(1, ["-" * width for width in widths])
    lines = []
    for line in cells:
        padded = [
            cell.rjust(width) if column.show else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
