"""Start a program as several processes, here and on other machines; print one message if it fails.

    python3 cluster/launch.py --nproc 2 pretrain/train.py BASE_PATH --flag value ...
    python3 cluster/launch.py --nnodes 2 --node-rank 0 --master-addr HOST --nproc 8 PROGRAM ...
    python3 cluster/launch.py --launcher deepspeed --hostfile FILE PROGRAM ...

scripts/common.sh calls it. The user's input is checked before any process starts. torchrun runs
inside this process: it passes a signal on to the workers, they die with it, and it exits with the
code that the first failing worker recorded (torchrun's own is always 1, below a traceback).
DeepSpeed's launcher is a child of this process; a signal becomes a request that all workers see.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import signal
import threading
import time
import uuid

import psutil

from cluster.failure_record import beside, failure, write_record
from cluster.launch_deepspeed import PORT, deepspeed, one_machine, read_hosts
from cluster.place import STOP_SIGNALS, forget_managers, machine
from cluster.processes import use_interface_to, use_loopback
from data_utils.errors import EnvironmentFault, InputError, ProgramError, Stopped
from data_utils.flags import Parser
from data_utils.program import CODE_ROOT

STRAGGLERS = 10  # seconds from the record of a failure to SIGKILL


class WorkersEnded(ProgramError):
    """How the workers ended: their code and message, repeated unchanged."""

    def __init__(self, code: int, message: str) -> None:
        Exception.__init__(self, message)
        self.code = code


def main() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, stop_at_once)
    options = read_options()
    hosts = read_hosts(options) if options.launcher == "deepspeed" else {}
    world = sum(hosts.values()) or options.nproc * options.nnodes
    folder = load_program(options.program).check(options.arguments, world)
    forget_managers()
    if one_machine(hosts) if hosts else options.nnodes == 1:
        use_loopback()
        require_devices(world)
    elif not hosts:
        use_interface_to(options.master_addr)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f".failure.{options.node_rank}.{uuid.uuid4().hex[:12]}.json"
    if options.node_rank == 0:
        for old in folder.glob(".failure.*"):
            old.unlink(missing_ok=True)  # an earlier run left them for its other machines
    os.environ.update(RUN_RECORD=str(record), RUN_LAUNCHER=f"{machine()} {os.getpid()}")
    here = max(hosts.values(), default=options.nproc)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // here)))
    threading.Thread(target=tend, args=(record,), daemon=True).start()
    try:
        code = deepspeed(options, hosts, record) if hosts else torchrun(options)
        if code != 0:
            raise workers_end(record, options, code)
    finally:
        beside(record, "alive").unlink(missing_ok=True)
        del os.environ["RUN_RECORD"]  # the workers' only: this process prints its own errors
        if options.nnodes == 1:
            record.unlink(missing_ok=True)


def stop_at_once(number: int, frame: object) -> None:
    """The signal handler until torchrun or DeepSpeed's launcher has workers to pass signals to."""
    raise Stopped(f"by {signal.Signals(number).name} before the first step")


