"""How a program starts and ends: the Python it runs under, its exit code, its one message."""

import codecs
import contextlib
import ctypes
import importlib.util
import locale
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

CODE_ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1


def use_project_python() -> None:
    """Run the program again under .venv's Python if this one has no torch; without one, say so.

    Also again if the locale would have it read and write another encoding than UTF-8: paths,
    arguments, and whatever files the libraries open.
    """
    if "utf-8" != text_encoding() and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # the processes that this one starts have it, too
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if importlib.util.find_spec("torch") is not None:
        return
    venv_python = CODE_ROOT / ".venv" / "bin" / "python"
    if venv_python.exists() and Path(sys.prefix).resolve() != (CODE_ROOT / ".venv").resolve():
        os.execv(venv_python, [str(venv_python), *sys.orig_argv[1:]])
    print(
        f"ERROR {sys.executable} has not the packages of requirements.txt. Fix: bash install.sh, "
        "or activate the environment that has them",
        file=sys.stderr,
    )
    sys.exit(4)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when its parent dies, however it dies.

    parent: its process id; one that is gone already is noticed too. What counts is the parent's
    thread that started this process.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def text_encoding() -> str:
    """What Python takes paths, and files where nothing is said, to be written in."""
    return codecs.lookup(locale.getpreferredencoding(False)).name


def show_anything() -> None:
    """Let what the terminal's encoding does not have be printed as an escape, not be an error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream of another kind, or none
            stream.reconfigure(errors="backslashreplace")


def run(main: Callable[[], None], tell: Callable[[int, str], bool] | None = None) -> None:
    """Call main() and leave with the exit code that the outcome deserves (see errors.py).

    A user's mistake prints one line and no traceback. tell: tries to hand code and message to
    somebody who prints them (cluster/worker.py).
    """
    show_anything()
    try:
        main()
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:  # every outcome is turned into an exit code here
        code, message = outcome(error)
        if tell is None or not tell(code, message):
            print(message, file=sys.stderr, end="\n" if message else "", flush=True)
        sys.stdout.flush()
        os._exit(code)
    # Threads of libraries (a stuck collective's, gloo's) keep Python's own end from ending, or
    # abort it: "terminate called without an active exception".
    os._exit(0)


def outcome(error: BaseException) -> tuple[int, str]:
    """(exit code, message) of an exception that ended a program."""
    from data_utils.errors import ProgramError, from_os_error

    if isinstance(error, ProgramError):
        return error.code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 75, "stopped by Ctrl-C; run the same command again to go on"
    known = from_os_error(error)
    if known is not None:
        return known.code, str(known)
    return 1, "".join(traceback.format_exception(error)).rstrip()
