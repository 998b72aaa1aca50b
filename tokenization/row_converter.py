"""Rows of one tokenizer to rows of another, many at a time.

A row is cut at the old end-of-text; each part is decoded (no clean-up of spaces, special tokens
kept) and encoded with the new tokenizer; the parts are joined by the new end-of-text. The new
beginning-of-sequence token is put in front where one is used. A result of at most one token, that
one included, gets an end-of-text after it; then the row is truncated. Rows with other special
tokens of the old tokenizer, which stay as text, are counted.
"""

from typing import NamedTuple

import numpy as np

from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from data_utils.tokenizer import vocabulary_size
from tokenization.encode import Encoder, Tokenizer

SAMPLE_ROWS = 256  # spread over the corpus: what the Encoder compares its two libraries on
REPLACEMENT = "\ufffd"


class Block(NamedTuple):
    """New rows: tokens [all] back to back, lengths [rows] int64, and counts of what was done."""

    tokens: np.ndarray
    lengths: np.ndarray
    counts: dict[str, int]


class Converter:
    """Converts rows of a corpus, made with the tokenizer `old`, to the tokenizer `new`.

    old_eos: the corpus's own end-of-text id. max_length: tokens of a new row at most. fast: see
    Encoder.
    """

    def __init__(
        self,
        corpus: Corpus,
        old: Tokenizer,
        new: Tokenizer,
        old_eos: int,
        max_length: int,
        *,
        fast: bool = True,
    ) -> None:
        self.corpus, self.new, self.max_length = corpus, new, max_length
        self.old_eos, self.old_bos = old_eos, old.bos_id
        self.backend = old.hf.backend_tokenizer
        # What the old tokenizer says of an id, [ids + 1]; the last one stands for all beyond.
        self.known = np.zeros(vocabulary_size(old.hf) + 1, bool)
        self.known[list(self.backend.get_vocab(with_added_tokens=True).values())] = True
        self.special = np.zeros_like(self.known)
        added = self.backend.get_added_tokens_decoder()
        self.special[[number for number, token in added.items() if token.special]] = True
        chosen = np.linspace(0, len(corpus) - 1, SAMPLE_ROWS).astype(np.int64)
        tokens, lengths = self._read(np.unique(chosen))
        sample = self._decode(tokens, *parts_of(tokens, lengths, old_eos)[:2])
        self.encoder = Encoder(new, sample, fast=fast)

    def convert(self, first: int, last: int) -> Block:
        """New rows for the rows first .. last - 1.

        An InputError or ArtefactError for a row that the old tokenizer cannot have made.
        """
        rows = np.arange(first, last)
        tokens, lengths = self._read(rows)
        before = len(tokens) + (self.old_bos is not None) * len(rows)
        starts, ends, parts = parts_of(tokens, lengths, self.old_eos)
        texts = self._decode(tokens, starts, ends)
        ids, sizes = self.encoder.encode(texts)
        ends_of_rows = np.cumsum(lengths)
        joined, lengths, short = join(ids, sizes, parts, self.new.eos_id, self.new.bos_id)
        kept, new_lengths = truncate(joined, lengths, self.max_length)
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
        return Block(kept.astype(self.new.dtype), new_lengths, counts)

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens of the rows back to back, length of each), without the old BOS."""
        lengths = self.corpus.lengths(rows)
        tokens = np.concatenate(self.corpus.sequences(rows)).astype(np.uint32)
        bad = ~self.known[np.minimum(tokens, len(self.known) - 1)]
        if bad.any():
            row = rows[np.searchsorted(np.cumsum(lengths), bad.argmax(), side="right")]
            self._refuse(f"token {tokens[bad.argmax()]}, which its tokenizer does not have", row)
        if self.old_bos is None:
            return tokens, lengths
        starts = np.cumsum(lengths) - lengths
        with_bos = lengths > 0
        with_bos[with_bos] = tokens[starts[with_bos]] == self.old_bos
        if not with_bos.all():
            self._refuse("no beginning-of-sequence token in front", rows[with_bos.argmin()])
        return np.delete(tokens, starts), lengths - 1

    def _decode(self, tokens: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[str]:
        """The texts of tokens[starts[i]:ends[i]]; bytes that are not characters become U+FFFD."""
        parts = [tokens[a:b].tolist() for a, b in zip(starts, ends, strict=True)]
        return self.backend.decode_batch(parts, skip_special_tokens=False)

    def _with_special(self, tokens: np.ndarray, ends: np.ndarray) -> int:
        """Rows, which end before ends, that hold special tokens other than end-of-text."""
        places = np.flatnonzero(self.special[tokens] & (tokens != self.old_eos))
        return len(np.unique(np.searchsorted(ends, places, side="right")))

    def _refuse(self, what: str, row: int) -> None:
        shard, inside = self.corpus.locate(row)
        what, where = f"row {inside} has {what}", f"{shard.prefix}.bin"
        if self.corpus.tokenizer_folder is None:
            fix = "give the tokenizer that the corpus was made with (TOKENIZER_PATH)"
            raise InputError(what, where=where, fix=fix)
        fix = f"python3 tools/verify.py {self.corpus.folder} shows all damage; make it again"
        raise ArtefactError(what, where=where, fix=fix)


def parts_of(
    tokens: np.ndarray, lengths: np.ndarray, eos: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first token of each part, its end, number of parts of each row).

    tokens: of rows of these lengths, back to back; parts are what stands between end-of-texts.
    """
    ends = np.cumsum(lengths)
    is_eos = tokens == eos
    seen = np.append(0, np.cumsum(is_eos))
    places = np.flatnonzero(is_eos)
    # The k-th start belongs to the k-th end, as both only grow from part to part.
    part_starts = np.sort(np.concatenate([ends - lengths, places + 1]))
    part_ends = np.sort(np.concatenate([ends, places]))
    return part_starts, part_ends, seen[ends] - seen[ends - lengths] + 1


def join(
    ids: np.ndarray, sizes: np.ndarray, parts: np.ndarray, eos: int, bos: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """(tokens of all rows, length of each, rows that got an end-of-text for being too short).

    ids: of all parts back to back. sizes: ids per part. parts: parts per row, at least 1.
    """
    ends = np.cumsum(sizes)
    last = np.cumsum(parts) - 1
    first = last - parts + 1
    with_bos = bos is not None
    lengths = ends[last] - (ends - sizes)[first] + parts - 1 + with_bos
    short = lengths <= 1
    # Before and after each part: whether a token is put in there. An end-of-text follows each part
    # but a row's last, and that one too where the row is short.
    added = np.zeros((len(sizes), 2), bool)
    added[:, 1] = True
    added[last, 1] = short
    added[first, 0] = with_bos
    places = np.stack([ends - sizes, ends], axis=1)[added]
    values = np.broadcast_to(np.array([bos or 0, eos], ids.dtype), added.shape)[added]
    return np.insert(ids, places, values), lengths + short, int(short.sum())


def truncate(
    tokens: np.ndarray, lengths: np.ndarray, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens without those after max_length of a row, the new lengths)."""
    kept = np.minimum(lengths, max_length)
    if np.array_equal(kept, lengths):
        return tokens, lengths
    flags = np.tile([True, False], len(lengths))
    mask = np.repeat(flags, np.stack([kept, lengths - kept], axis=1).ravel())
    return tokens[mask], kept
