"""A corpus's sources, on the terminal and as corpus.html with bar charts."""

from pathlib import Path

from reports import html_page, plots, terminal
from reports.files import save
from reports.page import Column, Page, Picture, Table, Text
from tokenization.source_table import COLUMNS

NAME = "corpus.html"
SHOWN = ("documents", "bytes", "tokens", "sequences", "mean_length", "tokens_left", "cut")
RARE = ("empty", "literal_eos", "not_nfc", "tokens_dropped")  # shown where there are any
BARS = (
    ("bytes", "Bytes of text per source"),
    ("sequences", "Sequences per source"),
    ("mean_length", "Mean length of a sequence in tokens"),
)


def print_table(counts: dict, report: dict) -> None:
    """Show what the corpus holds; counts, report: of its manifest."""
    print(terminal.render(page(counts, report, pictures=False)))


def write(folder: Path, counts: dict, report: dict) -> None:
    """Write corpus.html; counts, report: of the corpus's manifest."""
    save(folder / NAME, html_page.render(page(counts, report)))


def page(counts: dict, report: dict, *, pictures: bool = True) -> Page:
    """The page of a corpus; its title does not name the folder: equal corpora have equal files."""
    rows = [
        {**row, "source": source, "mean_length": row["sequence_tokens"] / max(row["sequences"], 1)}
        for source, row in report["sources"].items()
    ]
    total = {name: sum(row[name] for row in rows) for name in RARE}
    rare = [name for name in RARE if total[name]]
    columns = [Column("source", "source")]
    columns += [Column(name, name, lambda value: f"{round(value, 1):,}") for name in SHOWN]
    columns += [Column(name, name, lambda value: f"{value:,}") for name in rare]
    summary = (
        f"{counts['sequences']:,} sequences, {counts['tokens']:,} tokens, {counts['shards']} "
        "shards. tokens_left: left in the buffers, too few for a sequence; cut: documents cut at "
        "2,000 sequences."
    )
    notes = [f"{total[name]:,} {COLUMNS[name]} ({name})." for name in rare]
    if counts["bad_lines"]:
        lines = [f"{file} line {number} {reason}" for file, number, reason in report["bad_lines"]]
        notes.append(f"{counts['bad_lines']:,} bad lines were skipped:\n  " + "\n  ".join(lines))
    origin = "report.sources in manifest.json"
    drawn = [Picture(bars(rows, name), title, origin) for name, title in BARS] if pictures else []
    title = f"Corpus: {counts['sequences']:,} sequences from {len(rows)} sources"
    notes = [Text(note, "note") for note in notes]
    return Page(title, [Table(rows, columns, origin), Text(summary), *notes, *drawn])


def bars(rows: list[dict], name: str) -> bytes:
    """One bar per source, the largest on top, as PNG."""
    ordered = sorted(rows, key=lambda row: -row[name])
    values = [row[name] for row in ordered]
    words = [f"{value:,.0f}" for value in values]
    return plots.png(plots.bars([row["source"] for row in ordered], values, words, plots.KEPT)[0])
