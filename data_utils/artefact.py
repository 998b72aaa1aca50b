"""Finished artefacts: the manifest that describes a folder, and the checks that readers make.

manifest.json is written last (data_utils/artefact_writer.py). Its fingerprint is the SHA-256 of
canonical JSON over kind, format, the settings that matter to the content, counts, the inputs'
fingerprints, and name, size and SHA-256 of each file. A folder that this code has begun holds
settings.json; one with neither was made by others: it is read as it is and never written to.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_utils.atomic_files import sha256, write_json
from data_utils.errors import ArtefactError, InputError

FORMAT = 1
MANIFEST, SETTINGS, LOCK = "manifest.json", "settings.json", ".lock"
TEXT_FORMATS = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet")
# What readers find in a folder by its name, and the folders inside that they look for: one of these
# that the manifest does not list would be read under a fingerprint that knows nothing of it.
TAKEN = {
    "corpus": (r".+_\d+\.(bin|idx|npy)", {"tokenizer"}),
    "scores": (r".+\.(safetensors|npy|pt)", set()),
    "continuations": (r".+\.safetensors", set()),
    "text": (rf".+({'|'.join(map(re.escape, TEXT_FORMATS))})", {"train"}),
    "model": (
        r".+\.(safetensors|bin|pt|pth|h5|msgpack|gguf|index\.json|model|jinja|py)"
        r"|((generation_|adapter_|tokenizer_)?config|tokenizer|vocab|added_tokens"
        r"|special_tokens_map)\.json|merges\.txt",
        set(),
    ),
}


def canonical_hash(value: Any) -> str:
    """SHA-256 of value as JSON with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a finished artefact is; `report` and `made_by` are for people and outside it."""

    folder: Path
    kind: str
    format: int
    content: dict
    counts: dict
    inputs: dict[str, dict]
    files: list[dict]
    report: dict
    made_by: dict

    @property
    def fingerprint(self) -> str:
        """What the artefact is, by content (see the head of this file)."""
        inputs = {name: entry["fingerprint"] for name, entry in self.inputs.items()}
        files = sorted([f["name"], f["size"], f["sha256"]] for f in self.files)
        described = [self.kind, self.format, self.content, self.counts]
        return canonical_hash([*described, inputs, files])

    @property
    def identity(self) -> dict:
        """{kind, fingerprint}, for the manifests of what is made from it."""
        return {"kind": self.kind, "fingerprint": self.fingerprint}

    def write(self) -> None:
        """Write manifest.json: from here on the artefact is finished."""
        fields = {name: value for name, value in vars(self).items() if name != "folder"}
        write_json(self.folder / MANIFEST, {"fingerprint": self.fingerprint, **fields})

    def input_fingerprint(self, name: str) -> str | None:
        """What the input of this name was; None if there was none."""
        return self.inputs[name]["fingerprint"] if name in self.inputs else None

    def trained_on(self, corpus: str) -> tuple[int, int] | None:
        """The shards FIRST:LAST of a corpus (its fingerprint) that this model was trained on.

        All of them where that is not known more closely, None if it was not trained on any. A
        model that an earlier version trained without this record is an ArtefactError.
        """
        if "step" in self.counts and "trained_on" not in self.counts:
            raise ArtefactError(
                "an earlier version trained this model and did not record on which shards",
                where=self.folder,
                fix="train it again into another folder",
            )
        known = self.counts.get("trained_on", {})
        return tuple(known[corpus] or (0, 1 << 60)) if corpus in known else None


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished artefact, None where there is none; damage is an ArtefactError."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        fingerprint = fields.pop("fingerprint")
        manifest = Manifest(folder, **fields)
        good = fingerprint == manifest.fingerprint
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise ArtefactError(
            "the manifest is damaged", where=path, fix="restore it, or make the artefact again"
        )
    return manifest


def require(folder: Path, kind: str, fix: str, *, contents: bool = False) -> Manifest | None:
    """Check that folder holds a usable artefact of this kind; returns its manifest.

    None for a folder made by others (no manifest, not begun by this code). With contents, the
    files' checksums are compared too, which reads them whole. Raises InputError or ArtefactError.
    """
    if not folder.is_dir():
        there = "are" if kind == "scores" else "is"
        raise InputError(f"there {there} no {kind}", where=folder, fix=fix)
    manifest = read_manifest(folder)
    if manifest is None:
        if (folder / SETTINGS).exists():
            raise ArtefactError(f"the {kind} is unfinished", where=folder, fix=fix)
        return None
    if manifest.kind != kind:
        what = f"this is not a {kind}" if kind != "scores" else "these are not scores"
        raise InputError(what, where=folder, expected=kind, found=manifest.kind, fix=fix)
    check_files(manifest, fix, contents=contents)
    return manifest


def check_files(manifest: Manifest, fix: str, *, contents: bool) -> None:
    """Compare an artefact's files with its manifest: all are there, and no more than these.

    Sizes are compared, with contents checksums too. fix: for a file that is not as it was.
    """
    for entry in manifest.files:
        check_file(manifest.folder, entry, manifest.kind, fix, contents=contents)
    check_no_more(manifest)


def check_file(folder: Path, entry: dict, kind: str, fix: str, *, contents: bool) -> None:
    """Compare one file with its entry in the manifest; raises ArtefactError."""
    path = folder / entry["name"]
    if not path.is_file():
        raise ArtefactError(f"a file of the {kind} is missing", where=path, fix=fix)
    size, expected = path.stat().st_size, entry["size"]
    if size != expected:
        raise ArtefactError("wrong size", where=path, expected=expected, found=size, fix=fix)
    if contents and sha256(path) != entry["sha256"]:
        raise ArtefactError("the file's checksum does not hold", where=path, fix=fix)


def check_no_more(manifest: Manifest) -> None:
    """Refuse files that readers would take (TAKEN) and the manifest does not list."""
    if manifest.kind not in TAKEN:
        return
    pattern, inside = TAKEN[manifest.kind]
    folder, listed = manifest.folder, {entry["name"] for entry in manifest.files}
    inside = inside | {name.split("/")[0] for name in listed if "/" in name}
    with os.scandir(folder) as entries:
        found = [e.name for e in entries if re.fullmatch(pattern, e.name) and e.is_file()]
    for name in sorted(inside):
        found += [str(path.relative_to(folder)) for path in files_below(folder / name)]
    more = sorted(
        name for name in set(found) - listed if not any(p[0] == "." for p in Path(name).parts)
    )
    if more:
        others = f" (and {len(more) - 1} others)" if len(more) > 1 else ""
        raise ArtefactError(
            f"a file{others} that the finished {manifest.kind} was made without",
            where=folder / more[0],
            fix="move it out of the folder; to add to it, make it again in another folder",
        )


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, through links to folders too, each real folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        new = (f for f in folders if os.path.realpath(os.path.join(place, f)) not in seen)
        folders[:] = sorted(new)
        yield from (path for name in sorted(names) if (path := Path(place, name)).is_file())


def input_place(folder: Path, entry: dict) -> Path:
    """Where an input of the artefact in folder is, by its entry in the manifest.

    Entries are relative by the names that the user sees: a folder of BASE_PATH may be a link to
    another disk. If that does not exist, the file system's way, through the links, is tried.
    """
    place = folder.absolute() / entry["path"]
    by_name, by_links = Path(os.path.normpath(place)), Path(os.path.realpath(place))
    return by_links if by_links.exists() and not by_name.exists() else by_name


def identity(folder: Path, kind: str, fix: str, *, contents: bool = False) -> dict:
    """{kind, fingerprint} of an input artefact, for the manifests of what is made from it.

    Without a manifest the fingerprint covers names, sizes and checksums of the files; those of
    large files, except a model's, cover only their ends: enough to notice a replacement.
    """
    manifest = require(folder, kind, fix, contents=contents)
    if manifest is not None:
        return manifest.identity
    files = []
    for path in sorted(p for p in files_below(folder) if p.name != LOCK):
        size = path.stat().st_size
        ends = 0 if size < 1 << 20 or kind == "model" else 1 << 16
        files.append([str(path.relative_to(folder)), size, sha256(path, ends)])
    return {"kind": kind, "fingerprint": canonical_hash([kind, "without manifest", files])}
