"""Steps that are not all alike: factors of single steps, whose true mean is known.

steady       2 % from step to step                           a control
stragglers   one step in a hundred takes ten times as long   mean 1.09
glitch       the same steady steps, of which one trial has one that took a minute: no epoch pays
spells       slow drifts: AR(1) with a memory of fifty steps, 6 % of scatter
bimodal      three steps in ten take twice as long           mean 1.3
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from scipy.signal import lfilter

from epochcast.costmodel.features import Array

STEP_SD = 0.02
MEMORY, SPELL_SD = 0.98, 0.06
MINUTE = 60.0  # seconds
Factors = Callable[[np.random.Generator, int], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What single steps take, relative to the truth's own step.

    Attributes:
        factors: of so many steps.
        mean: expected.
        glitch: seconds that one step of one trial takes besides.
    """

    factors: Factors
    mean: float = 1.0
    glitch: float = 0.0


def steady(rng: np.random.Generator, n: int) -> Array:
    """Log-normal with mean 1."""
    return np.exp(rng.normal(-(STEP_SD**2) / 2, STEP_SD, n))


def stragglers(rng: np.random.Generator, n: int) -> Array:
    """One in a hundred, ten times as long."""
    return steady(rng, n) * np.where(rng.random(n) < 0.01, 10.0, 1.0)


def spells(rng: np.random.Generator, n: int) -> Array:
    """Slow drifts, from their stationary distribution on."""
    shocks = rng.normal(0, SPELL_SD * sqrt(1 - MEMORY**2), n)
    shocks[0] = rng.normal(0, SPELL_SD)
    return np.exp(lfilter([1.0], [1.0, -MEMORY], shocks)) * steady(rng, n)


def bimodal(rng: np.random.Generator, n: int) -> Array:
    """Three in ten, twice as long."""
    return steady(rng, n) * np.where(rng.random(n) < 0.3, 2.0, 1.0)


TAILS = {
    "steady": Tail(factors=steady),
    "stragglers": Tail(factors=stragglers, mean=1.09),
    "glitch": Tail(factors=steady, glitch=MINUTE),
    "spells": Tail(factors=spells, mean=exp(SPELL_SD**2 / 2)),
    "bimodal": Tail(factors=bimodal, mean=1.3),
}
