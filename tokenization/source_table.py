"""Counts of what was read and written, one row per source."""

import unicodedata
from typing import Any

import numpy as np

from data_utils.corpus import MAX_DOMAINS
from data_utils.errors import InputError
from tokenization.chunker import Chunker, Sequences
from tokenization.text import BadDocument

MAX_LISTED = 1000  # bad lines that are named one by one
COLUMNS = {
    "documents": "documents",
    "empty": "documents without text",
    "literal_eos": "documents with an end-of-text token inside",
    "not_nfc": "documents that are not in Unicode's normal form C",
    "bytes": "bytes of UTF-8",
    "tokens": "tokens, an end-of-text after each document included",
    "sequences": "sequences written",
    "sequence_tokens": "tokens of these",
    "tokens_left": "tokens left over in the buffer at the end",
    "tokens_dropped": "tokens dropped by the rules",
    "cut": "documents cut at 2,000 sequences",
}


class SourceTable:
    """Counts per source, in order of appearance, and the lines that were skipped."""

    def __init__(self, eos_id: int) -> None:
        self.eos_id = eos_id
        self.rows: dict[str, dict[str, int]] = {}
        self.bad: list[list] = []  # [file, line, reason]
        self.bad_count = 0

    def add(self, source: str, **amounts: int) -> None:
        """Add to a source's row."""
        row = self.rows.setdefault(source, dict.fromkeys(COLUMNS, 0))
        for name, amount in amounts.items():
            row[name] += int(amount)

    def number(self, source: str) -> int:
        """The domain number of a source, in order of appearance; an InputError for a 256th."""
        number = list(self.rows).index(source)
        if number >= MAX_DOMAINS:
            raise InputError(
                "too many sources",
                expected=f"at most {MAX_DOMAINS}",
                found=f"another one, {source!r}",
                fix='merge some under one "pile_set_name"',
            )
        return number

    def add_documents(
        self, texts: list[str], members: dict[str, list[int]], tokens: np.ndarray, ends: np.ndarray
    ) -> None:
        """Count a batch of texts.

        members: the numbers of each source's texts. tokens: of all texts back to back [all];
        ends: where each text ends in them [texts].
        """
        eos_places = np.flatnonzero(tokens == self.eos_id)
        with_eos = set(np.searchsorted(ends, eos_places, side="right").tolist())
        lengths = np.diff(ends, prepend=0)
        for source, numbers in members.items():
            mine = [texts[n] for n in numbers]
            self.add(
                source,
                documents=len(mine),
                empty=mine.count(""),
                literal_eos=sum(n in with_eos for n in numbers),
                not_nfc=sum(not (t.isascii() or unicodedata.is_normalized("NFC", t)) for t in mine),
                bytes=sum(len(t) if t.isascii() else len(t.encode()) for t in mine),
                tokens=lengths[numbers].sum() + len(mine),
            )

    def add_sequences(self, source: str, found: Sequences, with_bos: bool) -> None:
        """Count the sequences that a source's documents completed."""
        count = len(found.starts)
        tokens = (found.ends - found.starts).sum() + count * with_bos
        self.add(source, sequences=count, sequence_tokens=tokens)

    def add_bad(self, bad: list[BadDocument]) -> None:
        """Count lines that were skipped, and list the first MAX_LISTED."""
        self.bad_count += len(bad)
        self.bad += [document.line for document in bad[: MAX_LISTED - len(self.bad)]]

    def close(self, chunker: Chunker) -> None:
        """Count what the buffers hold at the end."""
        for source, buffer in chunker.buffers.items():
            self.add(
                source,
                tokens_left=len(buffer),
                tokens_dropped=chunker.tokens_dropped[source],
                cut=chunker.documents_cut[source],
            )

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {"rows": self.rows, "bad": self.bad, "bad_count": self.bad_count}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.rows, self.bad, self.bad_count = state["rows"], state["bad"], state["bad_count"]
