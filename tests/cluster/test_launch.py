"""Starting a run's processes: several machines (as groups of their own on this one), failures.

Real processes; the machines are launchers with NNODES=2. tests/cluster has real Slurm and ssh.
"""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from cluster.launch_deepspeed import free_port
from data_utils.program import CODE_ROOT
from tests import make, programs
from tests.pretrain.runs import (
    LAUNCHER,
    SLOW,
    VARIABLES,
    Machine,
    make_base,
    none_left,
    same_run,
    train,
)

LONG = {**VARIABLES, "TOTAL_STEPS": 100_000, "SAVE_EVERY": 100_000, "VALID_EVERY": 100_000}


LATE = """# Where Python starts: rank 1 stays in its second batch for ever.
import os, sys, time
if os.environ.get("RANK") == "1":
    sys.path.insert(0, os.environ["CODE"])
    import numpy, torch
    from data_utils import sample_order
    inner = order.step_samples
    def step_samples(step, batch):
        while step == 1:
            time.sleep(0.1)
        return inner(step, batch)
    order.step_samples = step_samples
"""
SILENT = f"""{LATE}
if "RANK" in os.environ:
    sys.path.insert(0, os.environ["CODE"])
    from cluster import watchdog
    watchdog.SILENCE = 12
"""


def two_machines(base: Path, save: str, settings: dict, **variables: object) -> list[Machine]:
    place = {"NNODES": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "SAVE": save}
    return [
        Machine(base, f"{save} {rank}", settings, **place, NODE_RANK=rank, **variables)
        for rank in (0, 1)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("base path"))


@pytest.fixture(scope="module")
def two(base) -> Path:
    """The folder of an undisturbed run of two processes of one machine."""
    train(base, "two", NPROC=2)
    return base / "two"


OPTIONS = [
    pytest.param({"launcher": "mpirun"}, ["LAUNCHER=mpirun"], id="launcher"),
    pytest.param({"nproc": "two"}, ["--nproc", "two"], id="no number"),
    pytest.param({"nproc": 0}, ["NPROC"], id="no process"),
    pytest.param({"nnodes": 2}, ["MASTER_ADDR"], id="no address"),
    pytest.param(
        {"nnodes": 2, "node-rank": 2, "master-addr": "h"},
        ["NODE_RANK", "expected 0 to 1, found 2"],
        id="rank of a machine",
    ),
    pytest.param({"hostfile": "hosts"}, ["LAUNCHER=deepspeed"], id="hostfile of torchrun"),
    pytest.param({"launcher": "deepspeed", "nnodes": 2}, ["HOSTFILE"], id="nodes of deepspeed"),
    pytest.param(
        {"launcher": "deepspeed", "hostfile": "no such file"},
        ["the HOSTFILE cannot be read", "no such file"],
        id="missing hostfile",
    ),
    pytest.param(
        {"launcher": "deepspeed", "hostfile": "model.json"},
        ["a line of the HOSTFILE is no host", "model.json"],
        id="hostfile of another kind",
    ),
    pytest.param(
        {"launcher": "deepspeed", "hostfile": "empty"}, ["names no host"], id="empty hostfile"
    ),
]


@pytest.mark.parametrize("options, parts", OPTIONS)
def test_how_to_start_is_checked(base, options, parts):
    """A HOSTFILE is looked for under BASE_PATH; never one machine in silence."""
    (base / "empty").write_text("# node-0 slots=8\n\n")
    run = programs.call(base, "cluster.launch", *programs.flags(options), "pretrain/train.py", base)
    assert run.code == 2, run.errors
    (line,) = [line for line in run.errors.splitlines() if line]
    assert line.startswith("ERROR ") and " Fix: " in line
    assert all(part in line for part in parts), line


def test_hostfile_through_the_launcher(base):
    run = make.run(LAUNCHER, base, check=False, LAUNCHER="deepspeed", HOSTFILE="nowhere")
    assert run.returncode == 2 and run.stderr.count("ERROR") == 1
    assert str(base / "nowhere") in run.stderr


def test_two_machines_stop_together_and_go_on(base, two):
    """SIGTERM to machine 1 alone ends both with a checkpoint; started again they go on."""
    machines = two_machines(base, "machines", SLOW)
    machines[0].until(base / "machines/step_000002")
    texts = [machines[1].stop(), machines[0].end(75)]
    assert "".join(texts).count("STOPPED by SIGTERM") == 1
    none_left(base)
    for machine in two_machines(base, "machines", VARIABLES):
        machine.end(0)
    assert "resuming after step" in machines[0].output.read_text()
    same_run(base / "machines", two)


