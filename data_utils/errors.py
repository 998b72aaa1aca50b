"""The errors a user sees: what is wrong, where, what was expected and found, and how to fix it.

Exit codes: 2 the user's input, 3 a corrupt or unfinished artefact, 4 the environment, 75 stopped
by a signal with the work saved. Anything else is a bug in this code: 1, with its traceback.
"""

import copyreg
import errno
from pathlib import Path


class ProgramError(Exception):
    """An error whose text is the only message that the user gets."""

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
        """Pickle it as its text, for a pool's worker that hands it to its parent."""
        return copyreg.__newobj__, (type(self), str(self))


class InputError(ProgramError):
    """The user's flags or files are wrong or do not belong together."""

    code = 2


class ArtefactError(ProgramError):
    """A file of ours is damaged, missing or unfinished."""

    code = 3


class EnvironmentFault(ProgramError):
    """The machine cannot do what is asked: disk full, no permission, no network, missing device."""

    code = 4


class Stopped(ProgramError):
    """A signal ended the run after its work was saved."""

    code = 75

    def __init__(self, what: str) -> None:
        Exception.__init__(self, f"STOPPED {what}. The same command resumes from here.")


def from_os_error(error: BaseException) -> EnvironmentFault | None:
    """The EnvironmentFault for a system call that failed through no fault of this code, or None."""
    again = "then run the same command again: nothing finished is lost"
    write = "choose a folder that you may write to (BASE_PATH or SAVE)"
    other = "this file system cannot do that: choose a folder on another one"
    file = "a file is where a folder should be: move it, or choose another folder"
    fixes = {
        errno.ENOSPC: f"free some space, {again}",
        errno.EDQUOT: f"raise the quota, {again}",
        errno.EFBIG: f"raise the limit of a file's size (ulimit -f), {again}",
        errno.EMFILE: f"raise the limit of open files (ulimit -n), {again}",
        **dict.fromkeys((errno.EIO, errno.ESTALE), f"check the disk or network mount, {again}"),
        **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), write),
        **dict.fromkeys((errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK), other),
        **dict.fromkeys((errno.EXDEV, errno.ENODEV), other),
        errno.ENAMETOOLONG: "choose a shorter path",
        **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), file),
    }
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in fixes:
            what = error.strerror or str(error)
            return EnvironmentFault(what, where=error.filename, fix=fixes[error.errno])
        error = error.__cause__ or error.__context__
    return None
