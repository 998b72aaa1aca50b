"""Cut each source's stream of tokens into sequences that end where a sentence ends.

The rules are those of the original MiniPLM corpus (its tokenize_pile.py): a buffer a source; while
it holds a full sequence, cut after the last token at which a sequence may end.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from data_utils.tokenizer import SentenceEnds

DOCUMENT_LIMIT = 2000  # sequences written for one document


@dataclass
class Chunker:
    """Buffers and counts of all sources; feed documents, get sequences.

    max_length counts the tokens of a sequence, beginning-of-sequence token included.
    """

    tables: SentenceEnds
    eos_id: int
    max_length: int
    bos_id: int | None = None
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    documents_cut: Counter[str] = field(default_factory=Counter)
    tokens_dropped: Counter[str] = field(default_factory=Counter)  # by the rules, buffers apart

    def add(self, source: str, ids: np.ndarray) -> list[np.ndarray]:
        """Append a document (ids [n] without end-of-text); returns the sequences it completes."""
        former = self.buffers.get(source, np.empty(0, np.int64))
        buffer = np.concatenate([former, np.asarray(ids, np.int64), [self.eos_id]])
        bos = [] if self.bos_id is None else [self.bos_id]
        limit = self.max_length - len(bos)
        chunks, start = [], 0
        if len(buffer) >= limit:
            ends = self._last_end(buffer)
            while len(buffer) - start >= limit:
                end = ends[start + limit - 1] + 1
                if end <= start:
                    end = start + limit
                if end - start + len(bos) <= 1:
                    self.tokens_dropped[source] += 1
                elif len(chunks) == DOCUMENT_LIMIT:
                    self.documents_cut[source] += 1
                    self.tokens_dropped[source] += len(buffer) - start
                    start = len(buffer)
                    break
                else:
                    chunks.append(np.concatenate([bos, buffer[start:end]]).astype(np.int64))
                start = end
        self.buffers[source] = buffer[start:].copy()
        return chunks

    def _last_end(self, buffer: np.ndarray) -> np.ndarray:
        """For every position the last one up to it at which a sequence may end, -1 for none."""
        space = self.tables.space[buffer]
        next_space = np.append(space[1:], True)  # with no next token a sentence's end suffices
        may_end = self.tables.ends[buffer] & (self.tables.newline[buffer] | space | next_space)
        may_end |= buffer == self.eos_id
        return np.maximum.accumulate(np.where(may_end, np.arange(len(buffer)), -1))
