"""A training step: the chunked loss against transformers with labels.

    .venv/bin/python benchmarks/bench_train_step.py [--hidden 768] [--layers 2] [--runs 5]

Obvious: model(input_ids, labels=...).loss, which holds the fp32 logits of the whole batch. Ours:
the language-modelling objective. Both sides take steps (forward, backward, AdamW) on the same 4
rows of 1,025 tokens with the same random Qwen2 of vocabulary 151,936, tied embeddings; the time is
the median step's. Memory is the peak of forward and backward over that of the same with
hidden.sum() + head.sum() as the loss, so that weights, gradients and activations cancel; the update
is left out of it: its temporaries, the same on both sides, come when those of the loss are gone.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks import harness
from pretrain.models import head_weight, hidden_states, new_model
from pretrain.objectives.language_modelling import batch_loss

ROWS, LENGTH, EOS, STEPS = 4, 1025, 151_643, 3


def main() -> None:
    options = harness.options(__doc__, hidden=768, layers=2, config="")
    if options.side:
        measure(options.side, Path(options.config))
        return
    harness.compare_steps("train_step", __file__, options)


def measure(side: str, config: Path) -> None:
    """Steps of a side, after one without its logits (which also makes the optimiser's state)."""
    model = new_model(config, 0, "sdpa").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, EOS, (ROWS, LENGTH), generator=generator)

    def without_logits() -> torch.Tensor:
        return hidden_states(model, tokens[:, :-1]).sum() + head_weight(model).sum()

    loss = {harness.OBVIOUS: obvious, harness.OURS: ours}[side](model, tokens)
    step(without_logits, optimizer)
    base = step(without_logits, optimizer)[1]
    steps = [step(loss, optimizer) for _ in range(STEPS)]
    values, peaks, seconds, used = zip(*steps, strict=True)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    output = f"losses {' '.join(f'{v:.3f}' for v in values)}, gradient norm {norm:.2f}"
    parts = {"processor time": statistics.median(used)}
    harness.report(statistics.median(seconds), output, statistics.median(peaks) - base, parts)


def step(
    loss_of: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[float, int, float, float]:
    """Forward, backward, update: loss, peak bytes before the update, seconds, processor time."""
    optimizer.zero_grad()
    harness.reset_peak_memory()
    started, used = time.perf_counter(), time.process_time()
    loss = loss_of()
    loss.backward()
    peak = harness.peak_memory()
    optimizer.step()
    seconds, used = time.perf_counter() - started, time.process_time() - used
    return float(loss.detach()), peak, seconds, used


def obvious(model: torch.nn.Module, tokens: torch.Tensor) -> Callable[[], torch.Tensor]:
    """transformers' own loss; all rows are full, so its mean over tokens is that over rows."""
    inputs, labels = tokens[:, :-1], tokens[:, 1:].contiguous()
    return lambda: model(input_ids=inputs, labels=labels, shift_labels=labels, use_cache=False).loss


def ours(model: torch.nn.Module, tokens: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The training engine's language-modelling objective."""
    lengths = torch.full((ROWS,), LENGTH)
    return lambda: batch_loss(model, tokens, lengths, EOS)


if __name__ == "__main__":
    main()
