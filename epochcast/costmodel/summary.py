"""Raw samples of a trial to robust numbers, and the trials of a configuration to one row.

A step's cost is a mean, because an epoch is a sum of steps; but single glitches of the machine
must not move it, and a loader with W workers delivers in bursts of W batches, so a median over
steps is wrong. So a series is the mean of its ordinary samples, over whole periods of the loop, and
what rare slow ones add to that is learned from all trials together (``tails.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from math import log
from statistics import fmean, median

import numpy as np

from epochcast.costmodel.epoch import evaluation_of
from epochcast.costmodel.tails import (
    Series,
    Tails,
    divided,
    ordinary_samples,
    tails_of,
)
from epochcast.records import Measurement, RunConfig, Summary, Warning_
from epochcast.units import format_number_of, format_percent

Value = Callable[[Measurement], float | None]

NOISY = 0.1  # half the range over trials; on a quiet machine it is a tenth of that
BLOCKS = 9  # of a series: enough for a spread


def steady_mean(samples: Sequence[float], period: int = 1) -> float:
    """The mean of the ordinary samples of a series, in their unit; see ``tails.py``.

    Args:
        samples: durations in the order taken; at least one.
        period: samples after which the series repeats its pattern, e.g. accumulation × workers.

    Raises:
        ValueError: ``samples`` is empty.
    """
    return float(ordinary_samples(samples, period).mean())


def step_series(m: Measurement) -> Series:
    """The steady micro-steps of a successful trial, divided into ordinary and slow ones."""
    return divided(m.step_seconds, _period(m), m.steps_per_sample)


def eval_series(m: Measurement) -> Series | None:
    """Its evaluation batches, likewise; None where there are none."""
    return divided(m.eval_batch_seconds, _eval_period(m)) if m.eval_batch_seconds else None


def ordinary_step_seconds(m: Measurement) -> float:
    """Seconds of one steady micro-step that is not slow."""
    return steady_mean(m.step_seconds, _period(m))


def step_seconds(m: Measurement, slow: Tails | None = None) -> float:
    """Seconds of one steady micro-step of a successful trial, what slow ones add included: as far
    as it alone can tell, or as ``slow`` has learned from the trials beside it."""
    return ordinary_step_seconds(m) * (slow or tails_of([m], step_series)).of(m).factor


def with_slow(ordinary: Value, slow: Tails) -> Value:
    """The mean seconds of something done in every step, from those of ordinary steps."""

    def mean(m: Measurement) -> float | None:
        seconds = ordinary(m)
        return None if seconds is None else seconds * slow.of(m).factor

    return mean


def first_steps_seconds(m: Measurement) -> float:
    """Seconds that the warm-up steps of a trial took beyond as many steady ones; not negative."""
    warm_up = m.warmup_seconds
    return max(0.0, sum(warm_up) - step_seconds(m) * len(warm_up)) if warm_up else 0.0


def eval_seconds(m: Measurement) -> float | None:
    """Seconds of one pass over the evaluation data; None where it was not measured."""
    batch = eval_batch_seconds(m)
    if batch is None:
        return None
    restart = median(m.eval_restart_seconds) if m.eval_restart_seconds else 0.0
    return restart + evaluation_of(m.eval_samples, m.config).micro_batches * batch


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
    """Seconds of one ordinary micro-step without the optimizer's update."""
    if not m.update_seconds:
        return ordinary_step_seconds(m) * padded(m)
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
    """Seconds of one ordinary micro-step without the update and without waiting for data."""
    micro = micro_seconds(m)
    if micro is None or not m.data_wait_seconds:
        return None
    updates = m.update_seconds or (0.0,) * len(m.step_seconds)
    parts = zip(m.step_seconds, updates, m.data_wait_seconds, strict=True)
    whole = micro / padded(m)
    return micro - whole + steady_mean([step - u - wait for step, u, wait in parts], _period(m))


def loader_seconds(m: Measurement) -> float | None:
    """Seconds a batch, of the loader alone."""
    if not m.loader_seconds:
        return None
    return steady_mean(m.loader_seconds, m.config.period)


def waiting_share(m: Measurement) -> float | None:
    """Share of its steps that waits for data; None where that was not told apart."""
    waits = m.data_wait_seconds
    return min(1.0, sum(waits) / sum(m.step_seconds)) if waits else None


def eval_batch_seconds(m: Measurement) -> float | None:
    """Seconds of one evaluation batch."""
    return steady_mean(m.eval_batch_seconds, _eval_period(m)) if m.eval_batch_seconds else None


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


def reserve_bytes(m: Measurement) -> float | None:
    """What the allocator holds for the tensors, simulated."""
    return float(m.footprint.reserve_bytes) if m.footprint and m.footprint.reserve_bytes else None


def beyond_peak(value: Value, count: str = "peak_bytes") -> Value:
    """What a layer of memory needed beyond the live tensors; None where they were not tracked.

    Args:
        value: the layer's bytes.
        count: what was counted of the tensors: their peak, or ``"reserve_bytes"``.
    """

    def beyond(m: Measurement) -> float | None:
        whole, counted = value(m), m.footprint.count(count) if m.footprint else None
        return None if whole is None or counted is None else max(1.0, whole - counted)

    return beyond


