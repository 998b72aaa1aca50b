"""WANDB_MODE: offline runs hold the logged figures and no key; what cannot start stops the run."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from data_utils.program import CODE_ROOT
from pretrain.metrics import read_metrics
from tests import make, programs
from tests.pretrain.runs import call, flags

KEY = "0123456789abcdef" * 2 + "deadbeef"  # a key's 40 characters
NOWHERE = "http://127.0.0.1:9"


def train(base: Path, mode: str, environment: dict | None = None, **changes) -> programs.Program:
    """A run that finds no key but the environment's."""
    place = {"HOME": base, "WANDB_CONFIG_DIR": base / "home", **(environment or {})}
    return call(base, flags(WANDB_MODE=mode, TOTAL_STEPS=4, **changes), **place)


def test_offline_and_continued(base):
    """A stop after step 3, and its continuation: one wandb id, all figures, the key nowhere."""
    run = train(base, "offline", {"WANDB_API_KEY": KEY}, SAVE="run", STOP_STEP=3)
    assert run.code == 0 and "wandb sync" in run.output, run.errors
    folder = base / "run"
    (first,) = (folder / "wandb").glob("offline-run-*")
    run = train(base, "offline", {"WANDB_API_KEY": KEY}, SAVE="run")
    assert run.code == 0 and "resuming after step 3" in run.output, run.errors
    (second,) = set((folder / "wandb").glob("offline-run-*")) - {first}
    identity = (folder / "wandb/id").read_text()
    recorded = [(p / f"run-{identity}.wandb").read_bytes() for p in (first, second)]
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        for name in ("loss", "grad_norm", "lr"):
            written = json.dumps(row[name]).encode()
            assert written in recorded[row["step"] == 4], (row["step"], name)
    without_the_key(folder)
    assert (folder / "manifest.json").exists()


def without_the_key(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_run_that_fails_leaves_its_figures_and_no_process(base):
    words = flags(WANDB_MODE="offline", SAVE="failed", TOTAL_STEPS=40)
    run = programs.call(base, "tests.pretrain.dynamic_scale", base, *words, OVERFLOWS="3-40")
    assert run.code == 2 and "step 17" in run.errors, run.errors
    (written,) = (base / "failed/wandb").glob("offline-run-*/*.wandb")
    data, rows = written.read_bytes(), read_metrics(base / "failed")
    assert len(rows) == 16 and all(json.dumps(row["loss"]).encode() in data for row in rows)
    assert not make.processes_naming(f"--pid\0{run.pid}") and not make.processes_naming(base)


@pytest.mark.parametrize(
    "key, part", [({}, "No API key"), ({"WANDB_API_KEY": KEY}, "127.0.0.1:9")], ids=["", "key"]
)
def test_online_without_a_key_or_a_network_stops_before_the_first_step(base, key, part):
    folder = base / f"online {len(key)}"
    environment = {**key, "WANDB_BASE_URL": NOWHERE, "WANDB_INIT_TIMEOUT": "3"}
    run = train(base, "online", environment, SAVE=folder.name)
    programs.one_message(run, 4, part, "WANDB_MODE=offline")
    assert not read_metrics(folder) and not list(folder.glob("step_*"))
    without_the_key(folder)


def test_on_a_terminal_it_does_not_ask_for_a_key(base):
    """wandb's own question would wait for an answer for ever."""
    outer, inner = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment.update(HOME=str(base), WANDB_BASE_URL=NOWHERE, TERM="xterm")
    command = [sys.executable, CODE_ROOT / "pretrain/train.py", base]
    command += flags(WANDB_MODE="online", SAVE="terminal")
    started = subprocess.Popen(
        [str(word) for word in command], stdin=inner, stdout=inner, stderr=inner, env=environment
    )
    os.close(inner)
    text = b""
    try:
        while piece := os.read(outer, 10_000):
            text += piece
            assert b"Enter your choice" not in text
    except OSError:  # the terminal's other side is closed
        assert started.wait(60) == 4, text.decode()
    finally:
        started.kill()
        started.wait()
        os.close(outer)
    assert started.returncode == 4


def test_an_unknown_mode(base):
    programs.one_message(train(base, "onlin", SAVE="mode"), 2, "'onlin'")
    assert not (base / "mode").exists()
