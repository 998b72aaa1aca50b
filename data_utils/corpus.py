"""A corpus: shards of token sequences, read through memory maps as one list of rows.

Row numbers run through the shards in order. Beside the shards: tokenizer/, and, where known,
domain_K.npy (uint8 a row: index into the manifest's domains) and source_row_K.npy (int64 a row: the
row of the corpus that it was taken from).
"""

import json
import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from data_utils import artefact
from data_utils.atomic_files import atomic_file
from data_utils.errors import ArtefactError, InputError
from data_utils.mapped import map_files, write_spans
from data_utils.row_check import longest_row
from data_utils.shards import Shard, Shards, find_shards, windows
from data_utils.tokenizer import load_tokenizer

DEFAULT_LENGTH = 1025
MAX_DOMAINS = 255


class Corpus:
    """The rows of shards [first, last) of a split (by default the corpus's own, else data).

    max_length: tokens of a row at most, for a corpus whose manifest does not say (0: by its name).
    """

    def __init__(
        self,
        folder: Path,
        split: str = "",
        shards: tuple[int, int] | None = None,
        max_length: int = 0,
    ) -> None:
        fix = "make it first (README: stages), or give its folder"
        self.identity = artefact.identity(folder, "corpus", fix)
        self.manifest = artefact.read_manifest(folder)
        content = self.manifest.content if self.manifest else {}
        split = split or content.get("split", "data")
        self.folder, self.split = folder, split
        prefixes = find_shards(folder, split)
        if not prefixes:
            raise InputError(
                f"the corpus has no shards {split}_K.bin and {split}_K.idx", where=folder, fix=fix
            )
        self.all_shards = len(prefixes)
        first, last = shards or (0, self.all_shards)
        self.first_shard, self.last_shard = first, min(last, self.all_shards)
        if first >= self.last_shard:
            raise InputError(
                "the corpus has no such shards",
                where=folder,
                expected=f"a range inside 0:{self.all_shards}",
                found=f"{first}:{last}",
                fix="choose shards that it has",
            )
        self._mapped = Shards(prefixes[first:last])
        self._columns: dict[Path, np.ndarray] = {}
        self.max_length, self.length_guess = self._max_length(max_length)
        self._check_lengths()

    def __len__(self) -> int:
        return int(self._mapped.starts[-1])

    def _max_length(self, given: int) -> tuple[int, str]:
        """(tokens of a row at most, what that is guessed from or "")."""
        known = given or (self.manifest and self.manifest.content.get("max_length"))
        if known:
            return known, ""
        match = re.search(r"-([1-9]\d*)$", self.folder.name)
        if match:
            return int(match[1]), "a guess from its folder's name"
        return DEFAULT_LENGTH, "a guess: its folder's name says no number"

    @property
    def announced(self) -> str:
        """What its rows have at most, in words."""
        guess = f" ({self.length_guess})" if self.length_guess else ""
        return f"at most {self.max_length} tokens{guess}"

    def _check_lengths(self) -> None:
        """No row is longer than announced: all that reads a corpus relies on it."""
        for header in self._mapped.headers:
            longest, row = longest_row(header)
            if longest > self.max_length:
                raise self._too_long(header.prefix, row, longest)

    def _too_long(self, prefix: Path, row: int, tokens: int) -> InputError | ArtefactError:
        what = f"row {row} of the shard is longer than the corpus announces"
        said = {"where": f"{prefix}.idx", "expected": self.announced, "found": tokens}
        if self.length_guess:
            adopt = f"python3 tools/verify.py --adopt {self.folder} --max-length {tokens}"
            if self.manifest is not None:
                adopt = f"let the folder's name end in -{tokens}"
            fix = f"tokenise with MAX_LENGTH={self.max_length}, or, if that is meant, {adopt}"
            return InputError(what, **said, fix=fix)
        return ArtefactError(what, **said, fix="get or make the corpus again (MAX_LENGTH)")

    @property
    def dtype(self) -> np.dtype:
        """Type of a stored token."""
        return self._mapped.dtype

    @property
    def tokenizer_folder(self) -> Path | None:
        """The corpus's own copy of its tokenizer, if it has one."""
        folder = self.folder / "tokenizer"
        return folder if folder.is_dir() else None

    def end_of_text(self, fallback: Path) -> int:
        """Id of its end-of-text token, which is its padding too; fallback: a tokenizer's folder."""
        known = self.carried()
        if "eos_id" in known:
            return known["eos_id"]
        return load_tokenizer(self.tokenizer_folder or fallback).eos_token_id

    @property
    def domains(self) -> list[str]:
        """Names that domain numbers stand for; empty where the domains are unknown."""
        return self.manifest.counts.get("domains", []) if self.manifest else []

    def carried(self) -> dict:
        """What is known of its rows and so holds for any corpus of them, for the manifest."""
        content = self.manifest.content if self.manifest else {}
        names = ("tokenizer", "eos_id", "add_bos")
        known = {name: content[name] for name in names if name in content}
        return {"max_length": self.max_length, "split": self.split, **known}

    def origins(self) -> dict[str, list[int] | None]:
        """What a model trained on it records (Manifest.trained_on): itself and its source.

        Fingerprint of each corpus to its shards [FIRST, LAST], None where they are not known.
        """
        origins = {self.identity["fingerprint"]: [self.first_shard, self.last_shard]}
        source = self.manifest.input_fingerprint("corpus") if self.manifest else None
        return origins | ({source: self.manifest.content.get("shards")} if source else {})

    @cached_property
    def shards(self) -> list[Shard]:
        """The shards one by one."""
        return [self._mapped[number] for number in range(len(self._mapped.headers))]

    def row(self, row: int) -> np.ndarray:
        """The tokens of one row, [length]."""
        return next(self.runs(np.array([row])))

    def locate(self, row: int) -> tuple[Shard, int]:
        """(shard, row inside it) of a row."""
        number = int(self._mapped.locate(np.array([row]))[0])
        return self.shards[number], int(row - self._mapped.starts[number])

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of the rows, [len(rows)] int64."""
        return self._mapped.lengths(np.asarray(rows, np.int64))

    def batch(self, rows: np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens [len(rows), longest] int64 padded on the right with pad_id, lengths [len(rows)]).

        No Python loop over rows or shards: all rows are one gather.
        """
        starts, lengths = self._mapped.spans(np.asarray(rows, np.int64))
        longest = int(lengths.max(initial=0))
        tokens = windows(self._mapped.tokens, longest)[starts].astype(np.int64)
        np.copyto(tokens, pad_id, where=padding(longest)[lengths])
        return tokens, lengths

    def runs(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The tokens of ascending rows back to back, as slices of neighbouring rows."""
        starts, lengths = self._mapped.spans(np.asarray(rows, np.int64))
        for first, last in zip(*joined(starts, starts + lengths), strict=True):
            yield self._mapped.tokens[first:last]

    def write(self, rows: np.ndarray, file: IO[bytes]) -> np.ndarray:
        """Write the tokens of ascending rows back to back; returns their lengths, [len(rows)]."""
        starts, lengths = self._mapped.ascending_spans(np.asarray(rows, np.int64))
        write_spans(file, self._mapped.tokens, *joined(starts, starts + lengths))
        return lengths

    def side(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """Values of the side files name_K.npy at the rows, None where there are none.

        Only files of shards that hold some of the rows are opened, each once.
        """
        if name not in self._sides:
            return None
        rows = np.asarray(rows, np.int64)
        numbers = self._mapped.locate(rows)
        order = numbers.argsort(kind="stable")
        values = None
        for where in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            number = int(numbers[where[0]]) if len(where) else 0
            column = self._column(name, number)
            values = np.empty(len(rows), column.dtype) if values is None else values
            values[where] = column[rows[where] - self._mapped.starts[number]]
        return values

    @cached_property
    def _sides(self) -> set[str]:
        """Names of the side files that some of the shards have."""
        found = (path.stem.rpartition("_") for path in self.folder.glob("*.npy"))
        shards = range(self.first_shard, self.last_shard)
        return {name for name, _, number in found if number.isdigit() and int(number) in shards}

    def _column(self, name: str, number: int) -> np.ndarray:
        """One side file, mapped; it must fit its shard."""
        path = self.folder / f"{name}_{self.first_shard + number}.npy"
        if path not in self._columns:
            values = self._load(path, self._mapped.headers[number].sequences)
            data, _ = map_files([path], [path.stat().st_size])
            self._columns[path] = np.ndarray(len(values), values.dtype, data, values.offset)
        return self._columns[path]

    def _load(self, path: Path, rows: int) -> np.memmap:
        fix = "make the corpus again"
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise ArtefactError("a file of the corpus is missing", where=path, fix=fix) from None
        except (ValueError, EOFError) as error:
            raise ArtefactError(f"not readable ({error})", where=path, fix=fix) from error
        if values.shape != (rows,):
            raise ArtefactError(
                "the file does not fit its shard",
                where=path,
                expected=f"{rows} rows",
                found=" x ".join(map(str, values.shape)),
                fix=fix,
            )
        return values

    def describe(self, row: int) -> str:
        """Where a row lies, for messages: shard, row, and the beginning of its text."""
        shard, inside = self.locate(row)
        text = f"row {inside} of {shard.prefix.name} in {self.folder}"
        if self.tokenizer_folder is None:
            return f"{text} (tokens {self.row(row)[:10].tolist()} ...)"
        start = load_tokenizer(self.tokenizer_folder).decode(self.row(row)[:24].tolist())
        return f"{text} ({json.dumps(start, ensure_ascii=False)} ...)"


def joined(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) of ascending stretches, those that touch joined into one."""
    breaks = np.flatnonzero(starts[1:] != ends[:-1])
    return starts[np.append(0, breaks + 1)], ends[np.append(breaks, len(ends) - 1)]


@lru_cache(maxsize=16)
def padding(longest: int) -> np.ndarray:
    """Which columns are padding in a row of each length, [longest + 1, longest] bool, as a view."""
    return windows(np.repeat([False, True], longest), longest)[::-1]


def write_side(folder: Path, name: str, number: int, values: np.ndarray) -> str:
    """Write the values of a shard's rows as name_K.npy; returns the file's name."""
    with atomic_file(folder / f"{name}_{number}.npy") as file:
        np.save(file, values)
    return f"{name}_{number}.npy"


def recorded_corpus(
    folder: Path, entry: dict, what: str, fix: str, shards: tuple[int, int] | None = None
) -> Corpus:
    """The corpus that lies at entry's path from folder; `what`: "that was scored" or the like.

    Another one in its place, by its fingerprint, is an error.
    """
    corpus = Corpus(artefact.input_place(folder, entry), shards=shards)
    if corpus.identity["fingerprint"] != entry["fingerprint"]:
        raise InputError(f"the corpus is not the one {what}", where=corpus.folder, fix=fix)
    return corpus


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
