"""Scoring: the store against full logits, whoever computes it and however often it is killed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from data_utils import artefact
from data_utils.blocks import block_path
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from data_utils.tokenizer import load_tokenizer
from miniplm.scores import Scores
from pretrain.flops import forward_flops
from tests import make, programs
from tests.pretrain.test_log_probs import CONFIGS
from tests.programs import one_message as refused

VOCAB, EOS, ROWS, LONGEST, SHARD, RARE = 600, 0, 61, 33, 21, 599
MODEL = {**make.qwen_config(VOCAB), "tie_word_embeddings": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("base path")
    tokenizer = make.train_tokenizer(base / "tokenizer", make.documents(50), VOCAB)
    rows = [np.minimum(row, RARE - 1) for row in make.text_rows(tokenizer, ROWS, LONGEST)]
    rows[46] = np.concatenate([rows[46][:9], [RARE], rows[46][:9]])
    make.save_corpus(base / "corpus", rows, tokenizer, max_length=LONGEST, shard_size=SHARD)
    make.save_corpus(base / "long", rows * 10, tokenizer, max_length=LONGEST, shard_size=305)
    make.save_model(base / "teacher", MODEL, 1, tokenizer)
    poisoned = make.save_model(base / "poisoned", MODEL, 1, tokenizer)
    weights = load_file(poisoned / "model.safetensors")
    weights["model.embed_tokens.weight"][RARE] = float("nan")  # met as input, in row 46 only
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    return base


def flags(save: str, **changes: object) -> list:
    settings = {
        "model_path": "teacher",
        "data_dir": "corpus",
        "save": save,
        "block_size": 8,
        "tokens_per_batch": 200,
        **changes,
    }
    return programs.flags(settings)


def score(base: Path, save: str, **changes: object) -> programs.Program:
    return programs.call(base, "miniplm.score", base, *flags(save, **changes))


@pytest.fixture(scope="module")
def expected(base) -> tuple[np.ndarray, np.ndarray]:
    return full_logits(base, "teacher")


def full_logits(base: Path, model_name: str) -> tuple[np.ndarray, np.ndarray]:
    """(means [n] of the counted log-probabilities, counts [n]) from full logits, row by row."""
    model = AutoModelForCausalLM.from_pretrained(base / model_name).eval()
    corpus = Corpus(base / "corpus")
    means, counts = np.zeros(len(corpus)), np.zeros(len(corpus), int)
    for number in range(len(corpus)):
        row = torch.tensor(corpus.row(number).astype(np.int64))
        with torch.no_grad():
            log_probs = model(row[None, :-1]).logits[0].double().log_softmax(-1)
        found = [float(log_probs[i, row[i + 1]]) for i in range(len(row) - 1) if row[i] != EOS]
        counts[number] = len(found)
        means[number] = np.mean(found) if found else 0.0
    assert (counts == 0).sum() >= 2
    return means, counts


def check_store(folder: Path, expected: tuple, first: int = 0, last: int = ROWS) -> None:
    found, counts = Scores(folder, "").means()
    artefact.require(folder, "scores", "", contents=True)
    means, expected_counts = (part[first:last] for part in expected)
    assert (counts == expected_counts).all()
    np.testing.assert_array_equal(np.isnan(found), counts == 0)
    np.testing.assert_allclose(np.nan_to_num(found), means, rtol=1e-5)
    assert not list(folder.glob(".block*")) and not list(folder.glob(".cl*"))


def pass_flops(base: Path) -> float:
    """Of the pass, row by row."""
    model, corpus = AutoModelForCausalLM.from_pretrained(base / "teacher"), Corpus(base / "corpus")
    return sum(n * forward_flops(model, n) for n in corpus.lengths(np.arange(ROWS)).tolist())


@pytest.mark.parametrize("block_size, tokens_per_batch", [(8, 64), (7, 16_384), (1000, 1)])
def test_store_equals_full_logits(base, expected, block_size, tokens_per_batch):
    save = f"scores/b{block_size}-{tokens_per_batch}"
    run = score(base, save, block_size=block_size, tokens_per_batch=tokens_per_batch)
    assert run.code == 0, run.errors
    check_store(base / save, expected)
    manifest = artefact.read_manifest(base / save)
    undefined = int((expected[1] == 0).sum())
    counts = {"sequences": ROWS, "first_row": 0, "without_counted_tokens": undefined}
    counts |= {"counted_tokens": int(expected[1].sum()), "seen_in_training": False}
    counts["flops"] = pytest.approx(pass_flops(base), rel=0.02)
    assert manifest.counts == counts
    again = score(base, save, block_size=block_size, tokens_per_batch=tokens_per_batch)
    assert again.code == 0 and "is there already" in again.output


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_other_families_too(base, family):
    config = {**CONFIGS[family], "vocab_size": VOCAB}
    make.save_model(base / family, config, 2, base / "tokenizer")
    save, settings = f"scores/{family}", {"block_size": 20, "tokens_per_batch": 300}
    run = score(base, save, model_path=family, **settings)
    assert run.code == 0, run.errors
    check_store(base / save, full_logits(base, family))


def test_a_vocabulary_larger_than_the_tokenizers_and_bf16(base, expected):
    """Published models pad the embedding; device and precision are recorded a block."""
    tokenizer = base / "tokenizer"
    make.save_model(base / "padded", {**MODEL, "vocab_size": VOCAB + 40}, 3, tokenizer)
    run = score(base, "scores/padded", model_path="padded", precision="bf16")
    assert run.code == 0, run.errors
    manifest = artefact.read_manifest(base / "scores/padded")
    assert manifest.report["blocks_made_on"] == {"CPU, bf16, sdpa": 8}
    means, counts = full_logits(base, "padded")
    found, found_counts = Scores(base / "scores/padded", "").means()
    np.testing.assert_allclose(np.nan_to_num(found), means, rtol=0.02)
    assert (found_counts == counts).all()


@pytest.mark.long
def test_a_compiled_model_says_the_same(base, expected):
    words = [base, *flags("scores/compiled", compile="true")]
    run = programs.start(base, "miniplm.score", *words).wait(500)  # most of it compiles
    assert run.code == 0, run.errors
    check_store(base / "scores/compiled", expected)
    made_on = artefact.read_manifest(base / "scores/compiled").report["blocks_made_on"]
    assert made_on == {"CPU, fp32, sdpa, compiled": 8}


@pytest.mark.long
def test_compiling_needs_a_compiler(base, tmp_path):
    words = [base, *flags("scores/no compiler", compile="true")]
    here = {"CXX": tmp_path / "nowhere", "TORCHINDUCTOR_CACHE_DIR": tmp_path}
    run = make.run("miniplm/score.py", *words, check=False, **here)  # they are read at imports
    assert run.returncode == 4 and run.stderr.count("ERROR") == 1, run.stderr
    assert "torch.compile does not work here" in run.stderr and "COMPILE=false" in run.stderr


def test_verify_counts_the_rows(base):
    assert score(base, "scores/verified").code == 0
    folder = base / "scores/verified"
    assert "1 artefacts are whole" in make.run("tools/verify.py", folder).stdout
    manifest = artefact.read_manifest(folder)
    manifest.counts["without_counted_tokens"] += 1
    manifest.write()
    found = make.run("tools/verify.py", folder, check=False)
    assert found.returncode == 3 and "wrong number of without_counted_tokens" in found.stdout


def test_some_of_the_shards(base, expected):
    assert score(base, "scores/part", shards="1:2").code == 0
    check_store(base / "scores/part", expected, SHARD, 2 * SHARD)
    store = Scores(base / "scores/part", "")
    assert (store.first_row, store.shards, len(store)) == (SHARD, (1, 2), SHARD)
    assert score(base, "scores/rest", shards="2:200").code == 0  # what is there of them
    check_store(base / "scores/rest", expected, 2 * SHARD)


def test_a_score_that_is_no_number_names_the_row(base):
    """The message shows in which shard the row lies and how its text begins."""
    run = score(base, "scores/nan", model_path="poisoned")
    row = Corpus(base / "corpus").row(46)
    beginning = json.dumps(load_tokenizer(base / "tokenizer").decode(row[:24].tolist()))
    refused(run, 3, "score is nan", "row 4 of data_2", beginning[1:-1])


def test_mistakes(base, tmp_path):
    other = make.train_tokenizer(tmp_path / "other", make.documents(20, seed=5), VOCAB)
    make.save_model(base / "foreign", MODEL, 1, other)
    refused(score(base, "x", model_path="foreign"), 2, "tokenizer is not the corpus's")
    small = {**MODEL, "vocab_size": RARE}
    tokenizer = base / "tokenizer"
    make.save_model(base / "small", small, 1, tokenizer)
    refused(score(base, "x", model_path="small"), 2, "vocab_size at least 600")
    refused(score(base, "x", data_dir="nowhere"), 2, "no corpus", "nowhere")
    refused(score(base, "x", model_path="nowhere"), 2, "no model", "nowhere")
    refused(score(base, "x", shards="3:9"), 2, "the corpus has 3 shards")
    refused(score(base, "x", shards="2:2"), 2, "range of shards")
    refused(score(base, "x", block_size=0), 2, "--block-size")
    refused(score(base, "x", batch=3), 2, "--batch")
    assert not (base / "x").exists()


def test_changed_settings_are_refused(base):
    folder = base / "scores/changed"
    assert score(base, "scores/changed").code == 0
    for change in ({"block_size": 9}, {"tokens_per_batch": 99}, {"shards": "0:1"}):
        refused(score(base, "scores/changed", **change), 2, "begun with another")
    refused(score(base, "scores/changed", data_dir="long"), 2, "another")
    (folder / artefact.MANIFEST).unlink()  # and the same of a store that is not finished
    refused(score(base, "scores/changed", block_size=9), 2, "begun with another block_size")
    refused(score(base, "scores/changed", model_path="poisoned"), 2, "made from another model")
    assert score(base, "scores/changed").code == 0


def test_a_reference_does_not_score_what_it_was_trained_on(base):
    split = ["--data-dir", "corpus", "--save", "ref", "--shards", "1:3"]
    assert programs.call(base, "tools.split_ref_data", base, *split).code == 0
    (base / "model.json").write_text((base / "teacher/config.json").read_text())
    train = "--total-steps 1 --warmup-steps 0 --global-batch 2 --micro-batch 2 --save reference"
    train += " --data-dir ref --model-config model.json --tokenizer-path tokenizer"
    run = programs.call(base, "pretrain.train", base, *train.split())
    assert run.code == 0, run.errors
    for change in ({}, {"shards": "0:2"}, {"data_dir": "ref"}):
        run = score(base, "scores/own", model_path="reference", **change)
        refused(run, 2, "was trained on some of the sequences")
    run = score(base, "scores/own", model_path="reference", shards="0:1")
    assert run.code == 0, run.errors
    run = score(base, "scores/allowed", model_path="reference", allow_reference_data="true")
    assert run.code == 0, run.errors
    # Asked for, it is remembered: selecting from these scores has to be asked for too.
    for store, seen in (("own", False), ("allowed", True)):
        manifest = artefact.read_manifest(base / "scores" / store)
        assert manifest.counts["seen_in_training"] is seen
    assert score(base, "scores/teacher").code == 0
    names = ["--scores", "scores", "--teacher-name", "teacher", "--ref-name", "allowed"]
    run = programs.call(base, "miniplm.difference", base, *names)
    assert run.code == 0, run.errors
    select = [base, "--data-dir", "corpus", *names, "--save", "selected"]
    run = programs.call(base, "miniplm.selection", *select)
    refused(run, 2, "trained on some of the scored sequences", "--allow-reference-data")
    run = programs.call(base, "miniplm.selection", *select, "--allow-reference-data", "true")
    assert run.code == 0, run.errors
    for name in ("allowed", "diff-teacher-allowed"):  # and nobody can make it be forgotten
        path = base / "scores" / name / artefact.MANIFEST
        changed = path.read_text().replace('"seen_in_training": true', '"seen_in_training": false')
        path.write_text(changed)
        with pytest.raises(ArtefactError, match="manifest is damaged"):
            artefact.require(path.parent, "scores", "")


def test_a_damaged_store_is_not_read(base, tmp_path):
    corpus = base / "corpus"
    sums, counts = [-1.0, np.nan, -3.0, -4.0, -5.0], [1, 0, 1, 1, 1]
    good = make.save_scores(tmp_path / "good", corpus, "m", sums, counts)
    assert Scores(good, "").means()[1].tolist() == counts  # NaN where nothing counts is no fault
    counts[1] = 2
    bad = make.save_scores(tmp_path / "bad", corpus, "m", sums, counts)
    with pytest.raises(ArtefactError, match="score of row 1 is nan"):
        Scores(bad, "").means()
    block = block_path(good, 1)
    block.write_bytes(b"x" * block.stat().st_size)
    with pytest.raises(ArtefactError, match="cannot be read"):
        Scores(good, "").means()
    block.unlink()
    with pytest.raises(ArtefactError, match="missing"):
        Scores(good, "")
    with pytest.raises(InputError, match="there are no scores"):
        Scores(tmp_path / "nowhere", "")
