"""Rare slow steps: how often and how long, learned over all trials of a sweep together.

An epoch is a sum, so what counts is the mean of its steps; but where one step in a hundred takes
ten times as long, a trial of a hundred steps has seen none of them, one or three. So each trial
tells what an ordinary step takes, and all of them together what the slow ones add:

    samples   │ x x x X x x x x x x X X x x x …      of one trial; whole periods of the loop
    slow      above b + max(b/2, 6·1.4826·MAD), b the median: Hampel's identifier (1974)
    ordinary  μ = mean of the others
    event     slow samples with at most ``GAP`` others between them; its excess e = Σ (x − μ)/μ, in
              ordinary steps (runs declustering; Coles 2001, section 5.3.2)

    name   meaning
    N, K   steps and events of all trials; a configuration c has n_c, K_c
    s      share of time that events add: mean step = μ·(1 + s)
    D      variance of that share over one step: compound Poisson, Σ e²/N, times φ

    s       = Σ e / N         with the largest e cut to the second largest: a glitch says nothing
    φ       = max(1, Pearson's X² of the thirds of trials / its degrees of freedom)
    s_c     = s + w·(S_c − s)          S_c = Σ_c e / n_c,  w = τ²/(τ² + D/n_c)
    s_trial = s_c + w'·(S_trial − S_c) likewise

φ is the overdispersion of events that come together (McCullagh & Nelder 1989, section 6.2.3). τ² is
what configurations (and trials of one) differ by beyond chance, a random effect (DerSimonian &
Laird 1986). Where one event is all there is, it is taken for a glitch: the mean is without it, the
variance knows that a step of ``UNSEEN`` ordinary ones might come again.

A sample may be the mean of several steps, as of whole epochs; what is slow there is less than what
is slow among single steps, because everything shorter is in the ordinary mean already. So a trial
learns from those alone that see as much as it does, and only events that it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log2, sqrt
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel.features import Array
from epochcast.costmodel.scatter import KNOWN_DOF, Scatter
from epochcast.records import Measurement

LEAST_EXCESS = 0.25  # of the median: less is what steps differ by anyway
SDS = 6.0  # beyond which noise does not come
TO_SD = 1.4826  # a normal's standard deviation, in median absolute deviations
MIN_SAMPLES = 3  # fewer have no median to be beyond
GAP = 2  # samples
UNSEEN = 10.0  # ordinary steps that a slow one takes, by assumption, while only one was seen
CLASSES = 2  # in an octave of the least excess: trials of one class see the same events
THIRDS = 3  # of a trial: what comes together within a tenth of it is seen to


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One trial's samples, divided into what is ordinary and what is slow.

    Attributes:
        ordinary: μ, seconds of a step.
        steps: n.
        events: e of each.
        lengths: slow samples of each.
        thirds: of the trial in which each began, from 0.
        least: an event of fewer ordinary steps is in μ; infinite where everything is.
    """

    ordinary: float
    steps: int
    events: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()
    thirds: tuple[int, ...] = ()
    least: float = 0.0


