"""Runs of pre-training through a launcher, small enough for tests; what they leave behind.

Every start costs some 8 seconds, so that tests share runs.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.program import CODE_ROOT
from pretrain.metrics import read_metrics
from tests import make, programs

LAUNCHER = "scripts/pretrain/qwen/200M.sh"
VOCAB, EOS, ROWS, LONGEST = 600, 0, 42, 33
RARE = VOCAB - 1
STEPS, BATCH, WARMUP, LR, LR_MIN = 12, 4, 3, 1e-2, 1e-3
VARIABLES = {
    "MODEL_CONFIG": "model.json",
    "DATA_DIR": "corpus",
    "VALID_DATA": "held out",
    "GLOBAL_BATCH": BATCH,
    "MICRO_BATCH": 2,
    "LR": LR,
    "LR_MIN": LR_MIN,
    "WARMUP_STEPS": WARMUP,
    "TOTAL_STEPS": STEPS,
    "SAVE_EVERY": 4,
    "VALID_EVERY": 4,
    "LOG_EVERY": 1,
}
SLOW = {**VARIABLES, "SAVE_EVERY": 1, "VALID_EVERY": 1}  # there is time to disturb it
RARE_RUN = {
    "MODEL_CONFIG": "model.json",
    "DATA_DIR": "corpus",
    "SAVE": "run",
    "GLOBAL_BATCH": BATCH,
    "MICRO_BATCH": 2,
    "WARMUP_STEPS": 1,
    "TOTAL_STEPS": 3,
    "LOG_EVERY": 1,
}


def make_base(base: Path, rows: int = ROWS, longest: int = LONGEST) -> Path:
    """BASE_PATH with a corpus, a held-out one and a tiny model's configuration."""
    tokenizer = make.train_tokenizer(base / "tokenizer", make.documents(50), VOCAB)
    for name, count, seed in (("corpus", rows, 0), ("held out", 9, 1)):
        made = make.text_rows(tokenizer, count, longest, seed)
        make.save_corpus(base / name, made, tokenizer, max_length=longest, shard_size=30)
    (base / "model.json").write_text(json.dumps(make.qwen_config(VOCAB)))
    return base


def make_rare_base(base: Path) -> Path:
    """BASE_PATH for RARE_RUN: row 6 alone has the id RARE; the second step of 4 rows takes it."""
    tokenizer = make.train_tokenizer(base / "tokenizer", make.documents(50), VOCAB)
    rows = [np.minimum(row, RARE - 1) for row in make.random_rows(12, VOCAB, 0, longest=17)]
    rows[6] = np.array([5, RARE, 7, 8])
    make.save_corpus(base / "corpus", rows, tokenizer, max_length=17)
    (base / "model.json").write_text(json.dumps(make.qwen_config(VOCAB)))
    return base


def train(base: Path, save: str, **variables: object) -> subprocess.CompletedProcess:
    return make.run(LAUNCHER, base, **{**VARIABLES, "SAVE": save, **variables})


def flags(**more: object) -> list[object]:
    """The same settings as flags of the program."""
    return programs.flags({**VARIABLES, **more})


def call(base: Path, words: list, processes: int = 1, **environment: object) -> programs.Program:
    """The training program with these flags, in one process or through the starter of several."""
    starter = ["cluster.launch", "--nproc", processes, "pretrain/train.py"]
    program = ["pretrain.train"] if processes == 1 else starter
    return programs.call(base, *program, base, *words, **environment)


class Machine:
    """A launcher in the background; its output in a file."""

    def __init__(self, base: Path, name: str, settings: dict, **variables: object) -> None:
        self.output = base / f"{name}.txt"
        environment = {**os.environ, **settings, **variables}
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                ["bash", CODE_ROOT / LAUNCHER, base],
                env={name: str(value) for name, value in environment.items()},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def until(self, reached: str | Path) -> "Machine":
        """Wait for a word of its output, or for a file."""
        until = time.monotonic() + 120
        while not (reached.exists() if isinstance(reached, Path) else reached in self.text):
            assert self.process.poll() is None and time.monotonic() < until, self.text
            time.sleep(0.01)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Send a signal to the launcher's process, which ends with its work saved."""
        self.process.send_signal(number)
        return self.end(75)

    def end(self, code: int, seconds: float = 120) -> str:
        """Wait for its end with this exit code; what it printed."""
        assert self.process.wait(seconds) == code, self.text
        return self.text

    def workers(self) -> list[int]:
        """Process ids of torchrun's workers, in the order of their ranks."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in children.read_text().split()]


def processes_of(folder: Path) -> list[int]:
    """The processes whose command line names the folder, and those that convert inside it."""
    found = make.processes_naming(folder)
    for process in make.processes_naming("ds_to_universal"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if os.readlink(f"/proc/{process}/cwd") == str(folder):
                found.append(process)
    return found


def none_left(folder: Path) -> None:
    """No process of the run is there any more; the last may need a moment."""
    for _ in range(100):
        if not processes_of(folder):
            return
        time.sleep(0.1)
    left = processes_of(folder)
    for process in left:
        os.kill(process, signal.SIGKILL)  # for the tests that follow
    assert not left


def column(folder: Path, name: str) -> list:
    return [row[name] for row in read_metrics(folder)]


def same_run(folder: Path, undisturbed: Path) -> None:
    """Bit for bit the same figures and weights."""
    for name in ("step", "loss", "grad_norm", "lr", "tokens", "sequences"):
        assert column(folder, name) == column(undisturbed, name)
    weights = [(f / "model.safetensors").read_bytes() for f in (folder, undisturbed)]
    assert weights[0] == weights[1]
    flops = [artefact.read_manifest(f).counts["student_flops"] for f in (folder, undisturbed)]
    assert flops[0] == flops[1] > 0


def damage(path: Path, size: int | None = None) -> None:
    """Flip one bit in the middle, or cut the file."""
    data = bytearray(path.read_bytes()[:size])
    if size is None:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)
