"""A corpus: shards of token sequences, read through memory maps as one list of rows.

Row numbers run through the shards in order. Beside the shards are tokenizer/ and, where known, side
files with one number per row: domain_K.npy (uint8, index into the manifest's domains),
source_row_K.npy (int64, the row of the corpus that it was taken from) and generated_K.npy (int32,
how many of its last tokens a teacher has sampled).
"""

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.atomic_files import atomic_file
from data_utils.errors import ArtefactError, InputError
from data_utils.shards import SIDES, Shard, allow_open_files, find_shards
from data_utils.tokenizer import OTHER_FOLDER, load_tokenizer

DEFAULT_LENGTH = 1025
MAX_DOMAINS = 255
BLOCK = 1 << 20  # rows looked up together: all rows of a corpus would need several numbers each


class Corpus:
    """The rows of shards [first, last) of a split (by default the corpus's own, else data).

    max_length: the most tokens per row, for a corpus whose manifest does not say (0: by its name).
    fallback_tokenizer: a folder, for a corpus that does not record its end-of-text. Raises an
    InputError if there is no such corpus or shard, an ArtefactError if a shard is damaged.
    """

    def __init__(
        self,
        folder: Path,
        split: str = "",
        shards: tuple[int, int] | None = None,
        max_length: int = 0,
        fallback_tokenizer: Path | None = None,
    ) -> None:
        fix = "make it first (README: stages), or give its folder"
        self.manifest = artefact.require(folder, "corpus", fix)
        self.identity = (
            self.manifest.identity if self.manifest else artefact.identity(folder, "corpus", fix)
        )
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
        self.shards = [Shard(prefix) for prefix in prefixes[first:last]]
        allow_open_files(len(self.shards))
        self.starts = np.cumsum([0, *map(len, self.shards)])  # each shard's first row, [shards + 1]
        self.fallback_tokenizer = fallback_tokenizer
        known = max_length or content.get("max_length")
        in_name = re.search(r"-([1-9]\d*)$", folder.name)
        self.length_guessed = not known
        self.max_length = known or (int(in_name[1]) if in_name else DEFAULT_LENGTH)
        self._check_shards()

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def first_row(self) -> int:
        """The number that its first row has in the whole corpus."""
        before = range(self.first_shard)
        return sum(len(Shard(self.folder / f"{self.split}_{number}")) for number in before)

    @property
    def announced(self) -> str:
        """The most tokens per row, in words."""
        guess = " (a guess by its folder's name)" if self.length_guessed else ""
        return f"at most {self.max_length} tokens{guess}"

    def _check_shards(self) -> None:
        """All tokens are of one type, and no row is longer than announced: readers rely on it."""
        for shard in self.shards:
            if shard.dtype != self.dtype:
                raise ArtefactError(
                    f"tokens of another type than those of {self.shards[0].prefix.name}",
                    where=shard.index,
                    expected=self.dtype,
                    found=shard.dtype,
                    fix="put corpora of different token types into folders of their own",
                )
        for shard in self.shards:
            longest, row = shard.longest_row()
            if longest > self.max_length:
                raise self._too_long(shard, row, longest)

    def _too_long(self, shard: Shard, row: int, tokens: int) -> InputError | ArtefactError:
        what = f"row {row} of the shard is longer than the corpus announces"
        said = {"where": shard.index, "expected": self.announced, "found": tokens}
        if self.length_guessed:
            adopt = f"python3 tools/verify.py --adopt {self.folder} --max-length {tokens}"
            if self.manifest is not None:
                adopt = f"let the folder's name end in -{tokens}"
            fix = f"tokenize with MAX_LENGTH={self.max_length}, or, if that is meant, {adopt}"
            return InputError(what, **said, fix=fix)
        return ArtefactError(what, **said, fix="get or make the corpus again (MAX_LENGTH)")

    @property
    def dtype(self) -> np.dtype:
        """Type of a stored token."""
        return self.shards[0].dtype

    @property
    def tokenizer_folder(self) -> Path | None:
        """The corpus's own copy of its tokenizer, if it has one."""
        folder = self.folder / "tokenizer"
        return folder if folder.is_dir() else None

    @cached_property
    def eos_id(self) -> int:
        """Id of its end-of-text token, which is its padding too.

        Raises an InputError if neither it nor its tokenizer nor the fallback says.
        """
        known = self.carried()
        if "eos_id" in known:
            return known["eos_id"]
        folder = self.tokenizer_folder or self.fallback_tokenizer
        if folder is None:
            raise InputError(
                "the corpus does not record its end-of-text", where=self.folder, fix=OTHER_FOLDER
            )
        return load_tokenizer(folder).eos_token_id

    @property
    def domains(self) -> list[str]:
        """Names that domain numbers stand for; empty where the domains are unknown."""
        return self.manifest.counts.get("domains", []) if self.manifest else []

    def carried(self) -> dict:
        """What is known of its rows and holds for any corpus made of them, for the manifest."""
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

    def row(self, row: int) -> np.ndarray:
        """The tokens of one row, [length]."""
        return self.sequences(np.array([row]))[0]

    def sequences(self, rows: np.ndarray) -> list[np.ndarray]:
        """The tokens of each of the rows, [length] each, as slices of the memory maps.

        Raises an IndexError for a row beyond the corpus, as all methods that take rows do.
        """
        found = [np.empty(0, self.dtype)] * len(rows)
        for number, where, inside in self._by_shard(rows):
            shard = self.shards[number]
            starts, lengths = shard.spans(inside)
            stretches = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
            for at, (start, end) in zip(where.tolist(), stretches, strict=True):
                found[at] = shard.tokens[start:end]
        return found

    def batch(self, rows: np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens [len(rows), longest] int64, pad_id on the right; lengths [len(rows)] int64)."""
        sequences = self.sequences(rows)
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        tokens = np.full((len(rows), lengths.max(initial=0)), pad_id, np.int64)
        for line, sequence in zip(tokens, sequences, strict=True):
            line[: len(sequence)] = sequence
        return tokens, lengths

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of the rows, [len(rows)] int64."""
        lengths = np.empty(len(rows), np.int64)
        for number, where, inside in self._by_shard(rows):
            lengths[where] = self.shards[number].spans(inside)[1]
        return lengths

    def locate(self, row: int) -> tuple[Shard, int]:
        """(shard, row inside it) of a row."""
        number, _, inside = next(self._by_shard(np.array([row])))
        return self.shards[number], int(inside[0])

    def side(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """Values of the side files name_K.npy at the rows, [len(rows)]; None where there are none.

        Raises an ArtefactError if only some of the shards have one, or one does not fit its shard.
        """
        if not any(shard.side_file(name).exists() for shard in self.shards):
            return None
        values = np.empty(len(rows), SIDES[name])
        for number, where, inside in self._by_shard(rows):
            values[where] = self.shards[number].side(name)[inside]
        return values

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(a shard's place in shards, which of the rows are in it, their numbers inside it)."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows outside 0 .. {len(self) - 1}")
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            numbers = self.starts[1:].searchsorted(block, side="right")
            for number in np.unique(numbers).tolist():
                where = np.flatnonzero(numbers == number)
                yield number, start + where, block[where] - self.starts[number]

    def describe(self, row: int) -> str:
        """A row's place, for messages: shard, row, and the beginning of its text."""
        shard, inside = self.locate(row)
        text = f"row {inside} of {shard.prefix.name} in {self.folder}"
        if self.tokenizer_folder is None:
            return f"{text} (tokens {self.row(row)[:10].tolist()} ...)"
        start = load_tokenizer(self.tokenizer_folder).decode(self.row(row)[:24].tolist())
        return f"{text} ({json.dumps(start, ensure_ascii=False)} ...)"


def write_side(folder: Path, name: str, number: int, values: np.ndarray) -> str:
    """Write the values of a shard's rows as name_K.npy; returns the file's name."""
    with atomic_file(folder / f"{name}_{number}.npy") as file:
        np.save(file, values)
    return f"{name}_{number}.npy"


def recorded_corpus(
    folder: Path, entry: dict, what: str, fix: str, shards: tuple[int, int] | None = None
) -> Corpus:
    """The corpus at entry's path from folder; `what`: "that was scored" or the like.

    Raises an InputError if another one, by its fingerprint, is in its place.
    """
    corpus = Corpus(artefact.input_place(folder, entry), shards=shards)
    if corpus.identity["fingerprint"] != entry["fingerprint"]:
        raise InputError(f"the corpus is not the one {what}", where=corpus.folder, fix=fix)
    return corpus


def shard_range(text: str) -> tuple[int, int]:
    """'first:last' as numbers, last not included; '' is all. Raises an InputError."""
    if not text:
        return 0, 1 << 60
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(
            f"{text!r} is not a range of shards",
            expected="FIRST:LAST",
            found=text,
            fix="e.g. 0:200",
        )
    return int(match[1]), int(match[2])
