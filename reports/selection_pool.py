"""The scored sequences of a selection's report: their ranking, exact sums, and a sample to draw.

What people decide by is exact: one stable sort by r, sums in float64. What is only drawn comes
from a sample. 20 million sequences take some seconds and under 1 GB.
"""

from collections.abc import Callable

import numpy as np

from data_utils.corpus import Corpus
from miniplm.ranking import keep_count

ALPHAS = tuple(i / 10 for i in range(1, 11))  # shares whose selections are compared
UNKNOWN = "unknown"
SAMPLE = 1_000_000  # sequences that the pictures are drawn from
PIECE = 1 << 20  # rows whose sources are read at once
ENDS, AT_A_POINT = 4, 2  # examples
POINTS = (0.001, 0.01, 0.1, 0.5, 0.9)


class Pool:
    """The scored rows of a corpus, ranked by r; arrays over all rows are [n].

    Rows are counted by level: level i holds those that the selection of shares[i] takes and no
    smaller one does; the last level holds the rows without r (no token of them counts).
    """

    def __init__(
        self, corpus: Corpus, r: np.ndarray, means: Callable[[str], np.ndarray], ratio: float
    ) -> None:
        """r: [n] float64. means(role): [n] float64, mean log-probabilities; both NaN where no
        token counts. Row i is row i of corpus, which is opened on the scored shards.
        """
        self.corpus, self.r, self.ratio = corpus, r, ratio
        domains = list(corpus.domains)
        self.names = domains if UNKNOWN in domains else [*domains, UNKNOWN]
        self.defined = int(np.count_nonzero(r == r))
        self.shares = sorted({*ALPHAS, ratio})
        self.keeps = [keep_count(share, self.defined) for share in self.shares]
        self.keep = self.keeps[self.shares.index(ratio)]
        self.places = places(self.defined)
        level = self._rank()
        self.sample = self._sample()
        pieces = (np.arange(at, min(at + PIECE, len(r))) for at in range(0, len(r), PIECE))
        source = np.concatenate([self.source_of(rows) for rows in pieces])
        drawn = {"r": np.asarray(r[self.sample]), "source": source[self.sample]}
        self.examples = {"row": self.example_rows, "source": source[self.example_rows]}
        self.length_limits = length_limits(corpus.max_length)
        shape = len(self.shares) + 1, len(self.names), len(self.length_limits)
        lengths = np.concatenate([shard.lengths for shard in corpus.shards])
        # The place of each row among the sums; step by step, for its memory.
        cell = level.astype(np.int64)
        cell *= shape[1]
        cell += source
        cell *= shape[2]
        cell += np.searchsorted(self.length_limits, lengths)

        def add_up(values: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(cell, values, np.prod(shape)).reshape(shape)

        # [levels, sources, length bins] each
        self.sums = {"sequences": add_up(), "tokens": add_up(lengths), "r": add_up(r)}
        for role in ("teacher", "reference"):
            losses = -means(role)
            self.sums[role] = add_up(losses)
            drawn[role] = losses[self.sample]
            self.examples[role] = losses[self.example_rows]
        self.drawn = drawn

    def _rank(self) -> np.ndarray:
        """Each row's level, [n] uint8; sets thresholds (of each share) and rows of examples."""
        order = np.argsort(-self.r, kind="stable")  # NaN last
        self.thresholds = [float(self.r[order[k - 1]]) if k else np.inf for k in self.keeps]
        self.example_rows = order[list(self.places)]
        sizes = np.diff([0, *self.keeps, len(order)])
        level = np.empty(len(order), np.uint8)
        level[order] = np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)
        return level

    def _sample(self) -> np.ndarray:
        """Seeded rows to draw, ascending, all with an r."""
        rows = np.arange(len(self.r))
        if len(rows) > SAMPLE:
            rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
        return rows[self.r[rows] == self.r[rows]]

    def source_of(self, rows: np.ndarray) -> np.ndarray:
        """Number of each row's source, an index into names, [len(rows)] uint8."""
        domains = self.corpus.side("domain", rows) if len(self.names) > 1 and len(rows) else None
        unknown = np.uint8(self.names.index(UNKNOWN))
        if domains is None:
            return np.full(len(rows), unknown)
        return np.where(domains < len(self.names), domains, unknown)


def length_limits(longest: int) -> np.ndarray:
    """Greatest length of each bin: eight equal steps, and full sequences by themselves."""
    steps = np.round((longest - 1) * np.arange(1, 9) / 8).astype(np.int64)
    return np.unique([*steps[steps > 0], longest])


def places(defined: int) -> dict[int, str]:
    """Which ranks are shown as examples, and why; rank 0 is the highest r."""
    points = [(f"{100 * point:g} % from the top", int(point * defined)) for point in POINTS]
    wanted = [("top", 0, ENDS), *((name, rank, AT_A_POINT) for name, rank in points)]
    found: dict[int, str] = {}
    for name, first, count in [*wanted, ("bottom", max(defined - ENDS, 0), ENDS)]:
        for rank in range(first, min(first + count, defined)):
            # In a small pool the points are among the top ones: each sequence is shown once.
            found[rank] = f"{found[rank]}, {name}" if rank in found else name
    return dict(sorted(found.items()))
