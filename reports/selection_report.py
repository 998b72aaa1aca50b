"""The report of a selection: what keeping a share of the sequences by their r would keep, and why.

Reads a difference store, the two score stores that it was made from, and their corpus; writes
diff-TEACHER-REFERENCE-report beside the store: report.html, which needs no other file, its pictures
(PNG), its tables (CSV) and summary.json. compute_difference_scores.py ends with it; run again with
another --ratio, it draws the report anew. With --criterion it says the same of what another
criterion keeps of these sequences, in a folder named by that (diff-...-report-by_source); prior and
external then rank only the sequences that have an r.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.atomic_files import write_json
from data_utils.corpus import Corpus
from data_utils.flags import base_folder, flag, under
from miniplm.criteria import CRITERIA, WITHOUT_STORES, Candidates, Choice, Differences
from miniplm.difference import PROGRAM, StoreSettings, scored_corpus
from miniplm.scores import Predictions, Scores, predictions_folder, require_corpus
from reports import html_page, page, selection_plots, selection_sanity, selection_tables
from reports.files import save, write_csv
from reports.page import Column, decimal, integer, percent
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
CAPTIONS = {
    "keep_rate": "Green: kept more than the average; red: less.",
    "histogram": "Sequences by r{}. The extreme 0.2 % are not shown.",
    "density": "Losses of the sequences{}. On the dotted line both models predict equally well. "
    "The extreme 0.2 % of each loss are not shown.",
}
BY_R = {"histogram": "; right of the line is kept", "density": ": above the black line is kept"}
BY_OTHERS = {"histogram": "; the black outline is kept", "density": ""}


@dataclass
class Settings(StoreSettings, Choice):
    """Draw the report of a selection from sequences with difference scores."""

    ratio: float = flag(0.5, "share that the report shows as selected")

    def __post_init__(self) -> None:
        StoreSettings.__post_init__(self)
        Choice.__post_init__(self)
        if not 0 < self.ratio <= 1:
            raise ValueError(f"--ratio must be above 0 and at most 1, not {self.ratio}")


def report_folder(store: Path, choice: Choice | None = None) -> Path:
    """Where the report of a difference store is; choice: the criterion, unless by difference."""
    part = ""
    if choice is not None and choice.criterion != "difference":
        part = f"-{choice.criterion}{choice.folder_part()}"
    return store.with_name(f"{store.name}-report{part}")


def draw_report(settings: Settings) -> None:
    """Write the report's folder; summary.json, which names the store, comes last.

    An ArtefactError if the store is damaged, an InputError if the scores were made again since.
    """
    store = settings.store
    manifest = artefact.require(store, "scores", f"run {PROGRAM}", contents=True)
    differences = Differences(store, manifest.inputs)
    corpus = scored_corpus(Scores(store.with_name(settings.teacher_name), f"run {PROGRAM} again"))
    values = ranked(corpus, differences, settings)
    pool = selection_tables.Pool(corpus, differences.r, values, differences.means, settings.ratio)
    sanity = selection_sanity.figures(store, manifest, differences.r)
    summary = settings.content() | selection_tables.summary(pool) | {"sanity": sanity}
    tables = {
        "sanity": selection_sanity.table(sanity),
        "sources": selection_tables.sources(pool),
        "sweep": selection_tables.sweep(pool),
        "examples": examples(pool),
    }
    pictures = {}
    if pool.defined:
        by_r = settings.criterion == "difference"
        pictures = selection_plots.draw(pool, tables["sources"], by_r)
    about = (
        f"Teacher {settings.teacher_name}, reference {settings.ref_name}, corpus "
        f"{'/'.join(corpus.folder.parts[-2:])}, shards {corpus.first_shard}:{corpus.last_shard} "
        f"of {corpus.all_shards}."
    )
    folder = report_folder(store, settings)
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").unlink(missing_ok=True)
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
    for name, picture in pictures.items():
        save(folder / f"{name}.png", picture)
    save(folder / "report.html", html_page.render(build_page(about, summary, tables, pictures)))
    write_json(folder / "summary.json", {"scores": manifest.fingerprint, **summary})
    print(f"Report: {folder / 'report.html'}")


def ranked(corpus: Corpus, store: Differences, settings: Settings) -> np.ndarray:
    """What the criterion ranks the scored sequences by, [n] float64; NaN where there is no r.

    corpus: opened on the scored shards.
    """
    if settings.criterion == "proxy":
        names = settings.teacher_name, settings.ref_name
        predictions = Predictions(predictions_folder(settings.store.parent, *names))
        require_corpus(predictions.manifest, corpus)
        values = predictions.at(corpus.first_row, len(corpus))
        values[np.isnan(store.r)] = np.nan
        return values
    base = base_folder(settings.base_path)
    score_file = under(base, settings.score_file) if settings.score_file else None
    values = Candidates(corpus, 0, len(corpus), settings, store, score_file).values()
    if settings.criterion in WITHOUT_STORES:
        values[np.isnan(store.r)] = np.nan
    return values


def headlines(summary: dict) -> list[str]:
    """What was selected and why, in sentences."""
    everything, kept = summary["all"], summary["kept"]
    if not everything["sequences"]:
        return [f"None of the {summary['scored']:,} sequences has an r: nothing can be selected."]
    rule, no_rank = "those with the highest r, down to {:.3f}.", "no token that counts, so no r"
    if summary["criterion"] != "difference":
        rule = f"by the criterion {summary['criterion']}: {first_line(summary['criterion'])}"
        no_rank += ", or no value of the criterion"
    losses = (
        f"teacher loss {decimal(sums['mean_teacher_loss'])} and reference loss "
        f"{decimal(sums['mean_reference_loss'])}"
        for sums in (everything, kept)
    )
    return [
        f"{kept['sequences']:,} of {everything['sequences']:,} sequences are kept, "
        f"{kept['tokens']:,} of {everything['tokens']:,} tokens: "
        + rule.format(summary["threshold"]),
        "Means of all: {}. Of what is kept: {}.".format(*losses),
        f"{percent(summary['share_r_below_0'])} have an r below 0: the reference predicts them "
        "better than the teacher.",
        f"{summary['without_r']:,} of {summary['scored']:,} scored sequences have {no_rank}; these "
        "are never kept.",
    ]


def first_line(criterion: str) -> str:
    """What a criterion keeps, as a sentence goes on."""
    line = CRITERIA[criterion].__doc__.splitlines()[0]
    return line[0].lower() + line[1:]


def build_page(
    about: str, summary: dict, tables: dict[str, list[dict]], pictures: dict[str, bytes]
) -> page.Page:
    """The whole page; pictures: PNG by name."""
    criterion = summary["criterion"]
    by_r = criterion == "difference"
    return page.Page(
        f"What {'difference sampling' if by_r else criterion} keeps",
        [
            page.Text(about, "from"),
            page.Findings(headlines(summary)),
            page.Text(ABOUT_R),
            page.Heading("Beside the paper's scores"),
            page.Table(tables["sanity"], selection_sanity.COLUMNS, "sanity.csv"),
            page.Text(selection_sanity.ABOUT, "note"),
            page.Heading("By source"),
            page.Table(tables["sources"], SOURCE_COLUMNS, "sources.csv"),
            *(page.Picture(png, caption(name, by_r)) for name, png in pictures.items()),
            page.Heading("If another share alpha were kept"),
            page.Table(tables["sweep"], SWEEP_COLUMNS, "sweep.csv, with the share of each source"),
            page.Heading("Examples"),
            *map(block, tables["examples"]),
            page.Text("All: examples.csv", "from"),
        ],
    )


def caption(picture: str, by_r: bool) -> str:
    """What a picture shows; by_r: with the threshold of r."""
    return CAPTIONS[picture].format((BY_R if by_r else BY_OTHERS).get(picture))
