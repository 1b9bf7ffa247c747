"""Memory: the peak of live tensors at any batch size, and what must be there so that it fits.

    live_i(B) = a_i + b_i·B    a_i, b_i ≥ 0     after event i of a step
    peak(B)   = max_i live_i(B)                 a maximum of lines in the batch size

Timelines of one sequence of events at two batch sizes give the line of every moment, hence the peak
of all batch sizes exactly (``envelopes``). Without them only some peaks are known, but the maximum
of such lines is convex, never falls, and grows no faster than the batch, which bounds it on both
sides (``hinge``; Boyd & Vandenberghe 2004, "Convex optimization", sections 3.1 and 3.2.3):

    between two counted peaks   below the chord, above the chords beside it, drawn on
    beyond them                 above the last chord, drawn on; below proportion to the batch

Allocator, driver and process need more than the live tensors (``Layer``):

    bytes(x) = peak(x) + beyond(x)          where tensors were tracked; beyond is learned
    bytes(x) = reserve(x) + beyond(x)       where the allocator was simulated, too
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
from itertools import groupby, pairwise
from math import hypot, log1p, log2, sqrt

import numpy as np

from epochcast.costmodel.features import Array, VariableTable
from epochcast.costmodel.scatter import ASSUMED_DOF, NOTHING, Scatter
from epochcast.costmodel.surface import BYTES_SD_PER_DOUBLING, Surface
from epochcast.records import Footprint, RunConfig, Sizes
from epochcast.records.footprint import Timeline

PARABOLA = 0.75  # from the lower bound to the chord, in the middle of three equal intervals
SLACK = 0.01  # of a slope: allocations are rounded, padding is chance
WHOLE = 0.5  # bytes within which a count is on a line
FRAGMENTATION = Scatter(sd=0.05, dof=ASSUMED_DOF)  # φ before anything is measured
WORTH = 1.0  # measurements that this counts as
INFORMATIVE = 0.01  # of what is needed beyond peaks: less than its noise
LEAST_SD = 1e-4  # σ: counters of devices count in megabytes
MAX_STEPS, CONVERGED = 200, 1e-4  # of expectation–maximisation, and the change of φ that ends them

PEAKS = ("step_peak_bytes", "update_peak_bytes")
PEAK, RESERVE = "peak_bytes", "reserve_bytes"  # what a layer may be counted from

Line = tuple[float, float]  # bytes a sample, bytes without any
Point = tuple[float, float]  # batch size, bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The peaks of one model size at every batch size, from timelines.

    Attributes:
        sizes: the model size.
        step, update: the lines whose maximum is the peak of forward and backward, of the update.
    """

    sizes: Sizes
    step: tuple[Line, ...]
    update: tuple[Line, ...]

    def peaks(self, batch_size: float) -> dict[str, float]:
        """Bytes by the name of the count."""
        found = (highest(lines, batch_size) for lines in (self.step, self.update))
        return dict(zip(PEAKS, found, strict=True))


def highest(lines: Sequence[Line], batch_size: float) -> float:
    """The maximum of lines."""
    return max(base + slope * batch_size for slope, base in lines)


def envelopes(counted: Mapping[RunConfig, Footprint]) -> tuple[Envelope, ...]:
    """One for each model size of which two timelines match, and every count lies on their lines."""
    by_sizes: dict[Sizes, dict[int, Footprint]] = {}
    for config, footprint in counted.items():
        by_sizes.setdefault(config.sizes, {})[config.batch_size] = footprint
    found = (_envelope(sizes, by_batch) for sizes, by_batch in by_sizes.items())
    return tuple(envelope for envelope in found if envelope is not None)


def _envelope(sizes: Sizes, by_batch: Mapping[int, Footprint]) -> Envelope | None:
    timelines = {b: x.timeline for b, x in sorted(by_batch.items()) if x.timeline is not None}
    if len(timelines) < 2:
        return None
    low, high = min(timelines), max(timelines)
    if not _are_one_sequence(timelines[low], timelines[high], high / low):
        return None
    before, after = _lines(timelines[low], timelines[high], low, high)
    envelope = Envelope(sizes=sizes, step=upper_envelope(before), update=upper_envelope(after))
    for batch_size, footprint in by_batch.items():
        for name, peak in envelope.peaks(batch_size).items():
            known = footprint.count(name)
            if known is not None and abs(known - peak) > WHOLE:
                return None
    return envelope