def test_a_signal_before_the_first_step(base):
    """It comes while the workers still start: nothing is lost, the code says so."""
    run = Machine(base, "early", LONG, NPROC=2, SAVE="early")
    while len(make.processes_naming("pretrain/train.py", base)) < 3:  # the launcher's is one
        assert run.process.poll() is None, run.text
        time.sleep(0.01)
    text = run.stop(signal.SIGUSR1)
    assert text.count("STOPPED by SIGUSR1 before the first step") == 1
    none_left(base)


def test_ctrl_backslash_is_a_stop_like_the_others(base):
    """The launcher hands SIGQUIT on: a worker that does not know it would dump its core."""
    run = Machine(base, "quit", LONG, NPROC=2, SAVE="quit").until(base / "quit/metrics.jsonl")
    text = run.stop(signal.SIGQUIT)
    assert text.count("STOPPED by SIGQUIT after step") == 1
    none_left(base)


def test_a_worker_that_dies_ends_both_machines_and_is_told_once(base):
    machines = two_machines(base, "dying", LONG)
    machines[0].until(base / "dying/metrics.jsonl")
    os.kill(machines[1].workers()[0], signal.SIGKILL)
    first, second = (machine.end(4) for machine in machines)
    assert (first + second).count("ERROR") == 1 and "Traceback" not in first + second
    assert "ERROR a worker ended by SIGKILL" in second
    assert "ended: another machine of this run failed" in first
    none_left(base)


def test_a_machine_that_dies_ends_the_other(base):
    machines = two_machines(base, "dead", LONG)
    machines[0].until(base / "dead/metrics.jsonl")
    machines[1].process.kill()
    text = machines[0].end(4)
    assert text.count("ERROR rank 0 on") == 1 and "lost the others in" in text
    assert "Traceback" not in text
    none_left(base)


def test_a_machine_that_stays_silent_ends_the_other(base):
    """Its launcher is stopped, its worker in its second batch: no connection breaks."""
    hook = base / "hook of the silent"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(SILENT)
    machines = two_machines(base, "silent", LONG, PYTHONPATH=hook, CODE=CODE_ROOT)
    machines[0].until(base / "silent/metrics.jsonl")
    machines[1].process.send_signal(signal.SIGSTOP)
    text = machines[0].end(4)
    assert text.count("ERROR") == 1
    assert f"the launcher of {socket.gethostname()} gives no sign of life since 12 s" in text
    machines[1].process.kill()
    machines[1].process.wait()
    none_left(base)


def test_a_machine_that_never_comes_is_named(base):
    place = {"NNODES": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    run = make.run(LAUNCHER, base, check=False, **VARIABLES, **place, DIST_TIMEOUT=3)
    assert run.returncode == 4, run.stderr
    assert run.stderr.count("ERROR the 2 machines did not meet at 127.0.0.1") == 1
    assert "Traceback" not in run.stderr
    none_left(base)


def test_a_process_that_hangs_is_named_once_with_the_stacks(base):
    machine = Machine(base, "hanging", LONG, NPROC=2, SAVE="hanging", DIST_TIMEOUT=6)
    machine.until(base / "hanging/metrics.jsonl")
    worker = machine.workers()[1]
    os.kill(worker, signal.SIGSTOP)
    text = machine.end(4)
    assert text.count("ERROR the processes wait since 6 s for each other in") == 1
    assert f"rank 1 ({socket.gethostname()}, process {worker}) gives no answer" in text
    assert "rank 0:" in text and "in train_step" in text
    none_left(base)


def test_a_process_that_is_late_is_named_with_where_it_is(base):
    """Rank 1's second batch takes for ever; its own account of where it is comes along."""
    hook = base / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(LATE)
    run = Machine(
        base, "late", LONG, NPROC=2, SAVE="late", DIST_TIMEOUT=6, PYTHONPATH=hook, CODE=CODE_ROOT
    )
    text = run.end(4, 90)
    assert text.count("ERROR") == 1
    assert "in the gradients of step 2: rank 1" in text
    assert "has not come, its last was the update of step 1" in text
    assert "rank 0:" in text and "rank 1:" in text and "in train_step" in text
    none_left(base)


def test_deepspeeds_launcher(base, two):
    """A signal ends the run with a checkpoint; killed it leaves no process; then it goes on."""
    variables = {"LAUNCHER": "deepspeed", "NPROC": 2, "SAVE": "deepspeed"}
    run = Machine(base, "deepspeed", SLOW, **variables)
    text = run.until(base / "deepspeed/step_000002").stop(signal.SIGUSR1)
    assert text.count("STOPPED by SIGTERM after step") == 1 and "Traceback" not in text
    none_left(base)
    run = Machine(base, "killed", LONG, **{**variables, "SAVE": "killed"})
    run.until(base / "killed/metrics.jsonl").process.kill()
    run.process.wait()
    none_left(base)
    Machine(base, "ended", VARIABLES, **variables).end(0)
    same_run(base / "deepspeed", two)
