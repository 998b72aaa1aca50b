"""Log-probabilities of rows against transformers' full logits, a row at a time, without padding."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from pretrain.log_probs import batches_by_length, corpus_loss, mean_loss, row_log_probs
from tests import make

VOCAB, EOS = 600, 0
SHARED = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": EOS}
CONFIGS = {
    "qwen": make.qwen_config(VOCAB),
    "llama": {
        **SHARED,
        "model_type": "llama",
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    },
    "mamba": {**SHARED, "model_type": "mamba", "state_size": 4, "time_step_rank": 4},
}


def random_model(config: dict, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    for parameter in model.parameters():
        parameter.data.mul_(3.0)  # so that the probabilities are far from even
    return model.eval()


@pytest.fixture(scope="module")
def corpus(tokenizer_folder, tmp_path_factory) -> Corpus:
    rows = make.random_rows(20, VOCAB, EOS)
    rows[7], rows[11] = np.array([EOS, 9]), np.array([5])
    folder = tmp_path_factory.mktemp("corpus")
    return Corpus(make.save_corpus(folder / "c", rows, tokenizer_folder, shard_size=9))


@torch.no_grad()
def obvious(model: torch.nn.Module, row: np.ndarray) -> tuple[float, int]:
    """(sum, count) of one row in a loop over its positions."""
    total, count = 0.0, 0
    if len(row) > 1:
        log_probs = model(torch.tensor(row[None, :-1].astype(np.int64))).logits[0].double()
        log_probs = log_probs.log_softmax(-1)
        for i in range(len(row) - 1):
            if row[i] != EOS:
                total, count = total + float(log_probs[i, int(row[i + 1])]), count + 1
    return total, count


def ours(model, corpus, rows, tokens_per_batch):
    sums, counts = np.full(len(rows), np.nan, np.float32), np.full(len(rows), -1, np.int32)
    for at, batch_sums, batch_counts in row_log_probs(model, corpus, rows, EOS, tokens_per_batch):
        assert np.isnan(sums[at]).all()  # every row once
        assert batch_sums.dtype == np.float32 and batch_counts.dtype == np.int32
        sums[at], counts[at] = batch_sums, batch_counts
    return sums, counts


@pytest.mark.parametrize("family", CONFIGS)
def test_equals_full_logits_whatever_the_batches(family, corpus):
    model = random_model(CONFIGS[family])
    rows = np.random.default_rng(1).permutation(len(corpus))
    expected = [obvious(model, corpus.row(row)) for row in rows]
    counts = np.array([count for _, count in expected])
    means = np.array([total for total, _ in expected]) / np.maximum(counts, 1)
    for tokens_per_batch in (1, 150, 16_384):
        sums, found = ours(model, corpus, rows, tokens_per_batch)
        assert (found == counts).all()
        assert np.abs(sums / np.maximum(counts, 1) - means).max() < 1e-5
        assert np.abs(-mean_loss(sums, found) - means).max() < 1e-5
    assert (counts == 0).sum() == 3 and (sums[counts == 0] == 0).all()
    assert means.std() > 0.1  # the rows differ, so that a wrong order would show


def test_loss_of_the_corpus_is_in_the_order_of_its_rows(corpus):
    model = random_model(CONFIGS["qwen"])
    rows = np.arange(len(corpus))
    expected = [-t / c if c else 0.0 for t, c in (obvious(model, corpus.row(r)) for r in rows)]
    np.testing.assert_allclose(corpus_loss(model, corpus, rows, EOS, 200), expected, atol=1e-5)


def test_batches_hold_every_row_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 65, 50)
    rows = np.arange(100, 150)
    batches = list(batches_by_length(lengths, rows, 200))
    assert sorted(np.concatenate(batches)) == list(range(50))
    for batch in batches:
        assert len(batch) * (lengths[batch].max() - 1) <= 200
    turned = list(batches_by_length(lengths[::-1], rows[::-1], 200))
    assert [set(rows[b]) for b in batches] == [set(rows[::-1][b]) for b in turned]


def test_a_row_longer_than_the_budget_stands_alone():
    batches = list(batches_by_length(np.array([50, 3, 60]), np.arange(3), 10))
    assert [batch.tolist() for batch in batches] == [[2], [0], [1]]


@pytest.mark.parametrize("vocab_size", [300, 599])
def test_ids_outside_the_vocabulary_are_refused_with_their_row(
    vocab_size, tokenizer_folder, tmp_path
):
    rows = [np.array([5, 6, 7])] * 4
    rows[2] = np.array([5, 599, 6])
    corpus = Corpus(make.save_corpus(tmp_path / "c", rows, tokenizer_folder, shard_size=2))
    model = random_model(make.qwen_config(vocab_size))
    with pytest.raises(InputError, match="row 0 of data_1.*found 599") as caught:
        ours(model, corpus, np.arange(4), 16_384)
    assert f"ids below {vocab_size}" in str(caught.value)
    ours(random_model(make.qwen_config(600)), corpus, np.arange(4), 16_384)
