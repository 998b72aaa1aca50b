"""Files of documents: .jsonl, .jsonl.zst, .jsonl.gz and .parquet are read, .jsonl[.zst] written.

A document is {"text": str, "meta": {"pile_set_name": str, ...}}, the Pile's form. What is not, is
an error that names file and line, or is skipped and listed where the caller asks for it.
"""

import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import zstandard

from data_utils.errors import InputError

SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet")
BRING_TEXT = "run tools/get_pile.py, or put Pile-format .jsonl files there"
FIX = (
    'get or mend the file; a document is {"text": ..., "meta": {"pile_set_name": ...}}; tokenising '
    "goes on without bad lines with --skip-bad-lines true"
)


def natural(path: Path) -> list:
    """Sort key: numbers inside names count as numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def text_files(folder: Path) -> list[Path]:
    """The files of documents in folder, or in folder/train if there is one, in natural order."""
    # A copy of the hub's data set has train/ beside the validation and test files.
    place = folder / "train" if (folder / "train").is_dir() else folder
    files = (
        [path for path in place.glob("*") if path.name.endswith(SUFFIXES)] if place.is_dir() else []
    )
    files = [path for path in files if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise InputError(
            f"there are no {', '.join(SUFFIXES)} files",
            where=place,
            fix="give the folder that holds the text (or whose folder train/ does)",
        )
    return sorted(files, key=natural)


class ZstdReader(io.RawIOBase):
    """The decompressed bytes of a zstd file of any number of frames; a cut-off file is an error.

    zstandard's own stream_reader ends in silence where a file was cut.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self.raw, self.frame = raw, zstandard.ZstdDecompressor().decompressobj()
        self.ready, self.begun = memoryview(b""), False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.ready:
            data = self.frame.unused_data if self.frame.eof else b""
            data = data or self.raw.read(1 << 17)
            if self.frame.eof and data:
                self.frame, self.begun = zstandard.ZstdDecompressor().decompressobj(), False
            if not data:
                if self.begun and not self.frame.eof:
                    raise EOFError("the file ends inside a zstd frame")
                return 0
            self.ready, self.begun = memoryview(self.frame.decompress(data)), True
        size = min(len(buffer), len(self.ready))
        buffer[:size] = self.ready[:size]
        self.ready = self.ready[size:]
        return size


class Documents:
    """The documents of files, in order, from a state on; state and fraction tell how far it is.

    source: name of the source of documents that state none. With skip_bad, lines that hold no
    document are listed in `bad` as [file, line, reason] and passed over.
    """

    def __init__(
        self,
        files: list[Path],
        state: dict | None = None,
        *,
        source: str = "",
        skip_bad: bool = False,
    ) -> None:
        self.files, self.source, self.skip_bad = files, source, skip_bad
        self.state = dict(state or {"file": 0, "documents": 0})
        self.sizes = [path.stat().st_size for path in files]
        self.inside = 0.0  # share of the present file that is read
        self.bad: list[list] = []

    def fraction(self) -> float:
        """Share of the input's bytes that has been read."""
        number = self.state["file"]
        now = self.sizes[number] * self.inside if number < len(self.files) else 0
        return (sum(self.sizes[:number]) + now) / max(sum(self.sizes), 1)

    def __iter__(self) -> Iterator[dict]:
        while self.state["file"] < len(self.files):
            path, skip = self.files[self.state["file"]], self.state["documents"]
            for number, document in self._read(path, skip):
                checked = self._checked(document, path, number)
                self.state["documents"] = number
                if checked is not None:
                    yield checked
            self.state = {"file": self.state["file"] + 1, "documents": 0}

    def _checked(self, document: Any, path: Path, number: int) -> dict | None:
        try:
            return check_document(document, path, number, self.source)
        except BadDocument as error:
            if not self.skip_bad:
                raise
            self.bad.append([path.name, number, error.reason])
            return None

    def _read(self, path: Path, skip: int) -> Iterator[tuple[int, Any]]:
        """(line or row counted from 1, what stands there), the first `skip` left out."""
        number = skip
        try:
            if path.suffix == ".parquet":
                rows = self._parquet(path, skip)
            else:
                rows = self._lines(path, skip)
            for number, document in rows:
                yield number, document
        except (EOFError, zstandard.ZstdError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"the file is damaged or cut off after line {number} ({error})", where=path, fix=FIX
            ) from error

    def _lines(self, path: Path, skip: int) -> Iterator[tuple[int, bytes]]:
        size = max(path.stat().st_size, 1)
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(open(path, "rb"))
            stream: Any = raw
            if path.suffix == ".gz":
                stream = stack.enter_context(gzip.open(raw))
            elif path.suffix == ".zst":
                stream = io.BufferedReader(ZstdReader(raw), 1 << 20)
            for number, line in enumerate(stream, 1):
                self.inside = raw.tell() / size
                if number > skip:
                    yield number, line

    def _parquet(self, path: Path, skip: int) -> Iterator[tuple[int, dict]]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                names = [name for name in ("text", "meta") if name in file.schema_arrow.names]
                number, total = 0, max(file.metadata.num_rows, 1)
                for batch in file.iter_batches(batch_size=1024, columns=names):
                    rows = batch.to_pylist() if number + len(batch) > skip else []
                    for inside, row in enumerate(rows, 1):
                        if number + inside > skip:
                            self.inside = (number + inside) / total
                            yield number + inside, row
                    number += len(batch)
        except (pyarrow.ArrowException, OSError) as error:
            raise EOFError(str(error).strip().split("\n")[0]) from error


class BadDocument(InputError):
    """A line or row that is no document."""

    def __init__(self, path: Path | str, number: int, reason: str) -> None:
        super().__init__(f"line {number} {reason}", where=path, fix=FIX)
        self.reason = reason


def check_document(document: Any, path: Path | str, number: int, source: str = "") -> dict:
    """{"text", "meta"} of a line of JSON or of a row; anything else is a BadDocument.

    source: name for documents that state no source of their own.
    """
    if isinstance(document, bytes):
        try:
            document = orjson.loads(document)
        except orjson.JSONDecodeError as error:
            reason = "UTF-8" if "utf-8" in str(error).lower() else "JSON"
            raise BadDocument(path, number, f"is not {reason} ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("text"), str):
        raise BadDocument(path, number, "has no text")
    meta = document.get("meta")
    if source and (not isinstance(meta, dict) or "pile_set_name" not in meta):
        meta = {"pile_set_name": source}
    if not isinstance(meta, dict) or "pile_set_name" not in meta:
        raise BadDocument(path, number, "has no source (meta.pile_set_name)")
    if not isinstance(meta["pile_set_name"], str):
        raise BadDocument(path, number, "has a source (meta.pile_set_name) that is not a string")
    return {"text": document["text"], "meta": meta}


@contextlib.contextmanager
def document_writer(raw: BinaryIO, compress: str) -> Iterator[Any]:
    """A function that writes one document as a line into raw, compressed if asked to."""
    with contextlib.ExitStack() as stack:
        stream: Any = raw
        if compress == "zstd":
            compressor = zstandard.ZstdCompressor(level=3)
            stream = stack.enter_context(compressor.stream_writer(raw, closefd=False))

        def write(document: dict) -> int:
            line = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
            stream.write(line)
            return len(line)

        yield write


def file_name(number: int, compress: str) -> str:
    """K.jsonl or K.jsonl.zst."""
    return f"{number}.jsonl{'.zst' if compress == 'zstd' else ''}"
