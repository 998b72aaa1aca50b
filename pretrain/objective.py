"""What the engine asks of a training objective, and how --objective finds one.

An objective is a plain object, not a torch module: what it holds (a teacher, a cache) is neither
trained nor sharded, cast or saved. Ours are the modules of pretrain/objectives, each with a class
Objective; --objective also takes the dotted path of any other module that Python can import.
"""

import dataclasses
import hashlib
import importlib.util
import pkgutil
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cluster.processes import Processes
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import Parser, parse
from pretrain import objectives
from pretrain.flops import forward_flops
from pretrain.settings import BatchPlan, TrainSettings

Batch = dict[str, torch.Tensor]  # of a step [A, M, ...], of one of its A micro-batches [M, ...]


@dataclasses.dataclass(frozen=True)
class Context:
    """What an objective may know of its run."""

    settings: TrainSettings  # the objective's own Settings
    processes: Processes
    plan: BatchPlan
    corpus: Corpus
    eos_id: int


class Objective:
    """The base class: an objective defines loss(), and of the rest what it needs."""

    Settings = TrainSettings  # a dataclass that inherits from TrainSettings adds flags
    FREE: frozenset[str] = frozenset()  # those of the added flags that may change on resume

    @classmethod
    def inputs(
        cls, settings: TrainSettings, base: Path, corpus: Corpus
    ) -> dict[str, tuple[Path, dict]]:
        """Further inputs, checked before processes start: name to (folder, identity)."""
        return {}

    def __init__(self, student: nn.Module, context: Context) -> None:
        """student: on its device, in fp32; DeepSpeed casts it afterwards, in place."""
        self.student, self.context = student, context

    def columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """More of these corpus rows [N] for the batch: name to [N, ...]; in the reader's thread."""
        return {}

    def begin_step(self, step: int, batch: Batch) -> Batch:
        """The batch of step `step` (from 1) with whatever else loss() needs, without gradients.

        All ranks call it before the micro-batches, but not for a step that SKIP_STEPS leaves out.
        """
        return batch

    def loss(self, micro: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a micro-batch and named figures, all scalars, the same names each time.

        Each adds 1 / plan.parts of itself to the step's. So what is normalised over the whole step,
        by a count from begin_step, is returned times plan.parts.
        """
        raise NotImplementedError

    def student_flops(self, tokens: float, mean_length: float) -> float:
        """FLOPs of the student for so many tokens of a step, in rows of this mean length.

        Once forward, twice backward; recomputed activations do not count.
        """
        return 3 * forward_flops(self.student, mean_length) * tokens

    def teacher_flops(self, tokens: float, mean_length: float) -> float:
        """The same of all other models."""
        return 0.0

    def state(self) -> Batch:
        """What a checkpoint must keep: tensors equal on all ranks, for any number of ranks."""
        return {}

    def load_state(self, state: Batch) -> None:
        """Take back what state() gave, on the CPU; not called where it gave nothing."""


def generator(seed: int, step: int, sample: int) -> torch.Generator:
    """Random numbers (on the CPU) of a sample of a step, whatever the rank; nothing to save.

    sample: e.g. its place in the global batch.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{sample}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))


def names() -> list[str]:
    """The objectives of pretrain/objectives."""
    return sorted(module.name for module in pkgutil.iter_modules(objectives.__path__))


def load(name: str) -> type[Objective]:
    """The class of an objective: a name of names(), or a module's dotted path; else InputError."""
    path = f"{objectives.__name__}.{name}" if name in names() else name
    try:
        found = importlib.util.find_spec(path)
    except (ImportError, ValueError):  # of a package that is not there; no path at all
        found = None
    objective = getattr(importlib.import_module(path), "Objective", None) if found else None
    if objective is None:
        raise InputError(
            "unknown --objective",
            expected=f"{' or '.join(names())}, or the path of a module with a class Objective",
            found=name,
            fix="choose one of these, or put the folder of your module on PYTHONPATH",
        )
    return objective


def parse_settings(argv: list[str] | None = None) -> TrainSettings:
    """The flags of pre-training and of the chosen objective; another's are unknown (InputError)."""
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--objective", default=TrainSettings.objective)
    name = first.parse_known_args(argv)[0].objective
    shown = " ".join(filter(None, map(own_flags, sorted({*names(), name}))))
    return parse(load(name).Settings, argv, positional="base_path", epilog=shown)


def own_flags(name: str) -> str:
    """For --help: the flags that an objective adds; empty if it adds none."""
    fields = dataclasses.fields(load(name).Settings)[len(dataclasses.fields(TrainSettings)) :]
    flags = [f"--{f.name.replace('_', '-')} ({f.metadata['help']})" for f in fields]
    return f"Only with --objective {name}: {', '.join(flags)}." if flags else ""
