"""The errors a user sees: what is wrong, where, what was expected and found, and how to mend it.

Exit codes: 2 the user's input, 3 a corrupt or unfinished artefact, 4 the environment, 75 stopped
by a signal with the work saved. Anything else is a fault of this code: 1, with its traceback.
"""

import copyreg
import errno
from pathlib import Path


class ProgramError(Exception):
    """An error whose text is the one message that the user gets."""

    code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        expected: object = None,
        found: object = None,
        fix: str,
    ) -> None:
        text = f"ERROR {what}"
        if where is not None:
            text += f" in {where}"
        if expected is not None:
            text += f": expected {expected}, found {found}"
        super().__init__(f"{text}. Fix: {fix}")

    def __reduce__(self) -> tuple:
        """Pickled as its text: a pool's worker hands it to its parent."""
        return copyreg.__newobj__, (type(self), str(self))


class InputError(ProgramError):
    """The user's flags or files do not fit."""

    code = 2


class ArtefactError(ProgramError):
    """A file of ours is damaged, missing or unfinished."""

    code = 3


class EnvironmentFault(ProgramError):
    """The machine cannot do what is asked: disk full, no permission, no network, no such device."""

    code = 4


class Stopped(ProgramError):
    """A signal ended the run after its work was saved."""

    code = 75

    def __init__(self, what: str) -> None:
        Exception.__init__(self, f"STOPPED {what}. The same command goes on from here.")


def from_os_error(error: BaseException) -> EnvironmentFault | None:
    """The EnvironmentFault for a failed system call that is no fault of this code, else None."""
    fixes = {
        errno.ENOSPC: "free some space, then run the same command again: nothing finished is lost",
        errno.EDQUOT: "raise the quota, then run the same command again: nothing finished is lost",
        errno.EFBIG: "raise the limit of a file's size (ulimit -f), then run the command again",
        errno.EIO: "look at the disk or the network's file system, then run the command again",
        errno.EROFS: "choose a folder that can be written (BASE_PATH or SAVE)",
        errno.EACCES: "give yourself permission, or choose another folder (BASE_PATH or SAVE)",
        errno.EPERM: "give yourself permission, or choose another folder (BASE_PATH or SAVE)",
        **dict.fromkeys(
            (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EXDEV, errno.ENODEV),
            "this file system cannot do that: choose a folder on another one",
        ),
        errno.ENAMETOOLONG: "choose a shorter path",
        errno.ESTALE: "look at the network's file system, then run the same command again",
        errno.EMFILE: "raise the limit of open files (ulimit -n), then run the command again",
        errno.EEXIST: "a file is in this folder's place: move it away or choose another folder",
        errno.ENOTDIR: "a part of this path is a file: move it away or choose another folder",
    }
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in fixes:
            what = error.strerror or str(error)
            return EnvironmentFault(what, where=error.filename, fix=fixes[error.errno])
        error = error.__cause__ or error.__context__
    return None
