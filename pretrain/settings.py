"""The flags of pre-training; scripts/common.sh makes them from the launchers' variables."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_utils.errors import InputError
from data_utils.flags import flag
from pretrain.models import Attention, Precision


@dataclass(frozen=True)
class BatchPlan:
    """How the sequences of a step are cut up: accumulation x world x micro_batch."""

    global_batch: int
    micro_batch: int
    world: int
    accumulation: int  # micro-batches per process and step

    @property
    def parts(self) -> int:
        """Micro-batches of a step on all ranks."""
        return self.accumulation * self.world

    def part(self, values: np.ndarray, rank: int) -> np.ndarray:
        """A rank's part [A, M, ...] of values [global batch, ...] of a step; tensors work, too."""
        shape = (self.accumulation, self.world, self.micro_batch, *values.shape[1:])
        return values.reshape(shape)[:, rank]


@dataclass
class TrainSettings:
    """Pre-train a student (or the reference model) on a corpus."""

    base_path: str = flag(".", "the folder with processed_data/, checkpoints/ and results/")
    model_config: str = flag("configs/models/qwen/200M.json", "architecture, trained from scratch")
    model_path: str = flag("", "continue from this model's weights instead")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the corpus to train on")
    valid_data: str = flag("", "held-out corpus; its loss is measured every --valid-every steps")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    save: str = flag("results/pretrain/qwen/200M", "folder of the run")
    objective: str = flag(
        "language_modelling", "a module of pretrain/objectives, or another's path"
    )
    global_batch: int = flag(512, "sequences per step")
    micro_batch: int = flag(8, "sequences per process and forward pass")
    lr: float = flag(6e-4, "highest learning rate")
    lr_min: float = flag(6e-5, "learning rate at the last step")
    warmup_steps: int = flag(2000, "steps of linear warm-up from 0")
    total_steps: int = flag(100_000, "steps of the schedule")
    stop_step: int = flag(0, "end early after this step, with a checkpoint; 0: never")
    skip_steps: str = flag("", "steps whose batches are left out, e.g. 1234-1236,1300")
    beta2: float = flag(0.98, "AdamW's second beta")
    weight_decay: float = flag(0.01, "AdamW's decay, on all parameters")
    clip: float = flag(1.0, "gradient norm is clipped to this")
    seed: int = flag(10, "for the initial weights, and for the order of the rows with --shuffle")
    shuffle: bool = flag(False, "a new order of the rows in each epoch")
    precision: Precision = flag("auto", "auto: fp16 on a GPU, fp32 on a CPU")
    attention: Attention = flag("sdpa", "implementation of the model's attention")
    grad_checkpoint: bool = flag(
        False,
        "recompute each layer's activations in the backward pass: less memory, a third more time",
    )
    compile: bool = flag(False, "torch.compile the model's trunk: pays off on a GPU")
    zero_stage: Literal[1, 2] = flag(1, "DeepSpeed's ZeRO stage")
    save_every: int = flag(5000, "steps between checkpoints")
    log_every: int = flag(10, "steps between lines of metrics.jsonl")
    valid_every: int = flag(1000, "steps between held-out losses")
    keep_last: int = flag(2, "resumable checkpoints that are kept")
    keep_every: int = flag(0, "keep the model of every K-th step for good; 0: none")
    resume: bool = flag(True, "continue from the newest intact checkpoint in the folder")
    allow_change: str = flag("", "what may differ from the run so far, e.g. lr,corpus; recorded")
    dist_timeout: int = flag(600, "seconds that processes wait for each other")
    wandb_mode: Literal["online", "offline", "disabled"] = flag("disabled", "wandb mode")
    tracker: Literal["wandb", "trackio"] = flag(
        "wandb", "where figures are tracked; trackio needs no account and no --wandb-mode"
    )

    def __post_init__(self) -> None:
        positive = "global_batch micro_batch total_steps save_every log_every valid_every keep_last"
        for name in positive.split():
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ValueError("--warmup-steps must be between 0 and --total-steps")
        self.skipped_ranges = step_ranges(self.skip_steps)

    def skips(self, step: int) -> bool:
        """Whether the step's batch is left out (steps from 1)."""
        return any(first <= step <= last for first, last in self.skipped_ranges)

    def plan(self, world: int) -> BatchPlan:
        """How a step is cut up for so many processes; InputError if they do not divide it."""
        accumulation, rest = divmod(self.global_batch, self.micro_batch * world)
        if rest:
            raise InputError(
                f"GLOBAL_BATCH={self.global_batch} is not a multiple of MICRO_BATCH="
                f"{self.micro_batch} x {world} processes",
                fix="change GLOBAL_BATCH, MICRO_BATCH or NPROC",
            )
        return BatchPlan(self.global_batch, self.micro_batch, world, accumulation)


def step_ranges(text: str) -> list[tuple[int, int]]:
    """'1234-1236,1300' as (first, last) pairs; ValueError for anything else."""
    ranges = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match or int(match[1]) > int(match[2] or match[1]):
            raise ValueError(f"--skip-steps {text}: expected steps like 1234-1236,1300")
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return ranges


# What may change when a run is resumed: everything else decides the result.
FREE = frozenset(
    "base_path data_dir valid_data tokenizer_path save model_config model_path micro_batch "
    "stop_step skip_steps zero_stage save_every log_every valid_every keep_last keep_every resume "
    "allow_change dist_timeout wandb_mode tracker".split()
)
