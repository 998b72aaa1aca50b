"""Rows of a corpus with their ends replaced by sampled tokens.

The blocks of an elastic job (data_utils/elastic.py) with `count` (int32, how many of a row's last
tokens are sampled) of each row and `tokens` (int32), row after row.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from data_utils.corpus import Corpus
from data_utils.elastic import FILL, Arrays, BlockFiles
from data_utils.errors import ArtefactError


class Continued:
    """What miniplm/shard_copy.py reads of a corpus, with the rows continued.

    Rows are numbered as in the whole corpus, of which `corpus` may be some shards.
    """

    def __init__(self, corpus: Corpus, files: BlockFiles) -> None:
        self.split, self.dtype = corpus.split, corpus.dtype
        self._corpus, self._files = corpus, files
        self._block = lru_cache(maxsize=1)(self._read_block)  # rows are asked for in order

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of the rows, [len(rows)] int64: those of the corpus."""
        return self._corpus.lengths(rows - self._files.first_row)

    def sequences(self, rows: np.ndarray) -> list[np.ndarray]:
        """The tokens of each of the rows, [length] each."""
        local = rows - self._files.first_row
        pairs = zip(local.tolist(), self._corpus.sequences(local), strict=True)
        return [self._continued(row, tokens) for row, tokens in pairs]

    def side(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """Values of a side file at the rows, [len(rows)]; `generated`: sampled tokens of each."""
        local = rows - self._files.first_row
        if name != "generated":
            return self._corpus.side(name, local)
        blocks, at = np.divmod(local, self._files.block_size)
        values = np.empty(len(rows), np.int32)
        for block in np.unique(blocks).tolist():
            inside = blocks == block
            values[inside] = np.diff(self._block(block)[0])[at[inside]]
        return values

    def _continued(self, row: int, tokens: np.ndarray) -> np.ndarray:
        block, at = divmod(row, self._files.block_size)
        starts, sampled = self._block(block)
        new = sampled[starts[at] : starts[at + 1]]
        return np.concatenate([tokens[: len(tokens) - len(new)], new.astype(self.dtype)])

    def _read_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """(where each row's sampled tokens start, [rows + 1]; the sampled tokens)."""
        arrays, _ = self._files.read(block)
        return np.append(0, np.cumsum(arrays["count"], dtype=np.int64)), arrays["tokens"]


def examine(arrays: Arrays, first_row: int, path: Path) -> dict[str, int]:
    """What the manifest counts of a block; ArtefactError if its arrays do not fit each other."""
    counts, tokens = arrays["count"], arrays["tokens"]
    if len(tokens) != counts.sum(dtype=np.int64) or (tokens < 0).any():
        raise ArtefactError("the block's arrays do not fit", where=path, fix=FILL.format(""))
    return {"generated_tokens": len(tokens), "whole_rows": int((counts == 0).sum())}
