"""Ranks among scores without sorting them: the kept set, and the values and rows at given ranks.

Rank 0 is the highest value, equal values rank by lower position, NaN has no rank. All of it is
passes over pieces of the values, which may lie in a file: one counts the values in narrow bins, the
next gathers the few bins that the ranks fall into. Neither a sort nor a copy of all values.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np

PIECE = 1 << 18  # values looked at at once: what is computed from them stays in the cache
BITS = 18  # leading bits of a float64 that make its bin: 64 bins from any number to its double


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
    ranks = np.asarray(ranks, np.int64)
    if not len(ranks):
        return np.empty(0)
    counts = count_bins(values)
    # The bins from the highest: how many values lie in them and in those above.
    reached = np.cumsum(counts[::-1])
    bins = len(counts) - 1 - reached.searchsorted(ranks, side="right")
    wanted = np.zeros(len(counts), bool)
    wanted[bins] = True
    gathered = np.concatenate([values[at][mask] for at, mask in _inside(values, wanted)])
    above_bin = reached[::-1][bins] - counts[bins]
    gathered_above = np.cumsum((counts * wanted)[::-1])[::-1][bins] - counts[bins]
    places = len(gathered) - 1 - (ranks - above_bin + gathered_above)
    gathered.partition(np.unique(places))
    return gathered[places]


def bin_numbers(values: np.ndarray) -> np.ndarray:
    """The bin of each value, [len(values)] int64; a higher bin holds higher values. No NaN."""
    bits = (values + 0.0).view(np.int64)  # + 0.0 makes -0.0 its equal 0.0
    bits ^= (bits >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF)  # negative numbers: larger bits, lower
    bits >>= 64 - BITS
    bits += 1 << (BITS - 1)
    return bits


def count_bins(
    values: np.ndarray, weights: Callable[[slice], np.ndarray] | None = None
) -> np.ndarray:
    """How many of the values lie in each bin, [bins] int64, or the sum of their weights."""
    counts = np.zeros(1 << BITS, np.int64)
    for at in pieces(len(values)):
        piece = np.asarray(values[at], np.float64)
        known = piece == piece
        every = known.all()
        weight = None if weights is None else weights(at) if every else weights(at)[known]
        found = np.bincount(bin_numbers(piece if every else piece[known]), weight)
        counts[: len(found)] += found.astype(np.int64)
    return counts


def _inside(values: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """(piece, which of its values lie in one of the wanted bins)."""
    for at in pieces(len(values)):
        piece = np.asarray(values[at], np.float64)
        known = piece == piece
        yield at, known & wanted[bin_numbers(np.where(known, piece, 0))]


def keep_within(
    values: np.ndarray, weights: Callable[[slice], np.ndarray], limit: int
) -> tuple[int, int]:
    """(how many of the highest values weigh at most `limit` in all, what all values weigh).

    The first that would exceed the limit ends them. weights: the positive whole weights of a slice
    of the values.
    """
    heavy = count_bins(values, weights)
    reached = np.cumsum(heavy[::-1])
    total = int(reached[-1])
    if limit >= total:
        return count_defined(values), total
    last = len(heavy) - 1 - int(reached.searchsorted(limit, side="right"))
    wanted = np.zeros(len(heavy), bool)
    wanted[last] = True
    parts = [(values[at][mask], weights(at)[mask]) for at, mask in _inside(values, wanted)]
    inside, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-inside, kind="stable")
    left = limit - int(reached[::-1][last] - heavy[last])
    fitting = int(np.cumsum(weight[order]).searchsorted(left, side="right"))
    return count_above(values, inside.max()) + fitting, total


def rows_at(values: np.ndarray, ranks: Sequence[int]) -> list[int]:
    """The positions of the values at these ranks."""
    rows = []
    for rank, value in zip(ranks, values_at(values, ranks), strict=True):
        rows.append(find_equal(values, value, rank - count_above(values, value)))
    return rows


def count_defined(values: np.ndarray) -> int:
    """How many values are no NaN."""
    return sum(int(np.count_nonzero(values[at] == values[at])) for at in pieces(len(values)))


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
