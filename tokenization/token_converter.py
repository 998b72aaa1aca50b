"""Rows of one tokenizer to rows of another: many rows at a time, in processes of their own.

A row is cut at the old end-of-text; each part is decoded (no clean-up of spaces, special tokens
kept) and encoded with the new tokenizer; the parts are joined by the new end-of-text. The
beginning-of-sequence token is put in front where there is one. A result of at most one token, that
one included, gets an end-of-text behind it; then the row is truncated. Rows with other special
tokens of the old tokenizer, which stay as text, are counted.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers.decoders import ByteLevel

from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, EnvironmentFault, InputError
from data_utils.prefetch import ahead
from data_utils.program import die_with_parent
from data_utils.shards import token_type
from data_utils.tokenizer import load_tokenizer, vocabulary_size
from tokenization.encode import Encoder

SAMPLE_ROWS = 256  # spread over the corpus: what the Encoder compares its two programs on
AHEAD = 2  # blocks a worker that are converted ahead
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Rules:
    """What decides the new rows; no BOS is None."""

    corpus: Path
    old_tokenizer: Path
    new_tokenizer: Path
    old_eos: int
    old_bos: int | None
    new_eos: int
    new_bos: int | None
    max_length: int
    encoder: str = "auto"


class Block(NamedTuple):
    """New rows: tokens [all] back to back, lengths [rows] int64, counts, and what encoded them."""

    tokens: np.ndarray
    lengths: np.ndarray
    counts: dict[str, int]
    encoder: str


class Decoder:
    """Decodes stretches of ids as the tokenizer does, byte-level ones by one gather for all."""

    def __init__(self, tokenizer) -> None:
        self.backend = tokenizer.backend_tokenizer
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        pieces = [b""] * (max(vocabulary.values()) + 1)
        self.known = np.zeros(len(pieces) + 1, bool)  # the last one stands for all ids beyond
        for token, number in vocabulary.items():
            pieces[number] = token_bytes(token)
            self.known[number] = True
        self.bytes = np.frombuffer(b"".join(pieces), np.uint8)
        self.sizes = np.array([len(piece) for piece in pieces], np.int32)
        self.starts = np.cumsum(self.sizes, dtype=np.int32) - self.sizes
        self.special = np.zeros_like(self.known)
        added = self.backend.get_added_tokens_decoder()
        self.special[[number for number, token in added.items() if token.special]] = True
        self.fast = isinstance(self.backend.decoder, ByteLevel) and self._holds(pieces)

    def _holds(self, pieces: list[bytes]) -> bool:
        """Whether each token by itself decodes to its bytes."""
        ids = np.flatnonzero(self.known).tolist()
        texts = self.backend.decode_batch([[i] for i in ids], skip_special_tokens=False)
        return texts == [pieces[i].decode("utf-8", "replace") for i in ids]

    def decode(self, tokens: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[str]:
        """The texts of tokens[starts[i]:ends[i]]; bytes that are no character become U+FFFD."""
        if not self.fast:
            parts = [tokens[a:b].tolist() for a, b in zip(starts, ends, strict=True)]
            return self.backend.decode_batch(parts, skip_special_tokens=False)
        sizes = self.sizes[tokens]
        places = np.append(0, np.cumsum(sizes, dtype=np.int64))
        index = np.repeat(self.starts[tokens] - places[:-1], sizes)
        index += np.arange(len(index))
        data = self.bytes[index].tobytes()
        spans = zip(places[starts].tolist(), places[ends].tolist(), strict=True)
        return [data[a:b].decode("utf-8", "replace") for a, b in spans]


def token_bytes(token: str) -> bytes:
    """The bytes that a byte-level token of a vocabulary stands for (GPT-2's byte alphabet).

    A token with a character outside that alphabet, an added one, stands for its own UTF-8.
    """
    try:
        return bytes(BYTES[character] for character in token)
    except KeyError:
        return token.encode()


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte: itself where it is printable, else from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {chr(256 + number): byte for number, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | shifted


BYTES = byte_alphabet()


class Converter:
    """Converts ranges of a corpus's rows by the rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.corpus = rules, Corpus(rules.corpus)
        self.decoder = Decoder(load_tokenizer(rules.old_tokenizer))
        new = load_tokenizer(rules.new_tokenizer)
        self.dtype = token_type(vocabulary_size(new))
        chosen = np.linspace(0, len(self.corpus) - 1, SAMPLE_ROWS).astype(np.int64)
        tokens, lengths = self._read(np.unique(chosen))
        sample = self.decoder.decode(tokens, *self._parts(tokens, lengths)[:2])
        self.encoder = Encoder(rules.new_tokenizer, new, 1, sample, fast=rules.encoder == "auto")

    def convert(self, first: int, last: int) -> Block:
        """New rows for the rows first .. last - 1."""
        rows = np.arange(first, last)
        tokens, lengths = self._read(rows)
        before = len(tokens) + (self.rules.old_bos is not None) * len(rows)
        starts, ends, parts = self._parts(tokens, lengths)
        texts = self.decoder.decode(tokens, starts, ends)
        ids, sizes = self.encoder.encode(texts)
        ends_of_rows = np.cumsum(lengths)
        joined, lengths, short = join(ids, sizes, parts, self.rules)
        kept, new_lengths = truncate(joined, lengths, self.rules.max_length)
        row_of = np.repeat(rows, parts)
        odd = {int(row) for row, text in zip(row_of, texts, strict=True) if REPLACEMENT in text}
        counts = {
            "tokens_before": before,
            "tokens": len(kept),
            "truncated": int((lengths > new_lengths).sum()),
            "tokens_cut": len(joined) - len(kept),
            "end_of_text_added": short,
            "with_replacement_character": len(odd),
            "with_special_tokens": self._with_special(tokens, ends_of_rows),
        }
        shown = f"{self.encoder.name} {self.encoder.reason}".rstrip()
        return Block(kept.astype(self.dtype), new_lengths, counts, shown)

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens of the rows back to back, length of each), without the old BOS."""
        lengths = self.corpus.lengths(rows)
        tokens = np.concatenate(self.corpus.sequences(rows)).astype(np.uint32)
        known = self.decoder.known
        bad = ~known[np.minimum(tokens, len(known) - 1)]
        if bad.any():
            row = rows[np.searchsorted(np.cumsum(lengths), bad.argmax(), side="right")]
            self._refuse(f"token {tokens[bad.argmax()]}, which its tokenizer does not have", row)
        if self.rules.old_bos is None:
            return tokens, lengths
        starts = np.cumsum(lengths) - lengths
        with_bos = lengths > 0
        with_bos[with_bos] = tokens[starts[with_bos]] == self.rules.old_bos
        if not with_bos.all():
            self._refuse("no beginning-of-sequence token in front", rows[with_bos.argmin()])
        return np.delete(tokens, starts), lengths - 1

    def _with_special(self, tokens: np.ndarray, ends: np.ndarray) -> int:
        """Rows, which end before ends, that hold special tokens other than end-of-text."""
        places = np.flatnonzero(self.decoder.special[tokens] & (tokens != self.rules.old_eos))
        return len(np.unique(np.searchsorted(ends, places, side="right")))

    def _refuse(self, what: str, row: int) -> None:
        shard, inside = self.corpus.locate(row)
        place = f"{shard.prefix}.bin"
        if self.corpus.tokenizer_folder is None:
            raise InputError(
                f"row {inside} has {what}",
                where=place,
                fix="give the tokenizer that the corpus was made with (TOKENIZER_PATH)",
            )
        fix = f"python3 tools/verify.py {self.corpus.folder} shows all damage; make it again"
        raise ArtefactError(f"row {inside} has {what}", where=place, fix=fix)

    def _parts(
        self, tokens: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(first token of each part, its end, number of parts of each row)."""
        ends = np.cumsum(lengths)
        is_eos = tokens == self.rules.old_eos
        seen = np.append(0, np.cumsum(is_eos))
        places = np.flatnonzero(is_eos)
        # The k-th start belongs to the k-th end, as both only grow from part to part.
        part_starts = np.sort(np.concatenate([ends - lengths, places + 1]))
        part_ends = np.sort(np.concatenate([ends, places]))
        return part_starts, part_ends, seen[ends] - seen[ends - lengths] + 1


