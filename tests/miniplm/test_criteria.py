"""Each criterion against a slow, obvious version of its rule, on random stores.

.venv/bin/python -m pytest tests/miniplm/test_criteria.py
"""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniplm import criteria, token_priors
from miniplm.ranking import keep_count, top

TIED = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0])
LOSSES = st.one_of(TIED, st.floats(-5, 5))
ROWS = st.lists(
    st.tuples(LOSSES, LOSSES, st.booleans(), st.sampled_from([0, 1, 4, 255])), min_size=1
)
RATIOS = st.sampled_from([1e-9, 0.1, 0.25, 0.5, 0.7, 1.0])


class Store:
    """Rows of (teacher's, reference's mean log-probability, defined, source) as the stores'."""

    def __init__(self, rows: list[tuple]) -> None:
        hidden = np.where([row[2] for row in rows], 0.0, np.nan)
        self.logs = {"teacher": [row[0] for row in rows] + hidden}
        self.logs["reference"] = [row[1] for row in rows] + hidden
        self.r = self.logs["teacher"] - self.logs["reference"]

    def means(self, role: str) -> np.ndarray:
        return self.logs[role].copy()


def candidates(rows: list[tuple], **choice: object) -> criteria.Candidates:
    """Rows as the whole of a corpus that has only their sources."""
    sources = np.array([row[3] for row in rows], np.uint8)
    corpus = SimpleNamespace(side=lambda name, at: sources[at], folder="corpus")
    return criteria.Candidates(corpus, 0, len(rows), criteria.Choice(**choice), Store(rows))


def kept(rows: list[tuple], ratio: float, **choice: object) -> list[int]:
    """What a criterion keeps of a share; the same twice, and never a row without r."""
    chosen = candidates(rows, **choice)
    values = chosen.values()
    np.testing.assert_array_equal(values, candidates(rows, **choice).values())
    np.testing.assert_array_equal(np.isnan(values), np.isnan(chosen.store.r))
    return top(values, keep_count(ratio, int((~np.isnan(values)).sum()))).tolist()


def ranked(rows: list[tuple], value) -> list[int]:
    """Rows with an r from the highest value to the lowest, ties by row."""
    return sorted((i for i, row in enumerate(rows) if row[2]), key=lambda i: (-value(i), i))


def floor(ratio: float, rows: int) -> int:
    return math.floor(Fraction(str(ratio)) * rows)


@given(ROWS, RATIOS, st.sampled_from(["low", "middle", "high"]))
def test_reference_band(rows, ratio, band):
    """The rows at one end of the losses; of the middle, as many off one end as off the other."""
    order = ranked(rows, lambda i: -rows[i][1])
    keep = floor(ratio, len(order))
    found = kept(rows, ratio, criterion="reference_band", band=band)
    if band == "high":
        assert found == sorted(order[:keep])
    elif band == "low":
        assert found == sorted(ranked(rows, lambda i: rows[i][1])[:keep])
    else:
        off = (len(order) - keep) // 2
        assert found in [sorted(order[s : s + keep]) for s in (off, len(order) - keep - off)]
    high = kept(rows, ratio, criterion="reference_band", band="high")
    assert high == kept(rows, ratio, criterion="reference")


@given(ROWS, RATIOS, st.integers(0, 3), st.sampled_from([0.01, 0.5, 1, 3]))
def test_temperature_keeps_the_highest_of_r_over_tau_plus_noise(rows, ratio, seed, tau):
    noise = np.random.default_rng(seed).gumbel(size=len(rows))
    r = Store(rows).r
    # Equal up to rounding, which can only exchange rows of nearly the same value.
    value = {i: r[i] / tau + noise[i] for i in range(len(rows))}
    order = ranked(rows, lambda i: value[i])
    found = kept(rows, ratio, criterion="temperature", seed=seed, tau=tau)
    expected = sorted(order[: floor(ratio, len(order))])
    assert len(found) == len(expected)
    exchanged = [value[i] for i in set(found) ^ set(expected)]
    assert not exchanged or max(exchanged) - min(exchanged) < 1e-9


