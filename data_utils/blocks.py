"""Elastic blocks: any number of workers on any nodes finish one job together.

A job is cut into numbered blocks. A worker takes one that is missing, computes it and publishes it
under its name (atomic_files.place): the first one stays, a late twin is discarded. A claim file
with a heartbeat keeps two workers from the same block; it saves work, and correctness never rests
on it.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_utils.atomic_files import fsync, place, where_supported

HEARTBEAT = 15.0  # seconds
STALE = 6 * HEARTBEAT
FIRST_WAIT = 0.5  # seconds; doubled up to a heartbeat while others hold all that is missing


def block_path(folder: Path, block: int) -> Path:
    """The published file of a block."""
    return folder / f"block_{block:06d}.safetensors"


@dataclass
class Blocks:
    """The blocks 0..count-1 of one job in a folder, as one worker sees them."""

    folder: Path
    count: int
    # Nodes cloned from one image may have equal host names and process ids.
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid.uuid4().hex}")
    held: Path | None = None  # the claim of the block in work

    def path(self, block: int) -> Path:
        """The published file of a block."""
        return block_path(self.folder, block)

    def missing(self) -> list[int]:
        """Numbers of the blocks that are not published yet."""
        present = {entry.name for entry in os.scandir(self.folder)}
        return [b for b in range(self.count) if self.path(b).name not in present]

    def publish(self, block: int, write: Callable[[Path], None]) -> bool:
        """Let write() fill a temporary file and put it into place; False if another was first."""
        temporary = self.folder / f".{self.path(block).name}.{self.worker}"
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                with where_supported(), contextlib.suppress(PermissionError):  # exFAT has no modes
                    os.fchmod(file.fileno(), 0o644)  # other users' workers read it too
                fsync(file.fileno())
            place(temporary, self.path(block))
            return True
        except (FileExistsError, FileNotFoundError):
            # FileNotFoundError: this twin is so late that the finisher has swept its file away.
            if self.path(block).exists():
                return False
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def require_place(self) -> None:
        """Find out before any work whether the folder's file system can publish a block."""
        probe = self.folder / f".block_probe.{self.worker}"
        other = probe.with_name(f"{probe.name}.placed")
        try:
            probe.touch()
            place(probe, other)
        except FileNotFoundError:  # the finisher has swept it away
            pass
        finally:
            probe.unlink(missing_ok=True)
            other.unlink(missing_ok=True)

    def take(self) -> Iterator[int]:
        """Claimed blocks to compute, until all are published by this or by other workers."""
        try:
            yield from self._take()
        finally:  # a signal may come between a claim and its heartbeat
            if self.held is not None:
                self.held.unlink(missing_ok=True)

    def _take(self) -> Iterator[int]:
        wait = FIRST_WAIT
        while missing := self.missing():
            # Workers start at different places, so that they seldom reach for the same claim.
            start = hash(self.worker) % len(missing)
            taken = False
            for block in missing[start:] + missing[:start]:
                if self.path(block).exists() or not self._claim(block):
                    continue
                taken = True
                with self._heartbeat(block):
                    yield block
            if not taken:
                time.sleep(wait)
            wait = FIRST_WAIT if taken else min(2 * wait, HEARTBEAT)

    def _claim(self, block: int) -> bool:
        claim = self.held = self._claim_path(block)
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            return True
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if self._stale(claim):
                    os.utime(claim)  # a rare twin does no harm
                    return True
        self.held = None
        return False

    def _claim_path(self, block: int) -> Path:
        return self.folder / f".claim_{block:06d}"

    def _stale(self, claim: Path) -> bool:
        """Whether its worker is dead; a future time means that a clock was set back."""
        return abs(self._now() - claim.stat().st_mtime) > STALE

    def _now(self) -> float:
        """The file system's own clock: nodes' clocks may differ."""
        probe = self.folder / f".clock.{self.worker}"
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _heartbeat(self, block: int) -> Iterator[None]:
        claim, done = self._claim_path(block), threading.Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(claim)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            claim.unlink(missing_ok=True)
            self.held = None

    def sweep(self) -> None:
        """Remove what dead workers left behind; called once all blocks are published."""
        for path in self.folder.glob(".block_*"):
            path.unlink(missing_ok=True)
        for path in [*self.folder.glob(".claim_*"), *self.folder.glob(".clock.*")]:
            path.unlink(missing_ok=True)
