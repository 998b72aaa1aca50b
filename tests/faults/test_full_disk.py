"""No space, no permission: one message, nothing finished is lost, and the same command resumes.

.venv/bin/python -m pytest tests/faults/test_full_disk.py
A file system of 8 MB is mounted for it, which needs root; a limit on a file's size does not.
"""

import contextlib
import functools
import os
import resource
import subprocess
from pathlib import Path

import pytest

from data_utils import artefact
from pretrain import checkpoints
from tests import make
from tests.faults import hooks
from tests.pretrain.runs import call, flags, same_run
from tests.programs import one_message


@contextlib.contextmanager
def mounted(folder: Path, *words: str):
    """Something mounted on folder, which is made; skips the test where that is not possible."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *words, folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def small_disk(base) -> Path:
    with mounted(base / "small disk", "-t", "tmpfs", "-o", "size=8m", "none") as disk:
        yield disk


def fill(disk: Path, left: int = 0) -> None:
    """Leave so many bytes of a disk."""
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - left)


def limit_files(size: int) -> None:
    """No file of this process may grow beyond this size, in bytes, from now on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


FULL = {  # phase, the file or folder that the message names
    "begin: the settings": "settings.json",
    "metrics: a step's": "metrics.jsonl",
    "save: DeepSpeed's states": "step_000002.tmp",
    "save: between the state files": "step_000002.tmp",
    "save: the model file": "step_000002.tmp",
    "save: the tokenizer": "step_000002.tmp",
    "prune: dropping the states": "manifest.json",
    "resume: reading the metrics": "metrics.jsonl",
    "curves": "curves.png",
    "end: copying the model": "run",
}


def test_the_disk_fills_up_in_every_phase(base, small_disk, trained_by_one):
    """One folder; each start meets a disk that becomes full in the next phase, until it is free."""
    folder = small_disk / "run"
    settings = flags(SAVE="small disk/run", SAVE_EVERY=2, KEEP_LAST=1, KEEP_EVERY=4)
    for phase, name in FULL.items():
        run = hooks.start(base, settings, phase, 0, functools.partial(fill, small_disk)).wait()
        one_message(run, 4, folder, name, "space")
        assert (small_disk / "filler").exists() and not (folder / artefact.MANIFEST).exists()
        assert not list(folder.glob("step_*.tmp"))
        for step in checkpoints.steps_present(folder):
            checkpoints.require_states(checkpoints.step_folder(folder, step))
        (small_disk / "filler").unlink()
    run = hooks.start(base, settings).wait()
    assert run.code == 0, run.errors
    same_run(folder, trained_by_one)


def test_no_start_without_space_for_a_checkpoint(base, small_disk):
    fill(small_disk, left=300_000)
    run = call(base, flags(SAVE="small disk/begun"))
    one_message(run, 4, "no space left for a checkpoint", "small disk/begun", "expected 0.9 MB")
    assert not (small_disk / "begun/metrics.jsonl").exists()
    (small_disk / "filler").unlink()


def test_files_cannot_grow(base, trained_by_one):
    """The same without root: the system refuses to write a file on, in the middle of it."""
    settings = flags(SAVE="limited", SAVE_EVERY=2)
    phases = ["save: DeepSpeed's states", "save: between the state files", "save: the model file"]
    for phase in phases:
        run = hooks.start(base, settings, phase, 2, functools.partial(limit_files, 100_000)).wait()
        one_message(run, 4, base / "limited", "ulimit -f")
        assert not list((base / "limited").glob("step_*.tmp"))
        assert checkpoints.find_checkpoint(base / "limited")
    assert hooks.start(base, settings).wait().code == 0
    same_run(base / "limited", trained_by_one)


def test_two_processes_and_a_full_disk(base, small_disk):
    """The one message comes through the launcher, whose own record is on the full disk."""
    fill(small_disk, left=1_000_000)
    run = call(base, flags(SAVE="small disk/two"), processes=2)
    (small_disk / "filler").unlink()
    one_message(run, 4, "small disk/two")
    assert not make.processes_naming("small disk/two")


def test_folders_that_cannot_be_written(base):
    (base / "a file").write_text("mine")
    for save in ("a file", "a file/run"):
        one_message(call(base, flags(SAVE=save)), 4, "a file")
    assert (base / "a file").read_text() == "mine"


def test_a_disk_mounted_read_only(base, tmp_path):
    run = call(base, flags(SAVE=tmp_path / "here/run", STOP_STEP=2))
    assert run.code == 0, run.errors
    words = ["--bind", "-o", "ro", str(tmp_path / "here")]
    with mounted(base / "read only", *words) as disk:
        for save in (disk / "run", disk / "new"):
            one_message(call(base, flags(SAVE=save)), 4, save, "Read-only")
    run = call(base, flags(SAVE=tmp_path / "here/run", STOP_STEP=3))
    assert run.code == 0 and "resuming after step 2" in run.output, run.errors
