"""Small worlds that many tests read, each made once for all workers of a test session.

conftest.py has them as fixtures. A test that writes into one takes a copy.
"""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pretrain import runs


def shared(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The session's folder of this name, which the first worker that asks for it builds."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # all workers'
    folder, made = root / name, root / f"{name}.made"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            build(folder)
            made.touch()
    return folder


def copy(world: Path, factory: pytest.TempPathFactory) -> Path:
    """A world of one's own, in a path with a space in it."""
    return shutil.copytree(world, factory.mktemp("base path"), dirs_exist_ok=True)


def train_undisturbed(base: Path, processes: int) -> None:
    """base/run: a run of the settings in runs.py to its end."""
    run = runs.call(runs.make_base(base), runs.flags(SAVE="run"), processes)
    assert run.code == 0, run.errors
