"""A stored teacher: its format, its stage, training on it, and what is refused.

.venv/bin/python -m pytest tests/baselines/test_teacher_cache.py
"""

import dataclasses
import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from data_utils import artefact
from data_utils.blocks import Blocks
from data_utils.corpus import Corpus
from data_utils.elastic import BlockFiles
from data_utils.errors import ArtefactError, InputError
from data_utils.teacher_cache import TeacherCache, pack, unpack
from pretrain.log_probs import counted_states
from pretrain.models import head_weight, load_model
from pretrain.objectives import vanilla_kd
from pretrain.stored_teacher import compared, distances
from tests import make, programs
from tests.pretrain.runs import EOS, VOCAB, column, flags, make_base

BLOCK = {"BLOCK_SIZE": 16, "TOKENS_PER_BATCH": 128, "SHARDS": "0:9", "DATA_DIR": "corpus"}
TEACHER = {**BLOCK, "MODEL_PATH": "teacher", "SAVE": "scores/teacher"}
HALF = "processed_data/pretrain/half/bpe-33"


def test_packing_keeps_ids_and_counts():
    ids = np.array([[0] * 63, [262_143] * 63, [5] + [151_935] * 62, list(range(63))])
    entries, packed = pack(ids)
    assert entries.tolist() == [1, 1, 2, 63] and packed.shape == (67, 3)
    found, draws = unpack(packed)
    assert np.array_equal(np.repeat(found, draws), ids.ravel())


def store(base: Path, save: str, *more: object, scores: str = "scores/teacher") -> Path:
    words = programs.flags({**TEACHER, "SAVE": scores, "CACHE": save, "DRAWS": 20})
    run = programs.call(base, "baselines.teacher_cache", base, *words, *more)
    assert run.code == 0, run.errors
    assert "GB in" in run.output and "ids per token" in run.output
    return base / save


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A corpus with a stored teacher, and the half that difference sampling keeps of it."""
    base = make_base(tmp_path_factory.mktemp("base path"))
    for name, hidden in (("teacher", 48), ("reference", 32)):
        config = make.qwen_config(VOCAB, hidden=hidden)
        make.save_model(base / name, config, hidden, base / "tokenizer")
    store(base, "cache")
    reference = {**BLOCK, "MODEL_PATH": "reference", "SAVE": "scores/reference"}
    names = ["--scores", "scores", "--teacher-name", "teacher", "--ref-name", "reference"]
    for module, words in (
        ("miniplm.score", programs.flags(reference)),
        ("miniplm.difference", [*names, "--allow-weaker-teacher", "true"]),
        ("miniplm.selection", ["0.5", "--data-dir", "corpus", "--save", HALF, *names]),
    ):
        run = programs.call(base, module, base, *words)
        assert run.code == 0, run.errors
    return base


def blocks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_the_scores_of_the_same_pass_are_those_of_scoring(base):
    words = programs.flags({**TEACHER, "SAVE": "alone"})
    run = programs.call(base, "miniplm.score", base, *words)
    assert run.code == 0, run.errors
    assert blocks(base / "alone") == blocks(base / "scores/teacher") != {}
    found, expected = (artefact.read_manifest(base / n) for n in ("scores/teacher", "alone"))
    assert found.fingerprint == expected.fingerprint


def test_the_bytes_do_not_depend_on_the_workers(base):
    words = programs.flags({**TEACHER, "SAVE": "two scores", "CACHE": "two", "DRAWS": 20})
    two = [programs.start(base, "baselines.teacher_cache", base, *words) for _ in range(2)]
    assert [run.wait().code for run in two] == [0, 0], [run.errors for run in two]
    assert blocks(base / "two") == blocks(base / "cache") != {}
    assert blocks(base / "two scores") == blocks(base / "scores/teacher")


def test_draws_have_the_teachers_distribution(base):
    """20 systematic draws: each count is within 1 of 20 times its probability."""
    corpus = Corpus(base / "corpus")
    counts, ids, probabilities = TeacherCache(base / "cache", corpus).targets(
        np.arange(len(corpus))
    )
    teacher = load_model(base / "teacher", "fp32", "sdpa").eval()
    checked = 0
    for batch, hidden in counted_states(teacher, corpus, np.arange(len(corpus)), EOS, 128):
        t = (hidden @ head_weight(teacher).detach().T).softmax(1).numpy()
        at = 0
        for row, count in zip(batch.at, batch.counts, strict=True):
            assert counts[row] == count
            for position in range(count):
                drawn = np.zeros(VOCAB)
                np.add.at(drawn, ids[row, position], probabilities[row, position])
                assert drawn.sum() == pytest.approx(1)
                assert np.abs(20 * (drawn - t[at])).max() < 1 + 1e-3
                at, checked = at + 1, checked + 1
    assert checked == counts.sum() > 300


def test_a_selected_corpus_finds_its_rows(base):
    half, whole = Corpus(base / HALF), Corpus(base / "corpus")
    rows = np.array([3, 0, 7])
    found = TeacherCache(base / "cache", half).targets(rows)
    expected = TeacherCache(base / "cache", whole).targets(half.side("source_row", rows))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_few_blocks_are_open_at_a_time(base, monkeypatch):
    """A store of more blocks than stay open reads the same."""
    corpus = Corpus(base / "corpus")
    rows = np.array([0, 40, 1, 20, 41, 2])  # of all three blocks, in turn
    expected = TeacherCache(base / "cache", corpus).targets(rows)
    monkeypatch.setattr("data_utils.teacher_cache.OPEN_BLOCKS", 1)
    cache = TeacherCache(base / "cache", corpus)
    assert all(np.array_equal(a, b) for a, b in zip(cache.targets(rows), expected, strict=True))
    assert cache._index.cache_info().currsize == 1


TOP = "--kind", "top-k", "--draws", "63", "--tokens-per-batch", "1"


@pytest.fixture(scope="module")
def top(base) -> Path:
    """The store of the 63 most probable ids, made row by row."""
    return store(base, "top", *TOP, scores="scores/top")


def test_the_most_probable_ids_come_first(base, top):
    counts, ids, probabilities = TeacherCache(top, Corpus(base / "corpus")).targets(np.arange(4))
    assert ids.shape[2] == 63 and (np.diff(probabilities[0, : counts[0]], axis=1) <= 0).all()
    assert ids[0, 0].size == len(set(ids[0, 0].tolist()))


def test_a_store_of_the_whole_corpus_equals_one_made_for_the_selection(base, top):
    """Draws would differ: they follow from a row's number in the corpus that was read."""
    own = store(base, "top of half", *TOP, "--data-dir", HALF, scores="scores/half")
    half = Corpus(base / HALF)
    found, expected = (TeacherCache(f, half).targets(np.arange(len(half))) for f in (top, own))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def killed(words: list, moment: int, output: Path) -> None:
    """The stage, killed at this half call of publishing: first a block's scores, then its store."""
    programs.kill_at(Blocks, "publish", moment)
    programs.main("baselines.teacher_cache", words, {}, output)