def divided(samples: Sequence[float], period: int = 1, steps_per_sample: int = 1) -> Series:
    """A trial's samples, divided.

    Args:
        samples: seconds of a step in the order taken; at least one.
        period: samples after which the series repeats its pattern, e.g. accumulation × workers.
        steps_per_sample: that each is the mean of.

    Raises:
        ValueError: ``samples`` is empty.
    """
    x = whole_periods(samples, period)
    per_sample = steps_per_sample * min(period, len(samples))
    limit = slow_beyond(x)
    slow = x > limit
    ordinary = float(x[~slow].mean())
    steps = len(x) * per_sample
    least = (limit / ordinary - 1.0) * per_sample if ordinary > 0 else inf
    if not slow.any():
        return Series(ordinary=ordinary, steps=steps, least=least)
    places = np.flatnonzero(slow)
    first = np.diff(places, prepend=places[0] - GAP - 2) > GAP + 1
    event = np.cumsum(first) - 1
    return Series(
        ordinary=ordinary,
        steps=steps,
        events=tuple(np.bincount(event, (x[places] / ordinary - 1.0) * per_sample).tolist()),
        lengths=tuple(np.bincount(event).tolist()),
        thirds=tuple((places[first] * THIRDS // len(x)).tolist()),
        least=least,
    )


def ordinary_samples(samples: Sequence[float], period: int = 1) -> Array:
    """Means over whole periods that are not slow, (n,).

    Raises:
        ValueError: ``samples`` is empty.
    """
    x = whole_periods(samples, period)
    return np.asarray(x[x <= slow_beyond(x)])


def whole_periods(samples: Sequence[float], period: int) -> Array:
    """Means over whole periods, (n,); the mean of all where there is not even one.

    Raises:
        ValueError: ``samples`` is empty.
    """
    if not samples:
        raise ValueError("samples must not be empty")
    x = np.asarray(samples, float)
    period = min(period, len(x))
    return np.asarray(x[: len(x) // period * period].reshape(-1, period).mean(axis=1))


def slow_beyond(x: Array) -> float:
    """The seconds beyond which samples (n,) are slow."""
    middle = float(np.median(x))
    if len(x) < MIN_SAMPLES or middle <= 0:
        return inf
    spread = TO_SD * float(np.median(np.abs(x - middle)))
    return middle + max(LEAST_EXCESS * middle, SDS * spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What slow steps add in one trial.

    Attributes:
        share: s, of the time of ordinary steps.
        variance: of the mean step, relative: few events were seen. Common to all trials.
        dof: its degrees of freedom.
        step_sd: what events add to the noise of one step, relative: √D/(1 + s).
    """

    share: float = 0.0
    variance: float = 0.0
    dof: float = KNOWN_DOF
    step_sd: float = 0.0

    @property
    def factor(self) -> float:
        """A mean step over an ordinary one."""
        return 1.0 + self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """What slow steps add in each of several trials, by the identity of its measurement."""

    by_trial: Mapping[int, Tail]

    def of(self, measurement: Measurement) -> Tail:
        """In one of the trials."""
        return self.by_trial[id(measurement)]

    @property
    def scatter(self) -> Scatter:
        """Of what all trials have in common: no round of theirs shows it, a later run may."""
        known = list(self.by_trial.values())
        variance = fmean(tail.variance for tail in known)
        return Scatter(sd=sqrt(variance), dof=min(tail.dof for tail in known))


def tails_of(
    measurements: Sequence[Measurement], series: Callable[[Measurement], Series | None]
) -> Tails:
    """What slow steps add in trials that belong together: of one workload, device and variant.

    Args:
        measurements: that succeeded; at least one.
        series: of a trial; None where it has none.
    """
    known = [(m, one) for m in measurements if (one := series(m)) is not None]
    found = tails([one for _, one in known], [m.config for m, _ in known])
    named = {id(m): tail for (m, _), tail in zip(known, found, strict=True)}
    return Tails(by_trial={id(m): named.get(id(m), Tail()) for m in measurements})


def tails(series: Sequence[Series], configurations: Sequence[Hashable]) -> list[Tail]:
    """What slow steps add in each of several trials.

    Args:
        series: of each trial.
        configurations: of each trial; what slow steps add may differ between them.
    """
    classes = [round(CLASSES * log2(s.least)) if s.least < inf else None for s in series]
    found: list[Tail] = [Tail()] * len(series)
    largest = sorted(e for one in series for e in one.events)[-2:]
    for limit in {c for c in classes if c is not None}:
        among = [i for i, c in enumerate(classes) if c is not None and c <= limit]
        of_them = [configurations[i] for i in among]
        pooled = _pooled(
            [series[i] for i in among],
            of_them,
            2 ** ((limit - 0.5) / CLASSES),
            largest[0] if largest else 0.0,
        )
        for i, tail in zip(among, pooled, strict=True):
            if classes[i] == limit:
                found[i] = tail
    return found


def _pooled(
    series: Sequence[Series], configurations: Sequence[Hashable], floor: float, cap: float
) -> list[Tail]:
    """The same of trials that learn from each other, by events of at least ``floor`` steps."""
    found = [
        (e, length, i, third)
        for i, one in enumerate(series)
        for e, length, third in zip(one.events, one.lengths, one.thirds, strict=True)
        if e >= floor
    ]
    if not found:
        return [Tail()] * len(series)
    n = np.array([one.steps for one in series], float)
    excess, lengths, trial, third = (np.array(column) for column in zip(*found, strict=True))
    if len(found) == 1:
        variance = float(np.minimum(excess, UNSEEN * lengths)[0] / n.sum()) ** 2
        return [Tail(variance=variance, dof=2.0)] * len(series)
    e = np.minimum(excess, cap)
    D = float((e**2).sum() / n.sum()) * _overdispersion(e, trial, third, n)
    of_trial = np.bincount(trial, e, minlength=len(n)) / n
    of_config, config, n_config = _by_configuration(of_trial, n, configurations)
    s = float(e.sum() / n.sum())
    w = _random_effects(of_config, D / n_config)
    w_trial = _random_effects(of_trial - of_config[config], D / n)
    shares = s + (w * (of_config - s))[config] + w_trial * (of_trial - of_config[config])
    variances = (w * D / n_config + (1 - w) * D / n.sum())[config] * (1 + 1 / len(e))
    dof = 2 * float((e**2).sum() ** 2 / (e**4).sum())
    return [
        Tail(share=share, variance=v / (1 + share) ** 2, dof=dof, step_sd=sqrt(D) / (1 + share))
        for share, v in zip(shares.tolist(), variances.tolist(), strict=True)
    ]


def _overdispersion(e: Array, trial: Array, third: Array, n: Array) -> float:
    """φ of events (K,) in their trials and thirds, of n steps a trial (T,)."""
    sums = np.bincount(trial * THIRDS + third, e, minlength=len(n) * THIRDS).reshape(-1, THIRDS)
    chance = (n / THIRDS * (e**2).sum() / n.sum())[:, None]
    squares = ((sums - sums.mean(axis=1, keepdims=True)) ** 2 / chance).sum()
    return max(1.0, float(squares) / (len(n) * (THIRDS - 1)))


def _by_configuration(
    of_trial: Array, n: Array, configurations: Sequence[Hashable]
) -> tuple[Array, NDArray[Any], Array]:
    """S_c of each configuration, which of them each trial is of, and n_c."""
    positions = {c: k for k, c in enumerate(dict.fromkeys(configurations))}
    config = np.array([positions[c] for c in configurations])
    n_config = np.bincount(config, n).astype(float)
    return np.bincount(config, of_trial * n) / n_config, config, n_config


def _random_effects(values: Array, variances: Array) -> Array:
    """w: how far each of several values is believed rather than their mean, (m,)."""
    weights = 1 / variances
    spare = weights.sum() - (weights**2).sum() / weights.sum()
    if len(values) < 2 or spare <= 0:
        return np.zeros(len(values))
    mean = (weights * values).sum() / weights.sum()
    Q = float((weights * (values - mean) ** 2).sum())
    between = max(0.0, (Q - (len(values) - 1)) / spare)
    return np.asarray(between / (between + variances))
