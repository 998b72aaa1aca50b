"""Programs as real processes that start quickly: forked from a server that has torch loaded.

A program's main() runs as from its command line, with its own exit code, output and environment;
it can be killed like any other. What must start from the launcher itself uses make.run. A program
given as a file's path runs whole, as by `python3 PATH`.
"""

import functools
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from cluster import worker
from data_utils.program import CODE_ROOT
from tests import make

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pretrain.train",
        "cluster.launch",
        "miniplm.score",
        # Imported by libraries only when they are used.
        "deepspeed.module_inject.auto_ep_config",
        "deepspeed.module_inject.auto_ep_layer",
        "deepspeed.ops.op_builder.all_ops",
        "deepspeed.runtime.bf16_optimizer",
        "deepspeed.runtime.zero.muon.muon_optimizer",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "safetensors.torch",
        "transformers.generation",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "transformers.models.qwen2.modeling_qwen2",
    ]
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
        """Whether it is still running."""
        return self.process.is_alive()

    def wait(self, seconds: float = 120) -> "Program":
        """Wait for its end, `seconds` at most."""
        self.process.join(seconds)
        assert not self.running, f"still running after {seconds} s: {self.errors}"
        return self

    @property
    def code(self) -> int:
        """Its exit code, negative for a signal."""
        return self.process.exitcode

    @property
    def output(self) -> str:
        """Its standard output so far."""
        return self.output_file.read_text()

    @property
    def errors(self) -> str:
        """Its standard error so far."""
        return self.output_file.with_suffix(".err").read_text()


def start(folder: Path, module: str, *arguments: object, **environment: object) -> Program:
    """Start module's main(), or a file, with these arguments; output goes to files in folder."""
    return fork(folder, main, module, arguments, environment)


def fork(folder: Path, target: Callable, *arguments: object) -> Program:
    """Start target(*arguments, the file for its output) in a process of its own."""
    output_file = folder / f"program_{len(list(folder.glob('program_*.out')))}.out"
    for path in (output_file, output_file.with_suffix(".err")):
        path.touch()
    process = CONTEXT.Process(target=target, args=(*arguments, output_file))
    process.start()
    return Program(process, output_file)


def call(folder: Path, module: str, *arguments: object, **environment: object) -> Program:
    """Run module's main() to its end."""
    return start(folder, module, *arguments, **environment).wait()


def flags(settings: dict) -> list[object]:
    """Settings as flags of a program; LOG_EVERY and log_every both become --log-every."""
    return [w for k, v in settings.items() for w in (f"--{k.lower().replace('_', '-')}", v)]


def one_message(run: Program, code: int, *parts: object) -> None:
    """Require this exit code, one line of error with these parts, and no trace of torchrun."""
    text = run.output + run.errors
    assert run.code == code, text
    lines = [line for line in text.splitlines() if "ERROR" in line]
    assert len(lines) == 1 and lines[0].startswith("ERROR ") and " Fix: " in lines[0], text
    for part in parts:
        assert str(part) in lines[0], lines[0]
    for word in ("Traceback", "elastic", "ChildFailed", "torchrun", "exitcode"):
        assert word not in text


def kill(*_: object) -> None:
    """kill -9 this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(owner: object, name: str, moment: int) -> None:
    """Make this process kill -9 itself at this half call of owner.name (see struck)."""
    setattr(owner, name, struck(getattr(owner, name), moment, kill))


def kill_in_every_phase(
    start: Callable[[tuple], int],
    folder: Path,
    undisturbed: dict[str, str],
    phases: dict,
    once: Collection[str],
    draws: tuple[int, int, int],
    kills: int,
) -> int:
    """kill -9 at moments drawn per phase; each start resumes where the one before was killed.

    start: runs the program to its end or to the kill (phase, half calls before it). once: phases
    that are called once per run. draws: seed, phases drawn besides one of each, moments per phase.
    In the end the folder's content must be the undisturbed run's, every phase hit, and at least
    `kills` made. Returns how many of them left a record of progress.
    """
    seed, more, moments = draws
    choice, hit, killed, records = random.Random(seed), set(), 0, 0
    for phase in [*phases, *choice.choices(list(phases), k=more)]:
        code = start((phase, choice.randrange(2 if phase in once else moments)))
        if code == 0:  # it reached its end first: begin anew
            assert make.content(folder) == undisturbed
            shutil.rmtree(folder)
            continue
        assert code == -signal.SIGKILL, phase
        hit.add(phase)
        killed += 1
        records += any(folder.glob("progress.*"))
    assert start(()) == 0
    assert make.content(folder) == undisturbed
    left = [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    assert not left and not any(folder.glob("progress.*"))
    print("phases hit:", sorted(hit))
    assert killed >= kills and hit == set(phases)
    return records


def struck(inner: Callable, moment: int, strike: Callable) -> Callable:
    """inner, with strike() at a half call: 0 before the first call, 1 after it, and so on."""
    count = 0

    @functools.wraps(inner)
    def outer(*arguments, **options):
        nonlocal count
        if count == moment:
            strike()
        result = inner(*arguments, **options)
        if count + 1 == moment:
            strike()
        count += 2
        return result

    return outer


def main(module: str, arguments: Collection, environment: dict, output_file: Path) -> None:
    """Run module's main(), or a file, in this process, as from its command line."""
    for descriptor, path in ((1, output_file), (2, output_file.with_suffix(".err"))):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    for name, stream in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, os.fdopen(stream, "w", buffering=1, closefd=False))
    os.environ.update({name: str(value) for name, value in environment.items()})
    sys.argv = [module, *map(str, arguments)]
    if module.endswith(".py"):
        _run_file(module)
    else:
        worker.run(import_module(module).main)


def _run_file(path: str) -> None:
    """Run a file as Python does: modules of the project are neither loaded nor on the path."""
    sys.path[:] = [str(Path(path).parent), *(p for p in sys.path if Path(p) != CODE_ROOT)]
    rooms = {entry.name for entry in CODE_ROOT.iterdir()}
    for name in [name for name in sys.modules if name.split(".")[0] in rooms]:
        del sys.modules[name]
    runpy.run_path(path, run_name="__main__")
