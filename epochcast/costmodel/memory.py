"""What a layer of the memory system needs so that the live tensors fit: allocator, driver, process.

    bytes(x) = peak(x) + beyond(x)          where tensors were tracked; beyond is learned
    bytes(x)                                where they were not; all of it is learned

Beyond the tensors themselves come rounding, fragmentation, workspaces, the context and libraries:
most of it constant, some of it in proportion to the peak, never less than nothing. So a few
megabytes of noise cannot tilt a line through peaks that hardly differ.

A caching allocator also fragments, and no two configurations alike: tensors of a gigabyte may
need a tenth more or less than others, beside a context that never changes. Hence two parts of
scatter,

    beyond_i = c + s·peak_i + e_i        e_i ~ N(0, σ²·beyond_i² + φ²·peak_i²)

of which σ is the surface's and φ is learned here (``fragmentation``). The wider of the two rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log1p, sqrt

import numpy as np

from epochcast.costmodel.features import Array, Table
from epochcast.costmodel.intervals import ASSUMED_DOF, Scatter
from epochcast.costmodel.surface import Surface

NO_FRAGMENTATION = Scatter(sd=0.0)
FRAGMENTATION = Scatter(sd=0.05, dof=ASSUMED_DOF)  # φ before anything is measured
WORTH = 1.0  # measurements that this counts as
TELLING = 0.01  # of what is needed beyond peaks: less than its noise
LEAST_SD = 1e-4  # σ: counters of devices count in megabytes
MAX_STEPS, CONVERGED = 200, 1e-4  # of expectation–maximisation, and the change of φ that ends them


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Bytes of one layer as a function of a configuration and its peak of live tensors.

    Attributes:
        surface: of what it needs beyond the peak, or of all of it.
        beyond_peak: which of the two.
        run: scatter of the surface's quantity from run to run.
        fragmentation: φ, of a configuration that was not measured, as a share of the peak.
    """

    surface: Surface
    beyond_peak: bool
    run: Scatter
    fragmentation: Scatter = NO_FRAGMENTATION

    def values(self, table: Table, peak: Array) -> Array:
        """Bytes in n configurations; peak (n,), not negative."""
        learned = self.surface.values({**table, "peak_bytes": peak})
        return np.asarray(peak + learned if self.beyond_peak else learned)

    def value(self, variables: Mapping[str, float], peak: float) -> float:
        """Bytes in one configuration."""
        learned = self.surface.value({**variables, "peak_bytes": peak})
        return peak + learned if self.beyond_peak else learned

    def scatter(
        self,
        variables: Mapping[str, float],
        peak: float,
        of_peak: Scatter,
        *,
        measured: bool = False,
    ) -> Scatter:
        """Of ``value``: what is learned and the peak scatter by themselves, in proportion.

        The surface's own scatter is that of configurations that have fragmented, too. So the wider
        of the two counts, which is the surface's where the context rules, and not their sum.

        Args:
            measured: whether this very configuration was, and has fragmented already.
        """
        known = {**variables, "peak_bytes": peak}
        share = peak / max(self.value(variables, peak), 1.0) if self.beyond_peak else 1.0
        own = self.run + self.surface.scatter(known)
        beyond = _of_part(own, 1.0 - share) if self.beyond_peak else own
        broken = NO_FRAGMENTATION if measured else _of_part(self.fragmentation, share)
        return max(beyond, broken, key=_reach) + _of_part(of_peak, share)


def _of_part(scatter: Scatter, share: float) -> Scatter:
    """Scatter of a whole of which a share scatters: log(1 + s·(eˢᵈ − 1)), to first order s·sd."""
    reach = float(np.expm1(min(scatter.sd, 30.0)))
    return Scatter(sd=log1p(share * reach), dof=scatter.dof)


def _reach(scatter: Scatter) -> float:
    return scatter.quantile(1.0, 0.95)


def fragmentation(
    peaks: Sequence[float], beyond: Sequence[float], prior: Scatter = FRAGMENTATION
) -> Scatter:
    """φ, by expectation–maximisation over the parts of e that are fragmentation.

    Of e_i the share k_i = φ²·peak_i² / (σ²·beyond_i² + φ²·peak_i²) is fragmentation, with what is
    left uncertain of it (Dempster, Laird & Rubin 1977, section 4.4, variance components); φ² has a
    scaled inverse-χ² prior. Configurations whose tensors are small beside the context say nothing
    of φ, and do not make it small.

    Args:
        peaks: bytes of live tensors in each configuration measured.
        beyond: bytes that each needed beyond them.
        prior: of φ, worth ``WORTH`` measurements.
    """
    p, b = np.asarray(peaks, float), np.asarray(beyond, float)
    n, spare = len(p), len(p) - 2  # a line through them uses up two
    if spare < 1:
        return Scatter(sd=prior.sd * sqrt(1 + 1 / WORTH), dof=prior.dof)
    phi2, sigma2 = prior.sd**2, prior.sd**2
    told = np.zeros(n)
    for _ in range(MAX_STEPS):
        variance = sigma2 * b**2 + phi2 * p**2
        e2 = _squared_residuals(p, b, variance) * n / spare
        told = phi2 * p**2 / variance
        of_tensors = told**2 * e2 / np.maximum(p, 1.0) ** 2 + phi2 * (1 - told)
        of_rest = (1 - told) ** 2 * e2 / b**2 + sigma2 * told
        before = phi2
        phi2 = (WORTH * prior.sd**2 + float(of_tensors.sum())) / (WORTH + n)
        sigma2 = max(float(of_rest.mean()), LEAST_SD**2)
        if abs(phi2 - before) < CONVERGED * before:
            break
    known = WORTH + float(told.sum()) * spare / n
    # s is no better known than φ; and few measurements do not make an assumption less certain
    return Scatter(sd=sqrt(phi2 * (1 + 1 / known)), dof=max(prior.dof, known))


def is_telling(peaks: Sequence[float], beyond: Sequence[float]) -> bool:
    """Whether peaks differ enough to tell what is needed in proportion to them from a constant."""
    return bool(peaks) and max(peaks) - min(peaks) >= TELLING * max(beyond)


def _squared_residuals(p: Array, b: Array, variance: Array) -> Array:
    """Of the weighted least squares of b on a constant and p."""
    weights = 1 / np.sqrt(variance)
    X = np.stack([np.ones(len(p)), p], axis=1) * weights[:, None]
    line = np.linalg.lstsq(X, b * weights, rcond=None)[0]
    return np.asarray((b - line[0] - line[1] * p) ** 2)
