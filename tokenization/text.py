"""Files of documents: .jsonl, .jsonl.zst, .jsonl.gz and .parquet are read, .jsonl[.zst] written.

A document is {"text": str, "meta": {"pile_set_name": str, ...}}, the form of the Pile (arXiv
2101.00027). Anything else is an error that names file and line; a caller may ask to get past it.
"""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import zstandard

from data_utils.atomic_files import atomic_file
from data_utils.errors import InputError

WINDOW = 1 << 31  # bytes; zstd --ultra --long=31 writes frames that need as much
BRING_TEXT = "run tools/get_pile.py, or put Pile-format .jsonl files there"
FIX = (
    'get or fix the file; a document is {"text": ..., "meta": {"pile_set_name": ...}}; --skip-bad-'
    "lines true leaves bad lines out when tokenizing and copying"
)


def decompressed(raw: BinaryIO) -> Iterator[bytes]:
    """The bytes of a zstd file (RFC 8878) of any number of frames, in pieces.

    An EOFError where the file was cut off: zstandard's own stream_reader ends in silence there.
    """
    frame, data = None, b""
    while data := data or raw.read(1 << 17):
        if frame is None:
            frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        yield frame.decompress(data)
        data = b""
        if frame.eof:
            frame, data = None, frame.unused_data
    if frame is not None:
        raise EOFError("the file ends inside a zstd frame")


class ZstdReader(io.RawIOBase):
    """A zstd file as a stream of its decompressed bytes."""

    def __init__(self, raw: BinaryIO) -> None:
        self.pieces, self.ready = decompressed(raw), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.ready:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.ready = memoryview(piece)
        size = min(len(buffer), len(self.ready))
        buffer[:size], self.ready = self.ready[:size], self.ready[size:]
        return size


class Documents:
    """The documents of files, in order, from a state on; state and fraction tell how far it is.

    source: name of the source of documents that state none. A line that does not hold a document
    raises its BadDocument; with skip_bad the BadDocument is yielded in its place. copied: documents
    will be written as JSON again, so what JSON cannot hold makes a bad line.
    """

    def __init__(
        self,
        files: list[Path],
        state: dict | None = None,
        *,
        source: str = "",
        skip_bad: bool = False,
        copied: bool = False,
    ) -> None:
        self.files, self.source, self.skip_bad, self.copied = files, source, skip_bad, copied
        self.state = dict(state or {"file": 0, "documents": 0})
        self.sizes = [path.stat().st_size for path in files]
        self.inside = 0.0  # share of the present file that is read

    def fraction(self) -> float:
        """Share of the input's bytes that has been read."""
        number = self.state["file"]
        now = self.sizes[number] * self.inside if number < len(self.files) else 0
        return (sum(self.sizes[:number]) + now) / max(sum(self.sizes), 1)

    def __iter__(self) -> Iterator["dict | BadDocument"]:
        while self.state["file"] < len(self.files):
            path, skip = self.files[self.state["file"]], self.state["documents"]
            for number, document in self.read(path, skip):
                self.state["documents"] = number
                try:
                    checked = check_document(document, path, number, self.source, self.copied)
                except BadDocument as error:
                    if not self.skip_bad:
                        raise
                    checked = error
                yield checked
            self.state = {"file": self.state["file"] + 1, "documents": 0}

    def read(self, path: Path, skip: int) -> Iterator[tuple[int, Any]]:
        """(line or row counted from 1, its content) after the first `skip`, unchecked.

        An InputError where the file is damaged or cut off.
        """
        number = skip
        try:
            rows = self._parquet if path.suffix == ".parquet" else self._lines
            for number, document in rows(path, skip):
                yield number, document
        except (EOFError, zstandard.ZstdError, gzip.BadGzipFile, zlib.error) as error:
            what = f"the file is damaged or cut off after line {number} ({error})"
            raise InputError(what, where=path, fix=FIX) from error

    def _lines(self, path: Path, skip: int) -> Iterator[tuple[int, bytes]]:
        """Lines with their numbers; blank ones and a byte order mark are passed over."""
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
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if number > skip and not line.isspace() and line:
                    yield number, line

    def _parquet(self, path: Path, skip: int) -> Iterator[tuple[int, dict]]:
        """Rows with their numbers; an InputError without a column text, an EOFError for damage."""
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                columns = file.schema_arrow.names
                if "text" not in columns:
                    what, found = "the file has no column text", ", ".join(columns) or "no columns"
                    raise InputError(what, where=path, expected="text", found=found, fix=FIX)
                names = [name for name in ("text", "meta") if name in columns]
                number, total = 0, file.metadata.num_rows
                for batch in file.iter_batches(batch_size=1024, columns=names):
                    for row in plain_rows(batch):
                        number += 1
                        if number > skip:
                            self.inside = number / total
                            yield number, row
        except (pyarrow.ArrowException, OSError) as error:
            # pyarrow reports damage as an OSError too; only a failed system call has a number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise EOFError(str(error).strip().split("\n")[0]) from error


