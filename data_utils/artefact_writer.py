"""Output folders of stages: one writer, begun with its settings, finished by the manifest.

settings.json says what a folder was begun with; a stage that can resume inside one keeps a record
of its progress beside it, progress.*, which goes when the artefact is finished.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data_utils.artefact import (
    FORMAT,
    LOCK,
    SETTINGS,
    Manifest,
    check_file,
    check_files,
    read_manifest,
)
from data_utils.atomic_files import ELSEWHERE, UNSUPPORTED, remove_leftovers, sha256, write_json
from data_utils.errors import ArtefactError, EnvironmentFault, InputError

PROGRESS = "progress.json"
PACKAGES = ("torch", "transformers", "deepspeed", "tokenizers", "numpy")  # may change a result


@contextlib.contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder's lock, which keeps other writers out.

    A second writer waits, or is refused (InputError) and told host and process of the first. A
    file system without locks is an EnvironmentFault: two writers would damage the folder unnoticed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"another program ({file.read().strip() or 'unknown'}) is writing",
                where=folder,
                fix="wait for it or end it, then run this command again",
            ) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED | {errno.ENOLCK}:
                raise
            raise EnvironmentFault(
                f"this file system has no locks, which keep a second writer out ({error.strerror})",
                where=folder,
                fix=f"mount it with them (Lustre: -o flock; NFS: not nolock), or {ELSEWHERE}",
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


@dataclass
class Output:
    """An artefact folder being written by one stage.

    content: the settings that decide the bytes. settings: all of them, for people. inputs: name to
    (folder, identity). `done` says that the folder already holds exactly this artefact.
    allowed: names of content and inputs that may differ from those an unfinished folder was begun
    with (None: this program has no ALLOW_CHANGE); such a change is kept in `changes`, which
    settings.json and the manifest record.
    """

    folder: Path
    kind: str
    program: str
    content: dict
    settings: dict
    inputs: dict[str, tuple[Path, dict]] = field(default_factory=dict)
    done: bool = False
    allowed: frozenset[str] | None = None
    changes: list[dict] = field(default_factory=list)

    def make(self, work: Callable[[], None]) -> Manifest:
        """Do the work, which ends with finish(), unless that was done before."""
        with lock(self.folder):
            if self.begin().done:
                print(f"{self.folder} is there already")
            else:
                work()
        return read_manifest(self.folder)

    def begin(self) -> "Output":
        """Make the folder ready, or find that it is done; what others made is never touched."""
        manifest = read_manifest(self.folder)
        if manifest is not None:
            self._refuse(self._differences(manifest.content, manifest.inputs), done=True)
            check_files(manifest, remedy(self.folder), contents=False)
            self._end()
            return self
        former = read_settings(self.folder)
        there = list(self.folder.iterdir()) if self.folder.is_dir() else []
        if former is not None:
            self._take_over(former)
        elif any(not path.name.startswith(".") for path in there):  # those are nobody's work
            raise InputError(
                "the folder has files that this program did not make",
                where=self.folder,
                fix="choose another output folder",
            )
        remove_leftovers(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"content": self.content, "inputs": self.entries(), "made_by": self._made_by()}
        write_json(self.folder / SETTINGS, settings)
        return self

    def finish(
        self,
        files: list[str],
        counts: dict,
        report: dict | None = None,
        linked: dict[str, dict] | None = None,
    ) -> Manifest:
        """Write the manifest over the named files; from here on the artefact is finished.

        counts: what programs read later. report: for people only; no program acts on it.
        linked: entries of files that are another artefact's own, whose manifest has their checksum.
        """
        remove_leftovers(self.folder)
        taken = linked or {}
        manifest = Manifest(
            folder=self.folder,
            kind=self.kind,
            format=FORMAT,
            content=self.content,
            counts=counts,
            inputs=self.entries(),
            files=[taken.get(name) or describe(self.folder, name) for name in sorted(files)],
            report=report or {},
            made_by=self._made_by(),
        )
        manifest.write()
        self._end()
        return manifest

    def _end(self) -> None:
        """Remove the stage's record of its progress, which is of no use any more."""
        self.done = True
        for path in self.folder.glob("progress.*"):
            path.unlink()

    def entries(self) -> dict:
        """The inputs as a manifest has them: name to identity and path from the folder."""
        place = {
            name: os.path.relpath(folder, self.folder) for name, (folder, _) in self.inputs.items()
        }
        return {name: {**entry, "path": place[name]} for name, (_, entry) in self.inputs.items()}

    def _made_by(self) -> dict:
        return {
            "program": self.program,
            "settings": self.settings,
            "versions": versions(),
            "time": _now(),
            **({"changes": self.changes} if self.changes else {}),
        }

    def _take_over(self, former: dict) -> None:
        """Compare with what the folder was begun with; allowed changes are recorded."""
        self.changes = list(former["made_by"].get("changes", []))
        differences = self._differences(former["content"], former["inputs"])
        self._refuse([d for d in differences if d["name"] not in (self.allowed or ())])
        self.changes += [{**difference, "time": _now()} for difference in differences]

    def _differences(self, content: dict, inputs: dict) -> list[dict]:
        """{name, from, to} of every setting and input that is not that of the folder."""
        now = json.loads(json.dumps(self.content))
        mine = {name: entry["fingerprint"] for name, (_, entry) in self.inputs.items()}
        theirs = {name: entry.get("fingerprint") for name, entry in inputs.items()}
        return [
            {"name": name, "from": former.get(name), "to": found.get(name)}
            for former, found in ((content, now), (theirs, mine))
            for name in sorted(former.keys() | found.keys())
            if former.get(name) != found.get(name)
        ]

    def _refuse(self, differences: list[dict], *, done: bool = False) -> None:
        """One InputError that shows all differences, if there are any."""
        if not differences:
            return
        names = [difference["name"] for difference in differences]
        former, found = (
            ", ".join(f"{d['name']} {_short(d[side])}" for d in differences)
            for side in ("from", "to")
        )
        allow = ""
        if self.allowed is not None and not done:
            allow = f"ALLOW_CHANGE={','.join([*sorted(self.allowed), *names])}, "
        made = "begun with" if set(names) & self.content.keys() else "made from"
        raise InputError(
            f"the folder was {made} another {', '.join(names)}",
            where=self.folder,
            expected=former,
            found=found,
            fix=f"use the former {' and '.join(names)}, {allow}another output folder, "
            "or remove this one",
        )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _short(value: Any) -> str:
    """A value for a message; of a fingerprint its beginning."""
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text


