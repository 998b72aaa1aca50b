"""Starting a run's processes: several machines, signals, failures.

Real processes; the machines are launchers on this one with NNODES=2. tests/cluster/*.sh have real
Slurm and ssh, test_watchdog.py has more that can go wrong between processes.
"""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from cluster.launch_deepspeed import free_port
from tests import make, programs
from tests.pretrain.runs import LAUNCHER, SLOW, VARIABLES, Machine, none_left, same_run

LONG = {**VARIABLES, "TOTAL_STEPS": 100_000, "SAVE_EVERY": 100_000, "VALID_EVERY": 100_000}


def two_machines(base: Path, save: str, settings: dict, **variables: object) -> list[Machine]:
    place = {"NNODES": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "SAVE": save}
    return [
        Machine(base, f"{save} {rank}", settings, **place, NODE_RANK=rank, **variables)
        for rank in (0, 1)
    ]


OPTIONS = [
    ({"launcher": "mpirun"}, ["LAUNCHER=mpirun"]),
    ({"nproc": "two"}, ["--nproc", "two"]),
    ({"nproc": 0}, ["NPROC"]),
    ({"nnodes": 2}, ["MASTER_ADDR"]),
    ({"nnodes": 2, "node-rank": 2, "master-addr": "h"}, ["NODE_RANK", "expected 0 to 1, found 2"]),
    ({"hostfile": "hosts"}, ["LAUNCHER=deepspeed"]),
    ({"launcher": "deepspeed", "nnodes": 2}, ["HOSTFILE"]),
    ({"launcher": "deepspeed"}, ["HOSTFILE"]),
    ({"launcher": "deepspeed", "hostfile": "no such file"}, ["HOSTFILE", "no such file"]),
    ({"launcher": "deepspeed", "hostfile": "model.json"}, ["HOSTFILE", "model.json"]),
    ({"launcher": "deepspeed", "hostfile": "empty"}, ["HOSTFILE", "empty"]),
]


@pytest.mark.parametrize("options, parts", OPTIONS, ids=str)
def test_how_to_start_is_checked(base, options, parts):
    """A HOSTFILE is looked for under BASE_PATH; never one machine in silence."""
    (base / "empty").write_text("# node-0 slots=8\n\n")
    run = programs.call(base, "cluster.launch", *programs.flags(options), "pretrain/train.py", base)
    assert run.code == 2, run.errors
    (line,) = [line for line in run.errors.splitlines() if line]
    assert line.startswith("ERROR ") and " Fix: " in line
    assert all(part in line for part in parts), line


def test_two_machines_stop_together_and_resume(base, trained_by_two):
    """SIGTERM to machine 1 alone ends both with a checkpoint, from which they resume."""
    machines = two_machines(base, "machines", SLOW)
    machines[0].until(base / "machines/step_000002")
    texts = [machines[1].stop(), machines[0].end(75)]
    assert "".join(texts).count("STOPPED by SIGTERM") == 1
    none_left(base)
    first_lines = (base / "machines/metrics.jsonl").read_bytes()[:200]  # with their durations
    for machine in two_machines(base, "machines", VARIABLES):
        machine.end(0)
    assert "resuming after step" in machines[0].output.read_text()
    assert (base / "machines/metrics.jsonl").read_bytes().startswith(first_lines)
    same_run(base / "machines", trained_by_two)


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
    assert "another machine" in first
    none_left(base)


def test_a_machine_that_dies_ends_the_other(base):
    machines = two_machines(base, "dead", LONG)
    machines[0].until(base / "dead/metrics.jsonl")
    machines[1].process.kill()
    text = machines[0].end(4)
    assert text.count("ERROR") == text.count("ERROR rank 0 on") == 1
    assert "Traceback" not in text
    none_left(base)


def test_a_machine_that_never_comes_is_named(base):
    place = {"NNODES": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    run = make.run(LAUNCHER, base, check=False, **VARIABLES, **place, DIST_TIMEOUT=3)
    assert run.returncode == 4, run.stderr
    assert run.stderr.count("ERROR") == 1 and "127.0.0.1" in run.stderr
    assert "Traceback" not in run.stderr
    none_left(base)


def test_a_process_that_hangs_is_named_once_with_the_stacks(base):
    machine = Machine(base, "hanging", LONG, NPROC=2, SAVE="hanging", DIST_TIMEOUT=6)
    machine.until(base / "hanging/metrics.jsonl")
    worker = machine.workers()[1]
    os.kill(worker, signal.SIGSTOP)
    text = machine.end(4)
    assert text.count("ERROR") == 1 and " 6 s, in " in text
    assert f"rank 1 ({socket.gethostname()}, process {worker})" in text
    assert "rank 0:" in text and "in train_step" in text
    none_left(base)


def test_deepspeeds_launcher(base, trained_by_two):
    """A signal ends the run with a checkpoint; killed it leaves no process; then it resumes."""
    (base / "hosts").write_text("# this machine\n\nlocalhost  slots=2 # processes\n")
    variables = {"LAUNCHER": "deepspeed", "HOSTFILE": "hosts", "SAVE": "deepspeed"}
    run = Machine(base, "deepspeed", SLOW, **variables)
    text = run.until(base / "deepspeed/step_000002").stop(signal.SIGUSR1)
    assert text.count("STOPPED by SIGTERM after step") == 1 and "Traceback" not in text
    none_left(base)
    run = Machine(base, "killed", LONG, **{**variables, "SAVE": "killed"})
    run.until(base / "killed/metrics.jsonl").process.kill()
    run.process.wait()
    none_left(base)
    Machine(base, "ended", VARIABLES, **variables).end(0)
    same_run(base / "deepspeed", trained_by_two)
