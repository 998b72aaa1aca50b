"""One pass over the scores: sums by source, by length and by selection share, and the pictures.

Works through the rows in pieces, so that memory does not grow with their number; no loop over rows.
"""

from dataclasses import dataclass

import numpy as np

from data_utils.corpus import Corpus
from miniplm.ranking import Cut, count_defined, cuts, keep_count, pieces

ALPHAS = tuple(i / 10 for i in range(1, 10))
UNKNOWN = "unknown"
TAIL = 0.001  # share of the values on each side that goes into the outermost bins
SAMPLE = 1 << 20  # values that the bins are chosen from


@dataclass
class Scored:
    """The scored rows and their corpus; r and mean log-probabilities, [n] float64 each."""

    corpus: Corpus
    r: np.ndarray
    teacher: np.ndarray
    reference: np.ndarray

    def losses(self, rows: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(teacher's, reference's) mean loss of rows; NaN where nothing is counted."""
        return -self.teacher[rows], -self.reference[rows]


class Groups:
    """Sums over the sequences of each of `count` groups: a dictionary of [count] float64."""

    FIGURES = ("tokens", "r", "teacher", "reference")

    def __init__(self, count: int) -> None:
        names = ("sequences", *self.FIGURES, "kept", "kept_tokens", "kept_r")
        self.sums = {name: np.zeros(count) for name in names}

    def add(self, group: np.ndarray, piece: dict[str, np.ndarray]) -> None:
        """Add a piece, given the group of each of its sequences."""
        chosen = np.flatnonzero(piece["kept"])
        kept_group = group[chosen]
        self._add("sequences", group)
        self._add("kept", kept_group)
        for name in self.FIGURES:
            self._add(name, group, piece[name])
        for name in ("tokens", "r"):
            self._add(f"kept_{name}", kept_group, piece[name][chosen])

    def _add(self, name: str, group: np.ndarray, weights: np.ndarray | None = None) -> None:
        self.sums[name] += np.bincount(group, weights, minlength=len(self.sums[name]))


class Picture:
    """A histogram in one or two dimensions, counted by bins of equal width."""

    def __init__(self, *edges: np.ndarray) -> None:
        self.edges = edges
        self.counts = np.zeros([len(axis) - 1 for axis in edges], np.int64)

    def add(self, *values: np.ndarray) -> None:
        """Count the points whose coordinates are in values, an array a dimension."""
        bins = [bin_of(x, axis) for x, axis in zip(values, self.edges, strict=True)]
        flat = np.ravel_multi_index(bins, self.counts.shape)
        counts = np.bincount(flat, minlength=self.counts.size)
        self.counts += counts.reshape(self.counts.shape)


class Sums:
    """Everything that is added up: see the attributes."""

    def __init__(self, scored: Scored, ratio: float) -> None:
        self.scored, self.ratio = scored, ratio
        domains = list(scored.corpus.domains)
        self.names = domains if UNKNOWN in domains else [*domains, UNKNOWN]
        self.length_limits = length_limits(scored.corpus.max_length)
        self.defined = count_defined(scored.r)
        keeps = [keep_count(share, self.defined) for share in (ratio, *ALPHAS)]
        self.keep = keeps[0]
        cut, *sweep = cuts(scored.r, keeps)
        self.threshold, self.thresholds = cut.threshold, [c.threshold for c in sweep]
        self._make_empty_sums()
        for at in pieces(len(scored.r)):
            self._add(at, cut, sweep)

    def _make_empty_sums(self) -> None:
        count = len(self.names)
        self.without_r = np.zeros(count, np.int64)  # by source
        self.sources, self.lengths = Groups(count), Groups(len(self.length_limits))
        # levels: by (number of the ALPHAS' selections that a sequence is in) x source
        self.levels = Groups((len(ALPHAS) + 1) * count)
        every = slice(None, None, -(-len(self.scored.r) // SAMPLE) or 1)
        bins = int(np.clip(4 * np.cbrt(self.defined), 16, 80))
        r_edges = equal_bins(self.scored.r[every], bins)
        self.histogram = Picture(np.arange(count + 1), r_edges)
        self.histogram_kept = Picture(r_edges)
        self.density = Picture(*(equal_bins(loss, bins) for loss in self.scored.losses(every)))
        self.products = np.zeros((3, 3))  # of r, log p and log p_ref
        self.positive = 0
        self.low, self.high = np.inf, -np.inf

    def _add(self, at: slice, cut: Cut, sweep: list[Cut]) -> None:
        r = np.asarray(self.scored.r[at])
        rows = np.arange(at.start, at.stop)
        source = self.source_of(rows)
        teacher, reference = self.scored.losses(at)
        level = np.zeros(len(r), np.int64)
        for chosen in sweep:
            level += chosen.kept(r)
        columns = {
            "r": r,
            "teacher": teacher,
            "reference": reference,
            "tokens": self.scored.corpus.lengths(rows),
            "kept": cut.kept(r),
            "source": source,
            "level": level,
        }
        defined = np.isfinite(r)
        self.without_r += np.bincount(source[~defined], minlength=len(self.names))
        if not defined.all():
            columns = {name: values[defined] for name, values in columns.items()}
        if len(columns["r"]):
            self._add_groups(columns)
            self._add_pictures(columns)

    def source_of(self, rows: np.ndarray) -> np.ndarray:
        """Number of each row's source (see names); that of UNKNOWN where the corpus has none."""
        unknown = self.names.index(UNKNOWN)
        domains = self.scored.corpus.side("domain", rows) if len(self.names) > 1 else None
        if domains is None:
            return np.full(len(rows), unknown)
        domains = domains.astype(np.int64)
        domains[domains >= len(self.names)] = unknown
        return domains

    def _add_groups(self, piece: dict[str, np.ndarray]) -> None:
        self.sources.add(piece["source"], piece)
        length = np.searchsorted(self.length_limits, piece["tokens"])
        self.lengths.add(np.minimum(length, len(self.length_limits) - 1), piece)
        self.levels.add(piece["level"] * len(self.names) + piece["source"], piece)

    def _add_pictures(self, piece: dict[str, np.ndarray]) -> None:
        r = piece["r"]
        self.histogram.add(piece["source"], r)
        self.histogram_kept.add(r[piece["kept"]])
        self.density.add(piece["teacher"], piece["reference"])
        columns = np.stack([r, -piece["teacher"], -piece["reference"]])
        self.products += columns @ columns.T
        self.positive += int(np.count_nonzero(r > 0))
        self.low, self.high = min(self.low, float(r.min())), max(self.high, float(r.max()))


def bin_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each value, as np.histogram has it; what lies beyond is in the outermost bins.

    The edges are equally far apart: a division finds the bin, a comparison mends its rounding.
    """
    last = len(edges) - 2
    width = (edges[-1] - edges[0]) / (last + 1)
    index = np.clip((values - edges[0]) / width, 0, last).astype(np.int64)
    index -= (values < edges[index]) & (index > 0)
    index += (values >= edges[index + 1]) & (index < last)
    return index


def equal_bins(values: np.ndarray, count: int) -> np.ndarray:
    """Edges of `count` to 2 `count` bins over all but the TAIL on each side, at round numbers."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, [TAIL, 1 - TAIL]) if len(known) else (0.0, 1.0)
    # Equal values: a width that still tells neighbouring edges apart.
    width = max((high - low) / count, 1e-3 * max(abs(low), abs(high)), 1e-6)
    ten = 10.0 ** np.floor(np.log10(width))
    width = ten * max(step for step in (1, 2, 2.5, 5) if step * ten <= width * (1 + 1e-9))
    return np.arange(np.floor(low / width), np.floor(high / width) + 2) * width


def length_limits(longest: int) -> np.ndarray:
    """Greatest length of each bin: eight equal steps, and full sequences by themselves."""
    steps = np.round((longest - 1) * np.arange(1, 9) / 8).astype(np.int64)
    return np.unique(np.concatenate([steps[steps > 0], [longest]]))
