"""What scripts/experiments/benchmark_1B.sh will cost: tokens, FLOPs, hours and disk of each stage.

    PLAN=true bash scripts/experiments/benchmark_1B.sh BASE_PATH
    python3 experiments/benchmark_1B/plan.py BASE_PATH [--tflops 60] [--long-steps-only true]

FLOPs are those that the manifests of a run count (pretrain/flops.py), of the real configurations
with every row full: rows are cut at the end of a sentence, so a run costs a little less. Hours are
FLOPs over --tflops, a speed that is assumed, not measured. Starts nothing and writes nothing.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from data_utils.flags import base_folder, flag, parse, under
from pretrain.flops import PEAKS, forward_flops
from pretrain.models import count_parameters, read_config
from reports import terminal
from reports.page import Column, scientific

STORED = 37  # bytes per token of 50 systematic draws (docs/data.md)
CHECKPOINT = 18  # bytes per parameter: the model and what resumes it (README)
TEXT = 5.91 * 1024  # bytes of a document of the Pile (its paper's table 1, arXiv 2101.00027)
TASK_TOKENS = 10e6  # of the nine tasks' requests, about: 77,000 of about 100 tokens
# Counted for the 200M on a CPU by benchmarks/memory_of_a_step.py (docs/measured.md): all of a
# micro-step but the trunk's activations, per parameter; these, per token of the micro-batch.
STATE, ACTIVATIONS = 24.6, 469_200
MARGIN = 1.05  # of the longer control: rows are not equally full everywhere
CARDS = {"3090", "4090", "A10", "L4"}  # of 24 GB
METHODS = ("plain", "vanilla KD", "MiniPLM", "MiniPLM and KD")


@dataclass
class Settings:
    """Print what the benchmark at 1 B tokens per student costs."""

    base_path: str = flag(".", "folder with configs/, else the repository's are taken")
    teacher_config: str = flag("configs/models/qwen/1.8B.json", "the teacher")
    reference_config: str = flag("configs/models/qwen/104M_ref.json", "the reference")
    student_config: str = flag("configs/models/qwen/200M.json", "the students")
    reference: Literal["train", "download"] = flag("train", "where the reference comes from")
    documents: int = flag(2_400_000, "documents of text")
    max_length: int = flag(1025, "tokens of a row, label included")
    shard_size: int = flag(
        1_000_000, "rows of a shard: two are scored, the next is the reference's"
    )
    steps: int = flag(7812, "steps of each student, and of the reference")
    global_batch: int = flag(128, "rows of a step")
    micro_batch: int = flag(16, "rows of a forward pass")
    held_out: int = flag(2048, "held-out rows")
    valid_every: int = flag(250, "steps between held-out losses")
    seeds: int = flag(3, "students per method")
    long_steps: int = flag(-1, "steps of the longer control; 0: none, -1: as MiniPLM's FLOPs allow")
    tflops: float = flag(60.0, "sustained TFLOP/s that are assumed")
    long_steps_only: bool = flag(False, "print nothing but the steps of the longer control")

    def __post_init__(self) -> None:
        least = min(self.steps, self.global_batch, self.valid_every, self.seeds, self.shard_size)
        if least < 1 or self.max_length < 2 or self.tflops <= 0:
            raise ValueError("sizes, numbers of steps and --tflops must be above 0")

    @property
    def pool(self) -> int:
        """Tokens of the scored rows: two shards."""
        return 2 * self.shard_size * self.max_length


@dataclass(frozen=True)
class Stage:
    """Stages of one kind: tokens that models read, FLOPs, and bytes that are left on the disk."""

    name: str
    tokens: float = 0
    flops: float = 0
    disk: float = 0

    def times(self, number: int) -> "Stage":
        """So many of them."""
        return Stage(
            f"{self.name}, {number} times",
            number * self.tokens,
            number * self.flops,
            number * self.disk,
        )


@dataclass(frozen=True)
class Models:
    """The three models without their weights."""

    teacher: nn.Module
    reference: nn.Module
    student: nn.Module


def outlines(settings: Settings) -> Models:
    """The models of the configurations, on no device; InputError for one that cannot be read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    base, made = base_folder(settings.base_path), []
    for file in (settings.teacher_config, settings.reference_config, settings.student_config):
        config = AutoConfig.for_model(**read_config(under(base, file)))
        with torch.device("meta"):
            made.append(AutoModelForCausalLM.from_config(config))
    return Models(*made)


def one_pass(model: nn.Module, rows: int, length: int) -> float:
    """FLOPs of a forward pass over rows of this many tokens."""
    return forward_flops(model, length) * rows * length


def training(model: nn.Module, rows: int, length: int) -> float:
    """FLOPs of training on rows of this many tokens, of which the last is a label only."""
    return 3 * one_pass(model, rows, length - 1)


def scoring(settings: Settings, models: Models) -> float:
    """FLOPs that MiniPLM needs before its first step: both passes, and the reference's training."""
    passes = sum(
        one_pass(model, 2 * settings.shard_size, settings.max_length)
        for model in (models.teacher, models.reference)
    )
    if settings.reference == "download":
        return passes
    rows = settings.steps * settings.global_batch
    return passes + training(models.reference, rows, settings.max_length)


def long_steps(settings: Settings, models: Models) -> int:
    """Steps of the control that is given the FLOPs of MiniPLM: its student's and the scoring's."""
    if settings.long_steps >= 0:
        return settings.long_steps
    a_step = training(models.student, settings.global_batch, settings.max_length)
    return math.ceil(MARGIN * (settings.steps + scoring(settings, models) / a_step))


