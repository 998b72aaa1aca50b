"""The processes of a run: rank, device, groups, and signals that all ranks agree on."""

import datetime
import json
import os
import resource
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from data_utils.errors import Stopped
from data_utils.start import die_with_parent

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Rank 0 writes what is written once."""
        return self.rank == 0


def start_processes(timeout_seconds: int) -> Processes:
    """Join the run's process group: torchrun's, or a group of one without any port."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank)
    timeout = datetime.timedelta(seconds=timeout_seconds)
    backend = "nccl" if cuda else "gloo"
    if world == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        die_with_parent()
        threading.Thread(target=leave_when_another_failed, daemon=True).start()
        dist.init_process_group(backend, timeout=timeout)
    return Processes(rank, world, torch.device("cuda", local_rank) if cuda else torch.device("cpu"))


def leave_when_another_failed() -> None:
    """End this process once another one has recorded a failure: a collective may never return."""
    record = Path(os.environ["RUN_RECORD"])
    while True:
        time.sleep(0.5)
        if record.exists() and json.loads(record.read_text())["code"] != Stopped.code:
            os._exit(1)


class StopSignal:
    """Remembers a signal that asks the run to end; the step in progress is finished first."""

    def __init__(self) -> None:
        self.received = 0
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: object) -> None:
        self.received = number


def all_sum(values: list[float], processes: Processes) -> list[float]:
    """Sums over all ranks, in float64 (float32 where the device has no better)."""
    total = torch.tensor(values, dtype=torch.float64, device=processes.device)
    dist.all_reduce(total)
    return total.tolist()


def barrier(processes: Processes) -> None:
    """Wait for all ranks; gloo and NCCL alike."""
    all_sum([0.0], processes)


def peak_memory(processes: Processes) -> int:
    """The most bytes this process has held so far: on its GPU, or in main memory without one."""
    if processes.device.type == "cuda":
        return torch.cuda.max_memory_allocated(processes.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
