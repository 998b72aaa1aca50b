"""A corpus's table of sources: on the terminal, and as corpus.html with bar charts."""

from pathlib import Path

from reports import page
from tokenization.source_table import COLUMNS

NAME = "corpus.html"
SHOWN = ("documents", "bytes", "tokens", "sequences", "mean_length", "tokens_left", "cut")


def source_rows(report: dict) -> list[dict]:
    """The table's rows with the mean length of a sequence."""
    return [
        {**row, "source": source, "mean_length": row["sequence_tokens"] / max(row["sequences"], 1)}
        for source, row in report["sources"].items()
    ]


def print_table(counts: dict, report: dict) -> None:
    """Show what the corpus holds, a line a source."""
    columns = [page.Column("source", "source")]
    columns += [page.Column(name, name, lambda value: f"{round(value, 1):,}") for name in SHOWN]
    rows = [{**row, "source": page.plain(row["source"])} for row in source_rows(report)]
    print(page.text_table(rows, columns))
    print(summary(counts))
    for note in notes(report, counts):
        print(note)


def summary(counts: dict) -> str:
    """One sentence on the whole corpus."""
    return (
        f"{counts['sequences']:,} sequences, {counts['tokens']:,} tokens, {counts['shards']} "
        "shards. tokens_left: left over in the buffers, too few for a sequence; cut: documents "
        "cut at 2,000 sequences."
    )


def notes(report: dict, counts: dict) -> list[str]:
    """Sentences on what people should know of and is seldom seen."""

    def total(name: str) -> int:
        return sum(row[name] for row in report["sources"].values())

    found = [
        f"{total(name):,} {COLUMNS[name]}."
        for name in ("empty", "literal_eos", "not_nfc", "tokens_dropped")
        if total(name)
    ]
    if counts["bad_lines"]:
        lines = [f"{file} line {number} {reason}" for file, number, reason in report["bad_lines"]]
        found.append(f"{counts['bad_lines']:,} bad lines were skipped:\n  " + "\n  ".join(lines))
    return found


def write(folder: Path, counts: dict, report: dict) -> None:
    """Write corpus.html."""
    rows = source_rows(report)
    columns = [page.Column("source", "source")]
    for name, title in COLUMNS.items():
        columns.append(page.Column(name, title, page.integer))
    columns.append(page.Column("mean_length", "mean length", page.decimal))
    origin = "report.sources in manifest.json"
    parts = [page.paragraph(summary(counts))]
    parts += [page.paragraph(note, "note") for note in notes(report, counts)]
    for name, title in (
        ("bytes", "Bytes of text a source"),
        ("sequences", "Sequences a source"),
        ("mean_length", "Mean length of a sequence in tokens"),
    ):
        parts.append(page.picture(bars(rows, name), title, origin))
    parts.append(page.table(rows, columns, origin))
    # Not the folder's name: equal corpora have equal files wherever they lie.
    title = f"Corpus: {counts['sequences']:,} sequences from {len(rows)} sources"
    page.write_text(folder / NAME, page.page(title, parts))


def bars(rows: list[dict], name: str) -> bytes:
    """A horizontal bar a source, the largest on top, as PNG."""
    ordered = sorted(rows, key=lambda row: row[name])
    figure, axes = page.new_plot(8, 1 + 0.26 * len(rows))
    drawn = axes.barh(range(len(rows)), [row[name] for row in ordered], color="#2a7f62")
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), [page.plain(row["source"]) for row in ordered])
    axes.margins(x=0.12)
    return page.plot_png(figure)
