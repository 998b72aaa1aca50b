"""The evaluation: every row of the split once, the mean over sequences, its exponential."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from data_utils.corpus import Corpus
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
    losses = np.load(base / "results/eval/lm/model.npy")
    model = load_model(base / "model", "fp32", "sdpa").eval()
    corpus = Corpus(base / "held out", "test")
    expected = corpus_loss(model, corpus, np.arange(count), EOS)
    assert result["sequences"] == count and losses.shape == (count,)
    assert losses == pytest.approx(expected, abs=1e-5) and losses[3] == 0
    assert result["loss"] == pytest.approx(sum(losses) / count, rel=1e-12)
    assert result["perplexity"] == pytest.approx(np.exp(result["loss"]), rel=1e-12)
