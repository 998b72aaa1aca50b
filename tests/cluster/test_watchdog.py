"""The watchdog alone: two processes that only meet; this test's process is their launcher.

.venv/bin/python -m pytest tests/cluster/test_watchdog.py
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.launch_deepspeed import free_port
from tests import programs

SILENCE = 1  # seconds


def member(rank: int, port: int, record: Path, launcher: int, timeout: int, act: Callable) -> None:
    """The process of this rank, from its start to its end."""
    import torch.distributed as dist

    from cluster import place, watchdog

    watchdog.POLL, watchdog.ANSWER, watchdog.SILENCE = 0.1, 0.5, SILENCE
    os.environ.update({**dict.fromkeys(place.PLACE, "0"), "RUN_RECORD": str(record)})
    os.environ["RUN_LAUNCHER"] = f"{place.machine()} {launcher}"
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
    watch = watchdog.Watch(store, rank, 2, timeout)
    with watch.together("the first collective"):
        store.set(f"met {rank}", "")
        store.wait(["met 0", "met 1"])
        record.with_name(f"met {rank}").touch()
    act(watch)


def waits(watch) -> None:
    with watch.together("the second collective"):
        time.sleep(60)


def is_late(watch) -> None:
    time.sleep(60)


def closes(watch) -> None:
    """Rank 0, which has the store, is the last."""
    watch.close()
    if watch.rank == 0:
        watch.store.wait(["closed"])
    else:
        watch.store.set("closed", "")


@pytest.fixture
def start(tmp_path) -> Iterator[Callable]:
    """Starts two processes, which have met when it returns them; record K is rank K's."""
    started = []

    def start_both(*acts: Callable, timeout: int = 60, records: tuple = (0, 1)) -> list:
        port = free_port()
        for rank, act in enumerate(acts):
            words = (rank, port, tmp_path / f"record {records[rank]}", os.getpid(), timeout, act)
            started.append(programs.CONTEXT.Process(target=member, args=words))
            started[-1].start()
        until = time.monotonic() + 120
        while not all((tmp_path / f"met {rank}").exists() for rank in range(2)):
            assert time.monotonic() < until
            time.sleep(0.01)
        return started

    yield start_both
    for process in started:
        process.kill()
        process.join()


def ended(processes: list, folder: Path, living: tuple = (0, 1)) -> list[int]:
    """The exit codes; meanwhile the launchers of the records `living` give signs of life."""
    until = time.monotonic() + 30
    while any(process.is_alive() for process in processes) and time.monotonic() < until:
        for number in living:
            (folder / f"record {number}.alive").touch()
        time.sleep(0.05)
    return [process.exitcode for process in processes]


def said(folder: Path, number: int = 0) -> str:
    return json.loads((folder / f"record {number}").read_text())["message"]


def test_the_end_of_all_is_no_failure(start, tmp_path):
    assert ended(start(closes, closes), tmp_path) == [0, 0]
    assert not any(tmp_path.glob("record ?"))


def test_a_process_that_is_late_is_named_with_where_it_is(start, tmp_path):
    """The other machine's processes end too, and do not repeat the report."""
    processes = start(waits, is_late, timeout=1)
    assert ended(processes, tmp_path) == [4, 4]
    report = said(tmp_path)
    assert (
        report.startswith("ERROR ") and "DIST_TIMEOUT" in report and " 1 s, in the second" in report
    )
    line = report.splitlines()[0]
    assert f"process {processes[1].pid}) has not arrived" in line and "the first collective" in line
    assert f"process {processes[0].pid}" not in line and "answer" not in line
    assert "rank 0:" in report and "in waits" in report
    assert "rank 1:" in report and "in is_late" in report
    assert "another machine" in said(tmp_path, 1)


def test_a_process_that_is_stopped_does_not_answer(start, tmp_path):
    processes = start(waits, waits, timeout=1)
    os.kill(processes[1].pid, signal.SIGSTOP)
    assert ended(processes[:1], tmp_path) == [4]
    assert f"process {processes[1].pid}) does not answer" in said(tmp_path)


def test_a_launcher_that_stays_silent_ends_the_other_machine(start, tmp_path):
    assert ended(start(waits, is_late), tmp_path, living=(0,)) == [4, 4]
    assert said(tmp_path).startswith("ERROR the launcher on ")
    assert f" {SILENCE} s" in said(tmp_path)


def test_a_process_that_dies_ends_the_others_of_its_launcher(start, tmp_path):
    processes = start(waits, waits, records=(0, 0))
    processes[1].kill()
    assert ended(processes, tmp_path) == [4, -signal.SIGKILL]
    assert "rank 1" in said(tmp_path) and "kill -9" in said(tmp_path)


def test_a_request_to_stop_is_a_signal_to_each_process(start, tmp_path):
    processes = start(waits, waits, records=(0, 0))
    (tmp_path / "record 0.stop").touch()
    assert ended(processes, tmp_path) == [-signal.SIGTERM] * 2
