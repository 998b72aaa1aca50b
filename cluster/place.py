"""A process's place in its run: its rank, its machine, and the launcher that started it.

RUN_RECORD names the failure record of a process's machine (cluster/failure_record.py); RUN_LAUNCHER
says where its launcher runs, and as which process. These two mark a process that the launcher has
started. Only with them do RANK and the like mean anything: cluster managers set those in whatever
they start.
"""

import os
import signal
from pathlib import Path

from data_utils.errors import InputError
from data_utils.program import die_with_parent

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What asks a program to end with its work saved.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def machine() -> str:
    """The identity of this machine, or of a container with its own process ids."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def alive(process: int) -> bool:
    """Whether a process of this machine exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def launched() -> bool:
    """Whether cluster/launch.py has started this process and given it a place."""
    return all(name in os.environ for name in ("RUN_RECORD", "RUN_LAUNCHER", *PLACE))


def local_rank() -> int:
    """This process's number among those of its launcher on this machine; 0 without a launcher."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def own_place() -> tuple[int, int]:
    """(rank, number of processes), as the launcher says; 0 and 1 without a launcher.

    Without one, variables that tell of more processes raise InputError: this process would do its
    share of the work alone and declare the whole done.
    """
    os.environ.pop("OMPI_COMM_WORLD_LOCAL_RANK", None)  # DeepSpeed wants it to equal LOCAL_RANK
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
            "NODE_RANK and MASTER_ADDR, and start the launcher under scripts/ once per machine",
        )
    forget_managers()
    return 0, 1


def forget_managers() -> None:
    """Remove the variables that other launchers and cluster managers set for their processes.

    PET_* are defaults of torchrun's flags (restarts, another rendezvous); with
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
    """End this worker when its parent dies; at once if its launcher is dead already."""
    die_with_parent(os.getppid())
    if launcher_here() and not alive(launcher_here()):
        os._exit(1)
