"""The report of a selection: what is kept and why, for a scientist who has a minute.

Written by compute_difference_scores.py into the folder of the difference store: report.html, which
needs no other file, and under report/ its pictures (PNG) and numbers (CSV).
"""

from pathlib import Path

import numpy as np

from data_utils.corpus import Corpus
from reports import selection_plots as plots
from reports import selection_tables
from reports.page import (
    Column,
    decimal,
    example,
    findings,
    heading,
    integer,
    page,
    paragraph,
    percent,
    picture,
    table,
    write_csv,
    write_png,
    write_text,
)
from reports.selection_examples import examples
from reports.selection_sums import UNKNOWN, Scored, Sums
from reports.selection_tables import ratio_of

FOLDER, PAGE = "report", "report.html"
SOURCE_COLUMNS = (
    Column("source", "source"),
    Column("sequences", "sequences", integer),
    Column("tokens", "tokens", integer),
    Column("mean_r", "mean r", decimal),
    Column("mean_teacher_loss", "teacher loss", decimal),
    Column("mean_reference_loss", "reference loss", decimal),
    Column("keep_rate", "keep rate", percent),
    Column("share_before", "share before", percent),
    Column("share_after", "share after", percent),
    Column("without_r", "no r", integer),
)
LENGTH_COLUMNS = (Column("tokens_a_sequence", "tokens a sequence"), *SOURCE_COLUMNS[1:-1])


def write_report(
    folder: Path,
    corpus: Corpus,
    r: np.ndarray,
    teacher: np.ndarray,
    reference: np.ndarray,
    ratio: float,
    about: str = "",
) -> list[str]:
    """Write the report of keeping the share `ratio`; returns the names of its files.

    r, teacher, reference: [n] float64, difference and mean log-probabilities, NaN where nothing is
    counted. Row i is row i of corpus, which is opened on the scored shards. about: a line that
    names models and corpus.
    """
    sums = Sums(Scored(corpus, r, teacher, reference), ratio)
    tables = {
        "summary": [selection_tables.summary(sums)],
        "sources": selection_tables.sources(sums),
        "lengths": selection_tables.lengths(sums),
        "sweep": selection_tables.sweep(sums),
        "histogram": selection_tables.histogram(sums),
        "density": selection_tables.density(sums),
        "examples": examples(sums),
    }
    pictures = draw(tables) if sums.defined else {}
    out = folder / FOLDER
    out.mkdir(exist_ok=True)
    for name, rows in tables.items():
        write_csv(out / f"{name}.csv", rows)
    for name, png in pictures.items():
        write_png(out / f"{name}.png", png)
    write_text(folder / PAGE, html_page(tables, pictures, about))
    names = [*(f"{name}.csv" for name in tables), *(f"{name}.png" for name in pictures)]
    return [PAGE, *(f"{FOLDER}/{name}" for name in names)]


def draw(tables: dict[str, list[dict]]) -> dict[str, bytes]:
    """All pictures by name."""
    summary, sources = tables["summary"][0], tables["sources"]
    bins, lengths = tables["histogram"], tables["lengths"]
    shown = plots.colours(sources)
    rates = plots.keep_rates(
        sources, "sources", "source", summary, "Share of each source that is kept"
    )
    return {
        "keep_rate": rates,
        "lengths": plots.keep_rates(
            lengths, "lengths", "tokens_a_sequence", summary, "Share kept, by tokens a sequence"
        ),
        "histogram": plots.histogram(bins, summary, shown),
        "cumulative": plots.cumulative(bins, summary),
        "density": plots.density(tables["density"], sources, summary, shown),
        "sweep": plots.sweep(tables["sweep"], shown),
    }


def headlines(summary: dict, sources: list[dict], lengths: list[dict]) -> list[str]:
    """What was selected and why, in sentences."""
    s, defined = summary, summary["sequences"]
    if not defined:
        return [f"None of the {s['scored']:,} sequences has a defined r: nothing can be selected."]
    share = percent(s["kept"] / defined)
    token_share = percent(ratio_of(s["kept_tokens"], s["tokens"]))
    found = [
        f"{s['kept']:,} of {defined:,} sequences are kept ({share}), {s['kept_tokens']:,} of "
        f"{s['tokens']:,} tokens ({token_share}): those with the highest r, down to "
        f"{s['threshold']:.3f}.",
        *source_sentences(sources),
        f"Mean r is {decimal(s['mean_r_kept'])} for what is kept and "
        f"{decimal(s['mean_r_dropped'])} for what is dropped. r is above 0 (the teacher predicts "
        f"the sequence better than the reference) for {percent(s['share_r_above_0'])}.",
        f"Correlation of r with the teacher's log-probability: "
        f"{s['correlation_with_teacher']:+.2f}, with the reference's: "
        f"{s['correlation_with_reference']:+.2f}.",
    ]
    if len(lengths) > 1:
        low, high = (f(lengths, key=lambda row: row["keep_rate"]) for f in (min, max))
        found.append(
            f"By length the keep rate goes from {percent(low['keep_rate'])} "
            f"({low['tokens_a_sequence']} tokens) to {percent(high['keep_rate'])} "
            f"({high['tokens_a_sequence']} tokens)."
        )
    if s["without_r"]:
        found.append(
            f"{s['without_r']:,} sequences have no token that counts, so no r; they are never kept."
        )
    return found