def test_temperature_between_the_method_and_a_draw():
    """One row of 5 has weight exp(1 / tau), the others 1: how often it is drawn first."""
    rows = [(float(i == 2), 0.0, True, 0) for i in range(5)]
    for tau in (0.5, 1.0, 4.0):
        first = [kept(rows, 0.2, criterion="temperature", seed=s, tau=tau)[0] for s in range(3000)]
        probability = math.exp(1 / tau) / (math.exp(1 / tau) + 4)
        error = math.sqrt(probability * (1 - probability) / 3000)
        assert abs(np.mean(np.array(first) == 2) - probability) < 4 * error
    generator = np.random.default_rng(0)
    rows = [(float(t), float(r), True, 0) for t, r in generator.normal(size=(400, 2))]
    method = kept(rows, 0.5, criterion="difference")
    assert kept(rows, 0.5, criterion="temperature", tau=1e-12) == method
    overlap = [
        len(set(method) & set(kept(rows, 0.5, criterion="temperature", tau=1e6, seed=seed))) / 200
        for seed in range(20)
    ]
    assert 0.45 < np.mean(overlap) < 0.55


@given(ROWS, RATIOS)
def test_by_source(rows, ratio):
    """The highest r of each source, by exact quantiles; no source's share moves by more than
    what rounding moves in all of them."""
    r, mine = Store(rows).r, {}
    for i in ranked(rows, lambda i: r[i]):
        mine.setdefault(rows[i][3], []).append(i)
    quantile = {
        i: Fraction(2 * rank + 1, 2 * len(order))
        for order in mine.values()
        for rank, i in enumerate(order)
    }
    order = ranked(rows, lambda i: -quantile[i])
    found = kept(rows, ratio, criterion="by_source")
    assert found == sorted(order[: floor(ratio, len(order))])
    for members in mine.values():
        here = [i for i in members if i in found]
        assert here == members[: len(here)]
        assert abs(len(here) - ratio * len(members)) < 1 + len(mine)


def test_by_source_needs_sources():
    rows = candidates([(1.0, 0.0, True, 0)], criterion="by_source")
    rows.corpus.side = lambda name, at: None
    with pytest.raises(criteria.InputError, match="does not record the sources"):
        rows.values()


class Ids:
    """A corpus of rows of token ids."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = [np.array(row, np.uint16) for row in rows]

    def sequences(self, rows: np.ndarray) -> list[np.ndarray]:
        return [self.rows[row] for row in rows]


ID_ROWS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=9), min_size=1, max_size=30)


@given(ID_ROWS, st.integers(0, 3))
def test_token_priors(rows, first):
    """Frequencies are those of the rows to choose from; pieces do not matter."""
    first = min(first, len(rows) - 1)
    mine = [token for row in rows[first:] for token in row]
    logs = [[math.log(mine.count(token) / len(mine)) for token in row] for row in rows[first:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_priors, "ROWS", 4)
        found = token_priors.moments(Ids(rows), first, len(rows) - first)
    np.testing.assert_allclose(found[0], [np.mean(row) for row in logs], atol=1e-12)
    np.testing.assert_allclose(found[1], [np.std(row) for row in logs], atol=1e-12)


@given(ID_ROWS, RATIOS)
def test_prior_keeps_the_middle_of_both_without_scores(rows, ratio):
    """Bands around both middles, widened until they hold the share; the last step by row."""
    chosen = criteria.Candidates(Ids(rows), 0, len(rows), criteria.Choice(criterion="prior"))
    values, n = chosen.values(), len(rows)
    np.testing.assert_array_equal(values, chosen.values())
    ranks = [
        {i: rank for rank, i in enumerate(sorted(range(n), key=lambda i: (-column[i], i)))}
        for column in token_priors.moments(chosen.corpus, 0, n)
    ]
    keep, found = floor(ratio, n), []
    for halves in range(n):
        inside = [
            i for i in range(n) if all(abs(2 * rank[i] - (n - 1)) <= halves for rank in ranks)
        ]
        found += [i for i in inside if i not in found]
    assert top(values, keep).tolist() == sorted(found[:keep]) and len(found) == n


def test_all_equal_rows_are_kept_by_rank():
    rows = [(1.0, 0.0, True, 0)] * 6
    for criterion in ("difference", "teacher", "reference", "by_source"):
        assert kept(rows, 0.5, criterion=criterion) == [0, 1, 2]
    assert kept(rows, 0.5, criterion="reference_band") == [1, 2, 3]
