"""The learning rate, and the share of distillation, as functions of the step."""

import math


def learning_rate(step: int, lr: float, lr_min: float, warmup: int, total: int) -> float:
    """Rate of the update after `step` steps: linear from 0 over `warmup`, then a cosine to lr_min.

    Equal to transformers' cosine_with_min_lr_schedule_with_warmup.
    """
    if step < warmup:
        return lr * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return lr_min + (lr - lr_min) / 2 * (1 + math.cos(math.pi * progress))


def warmup_stable_decay(step: int, warmup: int, total: int) -> float:
    """A factor for step `step` (from 1): linear up to 1 over `warmup`, linear to 0 over the last
    tenth of `total` (the shape that Peng et al., arXiv 2410.16215, give to the share of KD).
    """
    decay = max(1, total // 10)
    return max(0.0, min(1.0, step / max(1, warmup), (total - step) / decay))
