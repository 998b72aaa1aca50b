"""How one of several processes ends: it leaves its error in a record, which the launcher prints."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cluster.failure_record import write_record
from cluster.place import launched
from data_utils import program


def run(main: Callable[[], None]) -> None:
    """Call main() as program.run does, but leave a failure for the launcher, if there is one."""
    program.run(main, tell_launcher)


def tell_launcher(code: int, message: str) -> bool:
    """Write code and message to the record that RUN_RECORD names; False if there is none."""
    record = os.environ.get("RUN_RECORD")
    if not record:
        return False
    time.sleep(patience(code))
    if code == 1 and launched():
        message = f"rank {os.environ['RANK']} on {socket.gethostname()}:\n{message}"
    return write_record(Path(record), code, message)


def patience(code: int) -> int:
    """Seconds that a failing worker waits for its watchdog to find a better account of the failure.

    When one process dies the others fail too; an error that every rank finds is reported by rank 0.
    """
    first = not launched() or os.environ["RANK"] == "0"
    clear = code == 75 or (code in (2, 3) and first)
    return 0 if clear else 3
