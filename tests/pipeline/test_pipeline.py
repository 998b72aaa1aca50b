"""The whole method in miniature through the launchers: text in, two students and their losses out.

.venv/bin/python -m pytest tests/pipeline/test_pipeline.py
"""

import json
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.tokenizer import load_tokenizer
from tests import make, programs

NAMES = {"MAX_LENGTH": 65, "TEACHER_NAME": "tiny_T", "REF_NAME": "tiny_R", "TOKENIZER_NAME": "bpe"}
TRAIN = {"MODEL_CONFIG": "student.json", "GLOBAL_BATCH": 8, "MICRO_BATCH": 4, "TOTAL_STEPS": 6}
TRAIN |= {"WARMUP_STEPS": 2, "LR": 1e-3, "SAVE_EVERY": 3, "LOG_EVERY": 1}
SCORES = "results/scores/pile/bpe-65"
DIFFERENCE = ["--scores", SCORES, "--teacher-name", "tiny_T", "--ref-name", "tiny_R"]
CORPUS = "processed_data/pretrain/pile/bpe-65"
SAMPLING = "scripts/miniplm/difference_sampling"
REFINED = "processed_data/pretrain/pile-diff_samp-tiny_T-tiny_R-r0.5/bpe-65"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A BASE_PATH with a space in it, after every stage of the method."""
    base = tmp_path_factory.mktemp("base path")
    make.write_text(base / "data/pile/train", make.documents(200))
    make.write_text(base / "data/pile/heldout", make.documents(20, seed=1))
    tokenizer = make.train_tokenizer(base / "checkpoints/tokenizer", make.documents(50))
    vocab_size = len(load_tokenizer(tokenizer))
    teacher = make.qwen_config(vocab_size, hidden=64)
    make.save_model(base / "checkpoints/teacher", teacher, 1, tokenizer)
    (base / "student.json").write_text(json.dumps(make.qwen_config(vocab_size)))
    run_stages(base)
    return base


def run_stages(base: Path) -> None:
    """Corpus, reference, scores, selection, students, held-out losses."""
    ref = "processed_data/pretrain/pile_ref/bpe-65"
    tokenise = {"SHARD_SIZE": 200, "TOKENIZER_PATH": "checkpoints/tokenizer", **NAMES}
    launcher = "scripts/tools/process_data/pile_qwen.sh"
    make.run(launcher, base, **tokenise)
    held_out = {"TEXT": "data/pile/heldout", "SAVE": "processed_data/dclm/bpe-65"}
    make.run(launcher, base, "--split", "test", **tokenise, **held_out)
    split = ["--data-dir", CORPUS, "--shards=3:5", "--save", ref]
    assert programs.call(base, "tools.split_ref_data", base, *split).code == 0
    reference = {"SAVE": "checkpoints/reference", "NPROC": 2}
    make.run("scripts/pretrain/qwen/104M_ref.sh", base, **TRAIN, **NAMES, **reference)
    score = {"SCORE_SHARDS": "0:3", "BLOCK_SIZE": 100, **NAMES}
    make.run(f"{SAMPLING}/1.8B.sh", base, MODEL_PATH="checkpoints/teacher", **score)
    make.run(f"{SAMPLING}/104M.sh", base, MODEL_PATH="checkpoints/reference", **score)
    make.run(f"{SAMPLING}/compute_difference_scores.py", base, *DIFFERENCE)
    construct = f"{SAMPLING}/construct_pretrain_data.py"
    make.run(construct, base, "--data-dir", CORPUS, *DIFFERENCE)
    make.run("scripts/miniplm/pretraining/qwen/200M.sh", base, **TRAIN, **NAMES)
    make.run("scripts/pretrain/qwen/200M.sh", base, **TRAIN, **NAMES)
    for method in ("miniplm", "pretrain"):
        flags = ["--model-path", f"results/{method}/qwen/200M", "--ckpt-name", method]
        make.run("scripts/eval/lm.sh", base, *flags, **NAMES)


def test_every_stage_leaves_a_finished_artefact(base):
    for folder, kind in (
        (CORPUS, "corpus"),
        ("processed_data/pretrain/pile_ref/bpe-65", "corpus"),
        ("checkpoints/reference", "model"),
        (f"{SCORES}/tiny_T", "scores"),
        (f"{SCORES}/diff-tiny_T-tiny_R", "scores"),
        (REFINED, "corpus"),
        ("results/miniplm/qwen/200M", "model"),
    ):
        assert artefact.require(base / folder, kind, "", contents=True)


def test_the_student_can_be_followed_back_to_the_corpus(base):
    student = artefact.read_manifest(base / "results/miniplm/qwen/200M")
    refined = artefact.read_manifest(base / REFINED)
    difference = artefact.read_manifest(base / SCORES / "diff-tiny_T-tiny_R")
    teacher = artefact.read_manifest(base / SCORES / "tiny_T")
    corpus = artefact.read_manifest(base / CORPUS)
    assert student.inputs["corpus"]["fingerprint"] == refined.fingerprint
    assert refined.inputs["scores"]["fingerprint"] == difference.fingerprint
    assert difference.inputs["teacher"]["fingerprint"] == teacher.fingerprint
    assert teacher.inputs["corpus"]["fingerprint"] == corpus.fingerprint


def test_the_selected_half_is_the_one_with_the_highest_differences(base):
    corpus = Corpus(base / CORPUS)
    r = np.load(base / SCORES / "diff-tiny_T-tiny_R" / "difference.npy")
    best = np.sort(np.argsort(-r, kind="stable")[: len(r) // 2])
    refined = Corpus(base / REFINED)
    assert np.array_equal(np.load(base / REFINED / "source_row_0.npy"), best)
    for row in range(len(refined)):
        assert np.array_equal(refined.row(row), corpus.row(int(best[row])))


def test_the_students_losses_are_written_and_differ(base):
    losses = []
    for method in ("miniplm", "pretrain"):
        result = json.loads((base / f"results/eval/lm/{method}.json").read_text())
        rows = np.load(base / f"results/eval/lm/{method}.npy")
        assert result["loss"] == pytest.approx(rows.mean()) and result["sequences"] == len(rows)
        losses.append(result["loss"])
    assert losses[0] != losses[1]


def test_a_second_run_changes_nothing(base):
    def times() -> dict:
        kinds = (".json", ".jsonl", ".bin", ".safetensors", ".npy")
        return {p: p.stat().st_mtime_ns for p in base.rglob("*") if p.suffix in kinds}

    before = times()
    run = programs.call(base, "miniplm.selection", base, "--data-dir", CORPUS, *DIFFERENCE)
    assert run.code == 0, run.errors
    make.run("scripts/miniplm/pretraining/qwen/200M.sh", base, **TRAIN, **NAMES)
    assert before == times()
