"""Self-contained HTML pages for the reports: pictures inlined, a little CSS, no network.

Every text that is passed in is escaped here. Equal contents give equal bytes: no times, no paths of
the machine, PNG files without metadata.
"""

import base64
import csv
import html
import io
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_utils import atomic_files

STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #1c2430; max-width: 1080px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0 0 .6rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; }
ul.findings { font-size: 1.05rem; padding-left: 1.2rem; } ul.findings li { margin: .25rem 0; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; display: block; }
figcaption, .from { color: #5a6573; font-size: .85rem; }
.wide { overflow-x: auto; margin-top: .8rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .45rem; border-bottom: 1px solid #dfe4ea; text-align: left; }
th { border-bottom: 2px solid #aab4c0; vertical-align: bottom; }
th.number, td.number { text-align: right; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; margin: .3rem 0;
  background: #f5f7f9; border-left: 4px solid #c3ccd6; padding: .5rem .7rem; font-size: .82rem;
  max-height: 14rem; overflow-y: auto; }
pre.kept { border-color: #2a7f62; } pre.dropped { border-color: #c0563b; }
.example { margin: .9rem 0; break-inside: avoid; font-size: .88rem; }
.example b { font-weight: 600; }
.note { background: #fff6e0; border-left: 4px solid #e0a526; padding: .5rem .8rem; }
"""


class Column(NamedTuple):
    """A table's column: key in its rows, title, and how a value is shown (None: as text)."""

    key: str
    title: str
    show: Callable[[float], str] | None = None


def integer(value: float) -> str:
    """12,345"""
    return f"{int(value):,}"


def decimal(value: float) -> str:
    """1.234; a dash where there is no value."""
    return f"{value:.3f}" if value == value else "–"


def percent(value: float) -> str:
    """12.3 %; a dash where there is no value."""
    return f"{100 * value:.1f} %" if value == value else "–"


def text(value: object) -> str:
    """A value as HTML text."""
    return html.escape(visible(str(value)))


def visible(words: str) -> str:
    """The words with plain line ends; control and direction characters become replacement marks."""
    words = words.replace("\r\n", "\n")
    return "".join("\ufffd" if is_control(c) else c for c in words)


def is_control(character: str) -> bool:
    """Whether a character is unseen or turns the text around it (line ends and tabs are fine)."""
    if character in "\n\t":
        return False
    kind = unicodedata.category(character)
    return (
        kind in ("Cc", "Cs")
        or "\u202a" <= character <= "\u202e"
        or "\u2066" <= character <= "\u2069"
    )


def page(title: str, parts: Iterable[str]) -> str:
    """The whole HTML document; parts are pieces of HTML made by the functions below."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{text(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def heading(title: str) -> str:
    """A section's heading."""
    return f"<h2>{text(title)}</h2>"


def paragraph(words: str, css: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{css}">{text(words)}</p>' if css else f"<p>{text(words)}</p>"


def findings(sentences: Iterable[str]) -> str:
    """The headline sentences."""
    return '<ul class="findings">' + "".join(f"<li>{text(s)}</li>" for s in sentences) + "</ul>"


def table(rows: Iterable[dict], columns: Sequence[Column], source: str = "") -> str:
    """A table of the rows; `source` names the file its figures are in."""

    def cell(tag: str, column: Column, shown: str) -> str:
        css = ' class="number"' if column.show else ""
        return f"<{tag}{css}>{text(shown)}</{tag}>"

    head = "".join(cell("th", column, column.title) for column in columns)
    body = "".join(
        "<tr>" + "".join(cell("td", column, display(row, column)) for column in columns) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>{origin(source)}'


def text_table(rows: Sequence[dict], columns: Sequence[Column]) -> str:
    """A table for the terminal."""
    cells = [[column.title for column in columns]]
    cells += [[display(row, column) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = []
    for line in cells:
        padded = [
            cell.rjust(width) if column.show else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def display(row: dict, column: Column) -> str:
    """A row's value as the column shows it."""
    value = row[column.key]
    return column.show(value) if column.show and not isinstance(value, str) else str(value)


def picture(png: bytes, caption: str, source: str = "") -> str:
    """An inlined PNG with its caption; `source` names the file with the plotted numbers."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text(caption)}</figcaption>{origin(source)}</figure>"
    )


def example(row: dict) -> str:
    """A decoded sequence with its scores: a row of the table examples of a difference store."""
    kept = "kept" if row["kept"] else "dropped"
    head = (
        f"r {row['r']:.3f} = reference loss {row['reference_loss']:.3f} − teacher loss "
        f"{row['teacher_loss']:.3f} · {row['source']}, {int(row['tokens']):,} tokens · rank "
        f"{int(row['rank']):,}, row {int(row['row']):,} ({row['shard']} row "
        f"{int(row['row_in_shard']):,})"
    )
    return (
        f'<div class="example"><b>{text(row["place"])}, {kept}</b> · {text(head)}'
        f'<pre class="{kept}">{text(row["text"])}</pre></div>'
    )


def origin(source: str) -> str:
    """The line that says which file the numbers stand in."""
    return f'<div class="from">Numbers: {text(source)}</div>' if source else ""


def plain(name: str, longest: int = 32) -> str:
    """A name as a label in a plot: on one line, not too long, no mathematics, never hidden."""
    name = " ".join(visible(name).split())
    if len(name) > longest:
        name = name[: longest - 1] + "…"
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name  # matplotlib hides labels that begin with _


def new_plot(width: float, height: float):
    """(figure, axes) of a plain plot, drawn without a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_png(figure) -> bytes:
    """The figure as a PNG without metadata."""
    file = io.BytesIO()
    figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
    return file.getvalue()


def write_png(path: Path, png: bytes) -> None:
    """Write a picture atomically."""
    with atomic_files.atomic_file(path) as file:
        file.write(png)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_files.atomic_file(path) as file:
        file.write(content.encode("utf-8", "replace"))


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    """Write rows with equal keys as CSV; floats in full precision."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, file.getvalue())


def read_csv(path: Path, texts: Sequence[str] = ()) -> list[dict]:
    """The rows of a CSV file; all columns but those named in texts are numbers."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {key: value if key in texts else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
