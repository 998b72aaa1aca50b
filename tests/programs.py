"""Programs as real processes that start quickly: forked from a server that has torch loaded.

A program's main() runs as from its command line, with its own exit code, output and environment;
it can be killed like any other. What must start from the launcher itself uses make.run.
"""

import functools
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "deepspeed", "transformers", "pretrain.train", "pretrain.launch", "miniplm.score"]
)


@dataclass
class Program:
    """A running program; its output goes to two files."""

    process: multiprocessing.Process
    output_file: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.is_alive()

    def wait(self, seconds: float = 120) -> "Program":
        """Wait for its end; one that does not come is an error."""
        self.process.join(seconds)
        assert not self.running, f"still running after {seconds} s: {self.errors}"
        return self

    @property
    def code(self) -> int:
        """Its exit code, negative for a signal."""
        return self.process.exitcode

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.output_file.read_text()

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return self.output_file.with_suffix(".err").read_text()


def start(folder: Path, module: str, *arguments: object, **environment: object) -> Program:
    """Start module's main() with these arguments; its output goes to new files in folder."""
    number = len(list(folder.glob("program_*.out")))
    output_file = folder / f"program_{number}.out"
    for path in (output_file, output_file.with_suffix(".err")):
        path.touch()
    words = [str(word) for word in arguments]
    process = CONTEXT.Process(target=_main, args=(module, words, environment, output_file))
    process.start()
    return Program(process, output_file)


def call(folder: Path, module: str, *arguments: object, **environment: object) -> Program:
    """Run module's main() to its end."""
    return start(folder, module, *arguments, **environment).wait()


def kill_at(owner: object, name: str, moment: int) -> None:
    """Let this process kill -9 itself at owner.name: 0 before the first call, 1 behind it, ..."""
    inner, count = getattr(owner, name), 0

    @functools.wraps(inner)
    def outer(*arguments, **options):
        nonlocal count
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        result = inner(*arguments, **options)
        if count + 1 == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 2
        return result

    setattr(owner, name, outer)


def _main(module: str, arguments: list[str], environment: dict, output_file: Path) -> None:
    for descriptor, path in ((1, output_file), (2, output_file.with_suffix(".err"))):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    for name, stream in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, os.fdopen(stream, "w", buffering=1, closefd=False))
    os.environ.update({name: str(value) for name, value in environment.items()})
    sys.argv = [module, *arguments]
    from data_utils.start import run

    run(import_module(module).main)
