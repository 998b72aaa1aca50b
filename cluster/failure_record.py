"""How the processes of a run end together: with their parent, and with a record of what failed.

RUN_RECORD names a worker's record: the first failure on its machine, as {code, message}. Beside it
lie RECORD.alive, the launcher's sign of life, and RECORD.stop, a request to its workers.
RUN_LAUNCHER says on which machine the launcher runs, and as which process. These two mark a process
that the launcher has started; only with them RANK and its like mean anything, which managers of
clusters set in whatever they start.
"""

import contextlib
import json
import os
import signal
from pathlib import Path

from data_utils.atomic_files import place
from data_utils.errors import EnvironmentFault, InputError, Stopped
from data_utils.program import die_with_parent

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What asks a program to end with its work saved.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def machine() -> str:
    """What tells machines (and containers with processes of their own) apart."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def alive(process: int) -> bool:
    """Whether a process of this machine is there and no zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def launched() -> bool:
    """Whether cluster/launch.py has started this process, with a place in its group."""
    return all(name in os.environ for name in ("RUN_RECORD", "RUN_LAUNCHER", *PLACE))


def local_rank() -> int:
    """This process's number among the launcher's on this machine, 0 without one."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def own_place() -> tuple[int, int]:
    """(rank, number of processes): what the launcher says, or 0 and 1 without one.

    Without a launcher there is no group, and variables that tell of more processes are an error:
    this one would do its share of the work alone and call the whole done.
    """
    os.environ.pop("OMPI_COMM_WORLD_LOCAL_RANK", None)  # DeepSpeed wants it to be our LOCAL_RANK
    if launched():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    claims = [
        f"{name}={os.environ[name]}"
        for name, alone in (("WORLD_SIZE", "1"), ("RANK", "0"))
        if os.environ.get(name, "").strip() not in ("", alone)
    ]
    if claims:
        raise InputError(
            f"{' '.join(claims)} in the environment, but this one process was not started by "
            "cluster/launch.py",
            fix="for one process `unset RANK WORLD_SIZE`; for several set NPROC, or NNODES, "
            "NODE_RANK and MASTER_ADDR, and start the launcher under scripts/ once a machine",
        )
    forget_managers()
    return 0, 1


def forget_managers() -> None:
    """Drop what other launchers and managers of clusters say of processes that are not ours.

    PET_* are the defaults of torchrun's flags (restarts, another meeting place); with
    TORCHELASTIC_USE_AGENT_STORE rank 0 would wait for a store that nobody opens.
    """
    for name in list(os.environ):
        if name in PLACE or name.startswith(("PET_", "TORCHELASTIC_", "OMPI_COMM_WORLD_")):
            del os.environ[name]


def launcher_here() -> int | None:
    """The process id of this worker's launcher, if it runs on this machine."""
    place, _, process = os.environ["RUN_LAUNCHER"].rpartition(" ")
    return int(process) if place == machine() else None


def die_with_launcher() -> None:
    """End this worker when what started it dies, or the launcher has died before."""
    die_with_parent(os.getppid())
    if launcher_here() and not alive(launcher_here()):
        os._exit(1)


def failure(record: Path) -> dict | None:
    """What a record says, unless there is none or it is of a run stopped with its work saved."""
    try:
        outcome = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return None if outcome["code"] == Stopped.code else outcome


def beside(record: Path, word: str) -> Path:
    """RECORD.alive, a launcher's sign of life, or RECORD.stop, a request to its workers."""
    return record.with_name(f"{record.name}.{word}")


def write_record(record: Path, code: int, message: str) -> bool:
    """Leave code and message for the launcher; the first process to fail on this machine wins.

    False if it cannot be written: SAVE may be full, or gone.
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