def student(settings: Settings, models: Models, steps: int) -> Stage:
    """Training a student with its held-out losses, and all that is left of the run."""
    length, rows = settings.max_length, steps * settings.global_batch
    held_out = one_pass(models.student, settings.held_out, length - 1)
    measured = math.ceil(steps / settings.valid_every)
    return Stage(
        f"train for {steps:,} steps",
        rows * (length - 1),
        training(models.student, rows, length) + measured * held_out,
        (4 + CHECKPOINT) * count_parameters(models.student),
    )


def stages(settings: Settings, models: Models) -> Iterator[Stage]:
    """The script's stages in their order, those without a model together."""
    rows, length, seeds = 2 * settings.shard_size, settings.max_length, settings.seeds
    weights = 2 * count_parameters(models.teacher)
    yield Stage("text", disk=settings.documents * TEXT)
    yield Stage("teacher, downloaded", disk=weights)
    yield Stage("corpus: pool and the reference's part", disk=4 * 1.5 * settings.pool)
    trained = settings.steps * settings.global_batch
    reference = Stage(
        "train the reference",
        trained * (length - 1),
        training(models.reference, trained, length),
        (4 + CHECKPOINT) * count_parameters(models.reference),
    )
    if settings.reference == "download":
        reference = Stage("reference, downloaded", disk=4 * count_parameters(models.reference))
    yield reference
    teacher = one_pass(models.teacher, rows, length)
    yield Stage(
        "score with the teacher and store it", settings.pool, teacher, STORED * settings.pool
    )
    yield Stage("score with the reference", settings.pool, one_pass(models.reference, rows, length))
    yield Stage("selected half, random halves", disk=4 * settings.pool / 2 * (1 + seeds))
    each = student(settings, models, settings.steps)
    for method in METHODS:
        run = each.times(seeds)
        yield Stage(f"{method}: {run.name}", run.tokens, run.flops, run.disk)
    count = len(METHODS) * seeds
    if long := long_steps(settings, models):
        run = student(settings, models, long)
        yield Stage(f"plain at MiniPLM's FLOPs: {run.name}", run.tokens, run.flops, run.disk)
        count += 1
    held_out = Stage(
        "held-out loss",
        settings.held_out * (length - 1),
        one_pass(models.student, settings.held_out, length - 1),
    )
    yield held_out.times(count)
    # Contexts are short: the attention's share of a row of 100 tokens.
    tasks = Stage("zero-shot tasks", TASK_TOKENS, forward_flops(models.student, 100) * TASK_TOKENS)
    yield tasks.times(count)


def memory(settings: Settings, models: Models) -> tuple[float, float]:
    """(bytes of a student's micro-step without GRAD_CHECKPOINT, of the teacher's weights)."""
    tokens = settings.micro_batch * (settings.max_length - 1)
    each = STATE * count_parameters(models.student) + ACTIVATIONS * tokens
    return each, 2 * count_parameters(models.teacher)


def rows_of(found: list[Stage], tflops: float) -> list[dict]:
    """The table's rows, the sum last."""
    total = Stage("all", *(sum(getattr(s, n) for s in found) for n in ("tokens", "flops", "disk")))
    return [
        {
            "stage": stage.name,
            "tokens": stage.tokens or math.nan,
            "flops": stage.flops or math.nan,
            "hours": stage.flops / (1e12 * tflops) / 3600 or math.nan,
            "disk": stage.disk / 1e9 or math.nan,
        }
        for stage in (*found, total)
    ]


def one_digit(value: float) -> str:
    """1,234.5; a dash where there is no value."""
    return f"{value:,.1f}" if value == value else "–"


COLUMNS = (
    Column("stage", "stage"),
    Column("tokens", "tokens", scientific),
    Column("flops", "FLOPs", scientific),
    Column("hours", "hours", one_digit),
    Column("disk", "GB on disk", one_digit),
)


def assumptions(settings: Settings, models: Models) -> list[str]:
    """What the table rests on, in sentences."""
    shares = ", ".join(
        f"{100 * settings.tflops / peaks[0]:.0f} % of the {' '.join(words)}'s peak"
        for words, peaks in PEAKS
        if words <= CARDS
    )
    step, weights = memory(settings, models)
    free = shutil.disk_usage(base_folder(settings.base_path)).free
    batch = f"MICRO_BATCH={settings.micro_batch}"
    return [
        f"Pool: {2 * settings.shard_size:,} rows of {settings.max_length:,} tokens are scored; a "
        f"student takes {settings.steps * settings.global_batch:,} rows, once.",
        f"Hours assume {settings.tflops:g} TFLOP/s throughout (TFLOPS): {shares}. Nobody measured "
        "it. Tokenizing, downloads and the copies of rows are not in the hours.",
        f"Memory: {step / 1e9:.1f} GB for a student's micro-step with {batch} and without "
        f"GRAD_CHECKPOINT; {weights / 1e9:.1f} GB for the teacher's weights, which stand beside a "
        "student's only before its first step. Counted for the 200M on a CPU "
        "(benchmarks/memory_of_a_step.py), without what an allocator adds; not run on a card.",
        f"Disk: {free / 1e9:,.0f} GB are free under BASE_PATH.",
    ]


def main() -> None:
    settings = parse(Settings, positional="base_path")
    models = outlines(settings)
    if settings.long_steps_only:
        print(long_steps(settings, models))
        return
    print(terminal.table(rows_of(list(stages(settings, models)), settings.tflops), COLUMNS))
    print("\n" + "\n".join(f"* {sentence}" for sentence in assumptions(settings, models)))


if __name__ == "__main__":
    run(main)
