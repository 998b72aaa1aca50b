"""Files written whole or not at all, and their checksums."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data_utils.errors import InputError


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file beside path; on success it is fsynced and renamed to path."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with named(path):
            with open(temporary, mode) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
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


def fsync_folder(folder: Path) -> None:
    """Make renames inside folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write value as indented JSON, atomically."""
    with atomic_file(path, "w") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def read_json(path: Path, fix: str) -> Any:
    """The value in a JSON file that no manifest vouches for; one that is no JSON is an error."""
    try:
        return json.loads(path.read_text())
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
