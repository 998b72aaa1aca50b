"""Robust fits of scaling laws: a limit plus powers, whose exponents are searched on a grid.

For given exponents such a law is linear in the rest, so that each point of the grid is fitted
exactly and no start can miss the best one (variable projection, Golub and Pereyra 1973). Points far
off the curve get Huber's weights. Intervals are quantiles of samples from the posterior under flat
priors, with limit and factors positive: they cover the noise of the points around the curve, not
whether the law holds outside of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

EXPONENTS = (0.01, 2.0)  # where they are looked for
SIDE = {1: 800, 2: 48}  # points of the grid along each of so many exponents
SAMPLES = 4000
ROUNDS = 6  # of zooming in; the weights settle meanwhile
HUBER = 2.0  # robust standard deviations within which a point has its full weight (Huber 1981)


@dataclass(frozen=True)
class Fit:
    """limit + sum_k factors[k] x_k ** -exponents[k].

    values: limit, factors, exponents, [1 + 2 K]; samples: [S, 1 + 2 K] of them; doubt: why the
    points do not determine the law, empty if they do.
    """

    values: np.ndarray
    samples: np.ndarray
    doubt: str = ""

    def at(self, *x: float) -> float:
        """The law's value at x_1 ... x_K."""
        return float(law(self.values[None], *x)[0])

    def interval(self, of: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        """95 % interval of a function of values [S, 1 + 2 K] -> [S]."""
        return middle(of(self.samples))


def middle(samples: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of samples [S], (nan, nan) if there are none."""
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def law(values: np.ndarray, *x: float) -> np.ndarray:
    """The law of each row of values [S, 1 + 2 K] at x_1 ... x_K, [S]."""
    count = len(x)
    powers = np.asarray(x, float) ** -values[:, 1 + count :]
    return values[:, 0] + (values[:, 1 : 1 + count] * powers).sum(axis=1)


def fit(x: Sequence[np.ndarray], y: np.ndarray, seed: int = 0) -> Fit | None:
    """The law of y [n] in the variables x (K arrays [n], positive); None for too few points."""
    x, y, count = [np.asarray(v, float) for v in x], np.asarray(y, float), len(x)
    if len(y) < 3 + 2 * count or any(len(np.unique(v)) < 3 for v in x):
        return None
    centers = np.array([np.exp(np.log(v).mean()) for v in x])  # keeps the factors near 1
    logs = np.stack([np.log(v / c) for v, c in zip(x, centers, strict=True)], axis=1)
    weights, box = np.ones(len(y)), np.array([EXPONENTS] * count)
    for _ in range(ROUNDS):
        grid = exponents_grid(box)
        solved = solve(terms(logs, grid), y, weights)
        best = int(solved.rest.argmin())
        likely = grid[solved.weight > solved.weight.max() - 10]
        step = (box[:, 1] - box[:, 0]) / (SIDE[count] - 1)
        box = np.stack([likely.min(axis=0) - step, likely.max(axis=0) + step], axis=1)
        box = box.clip(*EXPONENTS)
        weights = huber_weights(y - terms(logs, grid[best : best + 1])[0] @ solved.linear[best])
    samples = posterior(grid, solved, step, np.random.default_rng(seed))
    values = np.concatenate([solved.linear[best], grid[best]])[None]
    for found in (values, samples):  # the factors of x instead of x / center
        found[:, 1 : 1 + count] *= centers ** found[:, 1 + count :]
    return Fit(values[0], samples, doubt(values[0], samples, y, count))


def exponents_grid(box: np.ndarray) -> np.ndarray:
    """[G, K] exponents that fill a box [K, 2]."""
    sides = [np.linspace(low, high, SIDE[len(box)]) for low, high in box]
    return np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(box))


def terms(logs: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """1 and each variable's power, [G, n, 1 + K]; logs: log x / center [n, K], grid [G, K]."""
    powers = np.exp(-grid[:, None, :] * logs)
    return np.concatenate([np.ones((*powers.shape[:2], 1)), powers], axis=2)


@dataclass(frozen=True)
class Solved:
    """Least squares at each point of a grid: coefficients, their Cholesky factors, residuals."""

    linear: np.ndarray  # [G, P]
    root: np.ndarray  # [G, P, P]: the lower Cholesky factor of X^T W X
    rest: np.ndarray  # [G]: weighted sum of squared residuals
    weight: np.ndarray  # [G]: logarithm of the posterior, up to a constant
    freedom: float


def solve(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Solved:
    """Weighted least squares for all X [G, n, P] at once."""
    moment = np.einsum("gnp,n,gnq->gpq", x, weights, x) + 1e-12 * np.eye(x.shape[2])
    linear = np.linalg.solve(moment, np.einsum("gnp,n->gp", x, weights * y)[..., None])[..., 0]
    residuals = y - np.einsum("gnp,gp->gn", x, linear)
    rest = (weights * residuals**2).sum(axis=1) + 1e-24
    root = np.linalg.cholesky(moment)
    freedom = max(weights.sum() - x.shape[2], 1.0)
    logdet = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return Solved(linear, root, rest, -freedom / 2 * np.log(rest) - logdet, freedom)


def huber_weights(residuals: np.ndarray) -> np.ndarray:
    """1 for residuals within HUBER robust standard deviations, less beyond."""
    scale = 1.4826 * np.median(np.abs(residuals)) + 1e-12
    return np.minimum(1.0, HUBER * scale / np.maximum(np.abs(residuals), 1e-300))


def posterior(
    grid: np.ndarray, solved: Solved, step: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Samples [S, 1 + 2 K] of limit, factors and exponents; limit and factors are positive."""
    chance = np.exp(solved.weight - solved.weight.max())
    at = rng.choice(len(grid), 20 * SAMPLES, p=chance / chance.sum())
    sigma = np.sqrt(solved.rest[at] / rng.chisquare(solved.freedom, len(at)))
    normal = rng.standard_normal((len(at), solved.linear.shape[1], 1)) * sigma[:, None, None]
    upper = solved.root[at].transpose(0, 2, 1)
    linear = solved.linear[at] + np.linalg.solve(upper, normal)[..., 0]
    exponents = grid[at] + (rng.random((len(at), grid.shape[1])) - 0.5) * step
    samples = np.concatenate([linear, exponents.clip(*EXPONENTS)], axis=1)
    return samples[(linear > 0).all(axis=1)][:SAMPLES]


def doubt(values: np.ndarray, samples: np.ndarray, y: np.ndarray, count: int) -> str:
    """Why the points do not determine the law; empty if they do."""
    if len(samples) < SAMPLES or (values[: 1 + count] <= 0).any():
        return "the losses do not fall towards a positive limit"
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    if (low[1 + count :] < 2 * EXPONENTS[0]).any() or (
        high[1 + count :] > 0.95 * EXPONENTS[1]
    ).any():
        return "any exponent fits"
    if high[0] - low[0] > np.ptp(y):
        return "the limit is less certain than the losses are apart"
    return ""
