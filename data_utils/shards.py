"""Shard files: MMIDIDX version 1, the format that Megatron-LM reads.

data_K.bin  the tokens, back to back
data_K.idx  offset size
            0      9    "MMIDIDX\\0\\0"
            9      8    uint64 version, 1
            17     1    uint8 type of a token: 4 int32, 8 uint16 (others are refused)
            18     8    uint64 number of sequences n
            26     8    uint64 number of document entries d
            34     4n   int32 lengths in tokens
            ..     8n   int64 byte offsets into .bin
            ..     8d   int64 document entries: 0..n here, the original MiniPLM wrote just [0]
All numbers are little-endian.
"""

import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_utils.atomic_files import atomic_file
from data_utils.errors import ArtefactError
from data_utils.mapped import map_files

MAGIC = b"MMIDIDX\0\0"
HEADER = struct.Struct("<9sQBQQ")
TOKEN_TYPES = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
BLOCK = 1 << 20  # rows looked up together: all rows of a corpus would need several numbers each
VERIFY = "python3 tools/verify.py on its folder shows all damage; get or make the shard again"


def token_type(vocab_size: int) -> np.dtype:
    """uint16 where the vocabulary fits (below 65,500 entries), else int32."""
    return TOKEN_TYPES[8] if vocab_size < 65_500 else TOKEN_TYPES[4]


def write_shard(
    prefix: Path, lengths: np.ndarray, tokens: Iterable[np.ndarray], dtype: np.dtype
) -> None:
    """Write prefix.bin, then prefix.idx, each atomically.

    lengths: [n] tokens of each sequence. tokens: arrays whose concatenation is all sequences.
    """
    lengths = np.asarray(lengths, dtype="<i4")
    written = 0
    with atomic_file(prefix.with_name(prefix.name + ".bin")) as file:
        for block in tokens:
            file.write(np.ascontiguousarray(block, dtype=dtype))
            written += len(block)
    assert written == lengths.sum(dtype=np.int64), "lengths and tokens disagree"
    write_index(prefix, lengths, dtype)


def write_index(prefix: Path, lengths: np.ndarray, dtype: np.dtype) -> None:
    """Write prefix.idx of a .bin whose sequences, back to back, have these lengths, [n] tokens."""
    lengths = np.asarray(lengths, dtype="<i4")
    ends = np.cumsum(lengths, dtype="<i8") * dtype.itemsize
    offsets = np.concatenate([np.zeros(1, "<i8"), ends[:-1]])[: len(lengths)]
    code = next(code for code, known in TOKEN_TYPES.items() if known == dtype)
    with atomic_file(prefix.with_name(prefix.name + ".idx")) as file:
        file.write(HEADER.pack(MAGIC, 1, code, len(lengths), len(lengths) + 1))
        file.write(lengths)
        file.write(offsets)
        file.write(np.arange(len(lengths) + 1, dtype="<i8"))


@dataclass(frozen=True)
class Header:
    """What a shard's index says of it: sequences, and tokens in its .bin."""

    prefix: Path
    dtype: np.dtype
    sequences: int
    index_size: int
    tokens: int


def read_header(prefix: Path) -> Header:
    """Compare a shard's two files; disagreement is an ArtefactError that names the file."""
    index, data = prefix.with_name(prefix.name + ".idx"), prefix.with_name(prefix.name + ".bin")
    for path in (index, data):
        if not path.is_file():
            raise ArtefactError("a file of a shard is missing", where=path, fix=VERIFY)
    with open(index, "rb") as file:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or head[:9] != MAGIC:
            raise ArtefactError("this is no MMIDIDX index", where=index, fix=VERIFY)
        _, version, code, n, entries = HEADER.unpack(head)
        if version != 1 or code not in TOKEN_TYPES:
            raise ArtefactError(
                "unknown index format",
                where=index,
                expected="version 1 with tokens of type 4 (int32) or 8 (uint16)",
                found=f"version {version}, type {code}",
                fix=VERIFY,
            )
        index_size = HEADER.size + 12 * n + 8 * entries
        _same_size(index, index_size, "wrong size")
        last = [
            int.from_bytes(os.pread(file.fileno(), size, place), "little", signed=True)
            for size, place in ((8, HEADER.size + 12 * n - 8), (4, HEADER.size + 4 * n - 4))
        ]
    size = last[0] + last[1] * TOKEN_TYPES[code].itemsize if n else 0
    _same_size(data, size, "the tokens do not fit the index beside them")
    return Header(prefix, TOKEN_TYPES[code], n, index_size, size // TOKEN_TYPES[code].itemsize)


def _same_size(path: Path, size: int, what: str) -> None:
    found = path.stat().st_size
    if found != size:
        raise ArtefactError(what, where=path, expected=f"{size} bytes", found=found, fix=VERIFY)


@dataclass(frozen=True)
class Shard:
    """One memory-mapped shard: lengths [n] int32, offsets [n] int64 in bytes, tokens [all]."""

    prefix: Path
    lengths: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)