def restart_beyond_wait_seconds(m: Measurement) -> float:
    """Starting a pass over the loader, beyond the wait that every step's own time includes."""
    if not m.loader_restart_seconds or not m.data_wait_seconds:
        return 0.0
    return max(0.0, median(m.loader_restart_seconds) - fmean(m.data_wait_seconds))


def relative_sd(m: Measurement) -> float:
    """Noise of an ordinary micro-step as a long series feels it, relative to the step.

    The standard deviation of block means times the root of the block's length (batch means; Law
    & Kelton 2000, "Simulation modeling and analysis", section 9.5.3): steps that are slow together
    do not average out as independent ones would. Half the range of the middle 68 % stands for the
    standard deviation, where there are enough of them to have a middle.
    """
    period = _period(m)
    x = ordinary_samples(m.step_seconds, period)
    block = max(1, len(x) // BLOCKS)
    means = np.sort(x[: len(x) // block * block].reshape(-1, block).mean(axis=1))
    last = len(means) - 1
    sd = (means[round(0.84 * last)] - means[round(0.16 * last)]) / 2
    if 1 < len(means) < BLOCKS:
        sd = means.std(ddof=1)
    return float(sd / means.mean() * (block * period * m.steps_per_sample) ** 0.5)


def noise_dof(m: Measurement) -> int:
    """Degrees of freedom of ``relative_sd``: the blocks whose means it compares, less one."""
    x = ordinary_samples(m.step_seconds, _period(m))
    return min(len(x), len(x) // max(1, len(x) // BLOCKS)) - 1


def _period(m: Measurement) -> int:
    return m.config.period if m.steps_per_sample == 1 else 1


def _eval_period(m: Measurement) -> int:
    return max(1, m.config.workers)


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


def round_logs(
    groups: Mapping[RunConfig, Sequence[Measurement]], value: Value
) -> list[dict[int, float]]:
    """Of each configuration, round → log of a quantity, where it is known and above zero."""
    return [
        {m.round: log(v) for m in trials if (v := value(m)) is not None and v > 0}
        for trials in groups.values()
    ]


def _order(config: RunConfig) -> tuple[object, ...]:
    """By knobs, numbers as numbers, then by batch size, then by everything else.

    One configuration may have knobs that another has not: knobs are compared with knobs alone.
    """
    knobs = tuple((name, isinstance(v, str), v) for name, v in config.sizes)
    return knobs, config.batch_size, config.label


def summarise(measurements: Iterable[Measurement]) -> tuple[Summary, ...]:
    """One row per workload, device and configuration."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        key = (measurement.workload, measurement.device.key)
        groups.setdefault(key, []).append(measurement)
    return tuple(chain.from_iterable(_summaries(groups[key]) for key in sorted(groups)))


def _summaries(trials: Sequence[Measurement]) -> list[Summary]:
    slow = tails_of([trial for trial in trials if trial.status == "ok"], step_series)
    return [_summary(some, slow) for some in group_by_config(trials).values()]


def _summary(trials: Sequence[Measurement], slow: Tails) -> Summary:
    good = [trial for trial in trials if trial.status == "ok"]
    latest = trials[-1]
    probe_seconds = sum(trial.probe_seconds for trial in trials)
    note = next((trial.note for trial in reversed(trials) if trial.note), "")
    if not good:
        return Summary(
            workload=latest.workload,
            config=latest.config,
            device=latest.device,
            status=latest.status,
            message=latest.message,
            probe_seconds=probe_seconds,
            log=latest.log,
            note=note,
        )
    steps = [step_seconds(v, slow) for v in good]
    step = median(steps)
    footprint = next((v.footprint for v in reversed(good) if v.footprint), None)
    return Summary(
        workload=latest.workload,
        config=latest.config,
        device=latest.device,
        status="ok",
        trials=len(good),
        step_seconds=step,
        step_spread=(max(steps) - min(steps)) / (2 * step) if len(steps) > 1 else None,
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
        device_bytes=max((b for v in good if (b := _run_bytes(v))), default=None),
        parameters=footprint.count("parameters") if footprint else None,
        flops=footprint.count("flops") if footprint else None,
        probe_seconds=probe_seconds,
        trace=next((v.trace for v in reversed(trials) if v.trace), None),
        log=latest.log,
        note=note,
    )


def noisy(summaries: Sequence[Summary]) -> tuple[Warning_, ...]:
    """That trials of the same configuration differ much: of which most, and by how much."""
    spread = [s for s in summaries if (s.step_spread or 0.0) > NOISY]
    if not spread:
        return ()
    most = max(spread, key=lambda s: s.step_spread or 0.0)
    found = Warning_.of(
        "noisy",
        config=most.config.label,
        spread=format_percent(most.step_spread or 0.0),
        count=f"{len(spread)} of {format_number_of(len(summaries), 'configuration')}",
        limit=format_percent(NOISY),
    )
    return (found,)


def _run_bytes(trial: Measurement) -> int:
    """The most that training, evaluation and saving took of the device; 0 where none is known."""
    phases = (trial.memory, trial.eval_memory, trial.save_memory)
    return max((peaks.device_bytes or 0 for peaks in phases if peaks), default=0)


def _share(part: Sequence[float], trial: Measurement) -> float | None:
    return min(1.0, sum(part) / sum(trial.step_seconds)) if part else None


def _median_of(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
