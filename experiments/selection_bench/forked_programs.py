"""Run many short programs of this project without waiting for torch and DeepSpeed each time.

They are forked from a server that has imported both: a start takes a second instead of ten. Each
runs as by `python3 PROGRAM`, in a process of its own, with its output in a file.
"""

import multiprocessing
import os
import runpy
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_utils.errors import ProgramError
from data_utils.program import CODE_ROOT, die_with_parent
from pretrain.engine import choose_accelerator

PRELOADED = [
    "pretrain.train",
    "eval.lm",
    "miniplm.selection",
    "deepspeed.ops.op_builder.all_ops",
    "deepspeed.runtime.bf16_optimizer",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "safetensors.torch",
    "tokenizers",
    "transformers.models.llama.modeling_llama",
]


class Job(NamedTuple):
    """Programs to run one after the other: each a file of the project and its arguments."""

    name: str  # and of its log
    programs: Sequence[Sequence[str]]


class Failed(ProgramError):
    """A program failed: its own last line and its own exit code, 1 if a signal killed it."""

    def __init__(self, code: int, last_line: str, job: Job, log: Path) -> None:
        Exception.__init__(self, f"{last_line} ({job.name}; log: {log})")
        self.code = max(code, 1)


@dataclass
class Running:
    """A job whose program `number` runs; start: where that program's part of the log begins."""

    job: Job
    log: Path
    number: int = -1
    start: int = 0
    process: BaseProcess | None = None

    def start_next(self, context: BaseContext) -> bool:
        """Start the next program; False if there is none."""
        self.number += 1
        if self.number == len(self.job.programs):
            return False
        program, *arguments = map(str, self.job.programs[self.number])
        with open(self.log, "a", encoding="utf-8") as file:
            print(f"+ python3 {program} {' '.join(arguments)}", file=file)
            self.start = file.tell()
        target = (program, arguments, self.log)
        self.process = context.Process(target=run_program, args=target, daemon=True)
        self.process.start()
        return True

    def require_success(self) -> None:
        """After the program's end: Failed, with the last line of its output, if it failed."""
        self.process.join()
        if self.process.exitcode:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                file.seek(self.start)
                said = file.read().replace("\r", "\n").strip().splitlines()
            raise Failed(self.process.exitcode, "".join(said[-1:]), self.job, self.log)


def run_all(jobs: Iterable[Job], at_once: int, logs: Path, title: str) -> None:
    """Run all jobs, some at once, with a progress bar; the first to fail ends it with Failed.

    All processes are started and waited for by one thread: multiprocessing loses the exit code of
    a process that two threads look at.
    """
    choose_accelerator()
    cores = len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // at_once))  # before torch is imported
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running = deque(jobs), {}
    with tqdm(total=len(waiting), desc=title, unit=" jobs", smoothing=0.1, mininterval=1) as bar:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                one = Running(job, logs / f"{job.name}.log")
                one.start_next(context)
                running[one.process.sentinel] = one
            for ended in connection.wait(list(running)):
                one = running.pop(ended)
                one.require_success()
                if one.start_next(context):
                    running[one.process.sentinel] = one
                else:
                    bar.update()


def run_program(program: str, arguments: Sequence[str], log: Path) -> None:
    """In the forked process: run a program's file as from its command line."""
    die_with_parent(os.getppid())
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.argv = [program, *map(str, arguments)]
    runpy.run_path(str(CODE_ROOT / program), run_name="__main__")
