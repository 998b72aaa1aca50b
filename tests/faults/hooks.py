"""Where a run of pre-training can be struck: a table of phases, and a program struck in one.

A phase is a call: (owner, name), or within another: (owner, name, owner, name of the inner call).
The strike comes at a half call of it: 0 before the first one, 1 behind it, 2 before the second.
"""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from data_utils import artefact, artefact_writer, atomic_files
from data_utils.artefact_writer import Output
from pretrain import batches, checkpoints, engine, metrics, train
from pretrain.engine import Engine
from pretrain.metrics import Metrics
from tests import programs

PHASES = {
    "begin: the settings": (train, "begin", artefact_writer, "write_json"),
    "begin: their rename": (train, "begin", os, "replace"),
    "resume: looking for a checkpoint": (train, "find_checkpoint"),
    "step: reading ahead": (batches, "read_step"),
    "step: forward and backward": (Engine, "micro_step"),
    "step: the update": (Engine, "update"),
    "held-out loss": (train, "held_out_loss"),
    "metrics: a step's": (Metrics, "log"),
    "metrics: the line's fsync": (Metrics, "log", os, "fsync"),
    "metrics: half a line": None,  # half_a_line
    "save: all of it": (train, "save_checkpoint"),
    "save: DeepSpeed's states": (Engine, "save_state"),
    "save: between the state files": (Engine, "save_state", torch, "save"),
    "save: the model file": (safetensors.torch, "save_file"),
    "save: the tokenizer": (checkpoints, "write_model", checkpoints.shutil, "copyfile"),
    "save: the fsyncs": (checkpoints, "sync_tree", os, "fsync"),
    "save: between data and manifest": (train, "save_checkpoint", Output, "finish"),
    "save: checksums": (train, "save_checkpoint", artefact_writer, "describe"),
    "save: the manifest's rename": (Output, "finish", os, "replace"),
    "save: the folder's rename": (train, "save_checkpoint", os, "rename"),
    "resume: loading the states": (Engine, "load_state"),
    "resume: reading the metrics": (Metrics, "__init__", metrics, "read_metrics"),
    "resume: cutting off the metrics": (Metrics, "__init__", os, "replace"),
    "prune: removing": (train, "prune", checkpoints.shutil, "rmtree"),
    "prune: the renames": (train, "prune", os, "rename"),
    "prune: dropping the states": (checkpoints, "drop_state", artefact, "write_json"),
    "curves": (metrics, "draw_curves"),
    "end: copying the model": (train, "publish_final", atomic_files, "copy_file"),
    "end: between model and manifest": (train, "publish_final", Output, "finish"),
    "conversion": (train, "convert_state"),
    "conversion: DeepSpeed's program": (engine.subprocess, "run"),
}


def strike_at(phase: str, moment: int, strike: Callable[[], None]) -> None:
    """Let strike() happen in this process at this half call of the phase, once."""
    if PHASES[phase] is None:
        half_a_line(moment)
        return
    *outer, owner, name = PHASES[phase]
    inner = getattr(owner, name)
    struck = programs.struck(inner, moment, strike)
    if not outer:
        setattr(owner, name, struck)
        return
    whole = getattr(*outer)

    @functools.wraps(whole)
    def outside(*arguments, **options):
        setattr(owner, name, struck)
        try:
            return whole(*arguments, **options)
        finally:
            setattr(owner, name, inner)

    setattr(*outer, outside)


def half_a_line(moment: int) -> None:
    """Let this process be killed in the middle of the line of its n-th metrics."""
    whole, count = Metrics.log, 0

    def log(self: Metrics, row: dict) -> None:
        nonlocal count
        if count == moment:
            line = json.dumps(row)
            self.file.write(line[: len(line) // 2])
            self.file.flush()
            programs.kill()
        count += 1
        whole(self, row)

    Metrics.log = log


def run(words: list, phase: str, moment: int, strike: Callable, output: Path) -> None:
    """pretrain.train's main() with these words, struck in this phase ("": never)."""
    if phase:
        strike_at(phase, moment, strike)
    programs.main("pretrain.train", words, {}, output)


def start(
    base: Path, words: list, phase: str = "", moment: int = 0, strike: Callable = programs.kill
) -> programs.Program:
    """Such a program, running; its output goes to new files in base."""
    return programs.fork(base, run, [base, *words], phase, moment, strike)
