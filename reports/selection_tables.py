"""What a selection keeps, by source and by share kept, and the sequences that are shown.

The tables are exact: one stable sort by the criterion's values, sums in float64. The pictures are
drawn from a sample. 20 million sequences take seconds and under 1 GB. A table is a list of rows
with equal keys.
"""

from collections.abc import Callable

import numpy as np

from data_utils.corpus import Corpus
from miniplm.ranking import count_defined, descending, keep_count

ALPHAS = tuple(i / 10 for i in range(1, 11))  # shares whose selections are compared
UNKNOWN = "unknown"
SAMPLE = 1_000_000  # sequences that the pictures are drawn from
EXAMPLES = 4  # of each kind


class Pool:
    """The scored rows of a corpus, ranked by a criterion's values, those without one last.

    sums: [shares + 1, sources] for each name: sums over the rows that each share keeps; the last
    line is over all rows. sample, examples: values of the rows to draw and to show.
    """

    def __init__(
        self,
        corpus: Corpus,
        r: np.ndarray,
        values: np.ndarray,
        means: Callable[[str], np.ndarray],
        ratio: float,
    ) -> None:
        """r: [n] float64. means(role): [n] float64, mean log-probabilities; both NaN where no
        token counts. values: [n] float64, of the criterion; NaN there, and where it has none. Row
        i is row i of corpus, which is opened on the scored shards.
        """
        self.corpus, self.ratio = corpus, ratio
        domains = list(corpus.domains)
        self.names = domains if UNKNOWN in domains else [*domains, UNKNOWN]
        self.scored, self.defined = len(r), count_defined(values)
        self.below_0 = ratio_of(np.count_nonzero(r < 0), count_defined(r))
        self.shares = sorted({*ALPHAS, ratio})
        self.keeps = [keep_count(share, self.defined) for share in self.shares]
        self.keep = self.keeps[self.shares.index(ratio)]
        self.places = places(self.defined, self.keep)
        source = read_sources(corpus, self.scored, self.names.index(UNKNOWN))
        order = descending(values)
        self.thresholds = [float(values[order[n - 1]]) if n else np.inf for n in self.keeps]
        shown = order[list(self.places)]
        step = self.defined // SAMPLE + 1
        drawn = order[::step].copy()
        # A row's cell: the smallest share that keeps it (none without r), and its source.
        levels = len(self.shares) + 1
        cell = np.full(self.scored, levels - 1)
        cell[order] = np.repeat(np.arange(levels - 1), np.diff([0, *self.keeps]))
        del order  # for its memory
        cell *= len(self.names)
        cell += source

        def add_up(values: np.ndarray | None = None) -> np.ndarray:
            sums = np.bincount(cell, values, levels * len(self.names))
            return sums.reshape(levels, -1).cumsum(axis=0)

        self.sums = {"sequences": add_up()}
        self.sample, self.examples = {"source": source[drawn]}, {"row": shown}
        self.sample["kept"] = np.arange(0, self.defined, step) < self.keep

        def add(name: str, values: np.ndarray) -> None:
            self.sums[name] = add_up(values)
            self.sample[name], self.examples[name] = values[drawn], values[shown]

        add("tokens", corpus.lengths(np.arange(self.scored)))
        add("r", r)
        for role in ("teacher", "reference"):
            add(f"{role}_loss", -means(role))
        self.examples["source"] = source[shown]


def read_sources(corpus: Corpus, count: int, unknown: int) -> np.ndarray:
    """The number of each row's source, [count] uint8; unknown: that of rows without a domain."""
    domains = corpus.side("domain", np.arange(count))
    if domains is None:
        return np.full(count, unknown, np.uint8)
    return np.where(domains < len(corpus.domains), domains, np.uint8(unknown))


def places(defined: int, keep: int) -> dict[int, str]:
    """Which ranks are shown as examples, and why; rank 0 is the highest value."""
    around = keep - EXAMPLES // 2
    first = {"top": 0, "bottom": defined - EXAMPLES, "at the threshold": around}
    found: dict[int, str] = {}
    for name, start in first.items():
        for rank in range(max(start, 0), min(start + EXAMPLES, defined)):
            found.setdefault(rank, name)
    return dict(sorted(found.items()))


def ratio_of(part: float, whole: float) -> float:
    """part / whole; NaN where there is nothing."""
    return float(part) / float(whole) if whole else float("nan")


def columns(pool: Pool, share: float, source: int | slice = slice(None)) -> dict:
    """What every table says of the sequences that a share keeps."""
    level = pool.shares.index(share)
    sums = {name: values[level, source].sum() for name, values in pool.sums.items()}
    means = ("r", "teacher_loss", "reference_loss")
    return {
        "sequences": int(sums["sequences"]),
        "tokens": int(sums["tokens"]),
        **{f"mean_{name}": ratio_of(sums[name], sums["sequences"]) for name in means},
    }


def summary(pool: Pool) -> dict:
    """The figures of the headline; all and kept: see columns."""
    return {
        "ratio": pool.ratio,
        "scored": pool.scored,
        "without_r": pool.scored - pool.defined,
        "threshold": pool.thresholds[pool.shares.index(pool.ratio)],
        "share_r_below_0": pool.below_0,
        "all": columns(pool, 1.0),
        "kept": columns(pool, pool.ratio),
    }


def sources(pool: Pool) -> list[dict]:
    """One row per source, the most kept first; rates and shares are of the rows with an r."""
    rows = []
    for number, name in enumerate(pool.names):
        before, after = (columns(pool, share, number) for share in (1.0, pool.ratio))
        row = {
            "source": name,
            **before,
            "kept": after["sequences"],
            "kept_tokens": after["tokens"],
            "keep_rate": ratio_of(after["sequences"], before["sequences"]),
            "share_before": ratio_of(before["sequences"], pool.defined),
            "share_after": ratio_of(after["sequences"], pool.keep),
            "without_r": int(pool.sums["sequences"][-1, number]) - before["sequences"],
        }
        if row["sequences"] or row["without_r"]:
            rows.append(row)
    return sorted(rows, key=lambda row: (-row["kept"] / (row["sequences"] or 1), -row["sequences"]))


def sweep(pool: Pool) -> list[dict]:
    """One row per share alpha that could be kept; the last one is the pool itself."""
    names = [(i, name) for i, name in enumerate(pool.names) if pool.sums["sequences"][-1, i]]
    rows = []
    for level, (alpha, keep) in enumerate(zip(pool.shares, pool.keeps, strict=True)):
        counts = pool.sums["sequences"][level]
        shares = {f"share {name}": ratio_of(counts[i], keep) for i, name in names}
        threshold = pool.thresholds[level]
        rows.append({"alpha": alpha, "threshold": threshold, **columns(pool, alpha), **shares})
    return rows
