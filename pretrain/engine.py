"""DeepSpeed, in one place: ZeRO stage 1 or 2 around an objective, without compiling anything."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from cluster.place import PLACE, local_rank
from cluster.processes import Processes
from data_utils.errors import ArtefactError
from data_utils.program import CODE_ROOT

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


class UpdateRefused(Exception):
    """Gradients that are no numbers: nothing was updated, on any rank, and going on is no use."""


class Engine:
    """An objective under DeepSpeed's optimiser; one call of `step` is one update."""

    def __init__(self, objective: nn.Module, processes: Processes, config: dict, adam: dict):
        import deepspeed
        from deepspeed import ops

        deepspeed.utils.logger.setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        if not torch.cuda.is_available():
            # Its shared-memory collectives would be compiled at the first start (DeepSpeed 0.19).
            ops.__compatible_ops__["deepspeed_shm_comm"] = False
        os.environ["LOCAL_RANK"] = str(local_rank())  # DeepSpeed insists, even for one process
        objective.to(processes.device)
        optimizer = torch.optim.AdamW(
            parameter_groups(objective), **adam, fused=processes.device.type == "cuda"
        )
        quiet = contextlib.redirect_stdout(io.StringIO())
        with processes.together("the start of DeepSpeed"), quiet:
            self.engine, *_ = deepspeed.initialize(
                model=objective, optimizer=optimizer, config=config, dist_init_required=False
            )

    @property
    def objective(self) -> nn.Module:
        """The wrapped objective."""
        return self.engine.module

    def micro_step(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict]:
        """Forward and backward of one micro-batch; returns its loss and figures, scalar tensors.

        On the last micro-batch of a step the gradients are reduced and nothing is updated yet.
        """
        loss, figures = self.engine(**batch)
        self.engine.backward(loss)
        return loss, figures

    def next_micro_batch(self) -> None:
        """Between the micro-batches of a step."""
        self.engine.step()

    def update(self, lr: float) -> dict[str, float | None]:
        """Clip, update with this learning rate; returns grad_norm, loss_scale, skipped (0 or 1).

        DeepSpeed skips an update whose gradients, or their norm, are not finite, and then there is
        no grad_norm. With a loss scale that can still be lowered that is an fp16 overflow;
        otherwise UpdateRefused.
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
        model = self.objective.model
        if all(p.dtype == torch.float32 for p in model.parameters()):
            return {name: t.detach().cpu() for name, t in model.state_dict().items()}
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {name: t.detach().cpu() for name, t in model.state_dict().items()}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            weights[name] = safe_get_full_fp32_param(parameter).cpu()
        return weights

    def save_state(self, folder: Path) -> None:
        """Write DeepSpeed's states (weights, optimiser, loss scale) under folder; all ranks."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.engine.save_checkpoint(str(folder), tag="state", save_latest=False)

    def load_state(self, folder: Path) -> None:
        """Read what save_state wrote, or what convert_state made of it; all ranks."""
        # From inside: DeepSpeed takes a path for a pattern, which one with brackets does not match.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
            self.engine.load_checkpoint(".", tag="state")


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

    DeepSpeed updates group after group and holds copies of one group's gradients: with one group
    the update of the 1.2B model alone would take 9 GB (benchmarks/memory_of_a_step.py).
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
    """Write what save_state wrote to folder for any number of ranks and either ZeRO stage.

    folder lies below the one that target lies in.
    """
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


def deepspeed_config(
    zero_stage: int,
    precision: str,
    micro_batch: int,
    accumulation: int,
    clip: float,
    converted: bool,
) -> dict:
    """DeepSpeed's JSON configuration; the optimiser is ours, so it names none.

    converted: the states to be loaded are those of convert_state.
    """
    config = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip,
        # DeepSpeed's own bucket, 5e8 elements, is 1 GB in half precision however small the model.
        "zero_optimization": {"stage": zero_stage, "reduce_bucket_size": 50_000_000},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**12,
        "checkpoint": {"load_universal": converted},
    }
    if precision == "fp16":
        config["fp16"] = {
            "enabled": True,
            "loss_scale": 0,
            "initial_scale_power": 11,
            "loss_scale_window": 2000,
            "hysteresis": 4,
            "min_loss_scale": 1,
        }
    if precision == "bf16":
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
    return config
