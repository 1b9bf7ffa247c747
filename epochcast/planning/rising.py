"""Curves that have turned: something falls, something rises, and the rise goes on.

    y = c + a·f(x) + b·r(x),  b ≥ 0          f: e^(−βx), x^(−α)     r: ln x, √x, x

A shape is one f with its rate and one r; of each, c, a and b are a linear fit in closed form.
Shapes are averaged with weights RSS^(−n/2), which is exp(−½·BIC) as all have as many parameters.
What they are expected to miss is that a rise may become slower or faster: a share of what is
still to come.

    X   c, f and r at each check, of each shape  (shapes, n, 3)     p   c, a, b  (shapes, 3)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epochcast.costmodel.features import Array

RATES = 40  # of a fall: neighbours differ less than noise
FALLS = {
    "exponential": np.geomspace(0.3, 60, RATES),  # β, where the curve seen ends at x = 1
    "power": np.geomspace(0.05, 4, RATES),  # α
}
RISES = ("log", "root", "line")  # a square, taken for the bend of a turn, goes far too high
UNKNOWN_SHARE = 0.3  # of a rise to come; P05–P95 then holds simulated truths (docs/planning.md)
ROUNDS = 3  # of weighing checks by how far off they are: weights settle to a few per cent
RIDGE = 1e-9  # of a column's square, which is about one


@dataclass(frozen=True, slots=True)
class FittedRise:
    """All shapes on one curve on the unit square.

    Attributes:
        first: the first x, which the logarithm counts from.
        parameters: (shapes, 3).
        covariances: (shapes, 3, 3).
        weights: in the average (shapes,); they sum to one.
    """

    first: float
    parameters: Array
    covariances: Array
    weights: Array

    def mean_and_variance(self, x: Array) -> tuple[Array, Array]:
        """Of the curve at each x, without noise."""
        X = _columns(np.append(x, 1.0), self.first)
        values = np.einsum("gnk,gk->gn", X, self.parameters)
        own = np.einsum("gni,gij,gnj->gn", X, self.covariances, X)
        mean = self.weights @ values
        variance = self.weights @ (own + (values - mean) ** 2)
        to_come = np.where(x > 1, mean[:-1] - mean[-1], 0.0)
        return mean[:-1], variance[:-1] + (UNKNOWN_SHARE * to_come) ** 2

    def named_weights(self) -> tuple[tuple[str, float], ...]:
        """Of each kind of fall and rise."""
        names = [f"{fall} + {rise}" for fall in FALLS for rise in RISES]
        return tuple(zip(names, self.weights.reshape(-1, RATES).sum(axis=1).tolist(), strict=True))


def fit_rise(x: Array, y: Array, noise: float) -> FittedRise | None:
    """All shapes fitted to a curve on the unit square; None if none of them rises."""
    X, n = _columns(x, x[0]), len(x)
    trust = np.ones(n)
    for _ in range(ROUNDS):
        weighted = X * trust[:, None]
        inverse = np.linalg.inv(np.einsum("gni,gnj->gij", weighted, X) + n * RIDGE * np.eye(3))
        p = np.einsum("gij,gnj,n->gi", inverse, weighted, y)
        values = np.einsum("gnk,gk->gn", X, p)
        rss = np.maximum(((values - y) ** 2) @ trust, n * RIDGE)
        rises = p[:, 2] > 0
        if not rises.any():
            return None
        weights = np.where(rises, (rss / rss[rises].min()) ** (-n / 2), 0.0)
        weights /= weights.sum()
        trust = 1 / np.sqrt(1 + ((y - weights @ values) / noise) ** 2)  # soft L1
    variance = rss / max(1, n - 3)
    return FittedRise(float(x[0]), p, variance[:, None, None] * inverse, weights)


def _columns(x: Array, first: float) -> Array:
    """X, scaled so that a fall begins at one and a rise is one where the curve seen ends."""
    falls = np.concatenate(
        [
            np.exp(-np.outer(FALLS["exponential"], x - first)),
            np.exp(-np.outer(FALLS["power"], np.log(x / first))),
        ]
    ).reshape(len(FALLS), 1, RATES, len(x))
    log = np.log(x / first) / -np.log(first)
    rises = np.stack([log, np.sqrt(x), x])[None, :, None]
    shape = np.broadcast_shapes(falls.shape, rises.shape)
    columns = [np.broadcast_to(column, shape) for column in (np.ones(1), falls, rises)]
    return np.stack(columns, axis=-1).reshape(-1, len(x), 3)
