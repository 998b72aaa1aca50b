"""What is trained for: a module an objective, each with a class Objective, chosen by --objective.

Objective(model, eos_id) is an nn.Module that takes a micro-batch (tokens, lengths) and returns its
loss and named figures, all scalar tensors; their means over the step stand in metrics.jsonl. It
returns the same figures each time, under names that metrics.jsonl does not have yet.
"""

import importlib
import pkgutil

from torch import nn


def names() -> list[str]:
    """The objectives that there are: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def make(name: str, model: nn.Module, eos_id: int) -> nn.Module:
    """The objective of this name around a model."""
    return importlib.import_module(f"{__name__}.{name}").Objective(model, eos_id)
