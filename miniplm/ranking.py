"""Ranks among scores: rank 0 is the highest, equal scores rank by lower row, NaN has no rank."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

PIECE = 1 << 18  # values worked on together


def descending(values: np.ndarray) -> np.ndarray:
    """Positions of the defined values from the highest to the lowest, [defined] int64."""
    return np.argsort(-values, kind="stable")[: count_defined(values)]


def top(values: np.ndarray, keep: int) -> np.ndarray:
    """Positions of the `keep` highest values in ascending order of position."""
    return np.sort(descending(values)[:keep])


def central(values: np.ndarray) -> np.ndarray:
    """How near each value's rank is to the middle one, [n] float64: 0 there, lower outwards."""
    order = descending(values)
    near = np.full(len(values), np.nan)
    near[order] = -np.abs(2.0 * np.arange(len(order)) - (len(order) - 1))
    return near


def count_defined(values: np.ndarray) -> int:
    """How many values are not NaN."""
    return len(values) - int(np.count_nonzero(np.isnan(values)))


def keep_count(ratio: float, defined: int) -> int:
    """floor(ratio x defined), of the ratio as it is written: in floats 0.29 x 100 is below 29."""
    return int(Fraction(str(ratio)) * defined)


def pieces(count: int) -> Iterator[slice]:
    """Slices that cover `count` values in order."""
    for start in range(0, count, PIECE):
        yield slice(start, min(start + PIECE, count))