def describe(folder: Path, name: str) -> dict:
    """A file's entry in the manifest."""
    path = folder / name
    return {"name": name, "size": path.stat().st_size, "sha256": sha256(path)}


def read_settings(folder: Path) -> dict | None:
    """What a folder was begun with: content, inputs and made_by; None if it was not begun here."""
    path = folder / SETTINGS
    if not path.exists():
        return None
    try:
        former = json.loads(path.read_text(encoding="utf-8"))
        good = all(isinstance(former[name], dict) for name in ("content", "inputs", "made_by"))
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise damaged("settings are damaged", path)
    return former


def read_progress(folder: Path) -> dict | None:
    """What the stage wrote to progress.json, {"files": {name: size}, ...}; None if it did not.

    These files count as finished: one that does not exist with its size is an ArtefactError.
    """
    path = folder / PROGRESS
    if not path.exists():
        return None
    try:
        progress = json.loads(path.read_text(encoding="utf-8"))
        files = dict(progress["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged("the record of progress is damaged", path) from error
    check_finished(folder, files)
    return progress


def write_progress(folder: Path, progress: dict, new_files: list[str]) -> None:
    """Replace what read_progress gives, with some more files that count as finished."""
    progress["files"] |= {name: (folder / name).stat().st_size for name in new_files}
    write_json(folder / PROGRESS, progress)


def damaged(what: str, path: Path) -> ArtefactError:
    """The error for a record of an unfinished folder that cannot be read."""
    return ArtefactError(what, where=path, fix=remedy(path.parent))


def remedy(folder: Path) -> str:
    """How to get out of damage in an output folder."""
    return f"remove {folder} and run the same command again"


def check_finished(folder: Path, sizes: dict[str, int]) -> None:
    """Files that an unfinished artefact counts as finished must be there with these sizes."""
    for name, size in sizes.items():
        entry = {"name": name, "size": size}
        check_file(folder, entry, "unfinished artefact", remedy(folder), contents=False)
