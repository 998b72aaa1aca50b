"""pretrain/train.py with fp16's loss scale around fp32 training, and chosen steps that overflow.

fp16 itself needs a GPU; DeepSpeed's scaler, its ZeRO optimiser and our handling of both do not.
OVERFLOWS=3-5,7 in the environment: the steps whose gradient gets an infinity.
"""

import os

import torch
from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler
from deepspeed.runtime.precision_config import DeepSpeedFP16Config

from pretrain import train
from pretrain.engine import Engine, deepspeed_config
from pretrain.settings import TrainSettings, step_ranges

FP16 = TrainSettings(precision="fp16")
ARGUMENTS = DeepSpeedFP16Config(
    **deepspeed_config(FP16, FP16.plan(1), converted=False)["fp16"]
).dynamic_loss_scale_args()  # as DeepSpeed's engine hands them to its ZeRO optimiser


class ScaledEngine(Engine):
    """The engine with fp16's loss scaler."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.engine.optimizer.loss_scaler = CreateLossScaler(torch.half, 0, True, ARGUMENTS)
        self.engine.optimizer.dynamic_loss_scale = True
        next(self.student.parameters()).register_hook(self.poison)

    def poison(self, gradient: torch.Tensor) -> torch.Tensor:
        """An infinity in the gradients of the steps that are to overflow."""
        step, overflows = self.engine.global_steps + 1, step_ranges(os.environ["OVERFLOWS"])
        bad = any(first <= step <= last for first, last in overflows)
        return gradient * float("inf") if bad else gradient


def main() -> None:
    train.Engine = ScaledEngine
    train.main()
