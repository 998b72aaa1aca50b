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
    """A table with aligned columns, numbers to the right."""
    aligned = []
    for column in columns:
        cells = [" ".join(visible(column.cell(row)).split()) for row in rows]
        width = max(map(len, [column.title, *cells]))
        align = ">" if column.show else "<"
        aligned.append([f"{cell:{align}{width}}" for cell in (column.title, "-" * width, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))
