"""Difference sampling: keep the sequences with the highest difference scores, in corpus order.

    python3 scripts/miniplm/difference_sampling/construct_pretrain_data.py BASE_PATH [RATIO=0.5]

Reads the corpus and the difference store; writes the refined corpus BASE_PATH/processed_data/
pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5/qwen-1025. --criterion ranks by another rule
(miniplm/criteria.py), most of them from the same scored rows; --tokens N fills a budget of tokens
instead of a ratio; --from-rows FOLDER makes a selection that was published as row numbers
(tools/publish.py).
The ratio is alpha of the paper (arXiv 2410.17215).
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_utils import artefact, differences
from data_utils.artefact_writer import Output
from data_utils.atomic_files import sha256
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from miniplm import published_rows
from miniplm.criteria import WITHOUT_STORES, Candidates, Choice, Differences, number_to_keep
from miniplm.ranking import descending
from miniplm.scores import Predictions, open_shards, predictions_folder, require_corpus
from miniplm.shard_copy import copy_rows

PROGRAM = "scripts/miniplm/difference_sampling/construct_pretrain_data.py"
FIX = "run scripts/miniplm/difference_sampling/compute_difference_scores.py"
RATIO, SHARDS = 0.5, "0:200"
# Counts of the rows that have no rank and of those that were not to choose from: of a criterion
# that reads the stores, of one that needs none.
LEFT_OUT = (
    ("without_a_defined_difference", "not_scored"),
    ("without_a_value", "in_other_shards"),
)


@dataclass
class Settings(Choice):
    """Select the refined corpus."""

    base_path: str = flag(".", "folder of results/ and processed_data/")
    ratio: float | None = flag(
        None, f"share of the scored sequences to keep; default: {RATIO} without --tokens"
    )
    tokens: int = flag(
        0,
        "instead of a ratio: keep the highest until the next would exceed this many tokens",
    )
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the scored corpus")
    scores: str = flag("results/scores/pile/qwen-1025", "folder of the score stores")
    teacher_name: str = flag("qwen_1.8B", "the teacher's store")
    ref_name: str = flag("qwen_104M", "the reference's store")
    data_name: str = flag("pile", "first part of the output's name")
    save: str = flag("", "folder of the selected corpus; default: named by the settings")
    shards: str = flag(
        SHARDS,
        "the shards to choose from with a criterion that needs no scores; the others choose from "
        "what was scored",
    )
    shard_size: int = flag(1_000_000, "sequences per shard")
    allow_reference_data: bool = flag(False, "also select from what the reference was trained on")
    from_rows: str = flag("", "make a published selection again: the folder that it was put into")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 0 or self.shard_size < 1:
            raise ValueError("--tokens must be above 0 and --shard-size at least 1")
        if self.tokens and self.ratio is not None:
            raise ValueError(f"give RATIO ({self.ratio:g}) or --tokens ({self.tokens}), not both")
        if not self.tokens and self.ratio is None:
            self.ratio = RATIO
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ValueError(f"RATIO must be above 0 and at most 1, not {self.ratio}")
        for name in ("teacher_name", "ref_name", "data_name"):
            check_name(f"--{name.replace('_', '-')}", getattr(self, name))

    def output_folder(self) -> str:
        """Where the selected corpus goes, relative to BASE_PATH."""
        if self.save:
            return self.save
        sampling = "diff_samp" if self.criterion == "difference" else f"{self.criterion}_samp"
        if self.criterion in WITHOUT_STORES:
            shards = self.shards.replace(":", "_") or "all"
            pool = "" if self.shards == SHARDS else f"-shards{shards}"
        else:
            pool = f"-{self.teacher_name}-{self.ref_name}"
        share = f"t{self.tokens}" if self.tokens else f"r{self.ratio:g}"
        name = f"{self.data_name}-{sampling}{pool}{self.folder_part()}-{share}"
        return f"processed_data/pretrain/{name}/{Path(self.data_dir).name}"


def main() -> None:
    settings = parse(Settings, positional="base_path ratio")
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir))
    if settings.from_rows:
        make_again(corpus, under(base, settings.from_rows), settings, base)
        return
    rows, shards, inputs = open_candidates(corpus, settings, base)
    output = Output(
        under(base, settings.output_folder()),
        "corpus",
        PROGRAM,
        {
            **corpus.carried(),
            "ratio": settings.ratio,
            "tokens": settings.tokens or None,
            **settings.content(),
            **shards,
            "shard_size": settings.shard_size,
        },
        asdict(settings),
        {"corpus": (corpus.folder, corpus.identity), **inputs},
    )
    made = output.make(lambda: construct(rows, settings, output))
    print_account(made, output.folder)


def make_again(corpus: Corpus, published: Path, settings: Settings, base: Path) -> None:
    """A published selection, from this copy of the corpus (miniplm/published_rows.py)."""
    name = published_rows.read(published)[0]["name"]
    save = under(base, settings.save or f"processed_data/pretrain/{name}")
    print_account(published_rows.construct(corpus, published, save, PROGRAM), save)


def open_candidates(
    corpus: Corpus, settings: Settings, base: Path
) -> tuple[Candidates, dict, dict[str, tuple[Path, dict]]]:
    """What the criterion chooses from, its shards where they are set, what else it reads."""
    if settings.criterion in WITHOUT_STORES:
        part, first_row = open_shards(corpus.folder, settings.shards)
        rows = Candidates(corpus, first_row, len(part), settings)
        shards = {"shards": [part.first_shard, part.last_shard]}
        if not settings.score_file:
            return rows, shards, {}
        rows.score_file = under(base, settings.score_file)
        rows.values()  # refused before the folder is made
        known = {"kind": "score file", "fingerprint": sha256(rows.score_file)}
        return rows, shards, {"score_file": (rows.score_file, known)}
    store = open_store(settings, base)
    folder, manifest = store.folder, artefact.read_manifest(store.folder)
    require_corpus(manifest, corpus)
    if manifest.counts["seen_in_training"] and not settings.allow_reference_data:
        raise InputError(
            "the reference was trained on some of the scored sequences",
            where=folder,
            fix="score others (SCORE_SHARDS outside REF_SHARDS), or --allow-reference-data true",
        )
    counts = manifest.counts
    rows = Candidates(corpus, counts["first_row"], counts["sequences"], settings, store)
    return rows, {}, {"scores": (folder, manifest.identity)}


def open_store(settings: Settings, base: Path) -> Differences | Predictions:
    """The store that the criterion reads, checked."""
    scores, names = under(base, settings.scores), (settings.teacher_name, settings.ref_name)
    if settings.criterion == "proxy":
        return Predictions(predictions_folder(scores, *names))
    folder = scores / "diff-{}-{}".format(*names)
    return Differences(folder, differences.open_store(folder).inputs)


def construct(rows: Candidates, settings: Settings, output: Output) -> None:
    """Write the selected rows and the account of all rows."""
    corpus = rows.corpus
    chosen, account = choose(rows, settings)
    files, counts = copy_rows(corpus, chosen, output.folder, settings.shard_size)
    output.finish(files, counts | account)


def choose(rows: Candidates, settings: Settings) -> tuple[np.ndarray, dict[str, int]]:
    """(the selected rows of the corpus, ascending; what became of every row of it)."""
    values = rows.values()
    order = descending(values)
    keep = number_to_keep(order, rows.corpus, rows.first_row, settings.ratio, settings.tokens)
    no_value, beyond = LEFT_OUT[rows.store is None]
    return rows.first_row + np.sort(order[:keep]), {
        "kept": keep,
        "dropped": len(order) - keep,
        no_value: len(values) - len(order),
        beyond: len(rows.corpus) - len(values),
        "rows_of_the_corpus": len(rows.corpus),
    }


def print_account(manifest: artefact.Manifest, folder: Path) -> None:
    """Say what became of every row; the parts must be the whole."""
    c = manifest.counts
    left_out = next(names for names in LEFT_OUT if names[0] in c)
    parts = [f"{c[name]:,} {name.replace('_', ' ')}" for name in ("kept", "dropped", *left_out)]
    print(
        f"{folder}: {c['tokens']:,} tokens; {' + '.join(parts)} = "
        f"{c['rows_of_the_corpus']:,} rows of the corpus"
    )
