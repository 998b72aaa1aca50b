"""Shared fixtures: one tokenizer and one text for the whole session."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests import make

# The same examples at every run, and none is too slow: machines are busy.
settings.register_profile("here", deadline=None, derandomize=True, database=None)
settings.load_profile("here")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    """A byte-level tokenizer of 600 entries, trained here."""
    return make.train_tokenizer(tmp_path_factory.mktemp("tokenizer"), make.documents(50))
