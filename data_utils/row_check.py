"""Whether a shard's rows are what a corpus may have: all are checked when it is opened.

That reads 12 bytes per row, in order, once per process.
"""

import os
from functools import lru_cache

import numpy as np

from data_utils.errors import ArtefactError
from data_utils.shards import HEADER, VERIFY, Header

ROWS = 1 << 16  # checked together: their numbers stay in the processor's cache


def longest_row(header: Header) -> tuple[int, int]:
    """(tokens of the shard's longest row, its number), (0, 0) without rows.

    Raises an ArtefactError that names a row without tokens or one that does not begin where the row
    before it ends.
    """
    state = os.stat(f"{header.prefix}.idx")
    return _longest_row(header, state.st_ino, state.st_mtime_ns)


@lru_cache(maxsize=1 << 12)
def _longest_row(header: Header, *_: int) -> tuple[int, int]:
    n, longest, expected = header.sequences, (0, 0), 0
    index = f"{header.prefix}.idx"
    for start in range(0, n, ROWS):
        # Read, not mapped: the pages of a large corpus would count as this process's memory.
        count, places = min(ROWS, n - start), HEADER.size + 4 * n
        lengths = np.fromfile(index, "<i4", count, offset=HEADER.size + 4 * start)
        offsets = np.fromfile(index, "<i8", count, offset=places + 8 * start)
        ends = expected + np.cumsum(lengths, dtype=np.int64)
        _check(header, start, lengths, offsets == (ends - lengths) * header.dtype.itemsize)
        at = int(lengths.argmax())
        longest = max(longest, (int(lengths[at]), -start - at))  # of equal ones the first
        expected = int(ends[-1])
    return longest[0], -longest[1]


def _check(header: Header, start: int, lengths: np.ndarray, joined: np.ndarray) -> None:
    """Refuse the rows from start on if one has no tokens or is not joined to the one before it."""
    if lengths.min() > 0 and joined.all():
        return
    none = lengths < 1
    row = int(none.argmax() if none.any() else joined.argmin())
    what = f"has {lengths[row]} tokens" if none.any() else "does not begin where the last one ends"
    where = f"{header.prefix}.idx"
    raise ArtefactError(f"row {start + row} of the shard {what}", where=where, fix=VERIFY)
