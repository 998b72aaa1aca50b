"""Cut each source's stream of tokens into sequences that end where a sentence ends.

The rules are those of the corpus of MiniPLM (arXiv 2410.17215; the tokenize_pile.py of its
release): one buffer per source; while it holds a full sequence, cut after the last token at which
a sequence may end. Each document ends with end-of-text, at which a sequence may end, so that a cut
never depends on a later document, and many documents can be cut at once.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data_utils.tokenizer import SentenceEnds

DOCUMENT_LIMIT = 2000  # sequences written for one document
ALONE, WITH_SPACE, SPACE = 1, 2, 4  # may end a sequence, may before a space, has a space


class Sequences(NamedTuple):
    """stream[starts[i]:ends[i]] is sequence i (without BOS), completed by document documents[i]."""

    stream: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    documents: np.ndarray


@dataclass
class Chunker:
    """Buffers and counts of all sources; feed documents, get sequences.

    max_length counts the tokens of a sequence, beginning-of-sequence token included.
    """

    tables: SentenceEnds
    eos_id: int
    max_length: int
    dtype: np.dtype
    with_bos: bool = False
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    documents_cut: Counter[str] = field(default_factory=Counter)
    tokens_dropped: Counter[str] = field(default_factory=Counter)  # by the rules, buffers apart

    def __post_init__(self) -> None:
        ends, space = self.tables.ends, self.tables.space
        alone = ends & (self.tables.newline | space)
        self.flags = (ALONE * alone + WITH_SPACE * ends + SPACE * space).astype(np.uint8)
        self.flags[self.eos_id] |= ALONE

    def add(self, source: str, documents: list[np.ndarray]) -> Sequences:
        """Append documents (ids [tokens] without the end-of-text); returns what they complete."""
        eos = np.array([self.eos_id], self.dtype)
        parts = [self.buffers.get(source, eos[:0])]
        for document in documents:
            parts += [document, eos]
        stream = np.concatenate(parts, dtype=self.dtype, casting="unsafe")
        sizes = [len(document) + 1 for document in documents]
        document_ends = (len(parts[0]) + np.cumsum(sizes, dtype=np.int64)).tolist()
        places = np.flatnonzero(self.may_end(stream)).tolist()
        starts, ends, numbers, rest = self._cut(source, len(stream), document_ends, places)
        self.buffers[source] = stream[rest:].copy()
        return Sequences(stream, *(np.array(a, np.int64) for a in (starts, ends, numbers)))

    def may_end(self, stream: np.ndarray) -> np.ndarray:
        """[len(stream)] bool: whether a sequence may end with this token."""
        flags = self.flags[stream]
        followed = np.append(flags[1:] >= SPACE, True)  # no next token: a sentence's end suffices
        return (flags & ALONE).view(bool) | ((flags & WITH_SPACE > 0) & followed)

    def _cut(
        self, source: str, size: int, document_ends: list[int], places: list[int]
    ) -> tuple[list[int], list[int], list[int], int]:
        """Starts, ends and document numbers of the sequences, and where the new buffer starts."""
        limit = self.max_length - self.with_bos
        starts, ends, numbers = [], [], []
        start = document = written = place = 0
        while start + limit <= size:
            while document_ends[document] < start + limit:  # which document fills the sequence
                document, written = document + 1, 0
            place = bisect_left(places, start + limit, place)
            end = places[place - 1] + 1 if place else 0
            if end <= start:
                end = start + limit
            if end - start + self.with_bos <= 1:
                self.tokens_dropped[source] += end - start
            elif written == DOCUMENT_LIMIT:
                self.documents_cut[source] += 1
                end = document_ends[document]
                self.tokens_dropped[source] += end - start
            else:
                starts.append(start)
                ends.append(end)
                numbers.append(document)
                written += 1
            start = end
        return starts, ends, numbers, start