def test_killed_and_started_again_it_has_the_same_bytes(base):
    words = programs.flags({**TEACHER, "SAVE": "killed scores", "CACHE": "killed", "DRAWS": 20})
    for moment in (1, 2):  # with one block of scores more than of the store; before a block of it
        run = programs.fork(base, killed, [base, *words], moment).wait()
        assert run.code == -signal.SIGKILL, run.errors
    store(base, "killed", scores="killed scores")
    assert blocks(base / "killed") == blocks(base / "cache")
    assert blocks(base / "killed scores") == blocks(base / "scores/teacher")


KD = {"OBJECTIVE": "vanilla_kd", "TEACHER_CACHE": "cache"}


@pytest.mark.parametrize("corpus", ["corpus", HALF])
def test_training_needs_no_teacher(base, corpus):
    hidden = shutil.move(base / "teacher", base / "hidden")
    try:
        save = f"from {Path(corpus).parts[0]}"
        words = flags(SAVE=save, DATA_DIR=corpus, **KD)
        run = programs.call(base, "pretrain.train", base, *words)
        assert run.code == 0 and "stored teacher" in run.output, run.errors
        assert "not compared with its teacher" in run.output
        words = flags(SAVE=f"{save}, stopped", DATA_DIR=corpus, **KD)
        for more in (["--stop-step", 5], ["--micro-batch", 1]):
            run = programs.call(base, "pretrain.train", base, *words, *more)
            assert run.code == 0, run.errors
    finally:
        shutil.move(hidden, base / "teacher")
    for name in ("loss", "lm_loss", "kd_loss"):
        found = column(base / f"{save}, stopped", name)
        assert np.allclose(found, column(base / save, name), rtol=1e-5)
    assert len(set(column(base / save, "kd_loss"))) > 5


def test_what_is_stored_is_compared_with_the_live_teacher(base, top):
    """Of the top k nothing is lost but the shape of the tail, of 20 draws the variance only."""
    corpus, cpu = Corpus(base / "corpus"), torch.device("cpu")
    words = base / "teacher", np.array([0, 2, len(corpus) - 1]), EOS, "fp32", cpu
    found = compared(TeacherCache(base / "cache", corpus), *words)
    kl, bias = (float(n) for n in re.findall(r"([-+]?\d\.\d+) nats", found))
    assert kl > 0.1 and abs(bias) < 0.02, found
    cache = TeacherCache(top, corpus)
    found = compared(cache, *words)
    assert "% of the teacher's mass" in found and " 0.0000 nats" in found, found
    assert " 0.0000 nats" not in compared(cache, base / "reference", *words[1:])


