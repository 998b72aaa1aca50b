"""The flags of pre-training; scripts/common.sh makes them from the launchers' variables."""

import re
from dataclasses import dataclass
from typing import Literal

from data_utils.flags import flag
from pretrain import objectives
from pretrain.models import Attention, Precision


@dataclass
class TrainSettings:
    """Pre-train a student (or the reference model) on a corpus."""

    base_path: str = flag(".", "where processed_data/, checkpoints/ and results/ lie")
    model_config: str = flag("configs/models/qwen/200M.json", "architecture, trained from scratch")
    model_path: str = flag("", "continue from this model's weights instead")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the corpus to train on")
    valid_data: str = flag("", "held-out corpus; its loss is taken every --valid-every steps")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    save: str = flag("results/pretrain/qwen/200M", "folder of the run")
    objective: Literal[*objectives.names()] = flag("language_modelling", "what is trained for")
    global_batch: int = flag(512, "sequences a step")
    micro_batch: int = flag(8, "sequences a process takes at once")
    lr: float = flag(6e-4, "highest learning rate")
    lr_min: float = flag(6e-5, "learning rate at the last step")
    warmup_steps: int = flag(2000, "steps of linear warm-up from 0")
    total_steps: int = flag(100_000, "steps of the schedule")
    stop_step: int = flag(0, "end early after this step, with a checkpoint; 0: do not")
    skip_steps: str = flag("", "steps whose batches are left out, e.g. 1234-1236,1300")
    beta2: float = flag(0.98, "AdamW's second beta")
    weight_decay: float = flag(0.01, "AdamW's decay, on all parameters")
    clip: float = flag(1.0, "gradient norm is clipped to this")
    seed: int = flag(10, "of the initial weights, and of the order with --shuffle")
    shuffle: bool = flag(False, "a new order of the rows each epoch")
    precision: Precision = flag("auto", "auto: fp16 on a GPU, fp32 on a CPU")
    attention: Attention = flag("sdpa", "attention of the model")
    grad_checkpoint: bool = flag(
        False,
        "recompute a layer's activations in the backward pass: less memory, a third more time",
    )
    compile: bool = flag(False, "torch.compile the model's trunk: pays on a GPU")
    zero_stage: Literal[1, 2] = flag(1, "DeepSpeed's ZeRO stage")
    save_every: int = flag(5000, "steps between checkpoints")
    log_every: int = flag(10, "steps between lines of metrics.jsonl")
    valid_every: int = flag(1000, "steps between held-out losses")
    keep_last: int = flag(2, "resumable checkpoints that are kept")
    keep_every: int = flag(0, "keep the model of every K-th step for good; 0: none")
    resume: bool = flag(True, "go on from the folder's newest whole checkpoint")
    allow_change: str = flag("", "what may differ from the run so far, e.g. lr,corpus; recorded")
    dist_timeout: int = flag(600, "seconds until a collective is given up")
    wandb_mode: Literal["online", "offline", "disabled"] = flag("disabled", "of wandb")

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

    def accumulation(self, world: int) -> int:
        """Micro-batches that a process takes a step."""
        if self.global_batch % (self.micro_batch * world):
            raise ValueError(
                f"GLOBAL_BATCH={self.global_batch} is no multiple of MICRO_BATCH="
                f"{self.micro_batch} x {world} processes"
            )
        return self.global_batch // (self.micro_batch * world)


def step_ranges(text: str) -> list[tuple[int, int]]:
    """'1234-1236,1300' as (first, last) pairs."""
    ranges = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match or int(match[1]) > int(match[2] or match[1]):
            raise ValueError(f"--skip-steps {text}: expected steps like 1234-1236,1300")
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return ranges


# What may differ between a run and its continuation: everything else decides the result.
FREE = frozenset(
    "base_path data_dir valid_data tokenizer_path save model_config model_path micro_batch "
    "stop_step skip_steps zero_stage save_every log_every valid_every keep_last keep_every resume "
    "allow_change dist_timeout wandb_mode".split()
)
