"""LAUNCHER=deepspeed: DeepSpeed's own launcher, for one machine or those of a HOSTFILE.

It turns every signal into a kill of the workers and forgets a HOSTFILE that is not there. Here a
HOSTFILE is checked first, and a signal becomes the file RECORD.stop, which the workers look for
(cluster/watchdog.py): they finish the step, write a checkpoint and leave.
"""

import argparse
import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster.failure_record import STOP_SIGNALS, beside
from data_utils.errors import EnvironmentFault, InputError
from data_utils.flags import under
from data_utils.program import CODE_ROOT, die_with_parent

EXPORTED = "RUN_RECORD RUN_LAUNCHER OMP_NUM_THREADS DS_ACCELERATOR HF_HUB_OFFLINE"
PORT = 29500


def read_hosts(options: argparse.Namespace) -> dict[str, int]:
    """Processes a host, from HOSTFILE; without one, NPROC on this machine."""
    if not options.hostfile:
        return {"localhost": options.nproc}
    base = next((word for word in options.arguments[:1] if not word.startswith("-")), ".")
    path, hosts = under(base, options.hostfile), {}
    options.hostfile = str(path)
    fix = "HOSTFILE has a line `HOST slots=PROCESSES` for each machine"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the HOSTFILE cannot be read", where=path, fix=fix) from error
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        match = re.fullmatch(r"(\S+)\s+slots=([1-9]\d*)", line)
        if not match or match[1] in hosts:
            raise InputError(f"a line of the HOSTFILE is no host: {line}", where=path, fix=fix)
        hosts[match[1]] = int(match[2])
    if not hosts:
        raise InputError("the HOSTFILE names no host", where=path, fix=fix)
    return hosts


def deepspeed(options: argparse.Namespace, hosts: dict[str, int], record: Path) -> int:
    """Run DeepSpeed's launcher to its end; its exit code."""
    here = one_machine(hosts)
    port = free_port() if here else options.master_port or PORT
    devices = visible_devices(options.nproc) if here else []
    with tempfile.TemporaryDirectory(prefix="miniplm-launch-") as temporary:
        hostfile = Path(temporary) / "hostfile"
        slots = {host: max([n, *(d + 1 for d in devices)]) for host, n in hosts.items()}
        hostfile.write_text(
            "".join(f"{host} slots={n}\n" for host, n in slots.items()), encoding="utf-8"
        )
        exported = {name: os.environ[name] for name in EXPORTED.split() if name in os.environ}
        variables = Path(temporary) / "environment"
        variables.write_text(
            "".join(f"{name}={value}\n" for name, value in exported.items()), encoding="utf-8"
        )
        program = [str(CODE_ROOT / options.program), *options.arguments]
        command = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile)]
        command += ["--no_local_rank", "--log_level", "critical"]
        command += ["--master_port", str(port)]
        if devices:
            command += ["--include", f"{next(iter(hosts))}:{','.join(map(str, devices))}"]
        address = "127.0.0.1" if here else options.master_addr
        if address:
            command += ["--no_ssh_check", "--master_addr", address]
        if not here:
            check_pdsh(program[0])
            command += ["--force_multi"]  # else it starts a single host's processes here
        process = subprocess.Popen(
            [*command, *program],
            cwd=CODE_ROOT,
            env={**os.environ, "DS_ENV_FILE": str(variables)},
            start_new_session=True,  # Ctrl-C is for this process, which asks the workers to stop
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
        )
        return wait(process, beside(record, "stop"), options.grace)


def one_machine(hosts: dict[str, int]) -> bool:
    """Whether the hosts are this machine alone: then MASTER_ADDR and MASTER_PORT do not matter."""
    return len(hosts) == 1 and next(iter(hosts)) in ("localhost", "127.0.0.1", socket.gethostname())


def visible_devices(processes: int) -> list[int]:
    """The GPUs of CUDA_VISIBLE_DEVICES for so many processes; DeepSpeed would take the first ones.

    Empty where the variable is not set, or hides all.
    """
    import torch

    words = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[:processes]
    if words == [""] or torch.cuda.device_count() == 0:
        return []
    if not all(word.strip().isdigit() for word in words):
        raise InputError(
            f"CUDA_VISIBLE_DEVICES={','.join(words)}: DeepSpeed's launcher only takes numbers",
            fix="give the GPUs by number, or use LAUNCHER=torchrun",
        )
    return [int(word) for word in words]


def check_pdsh(program: str) -> None:
    """DeepSpeed reaches other machines with pdsh, which cuts its words at spaces."""
    if not shutil.which("pdsh"):
        raise EnvironmentFault(
            "DeepSpeed's launcher needs pdsh for several machines",
            fix="install pdsh, or use LAUNCHER=torchrun with NNODES and NODE_RANK",
        )
    for path in (program, sys.executable):
        if " " in path:
            raise InputError(
                "pdsh cannot start a program whose path has a space",
                where=path,
                fix="move it, or use LAUNCHER=torchrun with NNODES and NODE_RANK",
            )


def wait(process: subprocess.Popen, stop: Path, grace: int) -> int:
    """Wait for DeepSpeed's launcher; a signal becomes the file that asks all workers to stop."""
    asked: list[float] = []

    def ask(number: int, frame: object) -> None:
        asked.append(time.monotonic())
        stop.touch()

    for number in STOP_SIGNALS:
        signal.signal(number, ask)
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            if asked and time.monotonic() > asked[0] + grace:
                process.kill()
    finally:
        stop.unlink(missing_ok=True)
    return process.returncode


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
