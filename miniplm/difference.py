"""Difference scores: r = mean log-probability under the teacher minus that under the reference.

    python3 scripts/miniplm/difference_sampling/compute_difference_scores.py BASE_PATH

Reads the score stores qwen_1.8B and qwen_104M in BASE_PATH/results/scores/pile/qwen-1025; writes
diff-qwen_1.8B-qwen_104M beside them: difference.npy (one float64 per scored row; NaN where no token
counts). The program then draws the report (reports/selection_report.py).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus, recorded_corpus
from data_utils.differences import FILE, TYPE
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from miniplm.ranking import pieces
from miniplm.scores import Scores
from miniplm.swapped_models import check_mean, check_models

PROGRAM = "scripts/miniplm/difference_sampling/compute_difference_scores.py"
LAUNCHERS = "scripts/miniplm/difference_sampling"


@dataclass
class StoreSettings:
    """Which difference store."""

    base_path: str = flag(".", "folder that contains results/ and processed_data/")
    scores: str = flag("results/scores/pile/qwen-1025", "folder of the score stores")
    teacher_name: str = flag("qwen_1.8B", "the teacher's store")
    ref_name: str = flag("qwen_104M", "the reference's store")

    def __post_init__(self) -> None:
        check_name("--teacher-name", self.teacher_name)
        check_name("--ref-name", self.ref_name)

    @property
    def store(self) -> Path:
        """Folder of the difference store, beside the two stores that it is made from."""
        scores = under(base_folder(self.base_path), self.scores)
        return scores / f"diff-{self.teacher_name}-{self.ref_name}"


@dataclass
class Settings(StoreSettings):
    """Join the scores of teacher and reference."""

    allow_weaker_teacher: bool = flag(False, "continue though the teacher looks weaker")


def main() -> None:
    compute(parse(Settings, positional="base_path"))


def compute(settings: Settings) -> None:
    """Make the difference store, unless it is there already."""
    store = settings.store
    teacher = open_scores(store.with_name(settings.teacher_name), "1.8B.sh")
    reference = open_scores(store.with_name(settings.ref_name), "104M.sh")
    check_pair(teacher, reference)
    corpus = scored_corpus(teacher)
    order_known = check_models(teacher, reference, settings.allow_weaker_teacher)
    output = Output(
        store,
        "scores",
        PROGRAM,
        {"type": TYPE, "shards": list(teacher.shards)},
        asdict(settings),
        {
            "teacher": (teacher.folder, teacher.identity),
            "reference": (reference.folder, reference.identity),
            "corpus": (corpus.folder, corpus.identity),
        },
    )
    output.make(lambda: join(teacher, reference, output, order_known))


def open_scores(folder: Path, launcher: str) -> Scores:
    """A finished store, its blocks as they were when it was finished."""
    fix = (
        f"run bash {LAUNCHERS}/{launcher} BASE_PATH to its end; of a damaged store first remove "
        "manifest.json and the damaged block: it scores what is missing"
    )
    store = Scores(folder, fix)
    artefact.check_files(store.manifest, fix, contents=True)
    return store


def check_pair(teacher: Scores, reference: Scores) -> None:
    """Two stores belong together if they score the same shards of the same corpus."""
    for what, a, b in (
        ("corpora", *(s.manifest.input_fingerprint("corpus") for s in (teacher, reference))),
        ("shards", teacher.shards, reference.shards),
        ("numbers of sequences", len(teacher), len(reference)),
    ):
        if a != b:
            raise InputError(
                f"teacher and reference scored different {what}",
                where=reference.folder,
                expected=a,
                found=b,
                fix=f"run {LAUNCHERS}/1.8B.sh and 104M.sh with the same DATA_DIR and SCORE_SHARDS",
            )
    models = {s.manifest.input_fingerprint("model") for s in (teacher, reference)}
    if len(models) == 1 and None not in models:
        raise InputError(
            "teacher and reference are the same model",
            where=reference.folder,
            fix=f"run {LAUNCHERS}/1.8B.sh and 104M.sh with two models (MODEL_PATH)",
        )


def scored_corpus(store: Scores) -> Corpus:
    """The corpus, opened on the scored shards; the store must have a score of each of its rows."""
    corpus = recorded_corpus(
        store.folder,
        store.manifest.inputs["corpus"],
        "that was scored",
        "put the scored corpus back, or score again",
        store.shards,
    )
    if len(store) != len(corpus):
        raise ArtefactError(
            "the store lacks scores for some sequences of its shards",
            where=store.folder,
            expected=f"{len(corpus)} sequences",
            found=len(store),
            fix=f"remove the store and run its launcher of {LAUNCHERS} again",
        )
    return corpus


def read_means(teacher: Scores, reference: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-probabilities of both, [n] float64 each; they must have counted the same tokens."""
    log_p, counts = teacher.means()
    log_ref, others = reference.means()
    same_counts(counts, others)
    return log_p, log_ref


def same_counts(teacher: np.ndarray, reference: np.ndarray) -> None:
    """Refuse numbers of counted tokens, [n], that differ in a row."""
    for at in pieces(len(teacher)):
        differ = np.flatnonzero(teacher[at] != reference[at])
        if len(differ):
            row = at.start + int(differ[0])
            raise InputError(
                f"teacher and reference counted different tokens in scored row {row}",
                expected=int(teacher[row]),
                found=int(reference[row]),
                fix=f"run {LAUNCHERS}/1.8B.sh and 104M.sh again with the same corpus",
            )


def write_difference(file: IO[bytes], teacher: np.ndarray, reference: np.ndarray) -> None:
    """Write teacher - reference, [n] float64, as a .npy file."""
    header = {"descr": "<f8", "fortran_order": False, "shape": teacher.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for at in pieces(len(teacher)):
        file.write(teacher[at] - reference[at])


def mean_of(values: np.ndarray) -> tuple[int, float]:
    """(how many of the values are defined, their mean or 0)."""
    defined, total = 0, 0.0
    for at in pieces(len(values)):
        known = values[at][~np.isnan(values[at])]
        defined, total = defined + len(known), total + float(known.sum())
    return defined, total / max(defined, 1)


def join(teacher: Scores, reference: Scores, output: Output, order_known: bool) -> None:
    """Write the difference store; r is read from its file, not held beside."""
    log_p, log_ref = read_means(teacher, reference)
    with atomic_files.atomic_file(output.folder / FILE) as file:
        write_difference(file, log_p, log_ref)
    r = np.load(output.folder / FILE, mmap_mode="r", allow_pickle=False)
    defined, mean = mean_of(r)
    check_mean(teacher, reference, mean, order_known)
    counts = {
        "sequences": len(r),
        "first_row": teacher.first_row,
        "without_a_defined_difference": len(r) - defined,
        "seen_in_training": reference.seen_in_training,
    }
    output.finish([FILE], counts)
    print(f"{output.folder}: {defined:,} differences, mean {mean:.3f}")
