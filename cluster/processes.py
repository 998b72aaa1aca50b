"""The processes of a run: rank, device, groups."""

import contextlib
import datetime
import fcntl
import os
import resource
import socket
from dataclasses import dataclass

import torch
import torch.distributed as dist

from cluster.failure_record import die_with_launcher, launched, local_rank, own_place
from cluster.watchdog import Watch
from data_utils.errors import EnvironmentFault

SIOCGIFADDR = 0x8915


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; `watch` where a launcher has started it."""

    rank: int
    world: int
    device: torch.device
    watch: Watch | None = None

    @property
    def first(self) -> bool:
        """Rank 0 writes what is written once."""
        return self.rank == 0

    def together(self, what: str) -> contextlib.AbstractContextManager:
        """Around what only ends when all processes take part (cluster/watchdog.py)."""
        return self.watch.together(what) if self.watch else contextlib.nullcontext()


def start_processes(timeout_seconds: int) -> Processes:
    """Join the run's process group: the launcher's, or a group of one without any port."""
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
    # The watch comes first; this is for the case that it cannot.
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
    """Let the processes of one machine talk over its loopback, whatever else there is.

    gloo looks for the address of the machine's own name, which may have none; both take another
    interface if a variable of the cluster says so.
    """
    if "lo" in dict(map(reversed, socket.if_nameindex())):
        os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")


def use_interface_to(address: str) -> None:
    """Let gloo talk to other machines over the interface that leads to this one of them.

    It takes the address that the machine's own name has. Where that is the loopback's, as Debian
    sets it up, or none, the others would look for this process on their own machines.
    """
    try:
        own = socket.gethostbyname(socket.gethostname())
    except OSError:
        own = "127.0.0.1"  # what gloo takes, too
    if not own.startswith("127.") or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # a datagram's socket: nothing is sent
        leading = probe.getsockname()[0]
        names = [name for _, name in socket.if_nameindex()]
        found = [name for name in names if interface_address(probe, name) == leading]
        if found:
            os.environ["GLOO_SOCKET_IFNAME"] = found[0]


def interface_address(probe: socket.socket, name: str) -> str | None:
    """The IPv4 address of an interface, None if it has none; probe: any socket (netdevice(7))."""
    try:
        found = fcntl.ioctl(probe, SIOCGIFADDR, name.encode().ljust(256, b"\0"))
    except OSError:
        return None
    return socket.inet_ntoa(found[20:24])


def end_processes(processes: Processes) -> None:
    """Leave the group together with all others: from here on none needs another."""
    if processes.watch:
        barrier(processes)
        processes.watch.close()
        barrier(processes)
    dist.destroy_process_group()


def all_sum(values: list[float], processes: Processes, what: str = "a barrier") -> list[float]:
    """Sums over all ranks in float64; `what` they are, for a report of who is missing."""
    total = torch.tensor(values, dtype=torch.float64, device=processes.device)
    with processes.together(what):
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
