"""Run many short programs of this project without waiting for torch and DeepSpeed each time.

They are forked from a server that has imported both: a start takes a second instead of ten. Each
runs as by `python3 PROGRAM`, in a process of its own, with its output in a file.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
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


def run_all(jobs: Iterable[Job], at_once: int, logs: Path, title: str) -> None:
    """Run all jobs, some at once, with a progress bar; Failed with what the first to fail said.

    Jobs that are running then still end; no other is started.
    """
    choose_accelerator()
    cores = len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // at_once))  # before torch is imported
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running = list(jobs), set()
    bar = tqdm(total=len(waiting), desc=title, unit=" jobs", smoothing=0.1, mininterval=1)
    with bar, ThreadPoolExecutor(at_once) as pool:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running.add(pool.submit(run_job, context, job, logs / f"{job.name}.log"))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                bar.update()


def run_job(context, job: Job, log: Path) -> None:
    """Run the programs of a job to their ends; Failed if one does not end with 0."""
    for program, *arguments in job.programs:
        with open(log, "a", encoding="utf-8") as file:
            print(f"+ python3 {program} {' '.join(map(str, arguments))}", file=file)
            start = file.tell()
        process = context.Process(target=run_program, args=(program, arguments, log), daemon=True)
        process.start()
        process.join()
        if process.exitcode:
            with open(log, encoding="utf-8", errors="replace") as file:
                file.seek(start)
                said = file.read().replace("\r", "\n").strip().splitlines()[-1:]
            raise Failed(process.exitcode, "".join(said), job, log)


def run_program(program: str, arguments: Sequence[str], log: Path) -> None:
    """In the forked process: run a program's file as from its command line."""
    die_with_parent(os.getppid())
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.argv = [program, *map(str, arguments)]
    runpy.run_path(str(CODE_ROOT / program), run_name="__main__")
