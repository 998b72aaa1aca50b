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
    """Run the program again under .venv's Python if this one has no torch, or exit with 4.

    Run it again in UTF-8 mode, too, if the locale has another encoding: for paths, arguments and
    the files that libraries open.
    """
    if "utf-8" != text_encoding() and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts, too
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if importlib.util.find_spec("torch") is not None:
        return
    venv_python = CODE_ROOT / ".venv" / "bin" / "python"
    if venv_python.exists() and Path(sys.prefix).resolve() != (CODE_ROOT / ".venv").resolve():
        os.execv(venv_python, [str(venv_python), *sys.orig_argv[1:]])
    print(
        f"ERROR {sys.executable} does not have the packages in requirements.txt. "
        "Fix: bash install.sh, or activate the environment that has them",
        file=sys.stderr,
    )
    sys.exit(4)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when its parent dies, however it dies.

    parent: its process id; if it is gone already, this process ends now. What counts is the death
    of the parent's thread that started this process.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def text_encoding() -> str:
    """The encoding that Python uses for paths, and for files unless told otherwise."""
    return codecs.lookup(locale.getpreferredencoding(False)).name


def show_anything() -> None:
    """Print what the terminal's encoding lacks as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # another kind of stream, or none
            stream.reconfigure(errors="backslashreplace")


def run(main: Callable[[], None], tell: Callable[[int, str], bool] | None = None) -> None:
    """Call main() and exit with the code of its outcome (see errors.py).

    A user's mistake prints one line and no traceback. tell: hands code and message to a process
    that prints them (cluster/worker.py); False if there is none.
    """
    show_anything()
    try:
        main()
        sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:  # every outcome becomes an exit code
        code, message = outcome(error)
        if tell is None or not tell(code, message):
            print(message, file=sys.stderr, end="\n" if message else "", flush=True)
        sys.stdout.flush()
        os._exit(code)
    # Python's own exit would wait for threads of libraries (a stuck collective's, gloo's), or
    # abort: "terminate called without an active exception".
    os._exit(0)


def outcome(error: BaseException) -> tuple[int, str]:
    """(exit code, message) of an exception that ended a program."""
    from data_utils.errors import ProgramError, from_os_error

    if isinstance(error, ProgramError):
        return error.code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 75, "stopped by Ctrl-C; run the same command again to continue"
    known = from_os_error(error)
    if known is not None:
        return known.code, str(known)
    return 1, "".join(traceback.format_exception(error)).rstrip()
