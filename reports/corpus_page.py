"""A corpus's sources, on the terminal and as corpus.html."""

from pathlib import Path

from reports import html_page, terminal
from reports.files import save
from reports.page import Column, Page, Table, Text
from tokenization.source_table import COLUMNS

NAME = "corpus.html"
SHOWN = ("documents", "bytes", "tokens", "sequences", "mean_length", "tokens_left", "cut")
RARE = ("empty", "literal_eos", "not_nfc", "tokens_dropped")  # shown where there are any


def print_table(counts: dict, report: dict) -> None:
    """Show what the corpus holds; counts, report: of its manifest."""
    print(terminal.render(page(counts, report)))


def write(folder: Path, counts: dict, report: dict) -> None:
    """Write corpus.html; counts, report: of the corpus's manifest."""
    save(folder / NAME, html_page.render(page(counts, report)))


def page(counts: dict, report: dict) -> Page:
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
    title = f"Corpus: {counts['sequences']:,} sequences from {len(rows)} sources"
    table = Table(rows, columns, "report.sources in manifest.json")
    return Page(title, [table, Text(summary), *(Text(note, "note") for note in notes)])