def join(
    ids: np.ndarray, sizes: np.ndarray, parts: np.ndarray, rules: Rules
) -> tuple[np.ndarray, np.ndarray, int]:
    """(tokens of all rows, length of each, rows that got an end-of-text for being too short).

    ids: of all parts back to back. sizes: ids of each part. parts: parts of each row, at least 1.
    """
    ends = np.cumsum(sizes)
    last = np.cumsum(parts) - 1
    first = last - parts + 1
    with_bos = rules.new_bos is not None
    lengths = ends[last] - (ends - sizes)[first] + parts - 1 + with_bos
    short = lengths <= 1
    # Before and behind each part: whether a token is put in there.
    added = np.zeros((len(sizes), 2), bool)
    added[:, 1] = True
    added[last, 1] = short
    added[first, 0] = with_bos
    places = np.stack([ends - sizes, ends], axis=1)[added]
    eos, bos = rules.new_eos, rules.new_bos or 0
    values = np.broadcast_to(np.array([bos, eos], ids.dtype), added.shape)[added]
    return np.insert(ids, places, values), lengths + short, int(short.sum())


def truncate(
    tokens: np.ndarray, lengths: np.ndarray, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens without those behind max_length of a row, the new lengths)."""
    kept = np.minimum(lengths, max_length)
    if np.array_equal(kept, lengths):
        return tokens, lengths
    flags = np.tile([True, False], len(lengths))
    mask = np.repeat(flags, np.stack([kept, lengths - kept], axis=1).ravel())
    return tokens[mask], kept


def converted(rules: Rules, ranges: Sequence[tuple[int, int]], workers: int) -> Iterator[Block]:
    """The blocks of all ranges of rows, in order; never more than AHEAD a worker wait."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # here and in the workers: a core a process
    if min(workers, len(ranges)) <= 1:
        converter = Converter(rules)
        yield from (converter.convert(*rows) for rows in ranges)
        return
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, (rules, os.getpid())
    )
    try:
        yield from ahead(
            lambda rows: pool.submit(_convert_in_worker, *rows), ranges, AHEAD * workers
        )
    except BrokenProcessPool as error:
        raise EnvironmentFault(
            "a worker process was killed, most often because memory ran out",
            fix="run the same command again with fewer WORKERS: finished shards stay",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_rules: Rules | None = None
_converter: Converter | None = None


def _start_worker(rules: Rules, parent: int) -> None:
    global _rules
    _rules = rules
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    die_with_parent(parent)


def _convert_in_worker(first: int, last: int) -> Block:
    # Not at the worker's start: there an error's message would not reach the parent.
    global _converter
    if _converter is None:
        _converter = Converter(_rules)
    return _converter.convert(first, last)
