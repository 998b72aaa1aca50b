"""One update of a run, and what is looked at around it."""

import time
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import torch

from cluster.failure_record import STOP_SIGNALS
from cluster.processes import all_sum, barrier, peak_memory
from cluster.stop import Stop
from data_utils import atomic_files
from data_utils.errors import InputError
from pretrain.batches import StepBatch
from pretrain.engine import UpdateRefused
from pretrain.flops import forward_flops
from pretrain.log_probs import corpus_loss
from pretrain.prepare import Run
from pretrain.schedule import learning_rate


def train_step(
    run: Run, state: dict, stop: Stop, batches: Iterator[StepBatch]
) -> tuple[dict, dict, int]:
    """One update. Returns the new state, the step's figures and the stop signal (0: none).

    A step whose batch is to be left out has no figures: only the step counter moves.
    """
    settings, processes, step = run.settings, run.processes, state["step"]
    if settings.skips(step + 1):
        return {**state, "step": step + 1, "left_out": [*state["left_out"], step + 1]}, {}, 0
    started = time.monotonic()
    batch = next(batches)
    data_wait = time.monotonic() - started
    means = accumulate(run, batch, f"the gradients of step {step + 1}")
    asked = [stop.received == number for number in STOP_SIGNALS]
    shares = [batch.lengths.sum(), *asked, *means.values()]
    sums = all_sum([float(share) for share in shares], processes, f"the loss of step {step + 1}")
    tokens, asked = sums[0], sums[1 : 1 + len(asked)]
    means = dict(zip(means, sums[1 + len(asked) :], strict=True))
    if not np.isfinite(means["loss"]):
        what = f"the loss of step {step + 1} is {means['loss']}"
        report_non_finite(run, step, batch.rows, what)
    lr = learning_rate(
        step, settings.lr, settings.lr_min, settings.warmup_steps, settings.total_steps
    )
    try:
        with processes.together(f"the update of step {step + 1}"):
            figures = run.engine.update(lr)
    except UpdateRefused as refused:
        report_non_finite(run, step, batch.rows, f"in step {step + 1} {refused}")
    seconds = time.monotonic() - started
    state = {
        "step": step + 1,
        "tokens": state["tokens"] + int(tokens),
        "sequences": state["sequences"] + settings.global_batch,
        "skipped": state["skipped"] + figures["skipped"],
        "left_out": state["left_out"],
    }
    row = {"step": step + 1, **means, "lr": lr, **figures}
    row.update({name: state[name] for name in ("tokens", "sequences", "skipped")})
    row.update(tokens_per_second=tokens / seconds, data_wait=data_wait, seconds=seconds)
    row["memory"] = peak_memory(processes)
    if run.peak is not None:
        # Forward once, backward twice; what GRAD_CHECKPOINT recomputes is no use to the model.
        mean_length = tokens / settings.global_batch
        flops = 3 * forward_flops(run.engine.objective.model, mean_length) * tokens
        row["mfu"] = flops / seconds / run.peak / processes.world
    return state, row, largest_signal(asked)


def largest_signal(asked: list[float]) -> int:
    """The largest of the stop signals that any rank has had, 0 without one.

    asked: for each of STOP_SIGNALS on how many ranks it came.
    """
    return max((int(n) for n, ranks in zip(STOP_SIGNALS, asked, strict=True) if ranks), default=0)


def accumulate(run: Run, batch: StepBatch, what: str) -> dict[str, float]:
    """Forward and backward of all micro-batches; this rank's share of the loss and the figures."""
    sums: dict[str, torch.Tensor] = {}
    for number, micro in enumerate(zip(batch.tokens, batch.lengths, strict=True)):
        if number:
            run.engine.next_micro_batch()
        tokens, lengths = (part.to(run.processes.device, non_blocking=True) for part in micro)
        with run.processes.together(what):
            loss, figures = run.engine.micro_step({"tokens": tokens, "lengths": lengths})
        for name, value in {"loss": loss, **figures}.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    parts = len(batch.tokens) * run.processes.world
    return {name: float(total) / parts for name, total in sums.items()}


def report_non_finite(run: Run, step: int, rows: np.ndarray, what: str) -> NoReturn:
    """Save the rows of the step and stop before the update; all ranks come here."""
    path = run.output.folder / f"non_finite_step_{step + 1:06d}.json"
    if run.processes.first:
        atomic_files.write_json(path, {"step": step + 1, "what": what, "rows": rows.tolist()})
    barrier(run.processes)  # the rows are listed before any rank's error ends the run
    raise InputError(
        f"{what}; nothing was updated, its rows are listed",
        where=path,
        fix=f"look at these rows; SKIP_STEPS={step + 1} goes on without them from the last "
        "checkpoint; or use PRECISION=bf16 or fp32, or a lower LR, from the beginning",
    )


def held_out_loss(run: Run) -> float:
    """Mean loss of VALID_DATA's sequences, each rank a part of them."""
    p = run.processes
    rows = np.arange(p.rank, len(run.valid), p.world)
    model = run.engine.objective.model
    model.eval()
    losses = corpus_loss(model, run.valid, rows, run.eos_id)
    model.train()
    total, count = all_sum([float(losses.sum()), float(len(losses))], p, "the held-out loss")
    return total / count
