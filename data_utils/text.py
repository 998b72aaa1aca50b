"""Text artefacts: folders of JSON lines {"text": ..., "meta": {"pile_set_name": ...}}."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import zstandard
from tqdm import tqdm

from data_utils import artefact
from data_utils.errors import InputError

SUFFIXES = (".jsonl", ".jsonl.zst")
BRING_TEXT = "run tools/get_pile.py, or put Pile-format .jsonl files there"


@dataclass(frozen=True)
class Document:
    """One document and the name of its source."""

    source: str
    text: str


def natural(path: Path) -> list:
    """Sort key: numbers inside names count as numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


class Text:
    """The documents of a folder, files in natural order of their names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity = artefact.identity(folder, "text", BRING_TEXT)
        self.files = sorted(
            (path for path in folder.iterdir() if path.name.endswith(SUFFIXES)), key=natural
        )
        if not self.files:
            raise InputError("there are no .jsonl files", where=folder, fix=BRING_TEXT)

    def __iter__(self) -> Iterator[Document]:
        total = sum(path.stat().st_size for path in self.files)
        with tqdm(total=total, unit="B", unit_scale=True, desc="text", mininterval=1) as bar:
            for path in self.files:
                with open(path, "rb") as raw:
                    done = 0
                    for number, line in enumerate(_lines(path, raw), 1):
                        yield parse_line(path, number, line)
                        bar.update(raw.tell() - done)
                        done = raw.tell()


def _lines(path: Path, raw: io.BufferedReader) -> Iterator[bytes]:
    if path.suffix != ".zst":
        yield from iter(raw.readline, b"")
        return
    try:
        with zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            yield from io.BufferedReader(stream, 1 << 20)
    except zstandard.ZstdError as error:
        raise InputError(f"not readable as zstd ({error})", where=path, fix=BRING_TEXT) from error


def parse_line(path: Path, number: int, line: bytes) -> Document:
    """A line as a document; anything else is an InputError with file and line."""
    try:
        value = orjson.loads(line)
        text, source = value["text"], value["meta"]["pile_set_name"]
        if isinstance(text, str) and isinstance(source, str):
            return Document(source, text)
        reason = "text and pile_set_name must be strings"
    except orjson.JSONDecodeError as error:
        reason = f"not JSON ({error})"
    except (KeyError, TypeError):
        reason = 'no "text" or no "meta": {"pile_set_name": ...}'
    raise InputError(reason, where=f"{path}, line {number}", fix="mend or remove this line")


def batches(text: Text, size: int = 1 << 22) -> Iterator[list[Document]]:
    """Documents in lists of about `size` characters."""
    documents, characters = [], 0
    for document in text:
        documents.append(document)
        characters += len(document.text)
        if characters >= size:
            yield documents
            documents, characters = [], 0
    if documents:
        yield documents
