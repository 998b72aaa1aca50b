"""The learning rate as a function of the step."""

import math


def learning_rate(step: int, lr: float, lr_min: float, warmup: int, total: int) -> float:
    """Rate of the update after `step` steps: linear from 0 over `warmup`, then a cosine to lr_min.

    Equal to transformers' cosine_with_min_lr_schedule_with_warmup.
    """
    if step < warmup:
        return lr * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return lr_min + (lr - lr_min) / 2 * (1 + math.cos(math.pi * progress))
