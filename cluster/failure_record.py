"""The record of a run's first failure on a machine, as {code, message}, for its launcher to print.

RUN_RECORD names it to the workers. Beside it are RECORD.alive, the launcher's sign of life, and
RECORD.stop, a request to its workers.
"""

import contextlib
import json
import os
from pathlib import Path

from data_utils.atomic_files import place
from data_utils.errors import EnvironmentFault, Stopped


def failure(record: Path) -> dict | None:
    """What a record says; None without one, or if the run was stopped with its work saved."""
    try:
        outcome = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return None if outcome["code"] == Stopped.code else outcome


def beside(record: Path, word: str) -> Path:
    """RECORD.alive, a launcher's sign of life, or RECORD.stop, a request to its workers."""
    return record.with_name(f"{record.name}.{word}")


def write_record(record: Path, code: int, message: str) -> bool:
    """Write code and message, unless a process of this machine has written before.

    False if that fails: SAVE may be full, or gone.
    """
    temporary = record.with_name(f"{record.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps({"code": code, "message": message}), encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            place(temporary, record)
    except (OSError, EnvironmentFault):
        return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True
