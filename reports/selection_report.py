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

COUNTS = (
    Column("sequences", "sequences", integer),
    Column("tokens", "tokens", integer),
    Column("mean_r", "mean r", decimal),
    Column("mean_teacher_loss", "teacher loss", decimal),
    Column("mean_reference_loss", "reference loss", decimal),
)
SOURCE_COLUMNS = (
    Column("source", "source"),
    *COUNTS,
    Column("kept", "kept", integer),
    Column("keep_rate", "keep rate", percent),
    Column("share_before", "share before", percent),
    Column("share_after", "share after", percent),
    Column("without_r", "no r", integer),
)
SWEEP_COLUMNS = (
    Column("alpha", "alpha", lambda alpha: f"{alpha:g}"),
    Column("threshold", "threshold", decimal),
    *COUNTS,
)
ABOUT_R = (
    "r = reference loss − teacher loss: the mean over a sequence's counted tokens, in nats per "
    "token. High r: the teacher predicts the sequence and the small reference does not yet, so it "
    "is hard and worth learning. Low r: easy and common, both predict it alike. The lowest: noise, "
    "which a larger model does not predict better either."
)
DRAWN = (
    f"Drawn from a sample of at most {selection_tables.SAMPLE:,} sequences, without 0.1 % at each "
    "end."
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
    differences = Differences(store, manifest["inputs"], seed=0)
    corpus = scored_corpus(Scores(store.with_name(settings.teacher_name), f"run {PROGRAM} again"))
    pool = selection_tables.Pool(corpus, differences.r, differences.means, settings.ratio)
    summary = selection_tables.summary(pool)
    tables = {
        "sources": selection_tables.sources(pool),
        "sweep": selection_tables.sweep(pool),
        "examples": examples(pool),
    }
    pictures = {}
    if pool.defined:
        pictures = {
            "keep_rate": plots.keep_rates(tables["sources"], pool.keep / pool.defined),
            "histogram": plots.histogram(pool, summary["threshold"]),
            "density": plots.density(pool, summary["threshold"]),
        }
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
    save(folder / "report.html", html_page.render(page(about, summary, tables, pictures)))
    write_json(folder / "summary.json", {"scores": manifest["fingerprint"], **summary})
    print(f"Report: {folder / 'report.html'}")


def headlines(summary: dict) -> list[str]:
    """What was selected and why, in sentences."""
    everything, kept = summary["all"], summary["kept"]
    if not everything["sequences"]:
        return [f"None of the {summary['scored']:,} sequences has an r: nothing can be selected."]
    found = [
        f"{kept['sequences']:,} of {everything['sequences']:,} sequences are kept, "
        f"{kept['tokens']:,} of {everything['tokens']:,} tokens: those with the highest r, down to "
        f"{summary['threshold']:.3f}.",
        *(
            f"Mean {name}: {decimal(kept[key])} of the kept sequences, {decimal(everything[key])} "
            "of all."
            for key, name in (
                ("mean_r", "r"),
                ("mean_teacher_loss", "teacher loss"),
                ("mean_reference_loss", "reference loss"),
            )
        ),
        f"r is below 0 (the reference predicts the sequence better than the teacher) for "
        f"{percent(summary['share_r_below_0'])}.",
    ]
    if summary["without_r"]:
        without = f"{summary['without_r']:,} sequences have no token that counts"
        found.append(f"{without}, so they have no r and are never kept.")
    return found


def page(about: str, summary: dict, tables: dict[str, list[dict]], pictures: dict) -> Page:
    """The whole page; pictures: PNG by name, none where no sequence has an r."""
    blocks = [Text(about, "from"), Findings(headlines(summary)), Text(ABOUT_R)]
    if pictures:
        blocks += [
            Heading("By source"),
            Picture(pictures["keep_rate"], "Green: kept more than the average; red: less."),
            Table(tables["sources"], SOURCE_COLUMNS, "sources.csv"),
            Heading("The scores"),
            Picture(pictures["histogram"], f"Sequences by r. {DRAWN}"),
            Picture(
                pictures["density"],
                "Reference loss over teacher loss: above the black line is kept. On the dotted "
                f"line both predict equally well. {DRAWN}",
            ),
            Heading("If another share alpha were kept"),
            Table(tables["sweep"], SWEEP_COLUMNS, "sweep.csv, with the share of each source"),
        ]
    blocks += [Heading("Examples"), *map(block, tables["examples"])]
    return Page("What difference sampling keeps", [*blocks, Text("All: examples.csv", "from")])


if __name__ == "__main__":
    run(main)
