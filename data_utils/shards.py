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

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_utils.artefact import atomic_file
from data_utils.errors import ArtefactError

MAGIC = b"MMIDIDX\0\0"
HEADER = struct.Struct("<9sQBQQ")
TOKEN_TYPES = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
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
    ends = np.cumsum(lengths, dtype="<i8") * dtype.itemsize
    offsets = np.concatenate([np.zeros(1, "<i8"), ends[:-1]])[: len(lengths)]
    code = next(code for code, known in TOKEN_TYPES.items() if known == dtype)
    with atomic_file(prefix.with_name(prefix.name + ".idx")) as file:
        file.write(HEADER.pack(MAGIC, 1, code, len(lengths), len(lengths) + 1))
        file.write(lengths)
        file.write(offsets)
        file.write(np.arange(len(lengths) + 1, dtype="<i8"))


@dataclass(frozen=True)
class Shard:
    """One memory-mapped shard: lengths [n] int32, offsets [n] int64 in bytes, tokens [all]."""

    prefix: Path
    lengths: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)


def open_shard(prefix: Path) -> Shard:
    """Map a shard; whatever in the two files disagrees is an ArtefactError that names the file."""
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
        found = f"version {version}, type {code}"
        raise ArtefactError(
            "unknown index format",
            where=index,
            expected="version 1 with tokens of type 4 (int32) or 8 (uint16)",
            found=found,
            fix=VERIFY,
        )
    size = HEADER.size + 12 * n + 8 * entries
    found = index.stat().st_size
    if found != size:
        raise ArtefactError(
            "wrong size", where=index, expected=f"{size} bytes", found=found, fix=VERIFY
        )
    lengths = _map(index, "<i4", n, HEADER.size)
    offsets = _map(index, "<i8", n, HEADER.size + 4 * n)
    dtype = TOKEN_TYPES[code]
    size = int(offsets[-1]) + int(lengths[-1]) * dtype.itemsize if n else 0
    found = data.stat().st_size
    if found != size:
        raise ArtefactError(
            "the tokens do not fit the index beside them",
            where=data,
            expected=f"{size} bytes",
            found=found,
            fix=VERIFY,
        )
    return Shard(prefix, lengths, offsets, _map(data, dtype, size // dtype.itemsize, 0))


def _map(path: Path, dtype: str | np.dtype, count: int, offset: int) -> np.ndarray:
    if count == 0:
        return np.empty(0, dtype)
    mapped = np.memmap(path, dtype, mode="r", offset=offset, shape=(count,))
    return mapped.view(np.ndarray)


def find_shards(folder: Path, split: str) -> list[Path]:
    """Prefixes split_0, split_1, ... of a folder; a hole in the numbering is an error.

    An empty .bin without .idx, which the original leaves behind a full shard, is no shard.
    """
    numbers = set()
    for path in folder.glob(f"{split}_*"):
        match = re.fullmatch(rf"{re.escape(split)}_(\d+)\.(idx|bin)", path.name)
        if match and (match[2] == "idx" or path.stat().st_size > 0):
            numbers.add(int(match[1]))
    for number in range(max(numbers, default=-1) + 1):
        if number not in numbers:
            missing = folder / f"{split}_{number}.idx"
            raise ArtefactError("a shard in the middle is missing", where=missing, fix=VERIFY)
    return [folder / f"{split}_{number}" for number in sorted(numbers)]
