"""TRACKER=trackio: a run's figures in SAVE/trackio, without an account, in one run when resumed."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from data_utils.errors import EnvironmentFault
from pretrain import trackers
from pretrain.metrics import read_metrics
from tests import programs
from tests.pretrain.runs import call, flags

SETTINGS = {"tracker": "trackio", "wandb_mode": "disabled"}


def train(base: Path, place: dict, **changes) -> programs.Program:
    """A run of the folder `run`, where nobody is logged in to anything."""
    home = {"HOME": base / "home", "HF_HOME": base / "home", "HF_TOKEN": "", **place}
    words = flags(TRACKER="trackio", TOTAL_STEPS=4, SAVE="run", **changes)
    run = call(base, words, **home)
    assert run.code == 0, run.errors
    return run


def tracked(folder: Path) -> tuple[set, dict]:
    """(names and ids of the runs, figures by step) in trackio's file."""
    with sqlite3.connect(folder / "miniplm.db") as file:
        rows = file.execute("SELECT run_name, run_id, step, metrics FROM metrics").fetchall()
    assert len({row[2] for row in rows}) == len(rows)
    return {row[:2] for row in rows}, {step: json.loads(text) for *_, step, text in rows}


def test_local_and_continued(base):
    """Stopped twice, first as on a network file system, where trackio writes to an inbox."""
    pytest.importorskip("trackio", reason="trackio is not installed: bash install.sh")
    folder = base / "run"
    train(base, {"TRACKIO_STORAGE_MODE": "jsonl"}, STOP_STEP=1)
    assert list((folder / "trackio/inbox").rglob("*.jsonl"))
    train(base, {}, STOP_STEP=3)
    run = train(base, {})
    assert "resuming after step 3" in run.output
    assert f"{folder}/trackio" in run.output and "trackio show --project miniplm" in run.output
    runs, figures = tracked(folder / "trackio")
    ((name, _),) = runs
    assert name == f"run-{(folder / 'trackio/id').read_text()}"
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert figures == {row.pop("step"): row for row in rows}
    assert (folder / "manifest.json").exists() and not (folder / "wandb").exists()
    assert not (base / "home/trackio").exists()


def test_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "tracked"))
    with pytest.raises(EnvironmentFault, match=r"^ERROR TRACKER=trackio.*Fix: pip3 install"):
        trackers.start(tmp_path, SETTINGS)


def test_a_wrong_variable_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="trackio is not installed: bash install.sh")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "tracked"))
    monkeypatch.setenv("TRACKIO_SERVER_URL", "no-url")
    with pytest.raises(EnvironmentFault, match="no-url.*TRACKIO_ variables"):
        trackers.start(tmp_path, SETTINGS)
