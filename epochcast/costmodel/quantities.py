"""What one measurement says of each quantity that is learned; None where it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, median

from epochcast.costmodel import summary
from epochcast.records import Measurement

Value = Callable[[Measurement], float | None]


def samples(m: Measurement) -> float | None:
    """Training samples of an epoch."""
    return float(m.samples)


def eval_samples(m: Measurement) -> float | None:
    """Samples of an evaluation; 0 where there is none."""
    return float(m.eval_samples)


def update_seconds(m: Measurement) -> float | None:
    """Seconds of one optimizer update; None where it was not told apart."""
    if not m.update_seconds:
        return None
    return summary.steady_mean(m.update_seconds, _period(m)) * m.config.accumulation


def micro_seconds(m: Measurement) -> float | None:
    """Seconds of one steady micro-step without the optimizer's update."""
    if not m.update_seconds:
        return summary.step_seconds(m) * padded(m)
    rest = [step - update for step, update in zip(m.step_seconds, m.update_seconds, strict=True)]
    return summary.steady_mean(rest, _period(m)) * padded(m)


def padded(m: Measurement) -> float:
    """From the batches that happened to be timed to batches of the mean size, as a factor.

    Where batches differ in size, steps are priced by their padded elements: with slope b of step
    seconds over elements e, the mean moves by b times the difference of mean elements, a control
    variate (Glynn & Szechtman 2002).
    """
    if not m.batch_elements or m.footprint is None or not m.footprint.batch_elements:
        return 1.0
    sizes, steps = m.batch_elements, m.step_seconds
    middle, mean = fmean(sizes), fmean(steps)
    spread = sum((e - middle) ** 2 for e in sizes)
    both = sum((e - middle) * (t - mean) for e, t in zip(sizes, steps, strict=True))
    slope = (
        min(max(0.0, both / spread), mean / middle) if spread else 0.0
    )  # not more than all of it
    return 1.0 + slope * (m.footprint.batch_elements - middle) / mean


def compute_seconds(m: Measurement) -> float | None:
    """Seconds of one steady micro-step without the update and without waiting for data."""
    micro = micro_seconds(m)
    if micro is None or not m.data_wait_seconds:
        return None
    return micro - summary.steady_mean(m.data_wait_seconds, _period(m))


def loader_seconds(m: Measurement) -> float | None:
    """Seconds a batch, of the loader alone."""
    if not m.loader_seconds:
        return None
    return summary.steady_mean(m.loader_seconds, m.config.period)


def eval_batch_seconds(m: Measurement) -> float | None:
    """Seconds of one evaluation batch."""
    if not m.eval_batch_seconds:
        return None
    return summary.steady_mean(m.eval_batch_seconds, max(1, m.config.workers))


def save_seconds(m: Measurement) -> float | None:
    """Seconds of one checkpoint."""
    return median(m.save_seconds) if m.save_seconds else None


def save_bytes(m: Measurement) -> float | None:
    """Size of one checkpoint."""
    return float(m.save_bytes)


def fresh_build_seconds(m: Measurement) -> float | None:
    """Building in a process that has built nothing yet, as a real run does: what the user's code
    imports on the way is paid once, by the first trial."""
    return m.build_seconds if m.trial == 0 else None


def allocated_bytes(m: Measurement) -> float | None:
    """The allocator's own peak."""
    return float(m.memory.allocated_bytes) if m.memory and m.memory.allocated_bytes else None


def reserved_bytes(m: Measurement) -> float | None:
    """What the allocator took from the device."""
    return float(m.memory.reserved_bytes) if m.memory and m.memory.reserved_bytes else None


def device_bytes(m: Measurement) -> float | None:
    """What the device gave away."""
    return float(m.memory.device_bytes) if m.memory and m.memory.device_bytes else None


def tensor_bytes(m: Measurement) -> float | None:
    """The peak of live tensors, or else the allocator's own."""
    peak = m.footprint.count("peak_bytes") if m.footprint else None
    return allocated_bytes(m) if peak is None else float(peak)


def beyond_peak(value: Value) -> Value:
    """What a layer of memory needed beyond the live tensors; None where they were not tracked."""

    def beyond(m: Measurement) -> float | None:
        whole, peak = value(m), m.footprint.count("peak_bytes") if m.footprint else None
        return None if whole is None or peak is None else max(1.0, whole - peak)

    return beyond


def turn_beyond_wait_seconds(m: Measurement) -> float:
    """Starting a pass over the loader, beyond the wait that every step's own time includes."""
    if not m.loader_restart_seconds or not m.data_wait_seconds:
        return 0.0
    return max(0.0, median(m.loader_restart_seconds) - fmean(m.data_wait_seconds))


def relative_sd(m: Measurement) -> float:
    """Noise of a micro-step as a long series feels it, relative to the step.

    The standard deviation of block means times the root of the block's length (batch means; Law
    & Kelton 2000, "Simulation modeling and analysis", section 9.5.3): steps that are slow together
    do not average out as independent ones would. Half the range of the middle 68 % stands for the
    standard deviation, so that single glitches do not count.
    """
    means, length = summary.block_means(m.step_seconds, _period(m))
    ordered, last = sorted(means), len(means) - 1
    spread = ordered[round(0.84 * last)] - ordered[round(0.16 * last)]
    return float(spread / 2 / fmean(means) * (length * m.steps_per_sample) ** 0.5)


def _period(m: Measurement) -> int:
    return m.config.period if m.steps_per_sample == 1 else 1
