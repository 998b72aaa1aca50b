"""The report of a selection: what keeping a share of the sequences by their r would keep, and why.

    python3 reports/selection_report.py BASE_PATH [--ratio 0.5]

Reads a difference store, the two score stores that it was made from, and their corpus; writes
diff-TEACHER-REFERENCE-report beside the store: report.html, which needs no other file, its pictures
(PNG), its tables (CSV) and summary.json. compute_difference_scores.py ends with it; run again with
another --ratio it draws the report anew.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass

from data_utils import artefact
from data_utils.atomic_files import write_json
from data_utils.flags import flag, parse
from miniplm.criteria import Differences
from miniplm.difference import PROGRAM, StoreSettings, scored_corpus
from miniplm.scores import Scores
from reports import html_page, selection_tables
from reports import selection_plots as plots
from reports.files import save, write_csv
from reports.page import (
    Column,
    Findings,
    Heading,
    Page,
    Picture,
    Table,
    Text,
    decimal,
    integer,
    percent,
)
from reports.selection_examples import block, examples
from reports.selection_pool import UNKNOWN, Pool
from reports.selection_tables import ratio_of

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
LENGTH_COLUMNS = (Column("tokens_per_sequence", "tokens per sequence"), *SOURCE_COLUMNS[1:-1])
SWEEP_COLUMNS = (
    Column("alpha", "alpha", lambda alpha: f"{alpha:g}"),
    Column("threshold", "threshold", decimal),
    *SOURCE_COLUMNS[1:4],
)
ABOUT_R = (
    "r = reference loss − teacher loss: the mean over a sequence's counted tokens, in nats per "
    "token. High r: the teacher predicts the sequence and the small reference does not yet, so it "
    "is hard and worth learning. Low r: easy and common, both predict it alike. The lowest: noise, "
    "which a larger model does not predict better either."
)


@dataclass
class Settings(StoreSettings):
    """Draw the report of a selection by difference scores."""

    ratio: float = flag(0.5, "share that the report shows as selected")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise ValueError(f"--ratio must be above 0 and at most 1, not {self.ratio}")


def main() -> None:
    draw_report(parse(Settings, positional="base_path"))


def report_folder(store: Path) -> Path:
    """Where the report of a difference store is."""
    return store.with_name(f"{store.name}-report")


def draw_report(settings: Settings) -> None:
    """Write the report's folder; summary.json, which names the store, comes last."""
    store = settings.store
    manifest = artefact.require(store, "scores", f"run {PROGRAM}", contents=True)
    differences = Differences(store, manifest.inputs, seed=0)
    corpus = scored_corpus(Scores(store.with_name(settings.teacher_name), f"run {PROGRAM} again"))
    pool = Pool(corpus, differences.r, differences.means, settings.ratio)
    summary = selection_tables.summary(pool)
    tables = {
        "sources": selection_tables.sources(pool),
        "lengths": selection_tables.lengths(pool),
        "sweep": selection_tables.sweep(pool),
        "examples": examples(pool),
    }
    pictures = draw(pool, summary, tables) if pool.defined else {}
    about = (
        f"Teacher {settings.teacher_name}, reference {settings.ref_name}, corpus "
        f"{'/'.join(corpus.folder.parts[-2:])}, shards {corpus.first_shard}:{corpus.last_shard} "
        f"of {corpus.all_shards}."
    )
    folder = report_folder(store)
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").unlink(missing_ok=True)
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
    for name, picture in pictures.items():
        save(folder / f"{name}.png", picture)
    save(folder / "report.html", html_page.render(page(summary, tables, pictures, about)))
    write_json(folder / "summary.json", {"scores": manifest.fingerprint, **summary})
    print(f"Report: {folder / 'report.html'}")


def draw(pool: Pool, summary: dict, tables: dict[str, list[dict]]) -> dict[str, bytes]:
    """All pictures by name."""
    sources, lengths = tables["sources"], tables["lengths"]
    shown = plots.colours(sources)
    by_length = "Share kept, by tokens per sequence"
    return {
        "keep_rate": plots.keep_rates(sources, "source", summary, "Share kept of each source"),
        "lengths": plots.keep_rates(lengths, "tokens_per_sequence", summary, by_length),
        "histogram": plots.histogram(pool, summary, shown),
        "density": plots.density(pool, sources, summary, shown),
        "sweep": plots.sweep(tables["sweep"], shown),
    }


def headlines(s: dict, sources: list[dict]) -> list[str]:
    """What was selected and why, in sentences; s: the summary."""
    defined = s["sequences"]
    if not defined:
        return [f"None of the {s['scored']:,} sequences has a defined r: nothing can be selected."]
    found = [
        f"{s['kept']:,} of {defined:,} sequences are kept ({percent(s['kept'] / defined)}), "
        f"{s['kept_tokens']:,} of {s['tokens']:,} tokens "
        f"({percent(ratio_of(s['kept_tokens'], s['tokens']))}): those with the highest r, down to "
        f"{s['threshold']:.3f}.",
        *source_sentences(sources),
        f"Mean r is {decimal(s['mean_r_kept'])} for what is kept and "
        f"{decimal(s['mean_r_dropped'])} for what is dropped. r is above 0 (the teacher predicts "
        f"the sequence better than the reference) for {percent(s['share_r_above_0'])}.",
        f"Correlation of r with the teacher's log-probability: "
        f"{s['correlation_with_teacher']:+.2f}, with the reference's: "
        f"{s['correlation_with_reference']:+.2f} (from a sample of {s['drawn']:,} sequences).",
    ]
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


def page(
    summary: dict, tables: dict[str, list[dict]], pictures: dict[str, bytes], about: str
) -> Page:
    """The whole page."""
    blocks = [
        Text(about, "from"),
        Findings(headlines(summary, tables["sources"])),
        Text(ABOUT_R),
    ]
    if pictures:
        blocks += sections(summary, tables, pictures)
    blocks += [Heading("Examples"), *map(block, tables["examples"])]
    return Page("What difference sampling keeps", [*blocks, Text("All: examples.csv", "from")])


def sections(
    summary: dict, tables: dict[str, list[dict]], pictures: dict[str, bytes]
) -> list[Heading | Picture | Table]:
    """What is kept by source, score, length and share."""
    drawn = f"From a sample of {summary['drawn']:,} sequences, without 0.1 % at each end"
    return [
        Heading("By source"),
        Picture(pictures["keep_rate"], "Green: kept more than the average; red: less."),
        Table(tables["sources"], SOURCE_COLUMNS, "sources.csv"),
        Heading("The scores"),
        Picture(pictures["histogram"], f"Sequences by r; right of the line is kept. {drawn}."),
        Picture(
            pictures["density"],
            "Teacher's against reference's loss: above the black line is kept. On the dotted line "
            f"both predict equally well; dots are the means of the sources. {drawn}.",
        ),
        Heading("By length"),
        Picture(pictures["lengths"], "Full sequences have the greatest length that there is."),
        Table(tables["lengths"], LENGTH_COLUMNS, "lengths.csv"),
        Heading("If another share alpha were kept"),
        Picture(pictures["sweep"], "The mixture of what is kept.", "sweep.csv"),
        Table(tables["sweep"], SWEEP_COLUMNS, "sweep.csv"),
    ]


if __name__ == "__main__":
    run(main)
