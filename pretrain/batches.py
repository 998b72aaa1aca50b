"""The batches of a run: which rows a step takes, and this rank's part of them, read ahead."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch

from data_utils.prefetch import in_thread
from data_utils.sample_order import rows_of, step_samples
from pretrain.log_probs import AHEAD, check_ids
from pretrain.objective import Batch, Context

Columns = Callable[[np.ndarray], dict[str, np.ndarray]]  # Objective.columns


def batches(
    context: Context, columns: Columns, vocab_size: int, done: int, end: int
) -> Iterator[Batch]:
    """This rank's batches of the steps done + 1 .. end that are not left out.

    A thread reads the next ones while one is trained on.
    """
    steps = (step for step in range(done + 1, end + 1) if not context.settings.skips(step))
    return in_thread(functools.partial(read_step, context, columns, vocab_size), steps, AHEAD)


def step_rows(context: Context, step: int) -> np.ndarray:
    """The corpus rows of a step (from 1) on all ranks, [global batch] int64."""
    settings = context.settings
    samples = step_samples(step - 1, context.plan.global_batch)
    return rows_of(samples, len(context.corpus), settings.seed if settings.shuffle else None)


def read_step(context: Context, columns: Columns, vocab_size: int, step: int) -> Batch:
    """A step's A micro-batches of M rows of this rank: tokens, lengths and the columns.

    tokens: [A, M, L] int64, padded on the right with end-of-text to the corpus's full length L;
    lengths: [A, M] int64. InputError for ids that the vocabulary does not have.
    """
    corpus, eos_id = context.corpus, context.eos_id
    mine = context.plan.part(step_rows(context, step), context.processes.rank)
    rows = mine.ravel()
    tokens, lengths = corpus.batch(rows, eos_id)
    check_ids(tokens, vocab_size, corpus, rows)
    short = max(corpus.max_length - tokens.shape[1], 0)
    tokens = np.pad(tokens, ((0, 0), (0, short)), constant_values=eos_id)
    batch = {
        name: torch.from_numpy(values.reshape(*mine.shape, *values.shape[1:]))
        for name, values in {**columns(rows), "tokens": tokens, "lengths": lengths}.items()
    }
    if context.processes.device.type == "cuda":
        batch = {name: values.pin_memory() for name, values in batch.items()}
    return batch