class Shards:
    """Memory-mapped shards, their tokens as one array: tokens [all], zeros between the files."""

    def __init__(self, prefixes: Sequence[Path]) -> None:
        self.headers = [read_header(prefix) for prefix in prefixes]
        self.dtype = self.headers[0].dtype
        for header in self.headers:
            if header.dtype != self.dtype:
                raise ArtefactError(
                    f"tokens of another type than those of {prefixes[0].name}",
                    where=f"{header.prefix}.idx",
                    expected=self.dtype,
                    found=header.dtype,
                    fix="put corpora of different token types into folders of their own",
                )
        self.index, self.index_starts = map_files(
            [Path(f"{prefix}.idx") for prefix in prefixes], [h.index_size for h in self.headers]
        )
        data, starts = map_files(
            [Path(f"{prefix}.bin") for prefix in prefixes],
            [h.tokens * self.dtype.itemsize for h in self.headers],
        )
        self.tokens = data.view(self.dtype)
        sizes = np.array([h.tokens for h in self.headers], np.int64) * self.dtype.itemsize
        sequences = np.array([h.sequences for h in self.headers], np.int64)
        self.starts = np.cumsum(np.append(0, sequences))
        # A line a shard: where row 0 would have its length and its offset in the index if the
        # shard had it, the bytes of the .bin, and its first token in tokens.
        lengths = self.index_starts + HEADER.size - 4 * self.starts[:-1]
        offsets = self.index_starts + HEADER.size + 4 * sequences - 8 * self.starts[:-1]
        self._table = np.stack([lengths, offsets, sizes, starts // self.dtype.itemsize], axis=1)
        # The format aligns nothing, so numbers may begin at any byte of the index.
        self._four, self._eight = windows(self.index, 4), windows(self.index, 8)

    def __getitem__(self, number: int) -> Shard:
        """One of the shards, as views."""
        header, start = self.headers[number], self._table[number, 3]
        n, place = header.sequences, self.index_starts[number] + HEADER.size
        lengths = np.ndarray(n, "<i4", self.index, place)
        offsets = np.ndarray(n, "<i8", self.index, place + 4 * n)
        return Shard(header.prefix, lengths, offsets, self.tokens[start : start + header.tokens])

    def locate(self, rows: np.ndarray) -> np.ndarray:
        """Number of the shard of each row, [len(rows)] int64; a row beyond is an IndexError."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.starts[-1]:
            raise IndexError(f"rows outside 0 .. {self.starts[-1] - 1}")
        return self.starts[1:].searchsorted(rows, side="right")

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each row, [len(rows)] int64."""
        lengths = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            places = self._table[self.locate(part), 0] + 4 * part
            lengths[start : start + BLOCK] = self._four[places].view("<i4")[:, 0]
        self._check(lengths < 0, rows)
        return lengths

    def spans(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(first token of each row in tokens, its length), [len(rows)] int64 each."""
        table = self._table[self.locate(rows)]
        lengths = self._four[table[:, 0] + 4 * rows].view("<i4")[:, 0].astype(np.int64)
        offsets = self._eight[table[:, 1] + 8 * rows].view("<i8")[:, 0]
        self._check_spans(offsets, lengths, table[:, 2], rows)
        return table[:, 3] + offsets // self.dtype.itemsize, lengths

    def ascending_spans(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What spans() gives of ascending rows, from a stretch of each index: a fifth of its time.

        Rows far apart cost the stretch between them, 12 bytes a row.
        """
        if len(rows) == 0:
            return self.spans(rows)
        starts, lengths = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        self.locate(rows[[0, -1]])
        borders = rows.searchsorted(self.starts).tolist()
        for number in range(len(self.headers)):
            part = slice(borders[number], borders[number + 1])
            if part.start == part.stop:
                continue
            local = rows[part] - self.starts[number]
            stretch, inside = slice(local[0], local[-1] + 1), local - local[0]
            shard, (_, _, size, first) = self[number], self._table[number]
            offsets = shard.offsets[stretch].take(inside)
            lengths[part] = shard.lengths[stretch].take(inside)
            self._check_spans(offsets, lengths[part], size, rows[part])
            starts[part] = first + offsets // self.dtype.itemsize
        return starts, lengths

    def _check_spans(
        self, offsets: np.ndarray, lengths: np.ndarray, sizes: np.ndarray, rows: np.ndarray
    ) -> None:
        itemsize = self.dtype.itemsize
        behind = sizes - offsets - itemsize * lengths
        # A number is negative if its sign bit is set, so one of three is if that of their OR is.
        self._check(((offsets | lengths | behind) < 0) | (offsets % itemsize != 0), rows)

    def _check(self, bad: np.ndarray, rows: np.ndarray) -> None:
        if not bad.any():
            return
        row = rows[bad.argmax()]
        number = int(self.locate(row[None])[0])
        raise ArtefactError(
            f"row {row - self.starts[number]} of the shard points outside its .bin",
            where=f"{self.headers[number].prefix}.idx",
            fix=VERIFY,
        )


def windows(values: np.ndarray, length: int) -> np.ndarray:
    """All stretches of `length` values, [len(values) - length + 1, length], as a view.

    An index into it copies whole stretches, which is much faster than an index for each value.
    """
    shape = (len(values) - length + 1, length)
    return np.ndarray(shape, values.dtype, values, strides=(values.itemsize, values.itemsize))


def open_shard(prefix: Path) -> Shard:
    """Map one shard."""
    return Shards([prefix])[0]


def find_shards(folder: Path, split: str) -> list[Path]:
    """Prefixes split_0, split_1, ... of a folder; a hole in the numbering is an error.

    An empty .bin without .idx, which the original leaves behind a full shard, is no shard.
    """
    numbers = set()
    for path in folder.iterdir():
        match = re.fullmatch(rf"{re.escape(split)}_(\d+)\.(idx|bin)", path.name)
        if match and (match[2] == "idx" or path.stat().st_size > 0):
            numbers.add(int(match[1]))
    for number in range(max(numbers, default=-1) + 1):
        if number not in numbers:
            missing = folder / f"{split}_{number}.idx"
            raise ArtefactError("a shard in the middle is missing", where=missing, fix=VERIFY)
    return [folder / f"{split}_{number}" for number in sorted(numbers)]
