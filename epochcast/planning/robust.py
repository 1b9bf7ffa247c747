"""Least squares with a soft L1 loss, so that single spikes count little.

    r   residuals (n,)     J = ∂r/∂p (n, k)     z = (r/s)²     s: from where a residual is large
    cost = ½·s²·Σ ρ(z),  ρ(z) = 2·(√(1 + z) − 1);  its slope weighs a residual by ρ′ = (1 + z)^(−½)

Levenberg–Marquardt: the step solves (JᵀWJ + λ·diag JᵀWJ)·δ = −JᵀWr; λ falls where it helped and
grows where it did not (Marquardt 1963, SIAM J. Appl. Math. 11). scipy.optimize.least_squares does
the same, and takes longer to import than all of a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from epochcast.costmodel.features import Array

Function = Callable[[Array], Array]

DIFFERENCE = 1e-5  # of a parameter, for derivatives; parameters are of order one
DAMPING, EASE, HARDEN, STUCK = 1e-3, 0.2, 5.0, 1e10  # λ at first, then its factors, and its end
CONVERGED = 1e-8  # relative fall of the cost
SMALLEST = 1e-12  # keeps JᵀWJ regular where a parameter has no effect


@dataclass(frozen=True, slots=True)
class Solution:
    """Parameters (k,), the cost there, and an approximation of its second derivatives (k, k)."""

    parameters: Array
    cost: float
    curvature: Array


def least_squares(
    residuals: Function, start: Array, spread: float, reach: float, steps: int
) -> Solution:
    """Parameters within ±reach that minimise the cost, from one start.

    Args:
        spread: s above.
        steps: at most.
    """
    p, damping = np.asarray(start, dtype=float), DAMPING
    r = residuals(p)
    cost, J = _cost(r, spread), jacobian(residuals, p)
    for _ in range(steps):
        weighted = J.T / np.sqrt(1 + (r / spread) ** 2)
        normal = weighted @ J
        damped = normal + np.diag(damping * np.diag(normal) + SMALLEST)
        moved = np.clip(p - np.linalg.solve(damped, weighted @ r), -reach, reach)
        r_moved = residuals(moved)
        lower = _cost(r_moved, spread)
        if lower >= cost:
            damping *= HARDEN
            if damping > STUCK:
                break
            continue
        converged = cost - lower < CONVERGED * cost
        p, r, cost, damping = moved, r_moved, lower, damping * EASE
        J = jacobian(residuals, p)
        if converged:
            break
    bend = (1 + (r / spread) ** 2) ** -1.5  # ρ′ + 2·z·ρ″
    return Solution(p, cost, (J.T * bend) @ J)


def jacobian(function: Function, p: Array) -> Array:
    """∂function/∂p (n, k) by central differences."""
    steps = np.eye(len(p)) * DIFFERENCE
    return np.stack([(function(p + h) - function(p - h)) / (2 * DIFFERENCE) for h in steps], axis=1)


def _cost(r: Array, spread: float) -> float:
    return float(spread**2 * (np.sqrt(1 + (r / spread) ** 2) - 1).sum())
