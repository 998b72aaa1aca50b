"""DeepSpeed, in one place: ZeRO stage 1 or 2 around the student, without compiling anything."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cluster.place import PLACE, local_rank
from data_utils.errors import ArtefactError
from data_utils.program import CODE_ROOT
from pretrain.objective import Batch, Context
from pretrain.settings import BatchPlan, TrainSettings

Loss = Callable[[Batch], tuple[torch.Tensor, dict[str, torch.Tensor]]]  # Objective.loss


class UpdateRefused(Exception):
    """The gradients are not finite: no rank has updated anything, and training cannot continue."""


class Student(nn.Module):
    """What DeepSpeed wraps: the student alone, with the loss as its forward pass."""

    def __init__(self, student: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = student, loss  # the states on disk name the weights model.*

    def forward(self, **micro: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.loss(micro)


class Engine:
    """A student under DeepSpeed's optimiser: micro_step for each micro-batch, then update."""

    def __init__(self, student: nn.Module, loss: Loss, context: Context, converted: bool) -> None:
        choose_accelerator()
        import deepspeed
        from deepspeed import ops

        deepspeed.utils.logger.setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        if not torch.cuda.is_available():
            # Its shared-memory collectives would be compiled at the first start (DeepSpeed 0.19).
            ops.__compatible_ops__["deepspeed_shm_comm"] = False
        os.environ["LOCAL_RANK"] = str(local_rank())  # DeepSpeed insists, even for one process
        self.student, settings = student.to(context.processes.device), context.settings
        optimizer = torch.optim.AdamW(
            parameter_groups(student),
            lr=settings.lr,
            betas=(0.9, settings.beta2),
            eps=1e-6,
            weight_decay=settings.weight_decay,
            fused=context.processes.device.type == "cuda",
        )
        quiet = contextlib.redirect_stdout(io.StringIO())
        with context.processes.together("the start of DeepSpeed"), quiet:
            self.engine, *_ = deepspeed.initialize(
                model=Student(student, loss),
                optimizer=optimizer,
                config=deepspeed_config(settings, context.plan, converted),
                dist_init_required=False,
            )

    def micro_step(self, micro: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Forward and backward of one micro-batch; returns its loss and figures, scalar tensors.

        DeepSpeed divides the gradients by the step's micro-batches on all ranks. On the last one
        they are reduced; nothing is updated yet.
        """
        loss, figures = self.engine(**micro)
        self.engine.backward(loss)
        return loss, figures

    def next_micro_batch(self) -> None:
        """Between the micro-batches of a step."""
        self.engine.step()

    def update(self, lr: float) -> dict[str, float | None]:
        """Clip, update with this learning rate; returns grad_norm, loss_scale, skipped (0 or 1).

        DeepSpeed skips an update if the gradients or their norm are not finite; grad_norm is then
        None. That is an fp16 overflow if the loss scale can still be lowered, else UpdateRefused.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        before, scaler = self.engine.skipped_steps, self.engine.optimizer.loss_scaler
        try:
            self.engine.step()
        except Exception as error:  # the bare one that DeepSpeed's loss scaler raises
            if "loss scale already at minimum" not in str(error):
                raise
            raise UpdateRefused(
                f"the fp16 gradients overflow at the lowest loss scale ({scaler.cur_scale:g})"
            ) from error
        skipped = self.engine.skipped_steps - before
        if skipped and not scaler.dynamic:
            raise UpdateRefused("the gradients are not finite")
        norm = None if skipped else float(self.engine.get_global_grad_norm() or 0.0)
        return {"grad_norm": norm, "loss_scale": float(scaler.cur_scale), "skipped": skipped}

    def full_weights(self) -> dict[str, torch.Tensor]:
        """The model's weights in fp32 on the CPU, by their names in the model; all ranks call it.

        Half precision trains fp32 master weights that ZeRO spreads over the ranks: gather those.
        """
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {name: t.detach().cpu() for name, t in self.student.state_dict().items()}
        for name, parameter in self.student.named_parameters(remove_duplicate=False):
            if parameter.dtype != torch.float32:
                weights[name] = safe_get_full_fp32_param(parameter).cpu()
        return weights

    def save_state(self, folder: Path) -> None:
        """Write DeepSpeed's states (weights, optimiser, loss scale) under folder; all ranks."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.engine.save_checkpoint(str(folder), tag="state", save_latest=False)

    def load_state(self, folder: Path) -> None:
        """Read what save_state wrote, or what convert_state made of it; all ranks."""
        # From inside: DeepSpeed takes the path for a pattern, which would fail if it has brackets.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
            self.engine.load_checkpoint(".", tag="state")


def choose_accelerator() -> None:
    """Before DeepSpeed is first imported: without CUDA it is to use the CPU, without a warning."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


# The program and its own worker processes end with the run that started it, however that ends.
CONVERT = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
from data_utils.program import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
own = os.getpid()
os.register_at_fork(after_in_child=lambda: die_with_parent(own))
from deepspeed.checkpoint import ds_to_universal
ds_to_universal.main(ds_to_universal.parse_arguments())
"""


def parameter_groups(module: nn.Module, groups: int = 8) -> list[dict]:
    """The parameters in their order, cut into groups of about equal size.

    DeepSpeed updates one group after the other and holds copies of the group's gradients: with a
    single group the update of the 1.2B model would take 9 GB (benchmarks/memory_of_a_step.py).
    """
    parameters = list(module.parameters())
    size = sum(p.numel() for p in parameters) / groups
    found, so_far = [[]], 0
    for parameter in parameters:
        if so_far >= size * len(found):
            found.append([])
        found[-1].append(parameter)
        so_far += parameter.numel()
    return [{"params": group} for group in found]


def convert_state(folder: Path, target: Path) -> None:
    """Rewrite what save_state wrote to folder for any number of ranks and either ZeRO stage.

    folder is below the parent of target. ArtefactError if DeepSpeed cannot do it.
    """
    choose_accelerator()
    command = [sys.executable, "-c", CONVERT, CODE_ROOT, os.getpid()]
    source = (folder / "state").relative_to(target.parent)  # paths are patterns, see load_state
    command += ["--input_folder", source, "--output_folder", Path(target.name, "state")]
    command += ["--inject_missing_state"]
    environment = {k: v for k, v in os.environ.items() if k not in PLACE}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        env=environment,
        cwd=target.parent,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ArtefactError(
            f"DeepSpeed cannot convert the checkpoint's states ({' '.join(reason)})",
            where=folder,
            fix="start as many processes as before (NPROC, NNODES) with the former ZERO_STAGE",
        )


def deepspeed_config(settings: TrainSettings, plan: BatchPlan, converted: bool) -> dict:
    """DeepSpeed's JSON configuration, without an optimiser: that is ours.

    converted: the states to be loaded are those of convert_state.
    """
    config = {
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": settings.clip,
        # DeepSpeed's default of 5e8 elements takes 1 GB in half precision, however small the model.
        "zero_optimization": {"stage": settings.zero_stage, "reduce_bucket_size": 50_000_000},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**12,
        "checkpoint": {"load_universal": converted},
    }
    if settings.precision == "fp16":
        config["fp16"] = {
            "enabled": True,
            "loss_scale": 0,
            "initial_scale_power": 11,
            "loss_scale_window": 2000,
            "hysteresis": 4,
            "min_loss_scale": 1,
        }
    if settings.precision == "bf16":
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
    return config