def read_options() -> argparse.Namespace:
    """The flags, checked (InputError)."""
    parser = Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--launcher", default="torchrun", help="torchrun or deepspeed")
    parser.add_argument("--nproc", type=int, default=1, help="processes on this machine")
    parser.add_argument("--nnodes", type=int, default=1, help="machines")
    parser.add_argument("--node-rank", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--master-addr", default="", help="address of machine 0")
    parser.add_argument("--master-port", type=int, default=0, help=f"its port; default {PORT}")
    parser.add_argument("--hostfile", default="", help="deepspeed: lines like `HOST slots=8`")
    parser.add_argument("--grace", type=int, default=600, help="seconds from SIGTERM to SIGKILL")
    parser.add_argument("--dist-timeout", type=int, default=600, help="seconds to meet the others")
    parser.add_argument("program", help="path of the program, relative to the code's root")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args()
    deepspeed = options.launcher == "deepspeed"
    if options.launcher not in ("torchrun", "deepspeed"):
        raise InputError(f"unknown LAUNCHER={options.launcher}", fix="set torchrun or deepspeed")
    if options.nproc < 1 or options.nnodes < 1:
        raise InputError("NPROC and NNODES must be at least 1", fix="correct them")
    if options.nnodes > 1 and deepspeed:
        raise InputError("NNODES applies only to LAUNCHER=torchrun", fix="give a HOSTFILE instead")
    if options.hostfile and not deepspeed:
        raise InputError("HOSTFILE applies only to LAUNCHER=deepspeed", fix="set that too")
    if options.nnodes > 1 and not options.master_addr:
        raise InputError("NNODES needs MASTER_ADDR", fix="set it to the address of machine 0")
    if not deepspeed and not 0 <= options.node_rank < options.nnodes:
        what = f"NODE_RANK is the number of this machine: expected 0 to {options.nnodes - 1}"
        raise InputError(f"{what}, found {options.node_rank}", fix="correct NODE_RANK or NNODES")
    return options


def load_program(program: str):
    """The program as a module, for its check()."""
    spec = importlib.util.spec_from_file_location("program", CODE_ROOT / program)
    module = importlib.util.module_from_spec(spec)
    sys.modules["program"] = module
    spec.loader.exec_module(module)
    return module


def tend(record: Path) -> None:
    """Show the other machines that this one is alive; SIGKILL what is left after a failure.

    A process that is stopped, or stuck in its device's driver, reacts to nothing else.
    """
    failed = 0
    while failed < STRAGGLERS:
        with contextlib.suppress(OSError):
            beside(record, "alive").touch()
        time.sleep(1)
        failed += failure(record) is not None
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def require_devices(processes: int) -> None:
    """Require a GPU for each process of this machine, if it has any (InputError)."""
    import torch

    seen = torch.cuda.device_count()
    if 0 < seen < processes:
        raise InputError(
            f"{processes} processes, but fewer GPUs that torch sees",
            expected=f"at most {seen}",
            found=processes,
            fix="correct NPROC or CUDA_VISIBLE_DEVICES",
        )


def torchrun(options: argparse.Namespace) -> int:
    """Run this machine's workers to their end; exit code of the first that fails, else 0.

    Raises EnvironmentFault if the machines do not meet.
    """
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    logging.disable(logging.ERROR)  # torchrun's own account of a failure
    place = ["--standalone", "--local-addr", "127.0.0.1"]  # the machine's name may have no address
    if options.nnodes > 1:
        place = ["--node-rank", str(options.node_rank), "--master-addr", options.master_addr]
        place += ["--master-port", str(options.master_port or PORT)]
        place += ["--rdzv-conf", f"timeout={options.dist_timeout}"]
    arguments = ["--nproc-per-node", str(options.nproc), "--nnodes", str(options.nnodes), *place]
    arguments += ["--signals-to-handle", ",".join(number.name for number in STOP_SIGNALS)]
    arguments += ["--shutdown-timeout", str(options.grace)]
    arguments += [str(CODE_ROOT / options.program), *options.arguments]
    try:
        run.main(arguments)
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException as error:
        return -error.sigval
    except (DistError, RendezvousError) as error:
        place = f"{options.master_addr}:{options.master_port or PORT}"
        raise EnvironmentFault(
            f"the {options.nnodes} machines did not meet at {place} within {options.dist_timeout} s"
            f" ({str(error).splitlines()[0]})",
            fix="look at the others' output; MASTER_ADDR and MASTER_PORT must be the same free "
            "port of machine 0 everywhere; DIST_TIMEOUT=SECONDS waits longer",
        ) from error
    return 0


def workers_end(record: Path, options: argparse.Namespace, exit_code: int) -> ProgramError:
    """What the first failing worker recorded, or what is known if it recorded nothing."""
    print(file=sys.stderr)  # a worker may have ended in the middle of its progress bar
    if not record.exists():
        end = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with {exit_code}"
        if -exit_code in STOP_SIGNALS:
            return Stopped(f"{end} before the first step")
        fault = EnvironmentFault(
            f"a worker ended {end}, without a message",
            fix="look at its output above and at the machine's log (dmesg: out of memory?), then "
            "run the command again",
        )
        write_record(record, fault.code, str(fault))
    said = json.loads(record.read_text(encoding="utf-8"))
    told_by_first = said["code"] == Stopped.code and options.node_rank > 0
    return WorkersEnded(said["code"], "" if told_by_first else said["message"])


if __name__ == "__main__":
    run(main)
