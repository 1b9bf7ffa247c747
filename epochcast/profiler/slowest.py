"""One measurement of a training on several devices, from what each of its ranks measured.

    rank 0   step  9  9 12 …   loader 2 2   memory 1.0 GiB ─┐
    rank 1   step 10  9  9 …   loader 3 3   memory 1.2 GiB ─┴─▶ step 10 9 12 …  loader 3 3  1.2 GiB

Ranks wait for each other in every update, so a step lasts as long as its slowest, and so does what
each of them does alone. torch is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from epochcast.errors import WorkloadError
from epochcast.records import Measurement, MemoryPeaks

TOGETHER = ("warmup_seconds", "step_seconds", "data_wait_seconds")  # of the same steps, on each
APART = (
    "loader_seconds",
    "loader_restart_seconds",
    "eval_batch_seconds",
    "eval_restart_seconds",
    "save_seconds",
)
ONCE = ("import_seconds", "build_seconds", "probe_seconds")
MEMORY = ("memory", "eval_memory", "save_memory")


def slowest_of(ranks: Sequence[Measurement]) -> Measurement:
    """What all ranks together took; what is the same on all is the first one's.

    Args:
        ranks: one successful measurement of each, in their order.

    Raises:
        WorkloadError: they are on devices of more than one kind.
    """
    first = ranks[0]
    kinds = {m.device.key: m.device.label for m in ranks}
    if len(kinds) > 1:
        raise WorkloadError(
            f"ranks are on different devices, {' and '.join(kinds.values())}: choose alike ones "
            "with CUDA_VISIBLE_DEVICES"
        )
    found: dict[str, Any] = {name: _longest_each(ranks, name) for name in TOGETHER}
    found |= {name: max((getattr(m, name) for m in ranks), key=_mean) for name in APART}
    found |= {name: max(getattr(m, name) for m in ranks) for name in ONCE}
    found |= {name: _fullest([getattr(m, name) for m in ranks]) for name in MEMORY}
    waits = found["data_wait_seconds"] or [0.0] * len(found["step_seconds"])
    left = [step - wait for step, wait in zip(found["step_seconds"], waits, strict=True)]
    updates = zip(_longest_each(ranks, "update_seconds"), left, strict=False)
    found["update_seconds"] = tuple(max(0.0, min(pair)) for pair in updates)
    watts = [m.power_watts for m in ranks if m.power_watts is not None]
    joules = [m.step_joules for m in ranks if m.step_joules is not None]
    warnings = {w.code: w for m in ranks for w in m.warnings}
    return replace(
        first,
        power_watts=fmean(watts) if watts else None,
        step_joules=fmean(joules) if joules else None,
        save_bytes=sum(m.save_bytes for m in ranks),
        warnings=tuple(warnings.values()),
        **found,
    )


def _longest_each(ranks: Sequence[Measurement], name: str) -> tuple[float, ...]:
    """Of every step the longest on any rank."""
    series = (getattr(m, name) for m in ranks)
    return tuple(max(at) for at in zip(*series, strict=True))


def _mean(samples: Sequence[float]) -> float:
    return fmean(samples) if samples else 0.0


def _fullest(peaks: Sequence[MemoryPeaks | None]) -> MemoryPeaks | None:
    """Of the device that had the least left."""
    known = [p for p in peaks if p is not None]
    taken: Callable[[MemoryPeaks], int] = lambda p: p.device_bytes or 0  # noqa: E731
    return max(known, key=taken, default=None)