def _are_one_sequence(a: Timeline, b: Timeline, growth: float) -> bool:
    """Whether the same blocks come and go, none growing faster than the batch."""
    same = (a.block_kinds, a.step_end) == (b.block_kinds, b.step_end) and _order(a) == _order(b)
    sizes = zip(a.block_bytes, b.block_bytes, strict=False)
    return same and all(x <= y <= growth * x for x, y in sizes)


def _order(timeline: Timeline) -> list[int]:
    """The events, except that what is freed between two allocations has no order."""
    runs = groupby(timeline.events, key=lambda event: event > 0)
    return [event for made, run in runs for event in (run if made else sorted(run))]


def _lines(a: Timeline, b: Timeline, low: int, high: int) -> tuple[list[Line], list[Line]]:
    """Of every moment until the update begins, and from then on."""
    lines = [
        ((y - x) / (high - low), x - (y - x) / (high - low) * low)
        for x, y in zip(a.live_bytes(), b.live_bytes(), strict=True)
    ]
    made = [event > 0 for event in a.events]
    end = a.step_end
    before = [line for line, is_made in zip(lines[:end], made[:end], strict=True) if is_made]
    after = [line for line, is_made in zip(lines[end:], made[end:], strict=True) if is_made]
    return before, [*lines[end - 1 : end], *after]


