"""How one of several processes ends: its launcher prints what it leaves in the failure record."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cluster.failure_record import launched, write_record
from data_utils import program


def run(main: Callable[[], None]) -> None:
    """Call main() as program.run does; a failure is left for the launcher, if there is one."""
    program.run(main, tell_launcher)


def tell_launcher(code: int, message: str) -> bool:
    """Leave code and message in the file that RUN_RECORD names; False if nobody reads it there."""
    record = os.environ.get("RUN_RECORD")
    if not record:
        return False
    time.sleep(patience(code))
    if code == 1 and launched():
        message = f"rank {os.environ['RANK']} on {socket.gethostname()}:\n{message}"
    return write_record(Path(record), code, message)


def patience(code: int) -> int:
    """Seconds that a failing worker waits, while its watchdog looks for a better account of it.

    When one process dies the others fail too; an error that every rank finds is reported by rank 0.
    """
    first = not launched() or os.environ["RANK"] == "0"
    clear = code == 75 or (code in (2, 3) and first)
    return 0 if clear else 3
