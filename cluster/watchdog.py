"""Watches the other processes of a run: a failure anywhere ends all of them and is reported once.

A thread of every process looks twice a second for the failure record of any launcher of the run
(cluster/failure_record.py); for a process of its own launcher, or that launcher, that died without
a message; for a launcher whose sign of life, RECORD.alive, is overdue; for a request to stop,
RECORD.stop; and for a collective that takes longer than DIST_TIMEOUT. Each process tells the others
what it is doing through the store of torch.distributed, which outlives a stuck collective.
"""

import contextlib
import datetime
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist

from cluster.failure_record import beside, failure, write_record
from cluster.place import alive, launcher_here, local_rank, machine
from data_utils.errors import EnvironmentFault

POLL = 0.5  # seconds
ANSWER = 4  # seconds that the others get to say where they are
SILENCE = 40  # seconds without a launcher's sign of life, which comes every second
PREFIX = "miniplm"
AGAIN = "the same command resumes from the last checkpoint"


class Watch:
    """This process's thread, and its place (`rank`) among the others, `world` of them.

    timeout: seconds for all to start (else EnvironmentFault), and for each collective.
    """

    def __init__(self, store: dist.Store, rank: int, world: int, timeout: int) -> None:
        self.store = store  # for the main thread; a dead network blocks whoever asks it
        self.rank, self.world, self.timeout = rank, world, timeout
        self.record = Path(os.environ["RUN_RECORD"])
        self.entered, self.inside = 0, False  # collectives so far; whether in one now
        self.members = self._meet()
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        self.answer = threading.Thread(target=self._answer, args=(store.clone(),), daemon=True)
        self.answer.start()

    def close(self) -> None:
        """Stop watching; only once all processes are known to have reached their end."""
        self.closed.set()
        self.thread.join()
        self.store.set(f"{PREFIX}/hang", "")  # a thread waiting in C++ spoils Python's exit
        self.answer.join()

    @contextlib.contextmanager
    def together(self, what: str) -> Iterator[None]:
        """Around what only ends when all processes take part; `what` names it in a report.

        A lost connection raises EnvironmentFault.
        """
        self.entered += 1
        try:
            self.store.set(f"{PREFIX}/at/{self.rank}", f"{self.entered} {what}")
            self.inside = True
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise EnvironmentFault(
                f"rank {self.rank} on {socket.gethostname()} lost the others in {what}",
                fix=f"look at the other machines: a process or a connection ended there; {AGAIN}",
            ) from error
        finally:
            self.inside = False

    def _meet(self) -> list[dict]:
        """Tell the others where this process runs; what they told, by rank."""
        me = {"machine": machine(), "host": socket.gethostname(), "pid": os.getpid()}
        me["record"] = str(self.record)
        self.store.set(f"{PREFIX}/member/{self.rank}", json.dumps(me))
        names = [f"{PREFIX}/member/{rank}" for rank in range(self.world)]
        until = time.monotonic() + self.timeout
        while missing := [r for r, name in enumerate(names) if not self.store.check([name])]:
            if time.monotonic() > until:
                raise EnvironmentFault(
                    f"rank {', '.join(map(str, missing))} of {self.world} did not start within "
                    f"{self.timeout} s",
                    fix="look at the output of its machine; DIST_TIMEOUT=SECONDS waits longer",
                )
            self._end_with_others([self.record])
            time.sleep(0.1)
        return [json.loads(self.store.get(name)) for name in names]

    def _look(self) -> None:
        records = sorted({self.record, *(Path(member["record"]) for member in self.members)})
        mine = {"machine": machine(), "record": str(self.record)}
        watched = {
            f"the process of rank {rank}": member["pid"]
            for rank, member in enumerate(self.members)
            if mine.items() <= member.items()
        }
        signs = dict.fromkeys(records, (0, 0.0)) if local_rank() == 0 else {}
        if launcher_here():
            watched["the launcher"] = launcher_here()
            signs.pop(self.record, None)
        last, waited, report = 0, 0.0, None
        while not self.closed.wait(POLL):
            # First: a process that the same request has ended is not one that died without a word.
            if beside(self.record, "stop").exists():
                os.kill(os.getpid(), signal.SIGTERM)
            self._end_with_others(records)
            self._end_with_the_dead(watched)
            self._end_with_the_silent(signs)
            # Counted in turns of this loop: time in which this process was suspended is not a hang.
            waited = waited + POLL if self.inside and self.entered == last else 0.0
            last = self.entered
            if waited > self.timeout and report is None:
                report = threading.Thread(target=self._report_hang, daemon=True)
                report.start()
            if waited > self.timeout + 8 * ANSWER:  # the store does not answer either
                what = f"the process of rank 0 ({self.members[0]['host']}) cannot be reached"
                self._fail(what, f"look at that machine and its network; {AGAIN}")

    def _end_with_others(self, records: list[Path]) -> None:
        """Leave if a record tells of a failure; that of another launcher is not repeated."""
        for record in records:
            outcome = failure(record)
            if outcome is not None:
                text = "ended: another machine of this run failed and shows its error"
                self._leave(outcome["code"], text)

    def _end_with_the_dead(self, watched: dict[str, int]) -> None:
        """Leave if a process of this launcher, or itself, is gone; watched: {name: process id}."""
        gone = [name for name, process in watched.items() if not alive(process)]
        if not gone or self.record.exists():
            return
        time.sleep(POLL)  # its launcher may know more: a signal's name
        self._fail(
            f"{gone[0]} on {socket.gethostname()} ended without a message (kill -9? memory?)",
            f"look at the machine's log (dmesg); {AGAIN}",
        )

    def _end_with_the_silent(self, signs: dict[Path, tuple[int, float]]) -> None:
        """signs: for each launcher's record, time of its last sign (ns) and seconds since then."""
        for record, (last, silent) in signs.items():
            now = last
            with (
                contextlib.suppress(OSError),
                open(beside(record, "alive"), encoding="utf-8") as sign,
            ):
                now = os.fstat(sign.fileno()).st_mtime_ns  # opened: a network's cache may be old
            signs[record] = (now, silent + POLL if now == last else 0.0)
            if silent > SILENCE:
                host = next(m["host"] for m in self.members if m["record"] == str(record))
                self._fail(
                    f"the launcher on {host} has given no sign of life for {SILENCE} s",
                    f"look at that machine; {AGAIN}",
                )

    def _fail(self, what: str, fix: str) -> None:
        error = EnvironmentFault(what, fix=fix)
        self._leave(error.code, str(error))

    def _leave(self, code: int, message: str) -> None:
        """End this process; its launcher has the message, unless another's is there already."""
        write_record(self.record, code, message)
        os._exit(code)

    def _answer(self, store: dist.Store) -> None:
        """Once a process waits too long: say where this process's main thread is."""
        with contextlib.suppress(RuntimeError):  # the store is gone: there is nobody to answer
            store.wait([f"{PREFIX}/hang"], datetime.timedelta(days=1000))
            if self.closed.is_set():
                return
            frame = sys._current_frames()[threading.main_thread().ident]
            stack = "".join(traceback.format_stack(frame)).rstrip()
            store.set(f"{PREFIX}/stack/{self.rank}", stack)

    def _report_hang(self) -> None:
        """End this process with a report of who is missing, and where every process is."""
        store = self.store.clone()
        store.set(f"{PREFIX}/hang", "1")
        time.sleep(ANSWER)

        def told(what: str, rank: int, otherwise: str) -> str:
            name = f"{PREFIX}/{what}/{rank}"
            return store.get(name).decode() if store.check([name]) else otherwise

        places = [told("at", rank, "0 the start").split(" ", 1) for rank in range(self.world)]
        furthest = max(int(count) for count, _ in places)
        arrived = [rank for rank, (count, _) in enumerate(places) if int(count) == furthest]
        if self.rank != arrived[0]:
            time.sleep(5 * ANSWER)  # that one's record comes first
        stacks = [told("stack", rank, "") for rank in range(self.world)]
        suspects = []
        for rank, member in enumerate(self.members):
            who = f"rank {rank} ({member['host']}, process {member['pid']})"
            if rank not in arrived:
                suspects.append(f"{who} has not arrived, it was last in {places[rank][1]}")
            if not stacks[rank]:
                suspects.append(f"{who} does not answer")
        self._fail(
            f"the processes have been waiting for each other for {self.timeout} s, in "
            f"{places[arrived[0]][1]}: {'; '.join(suspects) or 'all have arrived'}",
            f"look at that machine; {AGAIN}; DIST_TIMEOUT=SECONDS waits longer. Where they are:\n"
            + "\n".join(f"rank {rank}:\n{stack}" for rank, stack in enumerate(stacks) if stack),
        )
