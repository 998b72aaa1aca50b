"""eval/fits.py: planted laws are found again within the stated intervals; the paper's numbers."""

import numpy as np
import pytest

from eval import fits, paper

COMPUTE = np.geomspace(1e18, 6e19, 20)
PLANTED = np.array([3.25, 8.56e10, 0.59])  # limit, factor, exponent: the paper's MiniPLM at 200M


def losses(values: np.ndarray, *x: np.ndarray) -> np.ndarray:
    """The law, written out."""
    count = len(x)
    powers = [values[1 + k] / v ** values[1 + count + k] for k, v in enumerate(x)]
    return values[0] + sum(powers)


@pytest.mark.parametrize("size, method", paper.SCALING)
def test_the_paper_s_losses_follow_from_its_constants(size, method):
    factor, exponent, limit, at_1t, at_10t = paper.SCALING[size, method]
    curve = fits.Fit(np.array([limit, factor, exponent]), np.zeros((0, 3)))
    assert curve.at(paper.FLOPS_1T[size]) == pytest.approx(at_1t, abs=0.015)
    assert curve.at(10 * paper.FLOPS_1T[size]) == pytest.approx(at_10t, abs=0.015)


def test_exact_points_give_the_law():
    found = fits.fit([COMPUTE], losses(PLANTED, COMPUTE))
    assert found.at(1e21) == pytest.approx(losses(PLANTED, 1e21), abs=1e-4)
    assert found.values == pytest.approx(PLANTED, rel=0.05)
    assert not found.doubt


def test_intervals_hold_what_was_planted_about_as_often_as_they_say():
    """In 88 to 99 of 100 draws; for the loss at 1 T tokens too."""
    noise = np.random.default_rng(5)
    inside = np.zeros(4, int)
    for draw in range(100):
        found = fits.fit([COMPUTE], losses(PLANTED, COMPUTE) + noise.normal(0, 0.01, 20), draw)
        far = (*PLANTED, losses(PLANTED, 1.26e21))
        for k, truth in enumerate(far):
            low, high = found.interval(lambda s, k=k: s[:, k] if k < 3 else fits.law(s, 1.26e21))
            inside[k] += low <= truth <= high
    assert ((inside >= 88) & (inside <= 99)).all(), inside


def test_a_few_points_far_off_do_not_move_the_curve():
    noise = np.random.default_rng(1)
    y = losses(PLANTED, COMPUTE) + noise.normal(0, 0.002, 20)
    y[[4, 11]] += 0.3
    found = fits.fit([COMPUTE], y)
    assert found.at(1.26e21) == pytest.approx(losses(PLANTED, 1.26e21), abs=0.02)
    plain = np.linalg.lstsq(np.stack([np.ones(20), COMPUTE**-0.59], 1), y, rcond=None)[0]
    assert abs(plain[0] - PLANTED[0]) > 2 * abs(found.values[0] - PLANTED[0])


def test_a_law_of_sizes_and_tokens():
    planted = np.array([1.69, 406.4, 410.7, 0.34, 0.28])
    grid = np.meshgrid([35e6, 104e6, 203e6, 464e6, 1160e6], np.geomspace(1e9, 5e10, 8))
    n, d = (values.ravel() for values in grid)
    found = fits.fit([n, d], losses(planted, n, d) + np.random.default_rng(0).normal(0, 0.003, 40))
    low, high = np.quantile(found.samples, [0.001, 0.999], axis=0)
    assert ((low <= planted) & (planted <= high)).all() and not found.doubt


@pytest.mark.parametrize(
    "y",
    [
        np.full(20, 3.0) + np.random.default_rng(0).normal(0, 0.01, 20),  # flat
        3 + 1e-20 * COMPUTE,  # rises
        10 - 0.1 * np.log(COMPUTE),  # no limit in sight
    ],
    ids=["flat", "rising", "without a limit"],
)
def test_points_that_determine_no_law(y):
    assert fits.fit([COMPUTE], y).doubt


def test_too_few_points_are_no_fit():
    assert fits.fit([COMPUTE[:4]], losses(PLANTED, COMPUTE[:4])) is None
    assert fits.fit([np.repeat(1e18, 9)], np.full(9, 3.0)) is None
