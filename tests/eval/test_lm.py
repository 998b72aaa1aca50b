"""The evaluation: every row of the split once on any number of processes, means, bits per byte."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_utils.corpus import Corpus
from data_utils.tokenizer import load_tokenizer
from eval import lm
from pretrain.log_probs import corpus_loss
from pretrain.models import load_model
from tests import make

VOCAB, EOS, ROWS = 600, 0, 20


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    base = tmp_path_factory.mktemp("a base")
    rows = make.random_rows(ROWS, VOCAB, EOS)
    make.save_corpus(base / "held out", rows, tokenizer_folder, shard_size=9, split="test")
    make.save_model(base / "model", make.qwen_config(VOCAB), 0, tokenizer_folder)
    return base


@pytest.mark.parametrize("limit, count", [(0, ROWS), (7, 7), (99, ROWS)])
def test_loss_and_perplexity(limit, count, base, monkeypatch):
    """Sequences count alike whatever their length; row 3, where nothing counts, has loss 0."""
    flags = ["--model-path", "model", "--data-dir", "held out", "--precision", "fp32"]
    words = ["program", str(base), *flags, "--limit", str(limit), "--tokens-per-batch", "100"]
    monkeypatch.setattr(sys, "argv", words)
    lm.main()
    result = json.loads((base / "results/eval/lm/model.json").read_text())
    weights = (base / "model/model.safetensors").read_bytes()
    assert result["model"]["weights"] == hashlib.sha256(weights).hexdigest()
    losses = np.load(base / "results/eval/lm/model.npy")
    model = load_model(base / "model", "fp32", "sdpa").eval()
    corpus = Corpus(base / "held out", "test")
    expected = corpus_loss(model, corpus, np.arange(count), EOS)
    assert result["sequences"] == count and losses.shape == (count,)
    assert losses == pytest.approx(expected, abs=1e-5) and losses[3] == 0
    assert result["loss"] == pytest.approx(sum(losses) / count, rel=1e-12)
    assert result["perplexity"] == pytest.approx(np.exp(result["loss"]), rel=1e-12)


MANY = 1103  # divisible by neither 2 nor 3, in three parts


@pytest.fixture(scope="module")
def texts(base, tokenizer_folder) -> Path:
    """A corpus of text from two sources, of several parts."""
    rows = make.text_rows(tokenizer_folder, MANY, longest=17, seed=3)
    return make.save_corpus(base / "texts", rows, tokenizer_folder, shard_size=400, split="test")


def results(base: Path, name: str) -> tuple[dict, np.ndarray]:
    folder = base / "results/eval/lm"
    return json.loads((folder / f"{name}.json").read_text()), np.load(folder / f"{name}.npy")


def full_logits(base: Path, corpus: Corpus) -> tuple[list[float], list[int]]:
    """(loss of each row by transformers and all logits, bytes of each row's counted text)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32).eval()
    tokenizer = load_tokenizer(base / "model")
    tokens, lengths = map(torch.from_numpy, corpus.batch(np.arange(len(corpus)), EOS))
    with torch.no_grad():
        log_p = model(tokens[:, :-1]).logits.double().log_softmax(dim=2)
    losses, sizes = [], []
    for row, length, values in zip(tokens, lengths, log_p, strict=True):
        inputs, labels = row[: length - 1], row[1:length]
        labels, values = labels[inputs != EOS], values[: length - 1][inputs != EOS]
        chosen = values.gather(1, labels[:, None])
        losses.append(-float(chosen.mean()) if len(chosen) else 0.0)
        texts = [tokenizer.decode([token]) for token in labels.tolist() if token != EOS]
        sizes.append(sum(len(text.encode()) for text in texts))
    return losses, sizes


def test_any_number_of_processes_gives_the_numbers_of_full_logits(base, texts, monkeypatch):
    words = [base, "--model-path", "model", "--data-dir", "texts", "--precision", "fp32"]
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words), "--ckpt-name", "one"])
    lm.main()
    one, losses = results(base, "one")
    for processes in (2, 3):
        name = f"of {processes}"
        done = make.run("scripts/eval/lm.sh", *words, "--ckpt-name", name, NPROC=processes)
        assert "bits per byte" in done.stdout
        other, found = results(base, name)
        assert found == pytest.approx(losses, abs=1e-6)  # of another number of threads
        counted = ("model", "corpus", "sequences", "tokens", "bytes")
        assert [other[name] for name in counted] == [one[name] for name in counted]
        assert other["bits_per_byte"] == pytest.approx(one["bits_per_byte"], rel=1e-6)
    corpus = Corpus(texts, "test")
    expected, sizes = full_logits(base, corpus)
    assert losses == pytest.approx(expected, abs=1e-5)
    assert one["sequences"] == MANY and one["bytes"] == sum(sizes)
    counts = np.array([int((corpus.row(n)[:-1] != EOS).sum()) for n in range(MANY)])
    assert one["tokens"] == counts.sum()
    nats = float((np.array(expected) * counts).sum())
    assert one["bits_per_byte"] == pytest.approx(nats / np.log(2) / sum(sizes), rel=1e-5)
    domain = np.arange(MANY) % 2
    found = {row["source"]: (row["sequences"], row["loss"]) for row in one["sources"]}
    for number, name in enumerate(corpus.domains):
        mine = losses[domain == number]
        assert found[name] == (len(mine), pytest.approx(mine.mean()))


def test_the_interval_is_that_of_a_bootstrap():
    from scipy import stats

    losses = np.random.default_rng(0).normal(5, 1, 300)
    expected = stats.bootstrap((losses,), np.mean, method="percentile", random_state=1)
    low, high = lm.bootstrap(losses)
    assert (low, high) == pytest.approx(
        (expected.confidence_interval.low, expected.confidence_interval.high), abs=0.015
    )
    assert high - low == pytest.approx(2 * 1.96 * losses.std() / np.sqrt(300), rel=0.1)
