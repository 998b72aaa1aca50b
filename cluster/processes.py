"""The processes of a run: rank, device, group, sums over all ranks."""

import contextlib
import datetime
import os
import resource
import socket
from dataclasses import dataclass

import psutil
import torch
import torch.distributed as dist

from cluster.place import die_with_launcher, launched, local_rank, own_place
from cluster.watchdog import Watch
from data_utils.errors import EnvironmentFault


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; `watch` is set if a launcher started it."""

    rank: int
    world: int
    device: torch.device
    watch: Watch | None = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes what is written once."""
        return self.rank == 0

    def together(self, what: str) -> contextlib.AbstractContextManager:
        """Around what only ends when all processes take part (cluster/watchdog.py)."""
        return self.watch.together(what) if self.watch else contextlib.nullcontext()


def start_processes(timeout_seconds: int) -> Processes:
    """Join the process group of the launcher, or make a group of one, which needs no port.

    Raises InputError or EnvironmentFault for a group that cannot be joined.
    """
    rank, world = own_place()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    if not launched():
        use_loopback()
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        return Processes(dist.get_rank(), dist.get_world_size(), device)
    die_with_launcher()
    # The watch reports a hang first; this is for when it cannot.
    last = datetime.timedelta(seconds=timeout_seconds + 60)
    try:
        store, _, _ = next(dist.rendezvous("env://", rank, world, timeout=last))
    except dist.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise EnvironmentFault(
            f"the process of rank 0 cannot be reached at {place}",
            fix="set MASTER_ADDR and MASTER_PORT to what all machines can reach",
        ) from error
    watch = Watch(store, rank, world, timeout_seconds)
    with watch.together("the start"):
        group = dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=world, timeout=last)
    return Processes(dist.get_rank(), dist.get_world_size(), device, watch)


def use_loopback() -> None:
    """Let the processes of one machine talk over its loopback interface.

    By default gloo looks up the machine's own name, which may have no address; and a variable of
    the cluster may point gloo and NCCL to another interface.
    """
    if "lo" in psutil.net_if_addrs():
        os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")


def use_interface_to(address: str) -> None:
    """Let gloo talk to other machines over the interface that leads to `address`, one of them.

    By default it takes the address of the machine's own name. Where that is a loopback address, as
    Debian sets it up, or none, the others would look for this process on their own machines.
    """
    try:
        own = socket.gethostbyname(socket.gethostname())
    except OSError:
        own = "127.0.0.1"  # as gloo does
    if not own.startswith("127.") or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # a datagram socket: nothing is sent
        leading = probe.getsockname()[0]
        for name, found in psutil.net_if_addrs().items():
            if leading in (each.address for each in found):
                os.environ["GLOO_SOCKET_IFNAME"] = name


def end_processes(processes: Processes) -> None:
    """Leave the group together with all others; none needs another from here on."""
    if processes.watch:
        barrier(processes)
        processes.watch.close()
        barrier(processes)
    dist.destroy_process_group()


def all_sum(values: list[float], processes: Processes, what: str = "a barrier") -> list[float]:
    """Sums over all ranks in float64; `what` names them in a report of a hang."""
    total = torch.tensor(values, dtype=torch.float64, device=processes.device)
    with processes.together(what):
        dist.all_reduce(total)
        return total.tolist()


def barrier(processes: Processes) -> None:
    """Wait for all ranks."""
    all_sum([0.0], processes)


def peak_memory(processes: Processes) -> int:
    """Peak bytes of this process: on its GPU, or in main memory without one."""
    if processes.device.type == "cuda":
        return torch.cuda.max_memory_allocated(processes.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