def test_distances_equal_slow_formulas():
    generator = torch.Generator().manual_seed(0)
    log_t = torch.randn(5, 7, generator=generator, dtype=torch.float64).log_softmax(1)
    ids = torch.tensor([[0, 3, 0], [1, 2, 6], [5, 0, 0], [6, 4, 1], [2, 3, 4]])
    stored = torch.tensor([[0.5, 0.5, 0], [0.2, 0.2, 0.6], [1, 0, 0], [0.4, 0.4, 0.2], [0.1] * 3])
    draws, top = (distances(log_t, ids, stored.double(), top_k=k) for k in (False, True))
    for n in range(5):
        pairs = [(int(i), float(p)) for i, p in zip(ids[n], stored[n], strict=True) if p]
        t = log_t[n].exp()
        kl = sum(p * (np.log(p) - float(log_t[n, i])) for i, p in pairs)
        cross = -sum(p * float(log_t[n, i]) for i, p in pairs)
        assert draws[n].tolist() == pytest.approx([kl, cross + float((t * log_t[n]).sum())])
        mass = sum(p for _, p in pairs)
        rest = 1 - sum(float(t[i]) for i, _ in pairs)
        kl = sum(float(t[i]) * (float(log_t[n, i]) - np.log(p)) for i, p in pairs)
        kl += rest * np.log(rest / max(1 - mass, 1e-6))
        assert top[n].tolist() == pytest.approx([mass, kl], rel=1e-5)


def test_a_damaged_block_met_in_training_ends_it_and_the_restored_one_continues(base):
    """Rows 32 and on are in the third block: steps 1 to 8 are done without it."""
    path = base / "cache/block_000002.safetensors"
    whole = path.read_bytes()
    words = flags(SAVE="met", **KD)
    try:
        path.write_bytes(whole[:-8])
        run = programs.call(base, "pretrain.train", base, *words)
        programs.one_message(run, 3, path.name, "size")
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        run = programs.call(base, "pretrain.train", base, *words, "--teacher-path", "none")
        programs.one_message(run, 3, path.name)
        assert column(base / "met", "step")[-1] == 8
    finally:
        path.write_bytes(whole)
    run = programs.call(base, "pretrain.train", base, *words)
    assert run.code == 0 and "after step 8" in run.output, run.errors


def test_another_corpus_or_tokenizer_is_refused(base, tmp_path):
    with pytest.raises(InputError, match="another corpus"):
        TeacherCache(base / "cache", Corpus(base / "held out"))
    copy = shutil.copytree(base / "cache", tmp_path / "cache")
    manifest = artefact.read_manifest(copy)
    manifest.content["tokenizer"] = "0" * 64
    (copy / "manifest.json").unlink()
    json_of = {k: v for k, v in vars(manifest).items() if k != "folder"}
    (copy / "manifest.json").write_text(
        json.dumps({"fingerprint": manifest.fingerprint, **json_of}, default=str)
    )
    with pytest.raises(InputError, match="another tokenizer"):
        TeacherCache(copy, Corpus(base / "corpus"))
    words = [*flags(SAVE="x", **KD), "--temperature", "2"]
    programs.one_message(programs.call(base, "pretrain.train", base, *words), 2, "--temperature")


def test_a_store_of_some_shards_serves_the_steps_that_read_them(base, monkeypatch):
    """Whether its rows are enough is known before the first step."""
    corpus, stored = Corpus(base / "corpus"), 16
    whole = BlockFiles.of(TeacherCache(base / "cache", corpus).manifest)
    monkeypatch.setattr(BlockFiles, "of", lambda _: dataclasses.replace(whole, rows=stored))

    def inputs(**more) -> dict:
        settings = {"global_batch": 4, "total_steps": 4, "warmup_steps": 1, **more}
        settings = vanilla_kd.Settings(teacher_cache="cache", **settings)
        return vanilla_kd.Objective.inputs(settings, base, corpus)

    assert inputs() and inputs(total_steps=50, stop_step=4)
    for more in ({"total_steps": 5}, {"shuffle": True}):
        with pytest.raises(ArtefactError, match="has no row"):
            inputs(**more)


def test_a_corpus_that_a_teacher_continued_is_refused(base, monkeypatch):
    """Its rows have the numbers of those that the stored teacher has read, and other tokens."""
    half = Corpus(base / HALF)
    monkeypatch.setattr(half, "side", lambda name, rows: np.zeros(len(rows), np.int32))
    with pytest.raises(InputError, match="another corpus"):
        TeacherCache(base / "cache", half)


def test_a_missing_row_and_a_damaged_block_are_named(base, tmp_path):
    corpus = Corpus(base / "corpus")
    cache = TeacherCache(base / "cache", corpus)
    with pytest.raises(ArtefactError, match=f"no row {len(corpus)}"):
        cache.require(np.array([0, len(corpus)]))
    copy = shutil.copytree(base / "cache", tmp_path / "cache")
    path = copy / "block_000001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    damaged = TeacherCache(copy, corpus)
    damaged.targets(np.arange(16))
    with pytest.raises(ArtefactError, match="block_000001"):
        damaged.targets(np.arange(16, 18))
