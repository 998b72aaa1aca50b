"""Difference scores: r = mean log-probability under the teacher minus that under the reference.

    python3 scripts/miniplm/difference_sampling/compute_difference_scores.py BASE_PATH

Reads the score stores qwen_1.8B and qwen_104M in BASE_PATH/results/scores/pile/qwen-1025; writes
diff-qwen_1.8B-qwen_104M beside them: difference.npy (float64 a scored row; NaN where no token
counts) and the report.
"""

from dataclasses import asdict, dataclass

import numpy as np

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from miniplm.report import write_report
from miniplm.scores import Scores

FILE = "difference.npy"
PROGRAM = "scripts/miniplm/difference_sampling/compute_difference_scores.py"
FIX = "run scripts/miniplm/difference_sampling/{1.8B,104M}.sh to their end"


@dataclass
class Settings:
    """Join the scores of teacher and reference."""

    base_path: str = flag(".", "where results/ and processed_data/ lie")
    scores: str = flag("results/scores/pile/qwen-1025", "folder of the score stores")
    teacher_name: str = flag("qwen_1.8B", "the teacher's store")
    ref_name: str = flag("qwen_104M", "the reference's store")
    ratio: float = flag(0.5, "share that the report shows as selected")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    scores = under(base_folder(settings.base_path), settings.scores)
    teacher = Scores(scores / settings.teacher_name, FIX)
    reference = Scores(scores / settings.ref_name, FIX)
    check_pair(teacher, reference)
    output = artefact.Output(
        scores / f"diff-{settings.teacher_name}-{settings.ref_name}",
        "scores",
        PROGRAM,
        {"type": "difference", "shards": list(teacher.shards), "ratio": settings.ratio},
        asdict(settings),
        {
            "teacher": (teacher.folder, teacher.identity),
            "reference": (reference.folder, reference.identity),
        },
    )
    with artefact.lock(output.folder):
        if output.begin().done:
            print(f"{output.folder} is there already")
            return
        join(teacher, reference, output)


def check_pair(teacher: Scores, reference: Scores) -> None:
    """Two stores belong together if they score the same shards of the same corpus."""
    for what, a, b in (
        ("corpora", *(s.manifest["inputs"]["corpus"]["fingerprint"] for s in (teacher, reference))),
        ("shards", teacher.shards, reference.shards),
        ("numbers of sequences", len(teacher), len(reference)),
    ):
        if a != b:
            raise InputError(
                f"teacher and reference scored different {what}",
                where=reference.folder,
                expected=a,
                found=b,
                fix="score both with the same DATA_DIR and SCORE_SHARDS",
            )
    models = {s.manifest["inputs"]["model"]["fingerprint"] for s in (teacher, reference)}
    if len(models) == 1:
        raise InputError(
            "teacher and reference are the same model",
            where=reference.folder,
            fix="give two models (MODEL_PATH of 1.8B.sh and 104M.sh)",
        )


def difference(
    teacher: tuple[np.ndarray, np.ndarray], reference: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """r of each row, float64, NaN where nothing is counted; each argument is (sums, counts)."""
    (t_sums, counts), (r_sums, r_counts) = teacher, reference
    if not np.array_equal(counts, r_counts):
        row = int(np.flatnonzero(counts != r_counts)[0])
        raise InputError(
            f"teacher and reference counted different tokens in scored row {row}",
            expected=int(counts[row]),
            found=int(r_counts[row]),
            fix="score both again with the same corpus and tokenizer",
        )
    scored = counts > 0
    r = np.full(len(counts), np.nan)
    r[scored] = (t_sums[scored].astype(np.float64) - r_sums[scored]) / counts[scored]
    return r


def join(teacher: Scores, reference: Scores, output: artefact.Output) -> None:
    """Write the difference store and its report."""
    t, ref = teacher.read(), reference.read()
    r = difference(t, ref)
    with artefact.atomic_file(output.folder / FILE) as file:
        np.save(file, r)
    corpus_folder = (teacher.folder / teacher.manifest["inputs"]["corpus"]["path"]).resolve()
    corpus = Corpus(corpus_folder, shards=teacher.shards)
    if corpus.identity["fingerprint"] != teacher.manifest["inputs"]["corpus"]["fingerprint"]:
        raise InputError(
            "the corpus is not the one that was scored",
            where=corpus_folder,
            fix="put the scored corpus back, or score again",
        )
    extra = write_report(output.folder, corpus, r, t, ref, output.content["ratio"])
    defined = np.isfinite(r)
    counts = {
        "sequences": len(r),
        "first_row": teacher.first_row,
        "without_a_defined_difference": int((~defined).sum()),
    }
    report = {
        "corpus": teacher.manifest["inputs"]["corpus"]["fingerprint"],
        "seen_in_training": reference.manifest["report"].get("seen_in_training", False),
    }
    output.finish([FILE, *extra], counts, report)
    print(
        f"{output.folder}: {defined.sum():,} differences, mean {r[defined].mean():.3f}, standard "
        f"deviation {r[defined].std():.3f}; report: {output.folder / 'report.html'}"
    )
