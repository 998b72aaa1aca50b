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
import resource
import struct
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NoReturn

import numpy as np

from data_utils.atomic_files import atomic_file
from data_utils.errors import ArtefactError, EnvironmentFault

MAGIC = b"MMIDIDX\0\0"
HEADER = struct.Struct("<9sQBQQ")
TOKEN_TYPES = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
# name_K.npy, one value per row; source_row is written last and completes a shard.
SIDES = {"domain": np.dtype("u1"), "generated": np.dtype("<i4"), "source_row": np.dtype("<i8")}
ROWS = 1 << 16  # checked together: their numbers stay in the processor's cache
OPEN_FILES, OTHER_FILES = 1 << 16, 128  # at most; besides the shards
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


class Shard:
    """One shard, memory-mapped when it is first read: two open files for as long as it lives."""

    def __init__(self, prefix: Path) -> None:
        """Compare its two files; raises an ArtefactError that names the one that does not fit."""
        self.prefix = prefix
        self.index, self.data = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
        for path in (self.index, self.data):
            if not path.is_file():
                raise ArtefactError("a file of a shard is missing", where=path, fix=VERIFY)
        with open(self.index, "rb") as file:
            head = file.read(HEADER.size)
        if len(head) < HEADER.size or head[:9] != MAGIC:
            raise ArtefactError("this is not an MMIDIDX index", where=self.index, fix=VERIFY)
        _, version, code, self.rows, entries = HEADER.unpack(head)
        if version != 1 or code not in TOKEN_TYPES:
            raise ArtefactError(
                "unknown index format",
                where=self.index,
                expected="version 1 with tokens of type 4 (int32) or 8 (uint16)",
                found=f"version {version}, type {code}",
                fix=VERIFY,
            )
        self.dtype = TOKEN_TYPES[code]
        self.places = HEADER.size, HEADER.size + 4 * self.rows  # of lengths, of offsets
        _same_size(self.index, HEADER.size + 12 * self.rows + 8 * entries, "wrong size")
        lengths, offsets = self.read(max(self.rows - 1, 0), 1 if self.rows else 0)
        size = int(offsets[0]) + int(lengths[0]) * self.dtype.itemsize if self.rows else 0
        _same_size(self.data, size, "the size does not match the index")
        self.size = size // self.dtype.itemsize  # tokens

    def __len__(self) -> int:
        return self.rows

    def read(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(lengths int32, offsets int64 in bytes) of rows first .. first + count - 1, [count] each.

        Read, not mapped: all pages of a large corpus would count as this process's memory.
        """
        lengths, offsets = self.places
        return (
            np.fromfile(self.index, "<i4", count, offset=lengths + 4 * first),
            np.fromfile(self.index, "<i8", count, offset=offsets + 8 * first),
        )

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, [rows] int32."""
        return np.ndarray(self.rows, "<i4", self._numbers, self.places[0])

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each row begins in the .bin, [rows] int64 in bytes."""
        return np.ndarray(self.rows, "<i8", self._numbers, self.places[1])

    @cached_property
    def _numbers(self) -> np.ndarray:
        return map_file(self.index)

    @cached_property
    def tokens(self) -> np.ndarray:
        """The tokens of all rows, back to back."""
        # An empty file cannot be mapped.
        return map_file(self.data).view(self.dtype) if self.size else np.empty(0, self.dtype)

    def spans(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(first token of each row in tokens, its length), [len(rows)] int64 each.

        Raises an ArtefactError that names a row whose tokens are not in the .bin.
        """
        offsets, lengths = self.offsets[rows], self.lengths[rows].astype(np.int64)
        starts, rest = np.divmod(offsets, self.dtype.itemsize)
        bad = (starts < 0) | (lengths < 0) | (starts > self.size - lengths) | (rest != 0)
        if bad.any():
            self.refuse(rows[bad.argmax()], "points outside its .bin")
        return starts, lengths

    def side_file(self, name: str) -> Path:
        """Where its side file of this name (SIDES) is, if it has one."""
        return self.prefix.with_name(f"{name}_{self.prefix.name.rpartition('_')[2]}.npy")

    def side(self, name: str) -> np.ndarray:
        """Its side file, mapped, [rows]; raises an ArtefactError if it does not fit."""
        path, fix = self.side_file(name), "make the corpus again"
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise ArtefactError("a file of the corpus is missing", where=path, fix=fix) from None
        except (ValueError, EOFError) as error:
            raise ArtefactError(f"not readable ({error})", where=path, fix=fix) from error
        if values.shape != (self.rows,) or values.dtype != SIDES[name]:
            raise ArtefactError(
                "the file does not fit its shard",
                where=path,
                expected=f"{self.rows} rows of {SIDES[name]}",
                found=f"{' x '.join(map(str, values.shape))} of {values.dtype}",
                fix=fix,
            )
        return values

    def longest_row(self) -> tuple[int, int]:
        """(tokens of its longest row, the number of that row), (0, 0) without rows.

        Reads 12 bytes per row, once per process. Raises an ArtefactError that names a row without
        tokens or one that does not begin where the row before it ends.
        """
        state = os.stat(self.index)
        return _longest_row(self.prefix, state.st_ino, state.st_mtime_ns)

    def refuse(self, row: int, what: str) -> NoReturn:
        """Raise the ArtefactError of a row."""
        raise ArtefactError(f"row {row} of the shard {what}", where=self.index, fix=VERIFY)


@lru_cache(maxsize=1 << 12)
def _longest_row(prefix: Path, *_: int) -> tuple[int, int]:
    shard, longest, expected = Shard(prefix), (0, 0), 0
    for start in range(0, len(shard), ROWS):
        lengths, offsets = shard.read(start, min(ROWS, len(shard) - start))
        ends = expected + np.cumsum(lengths, dtype=np.int64)
        bad = (lengths < 1) | (offsets != (ends - lengths) * shard.dtype.itemsize)
        if bad.any():
            row = int(bad.argmax())
            none, apart = f"has {lengths[row]} tokens", "does not begin where the last one ends"
            shard.refuse(start + row, none if lengths[row] < 1 else apart)
        at = int(lengths.argmax())
        longest = max(longest, (int(lengths[at]), -start - at))  # of equal ones the first
        expected = int(ends[-1])
    return longest[0], -longest[1]


def _same_size(path: Path, size: int, what: str) -> None:
    found = path.stat().st_size
    if found != size:
        raise ArtefactError(what, where=path, expected=f"{size} bytes", found=found, fix=VERIFY)


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file, [size] uint8, read-only; all processes of a machine share its pages."""
    return np.memmap(path, np.uint8, "r").view(np.ndarray)  # a plain array is sliced faster


def allow_open_files(shards: int) -> None:
    """Raise this process's limit of open files to OPEN_FILES, or as far as the system allows.

    250 mapped shards would use up half of the usual 1,024. Raises an EnvironmentFault if the hard
    limit is too low for this number of shards.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    needed = 2 * shards + OTHER_FILES
    if needed > most:
        raise EnvironmentFault(
            f"a corpus of {shards} shards needs more open files than the system allows",
            expected=f"a limit of at least {needed}",
            found=most,
            fix="raise the hard limit (ulimit -Hn), or make larger shards (SHARD_SIZE)",
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def find_shards(folder: Path, split: str) -> list[Path]:
    """Prefixes split_0, split_1, ... of a folder; raises an ArtefactError if a number is missing.

    An empty .bin without .idx, which the original leaves after a full shard, is not a shard.
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
