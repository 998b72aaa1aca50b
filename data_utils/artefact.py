"""Finished artefacts: the manifest that describes a folder, and the checks of who reads it.

manifest.json is written last (data_utils/output.py). Its fingerprint is the SHA-256 of canonical
JSON over kind, format, the settings that matter to the content, counts, the inputs' fingerprints,
and name, size and SHA-256 of each file. A folder that this code has begun holds settings.json; one
with neither was made by others: it is read as it is and never written to.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from data_utils.disk import sha256
from data_utils.errors import ArtefactError, InputError

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
        manifest = json.loads(path.read_text(encoding="utf-8"))
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
