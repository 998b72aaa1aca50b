"""Shared fixtures: worlds that are made once for the whole session (tests/worlds.py)."""

import functools
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests import make, worlds
from tests.pretrain import runs

# The same examples at every run, and none is too slow: machines are busy.
settings.register_profile("here", deadline=None, derandomize=True, database=None)
settings.load_profile("here")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    """A byte-level tokenizer of 600 entries, trained here."""
    build = functools.partial(make.train_tokenizer, texts=make.documents(50))
    return worlds.shared(tmp_path_factory, "tokenizer", build)


@pytest.fixture(scope="session")
def training_world(tmp_path_factory) -> Path:
    """A BASE_PATH to train in (runs.make_base), to be read only."""
    return worlds.shared(tmp_path_factory, "training world", runs.make_base)


@pytest.fixture(scope="module")
def base(training_world, tmp_path_factory) -> Path:
    """The module's own copy of it."""
    return worlds.copy(training_world, tmp_path_factory)


@pytest.fixture(scope="session")
def trained_by_one(tmp_path_factory) -> Path:
    """The folder of a run of one process that nothing happened to."""
    build = functools.partial(worlds.train_undisturbed, processes=1)
    return worlds.shared(tmp_path_factory, "trained by one", build) / "run"


@pytest.fixture(scope="session")
def trained_by_two(tmp_path_factory) -> Path:
    """The folder of a run of two processes that nothing happened to."""
    build = functools.partial(worlds.train_undisturbed, processes=2)
    return worlds.shared(tmp_path_factory, "trained by two", build) / "run"
