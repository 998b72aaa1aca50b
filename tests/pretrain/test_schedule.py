"""The learning rate against transformers' cosine_with_min_lr."""

import pytest
import torch
from transformers import get_scheduler

from pretrain.schedule import learning_rate


@pytest.mark.parametrize(
    "lr, lr_min, warmup, total",
    [
        (6e-4, 6e-5, 2000, 100_000),
        (2.5e-4, 2.5e-5, 2000, 100_000),
        (2e-3, 1e-5, 10_000, 100_000),
        (6e-4, 6e-5, 2000, 9500),
        (1e-2, 1e-3, 3, 12),
    ],
)
def test_equals_transformers_at_every_step(lr, lr_min, warmup, total):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    theirs = get_scheduler(
        "cosine_with_min_lr",
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=total,
        scheduler_specific_kwargs={"min_lr": lr_min},
    ).lr_lambdas[0]
    worst = max(
        abs(learning_rate(step, lr, lr_min, warmup, total) - lr * theirs(step))
        for step in range(total)
    )
    assert worst <= 4e-16


def test_first_update_has_rate_0_and_the_ends_are_exact():
    assert learning_rate(0, 6e-4, 6e-5, 2000, 100_000) == 0
    assert learning_rate(2000, 6e-4, 6e-5, 2000, 100_000) == 6e-4
    assert learning_rate(100_000, 6e-4, 6e-5, 2000, 100_000) == 6e-5
    assert learning_rate(200_000, 6e-4, 6e-5, 2000, 100_000) == 6e-5


def test_without_warm_up_the_first_rate_is_the_highest():
    assert learning_rate(0, 1e-3, 1e-4, 0, 10) == 1e-3
    assert learning_rate(10, 1e-3, 1e-4, 10, 10) == 1e-3
