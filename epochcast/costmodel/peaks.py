"""The peak of live tensors as a function of the batch size: a maximum of lines.

    live_i(B) = a_i + b_i·B    a_i, b_i ≥ 0     after event i of a step
    peak(B)   = max_i live_i(B)

Timelines of one sequence of events at two batch sizes give the line of every moment, hence the peak
of all batch sizes exactly. Without them only some peaks are known, but the maximum of such lines is
convex, never falls, and grows no faster than the batch, which bounds it on both sides:

    between two counted peaks   below the chord, above the chords beside it, drawn on
    beyond them                 above the last chord, drawn on; below proportion to the batch

(Boyd & Vandenberghe 2004, "Convex optimization", sections 3.1 and 3.2.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import hypot, log2

from epochcast.costmodel.intervals import Scatter
from epochcast.costmodel.surface import BYTES_SD_PER_DOUBLING
from epochcast.records import Footprint, RunConfig, Sizes
from epochcast.records.footprint import Timeline

PARABOLA = 0.75  # from the lower bound to the chord, in the middle of three equal intervals
SLACK = 0.01  # of a slope: allocations are rounded, padding is chance
WHOLE = 0.5  # bytes within which a count is on a line

PEAKS = ("step_peak_bytes", "update_peak_bytes")

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
