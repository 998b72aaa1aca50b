"""LAUNCHER=deepspeed: DeepSpeed's own launcher, for one machine or those of a HOSTFILE.

By itself it kills the workers at any signal and ignores a HOSTFILE that does not exist. Here the
HOSTFILE is checked first, and a signal becomes the file RECORD.stop, which the workers look for
(cluster/watchdog.py): they finish the step, write a checkpoint and exit.
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

from cluster.failure_record import beside
from cluster.place import STOP_SIGNALS
from data_utils.errors import EnvironmentFault, InputError
from data_utils.flags import under
from data_utils.program import CODE_ROOT, die_with_parent

EXPORTED = "RUN_RECORD RUN_LAUNCHER OMP_NUM_THREADS DS_ACCELERATOR HF_HUB_OFFLINE"
PORT = 29500


def read_hosts(options: argparse.Namespace) -> dict[str, int]:
    """{host: processes} of the HOSTFILE; InputError if there is none, or another kind of file."""
    fix = "give a HOSTFILE with one line `HOST slots=PROCESSES` for each machine"
    if not options.hostfile:
        raise InputError("LAUNCHER=deepspeed needs HOSTFILE", fix=f"{fix}, or unset LAUNCHER")
    base = next((word for word in options.arguments[:1] if not word.startswith("-")), ".")
    path, hosts = under(base, options.hostfile), {}
    options.hostfile = str(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the HOSTFILE cannot be read", where=path, fix=fix) from error
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        match = re.fullmatch(r"(\S+)\s+slots=([1-9]\d*)", line)
        if not match or match[1] in hosts:
            raise InputError(f"invalid HOSTFILE line `{line}`", where=path, fix=fix)
        hosts[match[1]] = int(match[2])
    if not hosts:
        raise InputError("the HOSTFILE lists no host", where=path, fix=fix)
    return hosts


def deepspeed(options: argparse.Namespace, hosts: dict[str, int], record: Path) -> int:
    """Run DeepSpeed's launcher to its end and return its exit code."""
    here = one_machine(hosts)
    port = free_port() if here else options.master_port or PORT
    address = "127.0.0.1" if here else options.master_addr
    program = [str(CODE_ROOT / options.program), *options.arguments]
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", options.hostfile]
    command += ["--no_local_rank", "--log_level", "critical", "--master_port", str(port)]
    if address:
        command += ["--no_ssh_check", "--master_addr", address]
    if here:
        check_devices(*hosts.values())
    else:
        check_pdsh(program[0])
        command += ["--force_multi"]  # otherwise it starts a single host's processes here
    exported = {name: os.environ[name] for name in EXPORTED.split() if name in os.environ}
    with tempfile.NamedTemporaryFile("w", prefix="miniplm-", encoding="utf-8") as variables:
        variables.writelines(f"{name}={value}\n" for name, value in exported.items())
        variables.flush()
        process = subprocess.Popen(
            [*command, *program],
            cwd=CODE_ROOT,
            env={**os.environ, "DS_ENV_FILE": variables.name},
            start_new_session=True,  # Ctrl-C is for this process, which asks the workers to stop
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
        )
        return wait(process, beside(record, "stop"), options.grace)


def one_machine(hosts: dict[str, int]) -> bool:
    """Whether the only host is this machine: then MASTER_ADDR and MASTER_PORT do not matter."""
    return len(hosts) == 1 and next(iter(hosts)) in ("localhost", "127.0.0.1", socket.gethostname())


def check_devices(processes: int) -> None:
    """InputError if CUDA_VISIBLE_DEVICES is not what DeepSpeed's launcher will set it to."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible not in (None, ",".join(map(str, range(processes)))):
        raise InputError(
            f"DeepSpeed's launcher takes the first GPUs, not CUDA_VISIBLE_DEVICES={visible}",
            fix="unset it, or use LAUNCHER=torchrun",
        )


def check_pdsh(program: str) -> None:
    """DeepSpeed reaches other machines with pdsh, which splits its arguments at spaces."""
    if not shutil.which("pdsh"):
        raise EnvironmentFault(
            "DeepSpeed's launcher needs pdsh to reach several machines",
            fix="install pdsh, or use LAUNCHER=torchrun with NNODES and NODE_RANK",
        )
    for path in (program, sys.executable):
        if " " in path:
            raise InputError(
                "pdsh cannot start a program whose path contains a space",
                where=path,
                fix="move it, or use LAUNCHER=torchrun with NNODES and NODE_RANK",
            )


def wait(process: subprocess.Popen, stop: Path, grace: int) -> int:
    """Wait for DeepSpeed's launcher; a signal creates the file `stop`, which all workers look for.

    Returns its exit code.
    """
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
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