def holds_documents(path: Path) -> bool:
    """Whether the file has a row, or a line that is not blank; good or bad."""
    return next(Documents([path]).read(path, 0), None) is not None


def plain_rows(batch: Any) -> list[Any]:
    """The rows of a pyarrow batch; one whose strings are not UTF-8 is what was wrong with it."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            return [error]
        return [row for number in range(len(batch)) for row in plain_rows(batch.slice(number, 1))]


class BadDocument(InputError):
    """A line or row that is not a document."""

    def __init__(self, path: Path | str, number: int, reason: str) -> None:
        super().__init__(f"line {number} {reason}", where=path, fix=FIX)
        self.line = [Path(path).name, number, reason]


def check_document(
    document: Any, path: Path | str, number: int, source: str = "", copied: bool = False
) -> dict:
    """{"text", "meta"} of a line of JSON or of a row; raises a BadDocument for anything else.

    source, copied: see Documents.
    """
    if isinstance(document, UnicodeDecodeError):
        raise BadDocument(path, number, f"is not UTF-8 ({document})")
    try:
        document = orjson.loads(document) if isinstance(document, bytes) else document
    except orjson.JSONDecodeError as error:
        kind = "UTF-8" if "utf-8" in str(error).lower() else "JSON"
        raise BadDocument(path, number, f"is not {kind} ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("text"), str):
        raise BadDocument(path, number, "has no text")
    meta = document.get("meta")
    named = isinstance(meta, dict) and "pile_set_name" in meta
    if not named and not source:
        raise BadDocument(path, number, "has no source (meta.pile_set_name)")
    meta = meta if named else {"pile_set_name": source}
    if not isinstance(meta["pile_set_name"], str):
        raise BadDocument(path, number, "has a source (meta.pile_set_name) that is not a string")
    if copied:
        try:
            orjson.dumps({"meta": meta})  # as deep as in document_file's line
        except orjson.JSONEncodeError as error:  # bytes, decimals, deep nesting
            raise BadDocument(path, number, f"has meta that JSON cannot hold ({error})") from error
    return {"text": document["text"], "meta": meta}


@contextlib.contextmanager
def document_file(folder: Path, number: int, compress: str) -> Iterator[tuple[str, Any]]:
    """Write K.jsonl, or K.jsonl.zst for compress "zstd", into folder, whole or not at all.

    Gives its name and a function that writes a document as a line and returns the line's bytes.
    """
    name = f"{number}.jsonl{'.zst' if compress == 'zstd' else ''}"
    with contextlib.ExitStack() as stack:
        stream: Any = stack.enter_context(atomic_file(folder / name))
        if compress == "zstd":
            compressor = zstandard.ZstdCompressor(level=3)
            stream = stack.enter_context(compressor.stream_writer(stream, closefd=False))

        def write(document: dict) -> int:
            line = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
            stream.write(line)
            return len(line)

        yield name, write
