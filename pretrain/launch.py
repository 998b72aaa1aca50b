"""Start a program on several processes with torchrun; print one message if it fails.

    python3 pretrain/launch.py --nproc 2 pretrain/train.py BASE_PATH --flag value ...

scripts/common.sh calls it. The user's input is checked before any process starts. torchrun runs
inside this process: a signal to it reaches the workers, they die with it, and it leaves with the
exit code that the first failing worker recorded (torchrun's own is always 1, below a traceback).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.start import use_project_python

    use_project_python()

import argparse
import importlib.util
import json
import logging
import os

from data_utils.errors import ProgramError
from data_utils.start import CODE_ROOT

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


class WorkersEnded(ProgramError):
    """The workers' outcome, to be repeated as it is."""

    def __init__(self, code: int, message: str) -> None:
        Exception.__init__(self, message)
        self.code = code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--nproc", type=int, required=True, help="processes on this machine")
    parser.add_argument("--nnodes", type=int, default=1, help="machines")
    parser.add_argument("--node-rank", type=int, default=0, help="number of this machine")
    parser.add_argument("--master-addr", default="127.0.0.1", help="address of machine 0")
    parser.add_argument("--master-port", type=int, default=0, help="its port; 0: any free one")
    parser.add_argument("--grace", type=int, default=600, help="seconds from SIGTERM to SIGKILL")
    parser.add_argument("program", help="path of the program in the code's root")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args()
    os.environ["WORLD_SIZE"] = str(options.nproc * options.nnodes)
    folder = load_program(options.program).check(options.arguments)
    del os.environ["WORLD_SIZE"]
    torchrun(options, folder)


def load_program(program: str):
    """The program as a module, for its check()."""
    spec = importlib.util.spec_from_file_location("program", CODE_ROOT / program)
    module = importlib.util.module_from_spec(spec)
    sys.modules["program"] = module
    spec.loader.exec_module(module)
    return module


def torchrun(options: argparse.Namespace, folder: Path) -> None:
    """Run the workers to their end and repeat the first failure."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f".failure.{options.node_rank}.{os.getpid()}.json"
    os.environ["RUN_RECORD"] = str(record)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.nproc)))
    logging.disable(logging.ERROR)  # torchrun's own account of what the one message says
    place = (
        ["--standalone"]
        if options.nnodes == 1
        else ["--node-rank", str(options.node_rank), "--master-addr", options.master_addr]
        + ["--master-port", str(options.master_port)]
    )
    arguments = ["--nproc-per-node", str(options.nproc), "--nnodes", str(options.nnodes), *place]
    arguments += ["--signals-to-handle", SIGNALS, "--shutdown-timeout", str(options.grace)]
    arguments += [str(CODE_ROOT / options.program), *options.arguments]
    try:
        run.main(arguments)
    except (ChildFailedError, SignalException) as error:
        print(file=sys.stderr)  # a worker may have ended in the middle of its progress bar
        if record.exists():
            outcome = json.loads(record.read_text())
            raise WorkersEnded(outcome["code"], outcome["message"]) from None
        raise WorkersEnded(1, f"a worker ended without a word: {error}") from None
    finally:
        record.unlink(missing_ok=True)
        del os.environ["RUN_RECORD"]  # it is the workers': what this process has to say is printed


if __name__ == "__main__":
    from data_utils.start import run as run_program

    run_program(main)
