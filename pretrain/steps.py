"""One update of a run, and the held-out loss."""

import time
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import torch

from cluster.place import STOP_SIGNALS
from cluster.processes import all_sum, barrier, peak_memory
from cluster.stop import Stop
from data_utils import atomic_files
from data_utils.errors import InputError
from pretrain.batches import step_rows
from pretrain.checkpoints import TrainState
from pretrain.engine import UpdateRefused
from pretrain.log_probs import corpus_loss
from pretrain.metrics import NAMES
from pretrain.objective import Batch
from pretrain.prepare import Run
from pretrain.schedule import learning_rate


def train_step(
    run: Run, state: TrainState, stop: Stop, batches: Iterator[Batch]
) -> tuple[dict, int]:
    """One update, counted in the state. Returns the step's figures and the stop signal (0: none).

    A step whose batch is to be left out has no figures: only the step counter moves. InputError for
    a loss or gradients that are not finite, before anything is updated.
    """
    settings, step = run.settings, state.step + 1
    if settings.skips(step):
        state.step, state.left_out = step, [*state.left_out, step]
        return {}, 0
    started = time.monotonic()
    batch = next(batches)
    data_wait = time.monotonic() - started
    tokens, asked, means = summed(run, step, batch, stop)
    if not np.isfinite(means["loss"]):
        report_non_finite(run, step, f"the loss of step {step} is {means['loss']}")
    lr = learning_rate(
        state.step, settings.lr, settings.lr_min, settings.warmup_steps, settings.total_steps
    )
    try:
        with run.processes.together(f"the update of step {step}"):
            figures = run.engine.update(lr)
    except UpdateRefused as refused:
        report_non_finite(run, step, f"in step {step} {refused}")
    seconds = time.monotonic() - started
    state.step, state.tokens = step, state.tokens + int(tokens)
    state.sequences += settings.global_batch
    flops = step_flops(run, tokens)
    state.add_flops(*flops)
    state.skipped += figures["skipped"]
    row = {"step": step, **means, "lr": lr, **figures}
    row.update(tokens=state.tokens, sequences=state.sequences, skipped=state.skipped)
    row.update(tokens_per_second=tokens / seconds, data_wait=data_wait, seconds=seconds)
    row["memory"] = peak_memory(run.processes)
    if run.peak is not None:
        row["mfu"] = sum(flops) / seconds / run.peak / run.processes.world
    return row, asked


def step_flops(run: Run, tokens: float) -> tuple[float, float]:
    """FLOPs of a step of so many tokens: the student's and the other models'."""
    length = tokens / run.settings.global_batch
    objective = run.objective
    return objective.student_flops(tokens, length), objective.teacher_flops(tokens, length)


def summed(run: Run, step: int, batch: Batch, stop: Stop) -> tuple[float, int, dict]:
    """Forward and backward on all ranks: the step's tokens, the stop signal, loss and figures.

    Ranks agree on a signal that any of them has received by adding it to what they sum anyway.
    """
    tokens = float(batch["lengths"].sum())
    with torch.no_grad():
        batch = run.objective.begin_step(step, batch)
    figures = accumulate(run, batch, f"the gradients of step {step}")
    asked = {number: float(stop.received == number) for number in STOP_SIGNALS}
    mine = {"tokens": tokens, **asked, **figures}
    sums = all_sum(list(mine.values()), run.processes, f"the loss of step {step}")
    total = dict(zip(mine, sums, strict=True))
    signal = largest_signal([total[number] for number in STOP_SIGNALS])
    return total["tokens"], signal, {name: total[name] for name in figures}


def largest_signal(asked: list[float]) -> int:
    """The largest of the stop signals that any rank has received, 0 without one.

    asked: for each of STOP_SIGNALS the number of ranks that received it.
    """
    return max((int(n) for n, ranks in zip(STOP_SIGNALS, asked, strict=True) if ranks), default=0)


def accumulate(run: Run, batch: Batch, what: str) -> dict[str, float]:
    """Forward and backward of all micro-batches; this rank's shares of the loss and the figures."""
    sums: dict[str, torch.Tensor] = {}
    for number in range(run.plan.accumulation):
        if number:
            run.engine.next_micro_batch()
        micro = {
            name: values[number].to(run.processes.device, non_blocking=True)
            for name, values in batch.items()
        }
        with run.processes.together(what):
            loss, figures = run.engine.micro_step(micro)
        if taken := NAMES & figures.keys():
            raise InputError(
                f"the objective's figures have names that metrics.jsonl uses: {', '.join(taken)}",
                fix=f"rename them in --objective {run.settings.objective}",
            )
        for name, value in {"loss": loss, **figures}.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    return {name: float(total) / run.plan.parts for name, total in sums.items()}


def report_non_finite(run: Run, step: int, what: str) -> NoReturn:
    """Save the rows of the step and stop before the update; all ranks come here."""
    path = run.output.folder / f"non_finite_step_{step:06d}.json"
    if run.processes.first:
        rows = step_rows(run, step).tolist()
        atomic_files.write_json(path, {"step": step, "what": what, "rows": rows})
    barrier(run.processes)  # the rows are listed before any rank's error ends the run
    raise InputError(
        f"{what}; nothing was updated, its rows are listed",
        where=path,
        fix=f"look at these rows; SKIP_STEPS={step} resumes without them from the last checkpoint; "
        "or start again with PRECISION=bf16 or fp32, or a lower LR",
    )


def held_out_loss(run: Run) -> float:
    """Mean loss of VALID_DATA's sequences in nats per token, each rank taking a part of them."""
    p, student = run.processes, run.engine.student
    rows = np.arange(p.rank, len(run.valid), p.world)
    student.eval()
    losses = corpus_loss(student, run.valid, rows, run.eos_id)
    student.train()
    total, count = all_sum([float(losses.sum()), float(len(losses))], p, "the held-out loss")
    return total / count
