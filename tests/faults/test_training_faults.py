"""Pre-training under fire: however often it is killed -9, it ends bit for bit as if undisturbed.

.venv/bin/python -m pytest tests/faults/test_training_faults.py
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from data_utils import artefact
from pretrain import checkpoints
from tests import make
from tests.faults import hooks
from tests.pretrain.test_training import base, damage, flags, one, same_run, start, train, two

__all__ = ["base", "one", "two"]  # fixtures: one BASE_PATH and the undisturbed runs

# Half calls among which the moment is drawn: what is sure to come in a run from its beginning.
MOMENTS = {
    "begin: the settings": 2,
    "resume: looking for a checkpoint": 2,
    "resume: loading the states": 2,
    "resume: cutting off the metrics": 2,
    "curves": 2,
    "save: the manifest's rename": 2,
    "save: between data and manifest": 2,
    "prune: removing": 2,
    "prune: the renames": 2,
    "prune: dropping the states": 2,
    "end: between model and manifest": 2,
    "conversion": 2,
    "conversion: DeepSpeed's program": 2,
}
KEEP = {"SAVE_EVERY": 2, "KEEP_LAST": 1, "KEEP_EVERY": 4}


def no_process_left(word: object, seconds: float = 10) -> None:
    """Nothing whose command line has the word in it, at the latest after these seconds."""
    end = time.monotonic() + seconds
    while make.processes_naming(word) and time.monotonic() < end:
        time.sleep(0.05)
    left = [Path(f"/proc/{n}/cmdline").read_bytes() for n in make.processes_naming(word)]
    assert not left


def test_killed_in_every_phase_it_ends_bit_for_bit_the_same(base, one):
    """One folder, killed again and again, each start in another phase, until it ends; then anew.

    The conversion is provoked by ZeRO stage 2, which gives the same bits with one process.
    """
    choice, hit, folder = random.Random(7), {}, base / "killed"
    waiting, ends = list(hooks.PHASES), 0
    choice.shuffle(waiting)
    while waiting:
        phase = waiting.pop(0)
        moment = choice.randrange(MOMENTS.get(phase, 6))
        stage = choice.randint(1, 2)
        if phase.startswith("conversion"):
            stage = 3 - present_stage(folder)
        run = hooks.start(base, flags(SAVE="killed", ZERO_STAGE=stage, **KEEP), phase, moment)
        run.wait()
        assert run.code in (0, -signal.SIGKILL), run.errors
        no_process_left(folder)
        if run.code:
            hit[phase] = moment
        else:  # the run ended before this phase came
            waiting.append(phase)
        if (folder / artefact.MANIFEST).exists():
            same_run(folder, one)
            shutil.rmtree(folder)
            ends += 1
    hooks.start(base, flags(SAVE="killed", **KEEP)).wait()
    same_run(folder, one)
    only_what_is_kept(folder)
    print("phases hit, at which half call:", hit, "runs ended:", ends + 1)
    assert hit.keys() == hooks.PHASES.keys() and not multiprocessing.active_children()


def present_stage(folder: Path) -> int:
    """The ZeRO stage of the newest checkpoint, 2 if there is none."""
    steps = checkpoints.steps_present(folder)
    if not steps:
        return 2
    return checkpoints.read_state(checkpoints.step_folder(folder, steps[-1]))["zero_stage"]


def only_what_is_kept(folder: Path) -> None:
    """The checkpoints of KEEP and nothing half made or half removed."""
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    assert found == {"step_000004", "step_000008", "step_000012"}
    for name in found:
        artefact.require(folder / name, "model", "", contents=True)
        assert (folder / name / "deepspeed").exists() == (name == "step_000012")
    assert not list(folder.rglob("*.tmp"))
