"""Artefact folders: written atomically, described by a manifest, tied to their inputs.

manifest.json is written last. Its fingerprint is the SHA-256 of canonical JSON over kind, format,
the settings that matter to the content, counts, the inputs' fingerprints, and name, size and
SHA-256 of each file. A folder that this code has begun holds settings.json; one with neither was
made by others: it is read as it is and never written to.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_utils.disk import remove_leftovers, sha256, write_json
from data_utils.errors import ArtefactError, InputError
from data_utils.versions import versions

FORMAT = 1
MANIFEST, SETTINGS, LOCK = "manifest.json", "settings.json", ".lock"


def canonical_hash(value: Any) -> str:
    """SHA-256 of value as JSON with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(manifest: dict) -> str:
    """What the artefact is, by content (see the head of this file)."""
    inputs = {name: entry["fingerprint"] for name, entry in manifest["inputs"].items()}
    files = sorted([f["name"], f["size"], f["sha256"]] for f in manifest["files"])
    described = [manifest[name] for name in ("kind", "format", "content", "counts")]
    return canonical_hash([*described, inputs, files])


def read_manifest(folder: Path) -> dict | None:
    """The manifest of a finished artefact, None where there is none; damage is an error."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text())
        good = manifest["fingerprint"] == fingerprint(manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise ArtefactError(
            "the manifest is damaged", where=path, fix="restore it, or make the artefact again"
        )
    return manifest


def require(folder: Path, kind: str, fix: str, *, contents: bool = False) -> dict | None:
    """Check that folder holds a usable artefact of this kind; returns its manifest.

    None for a folder made by others (no manifest, not begun by this code). With contents, the
    files' checksums are compared too, which reads them whole.
    """
    if not folder.is_dir():
        there = "are" if kind == "scores" else "is"
        raise InputError(f"there {there} no {kind}", where=folder, fix=fix)
    manifest = read_manifest(folder)
    if manifest is None:
        if (folder / SETTINGS).exists():
            raise ArtefactError(f"the {kind} is unfinished", where=folder, fix=fix)
        return None
    if manifest["kind"] != kind:
        found = manifest["kind"]
        raise InputError(f"this is no {kind}", where=folder, expected=kind, found=found, fix=fix)
    check_files(folder, manifest, fix, contents=contents)
    return manifest


def check_files(folder: Path, manifest: dict, fix: str, *, contents: bool) -> None:
    """Compare sizes (with contents: checksums too) of an artefact's files with its manifest."""
    for entry in manifest["files"]:
        path = folder / entry["name"]
        if not path.is_file():
            raise ArtefactError(f"a file of the {manifest['kind']} is missing", where=path, fix=fix)
        size, expected = path.stat().st_size, entry["size"]
        if size != expected:
            raise ArtefactError("wrong size", where=path, expected=expected, found=size, fix=fix)
        if contents and sha256(path) != entry["sha256"]:
            raise ArtefactError("the file's checksum does not hold", where=path, fix=fix)


def check_finished(folder: Path, sizes: dict[str, int]) -> None:
    """Files that an unfinished artefact counts as finished must be there with these sizes."""
    files = [{"name": name, "size": size} for name, size in sizes.items()]
    fix = f"remove {folder} and run the same command again"
    check_files(folder, {"kind": "unfinished artefact", "files": files}, fix, contents=False)


def identity(folder: Path, kind: str, fix: str, *, contents: bool = False) -> dict:
    """{kind, fingerprint} of an input artefact, for the manifests of what is made from it.

    Without a manifest the fingerprint covers names, sizes and checksums of the files, of larger
    ones but a model's only over their ends: enough to notice that another is in its place.
    """
    manifest = require(folder, kind, fix, contents=contents)
    if manifest is not None:
        return {"kind": kind, "fingerprint": manifest["fingerprint"]}
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != LOCK):
        size = path.stat().st_size
        ends = 0 if size < 1 << 20 or kind == "model" else 1 << 16
        files.append([str(path.relative_to(folder)), size, sha256(path, ends)])
    return {"kind": kind, "fingerprint": canonical_hash([kind, "without manifest", files])}


@contextlib.contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder's one writer's lock.

    A second writer is refused with host and process of the first, or waits for its end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"another program ({file.read().strip() or 'unknown'}) is writing",
                where=folder,
                fix="wait for it or end it, then run this command again",
            ) from None
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

    def make(self, work: Callable[[], None]) -> dict:
        """Do the work, which ends with finish(), unless that was done before; the manifest."""
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
            self._refuse(self._differences(manifest["content"], manifest["inputs"]), done=True)
            check_files(self.folder, manifest, self._again, contents=False)
            self._end()
            return self
        begun = self.folder / SETTINGS
        there = list(self.folder.iterdir()) if self.folder.is_dir() else []
        if begun.exists():
            self._take_over(begun)
        elif any(not path.name.startswith(".") for path in there):  # those are nobody's work
            raise InputError(
                "the folder has files that this program did not make",
                where=self.folder,
                fix="choose another output folder",
            )
        remove_leftovers(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"content": self.content, "inputs": self._inputs(), "made_by": self._made_by()}
        write_json(begun, settings)
        return self

    def finish(self, files: list[str], counts: dict, report: dict | None = None) -> dict:
        """Write the manifest over the named files; from here on the artefact is finished."""
        remove_leftovers(self.folder)
        manifest = {
            "kind": self.kind,
            "format": FORMAT,
            "content": self.content,
            "counts": counts,
            "inputs": self._inputs(),
            "files": [describe(self.folder, name) for name in sorted(files)],
            "report": report or {},
            "made_by": self._made_by(),
        }
        manifest = {"fingerprint": fingerprint(manifest), **manifest}
        write_json(self.folder / MANIFEST, manifest)
        self._end()
        return manifest

    def _end(self) -> None:
        """A stage's record of its progress, progress.*, is of no use any more."""
        self.done = True
        for path in self.folder.glob("progress.*"):
            path.unlink()

    def _inputs(self) -> dict:
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

    def _take_over(self, begun: Path) -> None:
        """Compare with what the folder was begun with; allowed changes are recorded."""
        try:
            former = json.loads(begun.read_text())
            content, inputs = dict(former["content"]), dict(former["inputs"])
            self.changes = list(former["made_by"].get("changes", []))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ArtefactError("settings are damaged", where=begun, fix=self._again) from None
        differences = self._differences(content, inputs)
        self._refuse([d for d in differences if d["name"] not in (self.allowed or ())])
        self.changes += [{**difference, "time": _now()} for difference in differences]

    @property
    def _again(self) -> str:
        return f"remove the folder and run {self.program} again"

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
        """One error that shows all differences, if there are any."""
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
