"""A distillation step: chunked losses of student and teacher against the full logits of both.

    .venv/bin/python benchmarks/bench_kd_step.py [--hidden 768] [--layers 2] [--runs 5] \
        [--against liger]

Obvious: both models' logits [2 x 1,024, 151,936], log_softmax, cross-entropy to the teacher's
distribution and to the labels. Ours: pretrain/distillation.py on hidden states. Both take forward
and backward on the same 2 rows of 1,025 tokens with the same random Qwen2 models; the time is the
median step's. Memory is the peak over that of the same step with hidden.sum() + head.sum() as the
loss, so that weights, gradients and activations cancel. --against liger: Liger-Kernel's chunked
LigerFusedLinearJSDLoss instead of the full logits, where it is installed; it needs no Triton
(pip install --no-deps --target FOLDER liger-kernel; PYTHONPATH=FOLDER).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import importlib.util
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks import harness
from pretrain.distillation import live_rule, teacher_entropy
from pretrain.losses import head_loss
from pretrain.models import head_weight, hidden_states, new_model

LIGER = "liger"
ROWS, LENGTH, VOCAB, STEPS, SHARE = 2, 1025, 151_936, 3, 0.5


def main() -> None:
    sides = (harness.OBVIOUS, LIGER, harness.OURS)
    options = harness.options(__doc__, sides, hidden=768, layers=2, config="", against="obvious")
    if options.side:
        measure(options.side, Path(options.config))
    elif options.against == LIGER and importlib.util.find_spec("liger_kernel") is None:
        print("skipped: Liger-Kernel is not installed (see --help)")
    else:
        harness.compare_steps("kd_step", __file__, options, options.against)


def measure(side: str, config: Path) -> None:
    """Steps of a side, after one without logits."""
    student = new_model(config, 0, "sdpa").train()
    teacher = new_model(config, 1, "sdpa").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (ROWS, LENGTH), generator=generator)
    inputs, labels = tokens[:, :-1], tokens[:, 1:].flatten()

    def without_logits() -> torch.Tensor:
        hidden_states(teacher, inputs)
        return hidden_states(student, inputs).sum() + head_weight(student).sum()

    loss = {harness.OBVIOUS: obvious, LIGER: liger, harness.OURS: ours}[side]
    base = step(without_logits, student)[1]
    steps = [step(lambda: loss(student, teacher, inputs, labels), student) for _ in range(STEPS)]
    values, peaks, seconds = zip(*steps, strict=True)
    norm = torch.stack([p.grad.norm() for p in student.parameters()]).norm()
    value = values[-1]
    if side == LIGER:  # its distance is the KL, less than the cross-entropy by the entropy
        with torch.no_grad():
            hidden = hidden_states(teacher, inputs).flatten(0, 1)
        value += SHARE * float(teacher_entropy(hidden, head_weight(teacher)).mean())
    output = f"loss {value:.4f}, gradient norm {norm:.3f}"
    harness.report(statistics.median(seconds), output, statistics.median(peaks) - base)


def step(loss_of: Callable[[], torch.Tensor], student: torch.nn.Module) -> tuple[float, int, float]:
    """Forward and backward: loss, peak bytes, seconds."""
    student.zero_grad()
    harness.reset_peak_memory()
    started = time.perf_counter()
    loss = loss_of()
    loss.backward()
    return float(loss.detach()), harness.peak_memory(), time.perf_counter() - started


def obvious(student, teacher, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(1 - SHARE) x cross-entropy to the labels + SHARE x cross-entropy to the teacher."""
    with torch.no_grad():
        t = teacher(input_ids=inputs, use_cache=False).logits.flatten(0, 1).softmax(dim=1)
    log_q = student(input_ids=inputs, use_cache=False).logits.flatten(0, 1).log_softmax(dim=1)
    lm_loss = torch.nn.functional.nll_loss(log_q, labels)
    return (1 - SHARE) * lm_loss - SHARE * (t * log_q).sum(dim=1).mean()


def ours(student, teacher, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same from hidden states."""
    with torch.no_grad():
        t_hidden = hidden_states(teacher, inputs).flatten(0, 1)
    hidden, count = hidden_states(student, inputs).flatten(0, 1), len(labels)
    rule = live_rule(labels, torch.full((count,), SHARE), t_hidden, head_weight(teacher))
    weights = torch.full((count,), 1 / count)
    return head_loss(hidden, head_weight(student), weights, rule)[0]


def liger(student, teacher, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same, without the teacher's entropy, by Liger-Kernel; not compiled, as ours is not."""
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss

    with torch.no_grad():
        t_hidden = hidden_states(teacher, inputs).flatten(0, 1)
    hidden = hidden_states(student, inputs).flatten(0, 1)
    shares = {"weight_hard_loss": 1 - SHARE, "weight_soft_loss": SHARE}
    loss = LigerFusedLinearJSDLoss(**shares, beta=0.0, compiled=False)
    return loss(hidden, head_weight(student), t_hidden, head_weight(teacher), labels)


if __name__ == "__main__":
    main()
