"""Log-probabilities of a corpus's rows under a model: scoring, held-out loss and evaluation."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from pretrain.losses import inputs_and_labels, label_log_probs
from pretrain.models import head_weight, hidden_states


def batches_by_length(
    lengths: np.ndarray, rows: np.ndarray, tokens_per_batch: int
) -> Iterator[np.ndarray]:
    """Positions of rows grouped into padded batches of at most tokens_per_batch tokens.

    Longest first, ties by row: the batches depend on the rows and the budget alone.
    """
    order = np.lexsort((rows, -lengths))
    start = 0
    while start < len(order):
        width = max(int(lengths[order[start]]) - 1, 1)
        size = max(1, tokens_per_batch // width)
        yield order[start : start + size]
        start += size


@torch.inference_mode()
def row_log_probs(
    model: nn.Module, corpus: Corpus, rows: np.ndarray, eos_id: int, tokens_per_batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (positions in rows, sums, counts) a batch.

    sums: natural log-probabilities summed over the counted positions, float32; counts: int32.
    """
    device = next(model.parameters()).device
    head = head_weight(model)
    for at in batches_by_length(corpus.lengths(rows), rows, tokens_per_batch):
        tokens, lengths = corpus.batch(rows[at], eos_id)
        check_ids(tokens, head.shape[0], corpus, rows[at])
        tokens = torch.from_numpy(tokens).to(device)
        inputs, labels, counted = inputs_and_labels(
            tokens, torch.from_numpy(lengths).to(device), eos_id
        )
        sums = torch.zeros(counted.shape, dtype=torch.float32, device=device)
        if counted.any():
            hidden = hidden_states(model, inputs)
            sums[counted] = label_log_probs(hidden[counted], head, labels[counted])
        yield at, sums.sum(dim=1).cpu().numpy(), counted.sum(dim=1).int().cpu().numpy()


def check_ids(tokens: np.ndarray, vocab_size: int, corpus: Corpus, rows: np.ndarray) -> None:
    """Token ids that the model does not have are the sign of a corpus of another tokenizer."""
    if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        bad = int(rows[np.flatnonzero(((tokens >= vocab_size) | (tokens < 0)).any(axis=1))[0]])
        raise InputError(
            f"token ids outside the model's vocabulary at {corpus.describe(bad)}",
            expected=f"ids below {vocab_size}",
            found=int(tokens.max()),
            fix="use a model and a corpus of the same tokenizer",
        )


def mean_loss(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Loss of each sequence in nats a token, float64; 0 where nothing is counted."""
    return np.where(counts > 0, -sums.astype(np.float64) / np.maximum(counts, 1), 0.0)


def corpus_loss(
    model: nn.Module, corpus: Corpus, rows: np.ndarray, eos_id: int, tokens_per_batch: int = 16384
) -> np.ndarray:
    """Loss of each of the rows in nats a token, [len(rows)] float64."""
    losses = np.zeros(len(rows))
    for at, sums, counts in row_log_probs(model, corpus, rows, eos_id, tokens_per_batch):
        losses[at] = mean_loss(sums, counts)
    return losses
