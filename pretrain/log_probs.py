"""Log-probabilities of a corpus's rows under a model: scoring, held-out loss and evaluation."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.prefetch import in_thread
from pretrain.losses import inputs_and_labels, label_log_probs
from pretrain.models import head_weight, hidden_states

AHEAD = 2  # batches


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
    """Yields (positions in rows, sums, counts) for each batch.

    sums: natural log-probabilities summed over the counted positions, float32; counts: int32.
    InputError for ids that the model does not have.
    """
    head = head_weight(model)
    states = counted_states(model, corpus, rows, eos_id, tokens_per_batch)
    with contextlib.closing(states):
        for batch, hidden in states:
            yield batch.at, label_sums(batch, hidden, head), batch.counts


def label_sums(batch: "Batch", hidden: torch.Tensor, head: torch.Tensor) -> np.ndarray:
    """Log-probabilities of the labels summed over each row's counted positions, [B] float32."""
    if not len(batch.labels):
        return np.zeros(len(batch.at), np.float32)
    labels, places = (t.to(hidden.device) for t in (batch.labels, batch.places))
    found = torch.zeros(batch.inputs.shape, dtype=torch.float32, device=hidden.device)
    found.view(-1)[places] = label_log_probs(hidden, head, labels)
    return found.sum(dim=1).cpu().numpy()


@torch.inference_mode()
def counted_states(
    model: nn.Module, corpus: Corpus, rows: np.ndarray, eos_id: int, tokens_per_batch: int
) -> Iterator[tuple["Batch", torch.Tensor]]:
    """Yields (batch, hidden states of its counted positions [N, H]), row after row.

    The next batches are read, padded and copied into pinned memory while the model runs. The
    batches depend on the rows and the budget alone.
    """
    device = next(model.parameters()).device
    head = head_weight(model)

    def read(at: np.ndarray) -> Batch:
        tokens, lengths = corpus.batch(rows[at], eos_id)
        check_ids(tokens, head.shape[0], corpus, rows[at])
        return prepare(at, tokens, lengths, eos_id, pin=device.type == "cuda")

    batches = batches_by_length(corpus.lengths(rows), rows, tokens_per_batch)
    with contextlib.closing(in_thread(read, batches, AHEAD)) as prepared:
        for batch in prepared:
            hidden = head.new_empty(0, head.shape[1])
            if len(batch.labels):
                inputs = batch.inputs.to(device, non_blocking=True)
                places = batch.places.to(device, non_blocking=True)
                hidden = hidden_states(model, inputs).flatten(0, 1)[places]
            yield batch, hidden


class Batch(NamedTuple):
    """A padded batch in main memory: T inputs per row, N counted positions in all."""

    at: np.ndarray  # [B] which of the rows
    inputs: torch.Tensor  # [B, T] int64
    places: torch.Tensor  # [N] int64, the counted positions in the flattened inputs
    labels: torch.Tensor  # [N] int64
    counts: np.ndarray  # [B] int32


def prepare(
    at: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, eos_id: int, *, pin: bool
) -> Batch:
    """The batch of padded rows [B, L] of these lengths [B]; pinned if it is for a GPU."""
    inputs, labels, counted = inputs_and_labels(
        torch.from_numpy(tokens), torch.from_numpy(lengths), eos_id
    )
    places = counted.flatten().nonzero().squeeze(1)
    parts = (inputs.contiguous(), places, labels.flatten()[places])
    if pin:
        parts = tuple(part.pin_memory() for part in parts)
    return Batch(at, *parts, counted.sum(dim=1).int().numpy())


def check_ids(tokens: np.ndarray, vocab_size: int, corpus: Corpus, rows: np.ndarray) -> None:
    """InputError for ids that the model does not have: the corpus is another tokenizer's."""
    if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        bad = int(rows[np.flatnonzero(((tokens >= vocab_size) | (tokens < 0)).any(axis=1))[0]])
        raise InputError(
            f"token ids outside the model's vocabulary at {corpus.describe(bad)}",
            expected=f"ids below {vocab_size}",
            found=int(tokens.max()),
            fix="use a model and a corpus of the same tokenizer",
        )


def mean_loss(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Loss of each sequence in nats per token, float64; 0 where nothing is counted."""
    return np.where(counts > 0, -sums.astype(np.float64) / np.maximum(counts, 1), 0.0)


def corpus_loss(
    model: nn.Module, corpus: Corpus, rows: np.ndarray, eos_id: int, tokens_per_batch: int = 16384
) -> np.ndarray:
    """Loss of each of the rows in nats per token, [len(rows)] float64."""
    losses = np.zeros(len(rows))
    for at, sums, counts in row_log_probs(model, corpus, rows, eos_id, tokens_per_batch):
        losses[at] = mean_loss(sums, counts)
    return losses
