"""Files written whole or not at all, and their checksums."""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data_utils.errors import EnvironmentFault, InputError

# Error numbers of a file system that lacks a call.
UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY}
AT_FDCWD, RENAME_NOREPLACE = -100, 1
ELSEWHERE = "choose a folder on another file system (BASE_PATH or SAVE)"


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file beside path; on success it is fsynced and renamed to path.

    Text is UTF-8; what that cannot write (bytes of a path that are not text) stays as an escape,
    which JSON reads back.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with named(path):
            text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
            with open(temporary, mode, **text) as file:
                yield file
                file.flush()
                fsync(file.fileno())
            os.replace(temporary, path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: Path | str) -> Iterator[None]:
    """Name the file in an error that does not: a write on a full disk does not know its file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove atomic_file's temporary files of killed runs."""
    for path in folder.rglob(".*.tmp"):
        if path.is_file():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def where_supported() -> Iterator[None]:
    """Continue without a call that this file system lacks, where nothing essential is lost."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def fsync(descriptor: int) -> None:
    """Make a file's content survive a power cut, on file systems that can promise that."""
    with where_supported():
        os.fsync(descriptor)


def fsync_folder(folder: Path) -> None:
    """Make renames inside folder survive a power cut, on file systems that can promise that."""
    with where_supported():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fsync(descriptor)
        finally:
            os.close(descriptor)


def place(temporary: Path, target: Path) -> None:
    """Give a whole file its name unless that is taken: FileExistsError, and the other one stays.

    By a hard link, or, on file systems without them (exFAT, many of FUSE's), by a rename that does
    not replace; with neither it is an EnvironmentFault. temporary may still exist afterwards.
    """
    try:
        os.link(temporary, target)
        return
    except OSError as error:
        if error.errno not in UNSUPPORTED | {errno.EPERM, errno.EMLINK, errno.EXDEV}:
            raise
    names = [AT_FDCWD, os.fsencode(temporary), AT_FDCWD, os.fsencode(target)]
    number = rename_no_replace(*names)
    if number in UNSUPPORTED:
        raise EnvironmentFault(
            "this file system has neither hard links nor renames that do not replace",
            where=target.parent,
            fix=ELSEWHERE,
        )
    if number:
        raise OSError(number, os.strerror(number), str(target))


def rename_no_replace(*names: int | bytes) -> int:
    """renameat2(2) of names, which replaces nothing; 0 or the system's error number."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:  # musl before 1.2.5
        return errno.ENOSYS
    return 0 if call(*names, RENAME_NOREPLACE) == 0 else ctypes.get_errno()


def write_json(path: Path, value: Any) -> None:
    """Write value as indented JSON, atomically."""
    with atomic_file(path, "w") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def read_json(path: Path, fix: str) -> Any:
    """The value in a JSON file that no manifest vouches for; InputError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"the file is no JSON ({error})", where=path, fix=fix) from error


def sha256(path: Path, ends: int = 0) -> str:
    """Hexadecimal SHA-256 of a file's bytes; with ends, of that many at its start and its end."""
    with open(path, "rb") as file:
        if ends == 0:
            return hashlib.file_digest(file, "sha256").hexdigest()
        start = file.read(ends)
        file.seek(-ends, os.SEEK_END)
        return hashlib.sha256(start + file.read()).hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    with open(source, "rb") as reader, atomic_file(target) as writer:
        shutil.copyfileobj(reader, writer)
