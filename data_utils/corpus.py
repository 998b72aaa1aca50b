"""A corpus: shards of token sequences, read through memory maps as one list of rows.

Row numbers run through the shards in order. Beside the shards: tokenizer/, and, where known,
domain_K.npy (uint8 a row: index into the manifest's domains) and source_row_K.npy (int64 a row: the
row of the corpus that it was taken from).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.errors import ArtefactError, InputError
from data_utils.shards import Shard, find_shards, open_shard

DEFAULT_LENGTH = 1025


class Corpus:
    """The rows of shards [first, last) of a split (by default the corpus's own, else data)."""

    def __init__(
        self, folder: Path, split: str = "", shards: tuple[int, int] | None = None
    ) -> None:
        fix = "make it first (README: stages), or give its folder"
        self.identity = artefact.identity(folder, "corpus", fix)
        self.manifest = artefact.read_manifest(folder)
        split = split or (self.manifest or {"content": {}})["content"].get("split", "data")
        self.folder, self.split = folder, split
        prefixes = find_shards(folder, split)
        if not prefixes:
            raise InputError(
                f"the corpus has no shards {split}_K.bin and {split}_K.idx", where=folder, fix=fix
            )
        self.all_shards = len(prefixes)
        first, last = shards or (0, self.all_shards)
        self.first_shard, self.last_shard = first, min(last, self.all_shards)
        self.shards = [open_shard(prefix) for prefix in prefixes[first:last]]
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)], dtype=np.int64)
        self.max_length = self._max_length()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _max_length(self) -> int:
        if self.manifest is not None and "max_length" in self.manifest["content"]:
            return self.manifest["content"]["max_length"]
        match = re.search(r"-(\d+)$", self.folder.name)
        return int(match[1]) if match else DEFAULT_LENGTH

    @property
    def dtype(self) -> np.dtype:
        """Type of a stored token."""
        return self.shards[0].tokens.dtype

    @property
    def tokenizer_folder(self) -> Path | None:
        """The corpus's own copy of its tokenizer, if it has one."""
        folder = self.folder / "tokenizer"
        return folder if folder.is_dir() else None

    @property
    def domains(self) -> list[str]:
        """Names that domain numbers stand for; empty where the domains are unknown."""
        return self.manifest["counts"].get("domains", []) if self.manifest else []

    def row(self, row: int) -> np.ndarray:
        """The tokens of one row, [length]."""
        return next(self.runs(np.array([row])))

    def locate(self, row: int) -> tuple:
        """(shard, row inside it) of a row."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.shards[number], int(row - self.starts[number])

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of the rows, [len(rows)] int64."""
        lengths = np.empty(len(rows), np.int64)
        for shard, where, inside in self._by_shard(rows):
            lengths[where] = shard.lengths[inside]
        return lengths

    def batch(self, rows: np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens [len(rows), longest] int64 padded on the right with pad_id, lengths [len(rows)]).

        No Python loop over rows: one gather a shard.
        """
        rows = np.asarray(rows, np.int64)
        spans = [(s, where, *self._spans(s, inside)) for s, where, inside in self._by_shard(rows)]
        lengths = np.empty(len(rows), np.int64)
        for _, where, starts, ends in spans:
            lengths[where] = ends - starts
        columns = np.arange(lengths.max(initial=0))
        tokens = np.full((len(rows), len(columns)), pad_id, np.int64)
        for shard, where, starts, _ in spans:
            real = columns < lengths[where, None]
            places = np.minimum(starts[:, None] + columns, max(len(shard.tokens) - 1, 0))
            if real.any():
                tokens[where] = np.where(real, shard.tokens[places], pad_id)
        return tokens, lengths

    def _spans(self, shard: Shard, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First token and end of rows of a shard, [len(inside)] int64 each, checked."""
        offsets, lengths = shard.offsets[inside], shard.lengths[inside]
        starts, rest = np.divmod(offsets, shard.tokens.itemsize)
        ends = starts + lengths
        bad = (offsets < 0) | (rest != 0) | (lengths < 0) | (ends > len(shard.tokens))
        if bad.any():
            raise ArtefactError(
                f"row {int(inside[bad.argmax()])} of the shard points outside its .bin",
                where=f"{shard.prefix}.idx",
                fix="get or make the shard again",
            )
        return starts, ends

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple]:
        """(shard, positions in rows, rows inside the shard) for every shard that is touched."""
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(numbers):
            where = np.flatnonzero(numbers == number)
            yield self.shards[number], where, rows[where] - self.starts[number]

    def runs(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The tokens of ascending rows back to back, as slices of neighbouring rows."""
        for shard, _, inside in self._by_shard(rows):
            starts, ends = self._spans(shard, inside)
            breaks = np.flatnonzero(starts[1:] != ends[:-1])
            firsts, lasts = np.append(0, breaks + 1), np.append(breaks, len(inside) - 1)
            for first, last in zip(starts[firsts], ends[lasts], strict=True):
                yield shard.tokens[first:last]

    def side(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """Values of the side files name_K.npy at the rows, None where there are none."""
        paths = [
            self.folder / f"{name}_{self.first_shard + number}.npy"
            for number in range(len(self.shards))
        ]
        if not any(path.exists() for path in paths):
            return None
        columns = [
            self._column(path, shard) for path, shard in zip(paths, self.shards, strict=True)
        ]
        values = np.empty(len(rows), columns[0].dtype)
        for number, column in enumerate(columns):
            inside = (rows >= self.starts[number]) & (rows < self.starts[number + 1])
            values[inside] = column[rows[inside] - self.starts[number]]
        return values

    def _column(self, path: Path, shard: Shard) -> np.ndarray:
        """One side file; it must fit its shard."""
        fix = "make the corpus again"
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise ArtefactError("a file of the corpus is missing", where=path, fix=fix) from None
        except ValueError as error:
            raise ArtefactError(f"not readable ({error})", where=path, fix=fix) from error
        if len(values) != len(shard):
            raise ArtefactError(
                "the file does not fit its shard",
                where=path,
                expected=f"{len(shard)} rows",
                found=len(values),
                fix=fix,
            )
        return values

    def describe(self, row: int) -> str:
        """Where a row lies, for messages: shard, row, and the beginning of its text."""
        shard, inside = self.locate(row)
        text = f"row {inside} of {shard.prefix.name} in {self.folder}"
        if self.tokenizer_folder is None:
            return f"{text} (tokens {self.row(row)[:10].tolist()} ...)"
        from data_utils.tokenizer import load_tokenizer

        start = load_tokenizer(self.tokenizer_folder).decode(self.row(row)[:24].tolist())
        return f"{text} ({json.dumps(start, ensure_ascii=False)} ...)"


def shard_range(text: str) -> tuple[int, int]:
    """'first:last' as numbers, last not included; '' is all."""
    if not text:
        return 0, 1 << 60
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(
            f"{text!r} is no range of shards", expected="FIRST:LAST", found=text, fix="e.g. 0:200"
        )
    return int(match[1]), int(match[2])
