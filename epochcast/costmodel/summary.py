"""Raw samples of a trial to robust numbers, and the trials of a configuration to one row.

A step's cost is a mean, because an epoch is a sum of steps; but single glitches of the machine
must not move it, and a loader with W workers delivers in bursts of W batches, so a median over
steps is wrong too. Both are met by the median of block means (Nemirovsky & Yudin 1983; Lugosi &
Mendelson 2019, "Mean estimation and regression under heavy-tailed distributions", section 2.1),
with blocks that hold whole periods of the loop:

    samples  │ x x x x │ x x x x │ x x x x │ …      block = a multiple of the period
    means         m₁        m₂        m₃             result = median(m₁, m₂, m₃, …)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from statistics import fmean, median

from epochcast.costmodel.epoch import divide
from epochcast.records import Measurement, RunConfig, Summary

Value = Callable[[Measurement], float | None]

BLOCKS = 9  # enough for a median that up to four glitches do not move


def steady_mean(samples: Sequence[float], period: int = 1) -> float:
    """The median of block means of a series, in the unit of its samples.

    Args:
        samples: durations in the order taken; at least one.
        period: samples after which the series repeats its pattern, e.g. accumulation × workers.

    Raises:
        ValueError: ``samples`` is empty.
    """
    means, _ = block_means(samples, period)
    return median(means) if len(means) >= 3 else fmean(means)


def block_means(samples: Sequence[float], period: int = 1) -> tuple[list[float], int]:
    """Means of about ``BLOCKS`` blocks of whole periods, and the length of a block.

    Raises:
        ValueError: ``samples`` is empty.
    """
    if not samples:
        raise ValueError("samples must not be empty")
    block = period * max(1, len(samples) // (BLOCKS * period))
    whole = len(samples) // block
    if not whole:
        return [fmean(samples)], len(samples)
    return [fmean(samples[i * block : (i + 1) * block]) for i in range(whole)], block


def step_seconds(measurement: Measurement) -> float:
    """Seconds of one steady micro-step of a successful trial."""
    period = measurement.config.period if measurement.steps_per_sample == 1 else 1
    return steady_mean(measurement.step_seconds, period)


def first_steps_seconds(measurement: Measurement) -> float:
    """Seconds that the warm-up steps of a trial took beyond as many steady ones; not negative."""
    if not measurement.warmup_seconds:
        return 0.0
    steady = step_seconds(measurement)
    return max(0.0, sum(measurement.warmup_seconds) - steady * len(measurement.warmup_seconds))


def eval_seconds(measurement: Measurement) -> float | None:
    """Seconds of one pass over the evaluation data; None where it was not measured."""
    if not measurement.eval_batch_seconds:
        return None
    batches = divide(measurement.eval_samples, measurement.config.batch_size, 1, 1).micro_batches
    restart = median(measurement.eval_restart_seconds) if measurement.eval_restart_seconds else 0.0
    return restart + batches * steady_mean(
        measurement.eval_batch_seconds, max(1, measurement.config.workers)
    )


# -- what one trial says of each quantity that is learned; None where it says nothing ---------


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
    return steady_mean(m.update_seconds, _period(m)) * m.config.accumulation


def micro_seconds(m: Measurement) -> float | None:
    """Seconds of one steady micro-step without the optimizer's update."""
    if not m.update_seconds:
        return step_seconds(m) * padded(m)
    rest = [step - update for step, update in zip(m.step_seconds, m.update_seconds, strict=True)]
    return steady_mean(rest, _period(m)) * padded(m)


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
    return micro - steady_mean(m.data_wait_seconds, _period(m))


def loader_seconds(m: Measurement) -> float | None:
    """Seconds a batch, of the loader alone."""
    if not m.loader_seconds:
        return None
    return steady_mean(m.loader_seconds, m.config.period)


