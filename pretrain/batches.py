"""The batches of a run: which rows a step takes, and this rank's part of them, read ahead."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_utils.prefetch import in_thread
from data_utils.sample_order import rows_of, step_samples
from pretrain.log_probs import AHEAD, check_ids
from pretrain.prepare import Run


@dataclass(frozen=True)
class StepBatch:
    """A step's rows [G] of all ranks, and this rank's A micro-batches of M rows of L tokens."""

    rows: np.ndarray
    tokens: torch.Tensor  # [A, M, L] int64, padded on the right with end-of-text
    lengths: torch.Tensor  # [A, M] int64


def batches(run: Run, first: int, end: int) -> Iterator[StepBatch]:
    """The batches of the steps first .. end - 1 (from 0) that are not left out.

    A thread reads the next ones while one is trained on.
    """
    steps = (step for step in range(first, end) if not run.settings.skips(step + 1))
    vocab_size = run.engine.objective.model.config.vocab_size
    return in_thread(functools.partial(read_step, run, vocab_size), steps, AHEAD)


def read_step(run: Run, vocab_size: int, step: int) -> StepBatch:
    """The rows of a step, and this rank's as tensors padded to the corpus's full length."""
    settings, processes = run.settings, run.processes
    shuffle = settings.seed if settings.shuffle else None
    rows = rows_of(step_samples(step, settings.global_batch), len(run.corpus), shuffle)
    accumulation = settings.accumulation(processes.world)
    mine = rows.reshape(accumulation, processes.world, settings.micro_batch)[:, processes.rank]
    tokens, lengths = run.corpus.batch(mine.ravel(), run.eos_id)
    check_ids(tokens, vocab_size, run.corpus, mine.ravel())
    short = max(run.corpus.max_length - tokens.shape[1], 0)
    tokens = np.pad(tokens, ((0, 0), (0, short)), constant_values=run.eos_id)
    parts = torch.from_numpy(tokens.reshape(*mine.shape, -1)), torch.from_numpy(lengths)
    if processes.device.type == "cuda":
        parts = tuple(part.pin_memory() for part in parts)
    return StepBatch(rows, parts[0], parts[1].reshape(mine.shape))
