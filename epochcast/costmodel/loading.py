"""A micro-step from two surfaces that meet: computing, and loading data.

    workers = 0    t = compute + loader                  one after the other, in one process
    workers ≥ 1    t = (computeᵖ + loaderᵖ)^(1/p)        meanwhile: the slower one rules
    loader(W)      = loader(W₀) · (max(1, W₀) / max(1, W))^γ

Both are measured alone: ``loader_seconds`` without computing, and computing as a step without its
wait for data. p is the one that fits the whole steps best; γ is 1 (twice the workers, half the
time) unless two numbers of workers were probed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf, log, log2, sqrt
from statistics import fmean

import numpy as np

from epochcast.costmodel.discrepancy import IMPROVEMENT
from epochcast.costmodel.surface import TIME_SD_PER_DOUBLING, Surface, join, shares_of

OVERLAPS = (inf, 4.0, 2.0, 1.0)
IDEAL_SCALING = 1.0

Point = tuple[Mapping[str, float], float]  # variables, and seconds of a whole micro-step


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """Computing alone, loading alone, and how they meet.

    Attributes:
        compute: seconds of a micro-step without update and without waiting.
        loader: seconds a batch, of the loader alone, with ``workers`` processes.
        overlap: p; None is infinity (JSON has none).
        error: root mean square error of the two together, on the log scale.
        better: whether steps left out are predicted better so than by a surface of the steps.
    """

    compute: Surface
    loader: Surface
    workers: int
    overlap: float | None
    error: float
    better: bool

    def loader_seconds(
        self, variables: Mapping[str, float], workers: int, scaling: float = IDEAL_SCALING
    ) -> float:
        """Seconds a batch of the loader alone, with another number of workers.

        Args:
            variables: of the configuration, by name.
            workers: processes that load; none takes as long as one.
            scaling: γ, what more workers help; 1 halves the time with twice the workers, 0 changes
                nothing.
        """
        factor = max(1, self.workers) / max(1, workers)
        return self.loader.value(variables) * float(factor**scaling)

    def micro_step_seconds(
        self, variables: Mapping[str, float], workers: int, scaling: float = IDEAL_SCALING
    ) -> float:
        """Seconds of a micro-step without update.

        Args:
            variables: of the configuration, by name.
            workers: processes that load meanwhile; 0 adds loading to computing.
            scaling: γ, what more workers help; 1 halves the time with twice the workers, 0 changes
                nothing.
        """
        parts = (self.compute.value(variables), self.loader_seconds(variables, workers, scaling))
        return _together(parts, 1.0 if workers == 0 else self._overlap_of_workers)

    def sd_log(self, variables: Mapping[str, float], workers: int) -> float:
        """Standard deviation of that on the log scale: the ruling part's, and one more for each
        doubling of the workers from those probed."""
        compute, loader = self.compute.value(variables), self.loader_seconds(variables, workers)
        ruling = self.compute if compute > loader else self.loader
        own = sqrt(self.error**2 + ruling.sd_log(variables) ** 2)
        distance = doublings(workers, self.workers)
        return hypot(own * (1.0 + distance), TIME_SD_PER_DOUBLING * distance)

    @property
    def _overlap_of_workers(self) -> float:
        return inf if self.overlap is None else self.overlap


def doublings(workers: int, probed: int) -> float:
    """How far two numbers of workers are apart; from none to one is a doubling too."""
    return abs(log2((workers + 1) / (probed + 1)))


def fit_loading(
    compute: Surface | None,
    loader: Surface | None,
    steps: Sequence[Point],
    *,
    direct_error: float,
    workers: int,
) -> Loading | None:
    """How computing and loading meet in the steps measured; None where one was not measured.

    Args:
        compute: seconds of a micro-step without update and without its wait for data.
        loader: seconds a batch of the loader alone.
        steps: variables and seconds of whole micro-steps without update.
        direct_error: leave-one-out error of a surface fitted to the steps themselves.
        workers: processes that loaded in all of these measurements; with 0 nothing overlaps.
    """
    if compute is None or loader is None:
        return None
    parts = [(compute.value(x), loader.value(x)) for x, _ in steps]
    candidates = OVERLAPS if workers else (1.0,)
    errors = {p: _error(parts, [t for _, t in steps], p) for p in candidates}
    overlap = min(candidates, key=lambda p: errors[p])
    without_workers = workers == 0
    return Loading(
        compute=compute,
        loader=loader,
        workers=workers,
        overlap=None if overlap == inf or without_workers else overlap,
        error=errors[overlap],
        better=len(steps) > 1
        and not without_workers
        and hypot(errors[overlap], _left_out(compute, loader, parts, overlap))
        < IMPROVEMENT * direct_error,
    )


def _left_out(
    compute: Surface, loader: Surface, parts: Sequence[tuple[float, float]], overlap: float
) -> float:
    """Leave-one-out error of the two together, from that of each: log t moves by (part / t)ᵖ times
    what the log of a part moves by."""
    terms = np.array(parts)
    shares = shares_of(terms, join(terms.T, overlap), ((0,), (1,)), overlap)
    errors = shares * np.array([compute.left_out_rmse, loader.left_out_rmse])
    return float(np.sqrt((errors**2).sum(axis=1).mean()))


def _error(parts: Sequence[tuple[float, float]], steps: Sequence[float], overlap: float) -> float:
    logs = [log(t / _together(p, overlap)) for p, t in zip(parts, steps, strict=True)]
    return sqrt(fmean(x * x for x in logs))


def _together(parts: tuple[float, float], overlap: float) -> float:
    return float(join(np.array(parts)[:, None], overlap)[0])


def worker_scaling(loadings: Sequence[Loading], variables: Mapping[str, float]) -> float:
    """γ between the fewest and the most workers probed; ideal where only one number was."""
    by_workers = {max(1, x.workers): x for x in loadings}
    few, many = min(by_workers), max(by_workers)
    if few == many:
        return IDEAL_SCALING
    ratio = by_workers[few].loader.value(variables) / by_workers[many].loader.value(variables)
    return min(IDEAL_SCALING, max(0.0, log(ratio) / log(many / few)))
