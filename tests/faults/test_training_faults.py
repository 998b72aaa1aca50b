"""Pre-training under fire: however often it is killed -9, it ends bit for bit as if undisturbed.

.venv/bin/python -m pytest tests/faults/test_training_faults.py
"""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from cluster.place import alive
from data_utils import artefact
from pretrain import checkpoints
from tests.faults import hooks
from tests.pretrain.runs import VARIABLES, Machine, flags, make_base, processes_of, same_run, train

# Half calls among which the moment is drawn: what is sure to come in a run from its beginning.
MOMENTS = {
    "begin: the settings": 2,
    "begin: their rename": 2,
    "resume: looking for a checkpoint": 2,
    "resume: loading the states": 2,
    "resume: reading the metrics": 2,
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


def no_process_left(folder: Path, seconds: float = 10) -> None:
    """Nothing runs for this folder any more, at the latest after these seconds."""
    end = time.monotonic() + seconds
    while processes_of(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert not processes_of(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("base path"))


@pytest.fixture(scope="module")
def undisturbed(base) -> Path:
    """The folder of a run of one process that nothing happens to."""
    run = hooks.start(base, flags(SAVE="undisturbed")).wait()
    assert run.code == 0, run.errors
    return base / "undisturbed"


def test_killed_in_every_phase_it_ends_bit_for_bit_the_same(base, undisturbed):
    """One folder, killed again and again, each start in the next phase, until it ends; then anew.

    The conversion is provoked by ZeRO stage 2, which gives the same bits with one process.
    """
    choice, hit, folder = random.Random(7), {}, base / "killed [1]"
    waiting, ends, started = list(hooks.PHASES), 0, time.monotonic()
    while waiting:
        phase = waiting.pop(0)
        moment = choice.randrange(MOMENTS.get(phase, 4))
        stage = 2 if phase.startswith("conversion") else 1
        run = hooks.start(base, flags(SAVE="killed [1]", ZERO_STAGE=stage, **KEEP), phase, moment)
        run.wait()
        print(f"{time.monotonic() - started:5.1f} s  {phase}, half call {moment}: {run.code}")
        assert run.code in (0, -signal.SIGKILL), run.errors
        no_process_left(folder)
        if run.code:
            hit[phase] = moment
        else:  # the run ended before this phase came
            waiting.append(phase)
        if (folder / artefact.MANIFEST).exists():
            same_run(folder, undisturbed)
            only_what_is_kept(folder)
            shutil.rmtree(folder)
            ends += 1
    run = hooks.start(base, flags(SAVE="killed [1]", **KEEP)).wait()
    assert run.code == 0, run.errors
    same_run(folder, undisturbed)
    only_what_is_kept(folder)
    print("phases hit:", len(hit), "runs ended:", ends + 1)
    assert hit.keys() == hooks.PHASES.keys() and not multiprocessing.active_children()


def only_what_is_kept(folder: Path) -> None:
    """The checkpoints of KEEP and nothing half made or half removed."""
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    assert found == {"step_000004", "step_000008", "step_000012"}
    for name in found:
        artefact.require(folder / name, "model", "", contents=True)
        assert (folder / name / "deepspeed").exists() == (name == "step_000012")
    assert not list(folder.rglob("*.tmp"))


def test_killed_at_the_border_of_two_epochs(base, undisturbed):
    """42 rows, 4 per step: step 11 takes two of each epoch. Killed before and after its update."""
    folder, settings = base / "border", flags(SAVE="border", SAVE_EVERY=5)
    for moment, last in ((20, 10), (1, 10), (2, 10)):  # in step 11; behind it; in step 12
        run = hooks.start(base, settings, "step: the update", moment).wait()
        assert run.code == -signal.SIGKILL, run.errors
        assert checkpoints.steps_present(folder)[-1] == last
    assert hooks.start(base, settings).wait().code == 0
    same_run(folder, undisturbed)


def test_killed_while_it_converts_no_process_is_left(base, undisturbed):
    """From outside, while DeepSpeed's program and its workers are at it."""
    folder = base / "converting"
    run = hooks.start(base, flags(SAVE="converting", STOP_STEP=4)).wait()
    assert run.code == 0, run.errors
    run = hooks.start(base, flags(SAVE="converting", ZERO_STAGE=2))
    while len(converters := processes_of(folder)) < 3:
        assert run.running, run.errors
        time.sleep(0.01)
    first = next(process for process in converters if parent_of(process) == run.pid)
    os.kill(first, signal.SIGSTOP)  # it does not end by coming to its end
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    try:
        no_process_left(folder)
    finally:
        for process in filter(alive, converters):
            os.kill(process, signal.SIGKILL)
    run = hooks.start(base, flags(SAVE="converting", ZERO_STAGE=2)).wait()
    assert run.code == 0 and "converting" in run.output, run.errors
    same_run(folder, undisturbed)
    assert not (folder / ".converted.tmp").exists()


def parent_of(process: int) -> int:
    """The process id of a process's parent."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


VICTIMS = {
    "only the launcher": lambda launcher, workers: [launcher],
    "one worker": lambda launcher, workers: workers[1:],
    "all": lambda launcher, workers: [launcher, *workers],
}


@pytest.fixture(scope="module")
def two(base) -> Path:
    """The folder of an undisturbed run of two processes."""
    train(base, "two", NPROC=2)
    return base / "two"


def test_two_processes_killed_through_the_launcher(base, two):
    """Each time once the next checkpoint is there; then the run continues to its end."""
    folder, settings = base / "killed pair", {**VARIABLES, "SAVE": "killed pair", "NPROC": 2}
    for number, (name, victims) in enumerate(VICTIMS.items()):
        run = Machine(base, "killed pair", settings, SAVE_EVERY=2)
        run.until(folder / f"step_{2 + 2 * number:06d}")
        for process in victims(run.process.pid, run.workers()):
            os.kill(process, signal.SIGKILL)
        if name == "one worker":
            text = run.end(4, 60)
            assert text.count("ERROR") == 1 and "Traceback" not in text and "kill -9" in text, text
        else:
            run.end(-signal.SIGKILL, 60)
        no_process_left(base)
    output = train(base, "killed pair", NPROC=2).stdout
    assert "resuming after step" in output
    same_run(folder, two)
