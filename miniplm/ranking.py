"""Ranks among scores: rank 0 is the highest, equal scores rank by lower row, NaN has no rank."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np


def descending(values: np.ndarray) -> np.ndarray:
    """Positions of the defined values from the highest to the lowest, [defined] int64."""
    return np.argsort(-values, kind="stable")[: count_defined(values)]


def top(values: np.ndarray, keep: int) -> np.ndarray:
    """Positions of the `keep` highest values in ascending order of position."""
    return np.sort(descending(values)[:keep])


def count_defined(values: np.ndarray) -> int:
    """How many values are not NaN."""
    return len(values) - int(np.count_nonzero(np.isnan(values)))


def keep_count(ratio: float, defined: int) -> int:
    """floor(ratio x defined), of the ratio as it is written: in floats 0.29 x 100 is below 29."""
    return int(Fraction(str(ratio)) * defined)


# For the report, which asks piece by piece.
PIECE = 1 << 18


def pieces(count: int) -> Iterator[slice]:
    """Slices that cover `count` values in order."""
    for start in range(0, count, PIECE):
        yield slice(start, min(start + PIECE, count))


class Cut:
    """Says of values, given piece by piece in their order, which are among the highest `keep`."""

    def __init__(self, threshold: float, ties: int) -> None:
        self.threshold = threshold  # the lowest value that is kept
        self.ties = ties  # values equal to it that are still to be kept

    def kept(self, piece: np.ndarray) -> np.ndarray:
        """[len(piece)] bool; every piece is asked about once, in order."""
        mask = piece > self.threshold
        equal = np.flatnonzero(piece == self.threshold)[: self.ties]
        mask[equal] = True
        self.ties -= len(equal)
        return mask


def cuts(values: np.ndarray, keeps: Sequence[int]) -> list[Cut]:
    """A fresh Cut for each number to keep; each is at most the number of defined values."""
    order, found = descending(values), []
    for keep in keeps:
        threshold = float(values[order[keep - 1]]) if keep else np.inf
        found.append(Cut(threshold, keep - int(np.count_nonzero(values > threshold))))
    return found


def rows_at(values: np.ndarray, ranks: Sequence[int]) -> list[int]:
    """The positions of the values at these ranks."""
    return descending(values)[list(ranks)].tolist()