def upper_envelope(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Those of the lines that are the highest at some batch size from 1 on, by their slope."""
    kept: list[Line] = []
    for line in sorted(set(lines)):
        while kept and _is_covered(kept, line):
            kept.pop()
        kept.append(line)
    return tuple(kept)


def _is_covered(kept: Sequence[Line], steeper: Line) -> bool:
    """Whether the last line is never above a steeper one where it is above those before it."""
    slope, base = kept[-1]
    start = 1.0
    if len(kept) > 1:
        other_slope, other_base = kept[-2]
        start = max(start, (other_base - base) / (slope - other_slope))
    return steeper[1] + steeper[0] * start >= base + slope * start


def hinge(counted: Mapping[float, float], batch_size: float) -> tuple[float, Scatter] | None:
    """The peak at a batch size between or beyond those that were counted, and its scatter.

    Beyond them the last slope goes on, and may change once more by as much as it changed last.

    Args:
        counted: batch size → bytes, of one model size.

    Returns:
        None of fewer than two peaks, or of peaks that are no maximum of lines.
    """
    points = sorted(counted.items())
    slopes = [0.0, *((q - p) / (b - a) for (a, p), (b, q) in pairwise(points))]
    if len(points) < 2 or any(t < s * (1 - SLACK) for s, t in pairwise(slopes)):
        return None
    if batch_size > points[-1][0]:
        return _above(points[-1], slopes[-2:], batch_size)
    if batch_size < points[0][0]:
        return _below(points[0], slopes[1:3], batch_size)
    return _between(points, slopes, batch_size)


def _above(last: Point, slopes: Sequence[float], batch_size: float) -> tuple[float, Scatter]:
    """Beyond the last of the points, to which the last of two slopes leads."""
    distance = batch_size - last[0]
    value = last[1] + slopes[1] * distance
    room = last[1] * batch_size / last[0] - value  # negative: this is no maximum of lines
    change = max(0.0, slopes[1] - slopes[0]) * distance
    sd = min(change, room) if room >= 0 else change
    return value, _scatter(value, sd, log2(batch_size / last[0]))


def _below(first: Point, slopes: Sequence[float], batch_size: float) -> tuple[float, Scatter]:
    """Below the first of the points, from which the first of one or two slopes leads."""
    distance = first[0] - batch_size
    value = max(first[1] - slopes[0] * distance, first[1] * batch_size / first[0])
    change = max(0.0, slopes[-1] - slopes[0] if len(slopes) > 1 else slopes[0]) * distance
    sd = min(change, first[1] - value)
    return value, _scatter(value, sd, log2(first[0] / batch_size))


def _between(
    points: Sequence[Point], slopes: Sequence[float], batch_size: float
) -> tuple[float, Scatter]:
    """Between two points; ``slopes`` lead to each of the points, the first one is flat."""
    right = next(i for i, (b, _) in enumerate(points) if i and b >= batch_size)
    (a, p), (b, q) = points[right - 1], points[right]
    chord = p + slopes[right] * (batch_size - a)
    bounds = [p + slopes[right - 1] * (batch_size - a), q * batch_size / b]
    if right + 1 < len(points):
        bounds.append(q - slopes[right + 1] * (b - batch_size))
    least = min(chord, max(bounds))
    value = least + PARABOLA * (chord - least)
    return value, _scatter(value, chord - value, 0.0)


def _scatter(value: float, sd: float, outside: float) -> Scatter:
    """Of so many bytes, and what is added for doublings outside the counted range."""
    return Scatter(sd=hypot(sd / max(value, 1.0), BYTES_SD_PER_DOUBLING * outside))


# -- beyond the live tensors ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Bytes of one layer as a function of a configuration and its peak of live tensors.

    Attributes:
        surface: of what it needs beyond the peak, or of all of it.
        beyond_peak: which of the two.
        base: the count that it is beyond: the peak of live tensors, or what torch's caching
            allocator holds for them in a simulation (``Footprint.reserve_bytes``).
        run: scatter of the surface's quantity from run to run.
        fragmentation: φ, of a configuration that was not measured, as a share of the peak.
    """

    surface: Surface
    beyond_peak: bool
    run: Scatter
    fragmentation: Scatter = NOTHING
    base: str = PEAK

    def values(self, table: VariableTable, peak: Array) -> Array:
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
            variables: of the configuration, by name.
            peak: bytes of its live tensors at their peak.
            of_peak: how far that peak may be off.
            measured: whether this very configuration was, and has fragmented already.
        """
        known = {**variables, "peak_bytes": peak}
        share = peak / max(self.value(variables, peak), 1.0) if self.beyond_peak else 1.0
        own = self.run + self.surface.scatter(known)
        beyond = _of_part(own, 1.0 - share) if self.beyond_peak else own
        broken = NOTHING if measured else _of_part(self.fragmentation, share)
        return max(beyond, broken, key=_reach) + _of_part(of_peak, share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What a phase of a run beside training needs of each layer; None where it was not measured."""

    allocated: Layer | None = None
    reserved: Layer | None = None
    device_bytes: Layer | None = None


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
    responsible = np.zeros(n)
    for _ in range(MAX_STEPS):
        variance = sigma2 * b**2 + phi2 * p**2
        e2 = _squared_residuals(p, b, variance) * n / spare
        responsible = phi2 * p**2 / variance
        of_tensors = (phi2 * p / variance) ** 2 * e2 + phi2 * (1 - responsible)
        of_rest = (1 - responsible) ** 2 * e2 / b**2 + sigma2 * responsible
        before = phi2
        phi2 = (WORTH * prior.sd**2 + float(of_tensors.sum())) / (WORTH + n)
        sigma2 = max(float(of_rest.mean()), LEAST_SD**2)
        if abs(phi2 - before) < CONVERGED * before:
            break
    known = WORTH + float(responsible.sum()) * spare / n
    # s is no better known than φ; and few measurements do not make an assumption less certain
    return Scatter(sd=sqrt(phi2 * (1 + 1 / known)), dof=max(prior.dof, known))


def can_identify_share(peaks: Sequence[float], beyond: Sequence[float]) -> bool:
    """Whether peaks differ enough to tell what is needed in proportion to them from a constant."""
    return bool(peaks) and max(peaks) - min(peaks) >= INFORMATIVE * max(beyond)


def _squared_residuals(p: Array, b: Array, variance: Array) -> Array:
    """Of the weighted least squares of b on a constant and p, whatever unit both are in."""
    weights = 1 / np.sqrt(variance)
    X = np.stack([np.ones(len(p)), p / max(p.max(), 1e-300)], axis=1)
    line = np.linalg.lstsq(X * weights[:, None], b * weights, rcond=None)[0]
    return np.asarray((b - X @ line) ** 2)
