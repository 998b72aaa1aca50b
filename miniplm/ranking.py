"""Ranks among scores without sorting them: the kept set, and the values and rows at given ranks.

Rank 0 is the highest value, equal values rank by lower position, NaN has no rank. Everything is
taken from order statistics (a partition of one copy) and passes over pieces of the values.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

PIECE = 1 << 18  # values looked at at once: what is computed from them stays in the cache


def top(values: np.ndarray, keep: int) -> np.ndarray:
    """Positions of the `keep` highest values in ascending order of position, ties by position.

    NaN is never selected. An order statistic by partition, no full sort.
    """
    (cut,) = cuts(values, [keep])
    parts = [np.flatnonzero(cut.kept(values[at])) + at.start for at in pieces(len(values))]
    return np.concatenate([np.empty(0, np.int64), *parts])


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
        if self.ties:
            equal = np.flatnonzero(piece == self.threshold)[: self.ties]
            mask[equal] = True
            self.ties -= len(equal)
        return mask


def cuts(values: np.ndarray, keeps: Sequence[int]) -> list[Cut]:
    """A fresh Cut for each number to keep; each is at most the number of defined values."""
    ranks = [keep - 1 for keep in keeps if keep]
    thresholds = iter(values_at(values, ranks))
    found = []
    for keep in keeps:
        threshold = float(next(thresholds)) if keep else np.inf
        found.append(Cut(threshold, keep - count_above(values, threshold) if keep else 0))
    return found


def values_at(values: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """The values at these ranks, [len(ranks)]."""
    if not len(ranks):
        return np.empty(0)
    known = values[~np.isnan(values)]
    places = len(known) - 1 - np.asarray(ranks, np.int64)
    known.partition(np.unique(places))
    return known[places]


def rows_at(values: np.ndarray, ranks: Sequence[int]) -> list[int]:
    """The positions of the values at these ranks."""
    rows = []
    for rank, value in zip(ranks, values_at(values, ranks), strict=True):
        rows.append(find_equal(values, value, rank - count_above(values, value)))
    return rows


def count_above(values: np.ndarray, threshold: float) -> int:
    """How many values are greater than the threshold."""
    return sum(int(np.count_nonzero(values[at] > threshold)) for at in pieces(len(values)))


def find_equal(values: np.ndarray, value: float, number: int) -> int:
    """Position of the number-th value (from 0) that equals `value`."""
    for at in pieces(len(values)):
        equal = np.flatnonzero(values[at] == value)
        if number < len(equal):
            return at.start + int(equal[number])
        number -= len(equal)
    raise ValueError(f"there are not that many values equal to {value}")


def keep_count(ratio: float, defined: int) -> int:
    """floor(ratio x defined), of the ratio as it is written: in floats 0.29 x 100 is below 29."""
    return int(Fraction(str(ratio)) * defined)