def eval_batch_seconds(m: Measurement) -> float | None:
    """Seconds of one evaluation batch."""
    if not m.eval_batch_seconds:
        return None
    return steady_mean(m.eval_batch_seconds, max(1, m.config.workers))


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


def restart_beyond_wait_seconds(m: Measurement) -> float:
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
    means, length = block_means(m.step_seconds, _period(m))
    ordered, last = sorted(means), len(means) - 1
    spread = ordered[round(0.84 * last)] - ordered[round(0.16 * last)]
    return float(spread / 2 / fmean(means) * (length * m.steps_per_sample) ** 0.5)


def _period(m: Measurement) -> int:
    return m.config.period if m.steps_per_sample == 1 else 1


# -- all trials of a configuration ------------------------------------------------------------


def group_by_config(
    measurements: Iterable[Measurement],
) -> dict[RunConfig, tuple[Measurement, ...]]:
    """Measurements by configuration, in a canonical order of both."""
    groups: dict[RunConfig, list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault(measurement.config, []).append(measurement)
    order = sorted(groups, key=_order)
    return {config: tuple(sorted(groups[config], key=lambda m: m.round)) for config in order}


def _order(config: RunConfig) -> tuple[object, ...]:
    """By knobs, numbers as numbers, then by batch size, then by everything else."""
    knobs = tuple((name, isinstance(v, str), v) for name, v in config.sizes)
    return (*knobs, config.batch_size, config.label)


def summarise(measurements: Iterable[Measurement]) -> tuple[Summary, ...]:
    """One row per workload, device and configuration."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        key = (measurement.workload, measurement.device.key)
        groups.setdefault(key, []).append(measurement)
    configs = (group_by_config(groups[key]).values() for key in sorted(groups))
    return tuple(_summary(trials) for trials in chain.from_iterable(configs))


def _summary(trials: Sequence[Measurement]) -> Summary:
    good = [trial for trial in trials if trial.status == "ok"]
    latest = trials[-1]
    probe_seconds = sum(trial.probe_seconds for trial in trials)
    if not good:
        return Summary(
            workload=latest.workload,
            config=latest.config,
            device=latest.device,
            status=latest.status,
            message=latest.message,
            probe_seconds=probe_seconds,
            log=latest.log,
        )
    steps = [step_seconds(trial) for trial in good]
    step = median(steps)
    footprint = next((v.footprint for v in reversed(good) if v.footprint), None)
    return Summary(
        workload=latest.workload,
        config=latest.config,
        device=latest.device,
        status="ok",
        trials=len(good),
        step_seconds=step,
        step_spread=(max(steps) - min(steps)) / (2 * step),
        samples_per_second=latest.config.batch_size / step,
        data_wait_share=_median_of(_share(v.data_wait_seconds, v) for v in good),
        update_share=_median_of(_share(v.update_seconds, v) for v in good),
        loader_seconds=_median_of(
            steady_mean(v.loader_seconds, v.config.period) for v in good if v.loader_seconds
        ),
        eval_seconds=_median_of(eval_seconds(v) for v in good),
        save_seconds=_median_of(median(v.save_seconds) for v in good if v.save_seconds),
        save_bytes=max(v.save_bytes for v in good) or None,
        startup_seconds=median(v.import_seconds + v.build_seconds for v in good),
        first_steps_seconds=median(first_steps_seconds(v) for v in good),
        peak_bytes=footprint.count("peak_bytes") if footprint else None,
        device_bytes=max(
            (b for v in good if v.memory and (b := v.memory.device_bytes)), default=None
        ),
        parameters=footprint.count("parameters") if footprint else None,
        flops=footprint.count("flops") if footprint else None,
        probe_seconds=probe_seconds,
        trace=next((v.trace for v in reversed(trials) if v.trace), None),
        log=latest.log,
    )


def _share(part: Sequence[float], trial: Measurement) -> float | None:
    return min(1.0, sum(part) / sum(trial.step_seconds)) if part else None


def _median_of(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
