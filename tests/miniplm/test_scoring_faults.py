"""Scoring under fire: whoever is killed whenever, the store's bytes are those of a quiet run.

.venv/bin/python -m pytest tests/miniplm/test_scoring_faults.py
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoConfig

from data_utils import artefact_writer, blocks, elastic
from data_utils.artefact_writer import Output
from data_utils.program import CODE_ROOT
from pretrain import log_probs
from tests import make, programs
from tests.data_utils.test_elastic import content
from tests.miniplm.test_scores import flags, score

VOCAB, ROWS, SHARD = 600, 90, 30
SMALL = {"block_size": 12, "tokens_per_batch": 200}  # 8 blocks
SLOW = {"block_size": 12, "tokens_per_batch": 1, "data_dir": "long"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("a base")
    tokenizer = make.train_tokenizer(base / "tokenizer", make.documents(50), VOCAB)
    rows = make.text_rows(tokenizer, ROWS, 33)
    make.save_corpus(base / "corpus", rows, tokenizer, max_length=33, shard_size=SHARD)
    make.save_corpus(base / "long", rows * 10, tokenizer, max_length=33, shard_size=300)
    make.save_model(base / "teacher", make.qwen_config(VOCAB), 1, tokenizer)
    for name in ("log.out", "log.err"):
        (base / name).touch()
    return base


@pytest.fixture(scope="module")
def undisturbed(base) -> dict[str, str]:
    run = score(base, "undisturbed", **SMALL)
    assert run.code == 0, run.errors
    return content(base / "undisturbed")


@pytest.fixture(scope="module")
def undisturbed_long(base) -> dict[str, str]:
    assert score(base, "undisturbed long", **SLOW).code == 0
    return content(base / "undisturbed long")


# Phases of a worker: where a kill may come, before and after the call.
PHASES = {
    "claiming": (blocks.Blocks, "_claim"),
    "computing": (log_probs, "label_log_probs"),
    "writing the temporary file": (elastic.BlockFiles, "write"),
    "linking": (os, "link"),
    "giving the claim back": (blocks.Path, "unlink"),
    "checking": (elastic.BlockFiles, "read"),
    "sweeping": (blocks.Blocks, "sweep"),
    "hashing": (artefact_writer, "describe"),
    "the manifest": (Output, "finish"),
    "renaming": (os, "replace"),  # the settings at the begin, the manifest at the end
}
MOMENTS = {"sweeping": 2, "the manifest": 2, "renaming": 4}


def run_and_die(words: list, kill: tuple) -> None:
    """The program's main() with fast claims; kill[0]: a phase, kill[1]: half calls before it."""
    blocks.HEARTBEAT, blocks.STALE, blocks.FIRST_WAIT = 0.2, 2.0, 0.05
    if kill:
        programs.kill_at(*PHASES[kill[0]], kill[1])
    programs.main("miniplm.score", [str(w) for w in words], {}, Path(words[0]) / "log.out")


def start(base: Path, save: str, kill: tuple = (), **settings: object):
    words = [base, *flags(save, **(settings or SMALL))]
    process = programs.CONTEXT.Process(target=run_and_die, args=(words, kill))
    process.start()
    return process


def test_killed_in_every_phase_it_ends_with_the_same_bytes(base, undisturbed):
    """Two workers at a time, each killed at a drawn moment; every start resumes the last."""
    choice, hit, kills, folder = random.Random(5), set(), 0, base / "killed"
    waiting = [*PHASES, *choice.choices(list(PHASES), k=10)]
    for _ in range(60):
        if not waiting:
            break
        phases = waiting[:2]
        draws = [(phase, choice.randrange(MOMENTS.get(phase, 6))) for phase in phases]
        workers = [start(base, "killed", draw) for draw in draws]
        for worker in workers:
            worker.join(120)
        codes = [worker.exitcode for worker in workers]
        assert set(codes) <= {0, -signal.SIGKILL}, (base / "log.err").read_text()
        for phase, code in zip(phases, codes, strict=True):
            if code != 0:
                hit.add(phase)
                kills += 1
                waiting.remove(phase)
        if 0 in codes:  # the job came to its end: begin anew
            assert content(folder) == undisturbed
            shutil.rmtree(folder)
    last = start(base, "killed")
    last.join(120)
    assert last.exitcode == 0, (base / "log.err").read_text()
    assert content(folder) == undisturbed
    print("phases hit:", sorted(hit), "kills:", kills)
    assert hit == set(PHASES) and kills >= 20 and not multiprocessing.active_children()


def run_and_stop(words: list, swallow: bool) -> None:
    """A signal comes inside a library that makes something else of it, or nothing at all."""
    inner = AutoConfig.from_pretrained

    def outer(*arguments, **options):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:
            if not swallow:
                raise ImportError("initialization failed") from error
        return inner(*arguments, **options)

    AutoConfig.from_pretrained = outer
    programs.main("miniplm.score", [str(w) for w in words], {}, Path(words[0]) / "log.out")


@pytest.mark.parametrize("swallow", [False, True])
def test_a_signal_in_a_library(base, swallow):
    words = [base, *flags(f"in a library {swallow}", **SMALL)]
    worker = programs.CONTEXT.Process(target=run_and_stop, args=(words, swallow))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 75
    assert not list((base / f"in a library {swallow}").glob(".claim_*"))


def wait_for_blocks(folder: Path, count: int, process) -> None:
    while len(list(folder.glob("block_*"))) < count:
        assert process.is_alive()
        time.sleep(0.005)


def test_workers_join_and_leave(base, undisturbed_long):
    """One begins, two jobs join at once half way, the first is killed and one ends by Ctrl-C."""
    folder, log = base / "elastic", base / "log.out"
    before = log.read_text().count("blocks to do")
    first = start(base, "elastic", **SLOW)
    wait_for_blocks(folder, 3, first)
    second, third = (start(base, "elastic", **SLOW) for _ in range(2))
    wait_for_blocks(folder, 6, first)
    first.kill()
    while log.read_text().count("blocks to do") < before + 3 and second.is_alive():
        time.sleep(0.005)
    os.kill(second.pid, signal.SIGINT)
    for worker in (first, second, third):
        worker.join(120)
    assert first.exitcode == -signal.SIGKILL and third.exitcode == 0
    assert second.exitcode in (75, 0)  # 0: all was done when it had loaded its model
    assert content(folder) == undisturbed_long


def test_ctrl_c_and_sigterm_with_two_processes(base, undisturbed_long):
    """Ctrl-C reaches launcher and workers alike, SIGTERM the launcher alone."""
    folder, words = base / "launched", [str(w) for w in flags("launched", **SLOW)]
    command = [sys.executable, CODE_ROOT / "cluster/launch.py", "--nproc", "2"]
    command += ["miniplm/score.py", base, *words]
    present = 0
    for number, send in ((signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)):
        run = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        while len(list(folder.glob("block_*"))) < present + 4:
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.005)
        send(run.pid, number)
        errors = run.communicate(timeout=60)[1]
        present = len(list(folder.glob("block_*")))
        assert run.returncode == 75, errors
        assert errors.count("STOPPED") == 1 and "Traceback" not in errors
        assert not list(folder.glob(".claim_*")) and not list(folder.glob(".block_*"))
        assert make.processes_naming(folder) == [] and present < 75
    assert score(base, "launched", **SLOW).code == 0
    assert content(folder) == undisturbed_long
