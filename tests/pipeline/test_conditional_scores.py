"""Conditional scores (CoLoR-Filter, arXiv 2406.10670), as docs/data.md tells it.

.venv/bin/python -m pytest tests/pipeline/test_conditional_scores.py
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from miniplm import difference
from tests import make, programs

ROWS, LONGEST = 64, 17  # of a shard
NAMES = {"MAX_LENGTH": LONGEST, "TOKENIZER_NAME": "bpe", "TEACHER_NAME": "on_target"}
NAMES |= {"REF_NAME": "ref", "SCORE_SHARDS": "0:1"}
TRAIN = {"GLOBAL_BATCH": 8, "MICRO_BATCH": 8, "WARMUP_STEPS": 2, "LR": 1e-2, "TOTAL_STEPS": 8}
CORPUS, SCORES = "processed_data/pretrain/pile/bpe-17", "results/scores/pile/bpe-17"
SETTINGS = {"scores": SCORES, "teacher_name": "on_target", "ref_name": "ref"}


def rows_of(kind: int, count: int, seed: int) -> list[np.ndarray]:
    """Rows of a kind of text: both use all ids, kind 1 mostly high ones, kind 0 mostly low ones."""
    generator = np.random.default_rng((seed, kind))
    ids = 2 + 597 * generator.beta(*((4, 2) if kind else (2, 4)), (count, LONGEST))
    return list(ids.astype(int))


def target_share(rows: list[int]) -> float:
    """Share of the target's rows, every other one of the corpus, that are among these."""
    return sum(row % 2 for row in rows) / (ROWS / 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """A BASE_PATH in which both models have scored a mixed corpus, as its launchers do it."""
    base = tmp_path_factory.mktemp("base path")
    kinds = [rows_of(kind, ROWS, 0) for kind in (0, 1)]
    mixed = [row for pair in zip(*kinds, strict=True) for row in pair]
    for folder, rows in ((CORPUS, mixed), ("target", rows_of(1, ROWS, 1))):
        options = {"max_length": LONGEST, "shard_size": ROWS}
        make.save_corpus(base / folder, rows, tokenizer_folder, **options)
    own = "processed_data/pretrain/pile_ref/bpe-17"
    split = ["--data-dir", CORPUS, "--shards=1:2", "--save", own]
    assert programs.call(base, "tools.split_ref_data", base, *split).code == 0
    (base / "model.json").write_text(json.dumps(make.qwen_config(600)))
    variables = {**TRAIN, **NAMES}
    train = "scripts/pretrain/qwen/104M_ref.sh"
    make.run(train, base, MODEL_CONFIG="model.json", SAVE="ref", **variables)
    tuned = {"MODEL_PATH": "ref", "DATA_DIR": "target", "SAVE": "on_target", "TOTAL_STEPS": 16}
    make.run(train, base, **{**variables, **tuned})
    sampling = "scripts/miniplm/difference_sampling"
    make.run(f"{sampling}/1.8B.sh", base, MODEL_PATH="on_target", **NAMES)
    make.run(f"{sampling}/104M.sh", base, MODEL_PATH="ref", **NAMES)
    return base


def test_rows_of_the_target_s_kind_are_preferred(base):
    difference.compute(difference.Settings(str(base), **SETTINGS))
    names = ["--scores", SCORES, "--teacher-name", "on_target", "--ref-name", "ref"]
    words = [base, "--data-dir", CORPUS, "--save", "kept", *names]
    run = programs.call(base, "miniplm.selection", *words)
    assert run.code == 0, run.errors
    kept = Corpus(base / "kept").side("source_row", np.arange(ROWS // 2)).tolist()
    share = target_share(kept)
    r = np.load(base / SCORES / "diff-on_target-ref" / difference.FILE)
    assert share > 0.9 and r[1::2].mean() > 0 > r[::2].mean()
    # The reference has learned both kinds: it alone does not tell them apart.
    means = difference.open_scores(base / SCORES / "ref", "").means()[0]
    assert target_share(np.argsort(-means)[: ROWS // 2].tolist()) < 0.7


def test_a_reference_from_elsewhere_needs_the_flag(base):
    """Then neither training nor size tell which one is the reference, and the mean r is low."""
    store, manifest = base / SCORES / "diff-on_target-ref", base / "ref" / artefact.MANIFEST
    shutil.rmtree(store, ignore_errors=True)
    manifest.rename(manifest.with_suffix(".hidden"))
    try:
        with pytest.raises(InputError, match="look exchanged .mean r.*--allow-weaker-teacher true"):
            difference.compute(difference.Settings(str(base), **SETTINGS))
        settings = difference.Settings(str(base), allow_weaker_teacher=True, **SETTINGS)
        difference.compute(settings)
    finally:
        manifest.with_suffix(".hidden").rename(manifest)
    assert artefact.require(store, "scores", "")