def source_sentences(sources: list[dict]) -> list[str]:
    """The extremes among the sources."""
    known = [row for row in sources if row["sequences"]]
    if [row["source"] for row in known] == [UNKNOWN]:
        return ["The corpus does not say which source a sequence is from."]
    if len(known) == 1:
        return [f"All of them are from {known[0]['source']}."]
    most, least = known[0], known[-1]
    moved = max(known, key=lambda row: abs(row["share_after"] - row["share_before"]))
    return [
        f"Kept most: {most['source']} ({percent(most['keep_rate'])} of {most['sequences']:,}). "
        f"Kept least: {least['source']} ({percent(least['keep_rate'])} of "
        f"{least['sequences']:,}).",
        f"The mixture changes most in {moved['source']}: {percent(moved['share_before'])} of the "
        f"sequences before, {percent(moved['share_after'])} after.",
    ]


def html_page(tables: dict[str, list[dict]], pictures: dict[str, bytes], about: str) -> str:
    """The whole page."""
    summary, sources, lengths = tables["summary"][0], tables["sources"], tables["lengths"]
    parts = [
        paragraph(about, "from"),
        findings(headlines(summary, sources, lengths)),
        paragraph(f"Numbers: {FOLDER}/summary.csv, sources.csv, lengths.csv", "from"),
        paragraph(
            "r = reference loss − teacher loss: the mean over a sequence's counted tokens, in nats "
            "a token. High r: the teacher predicts the sequence and the small reference does not "
            "yet, so it is hard and worth learning. Low r: easy and common, both predict it alike. "
            "The lowest: noise, which a larger model does not predict better either."
        ),
    ]
    if summary["sequences"]:
        parts += by_source(tables, pictures) + by_score(pictures)
        parts += by_length_and_share(tables, pictures)
    parts.append(heading("Examples"))
    parts += [example(row) for row in tables["examples"]]
    parts.append(paragraph(f"Texts in full: {FOLDER}/examples.csv", "from"))
    return page("What difference sampling keeps", parts)


def by_source(tables: dict[str, list[dict]], pictures: dict[str, bytes]) -> list[str]:
    """Keep rates of the sources."""
    source = f"{FOLDER}/sources.csv"
    caption = "Green: kept more than the average; red: less. Figures: share kept of sequences."
    return [
        heading("By source"),
        picture(pictures["keep_rate"], caption, source),
        table(tables["sources"], SOURCE_COLUMNS, source),
    ]


def by_score(pictures: dict[str, bytes]) -> list[str]:
    """Distribution of r and of the two losses."""
    numbers = f"{FOLDER}/histogram.csv"
    ends = "The outermost bins also hold what lies beyond them."
    return [
        heading("The scores"),
        picture(
            pictures["histogram"], f"Sequences by r; right of the line is kept. {ends}", numbers
        ),
        picture(pictures["cumulative"], "Share of the sequences below r.", numbers),
        picture(
            pictures["density"],
            "Teacher's against reference's loss: above the black line is kept. On the dotted line "
            f"both predict equally well; dots are the means of the sources. {ends}",
            f"{FOLDER}/density.csv, dots: {FOLDER}/sources.csv",
        ),
    ]


def by_length_and_share(tables: dict[str, list[dict]], pictures: dict[str, bytes]) -> list[str]:
    """Keep rates by length, and what other shares would keep."""
    columns = [
        Column("alpha", "alpha", lambda value: f"{value:.1f}"),
        Column("threshold", "threshold", decimal),
        Column("sequences", "sequences", integer),
        Column("tokens", "tokens", integer),
        Column("mean_r", "mean r", decimal),
    ]
    rows = tables["sweep"]
    shares = [
        {"source": key.removeprefix("share "), **{f"{row['alpha']:.1f}": row[key] for row in rows}}
        for key in rows[0]
        if key.startswith("share ")
    ]
    alphas = [f"{row['alpha']:.1f}" for row in rows]
    share_columns = [Column("source", "share at alpha ="), *(Column(a, a, percent) for a in alphas)]
    return [
        heading("By length"),
        picture(
            pictures["lengths"],
            "Full sequences have the greatest length that there is.",
            f"{FOLDER}/lengths.csv",
        ),
        table(tables["lengths"], LENGTH_COLUMNS, f"{FOLDER}/lengths.csv"),
        heading("If another share alpha were kept"),
        picture(pictures["sweep"], "The mixture of what is kept.", f"{FOLDER}/sweep.csv"),
        table(rows, columns, f"{FOLDER}/sweep.csv"),
        table(shares, share_columns, f"{FOLDER}/sweep.csv"),
    ]
