"""Hypothesis strategies for every record, and one measurement to vary by hand."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from enum import Enum
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from epochcast import records
from epochcast.records import (
    Device,
    Footprint,
    Measurement,
    MemoryPeaks,
    RunConfig,
    RunOutcome,
    Sizes,
)
from epochcast.records.epoch_ranges import ranges_of

CPU = Device(kind="cpu", name="Test CPU", memory_bytes=8 * 2**30, torch="2.13.0", threads=2)


def make_measurement(batch_size: int = 32, width: int = 256, **changes: Any) -> Measurement:
    """A successful measurement as a probe would make it; ``changes`` replaces any field."""
    values: dict[str, Any] = {
        "workload": "mnist-mlp",
        "source": "abc123",
        "config": RunConfig(batch_size=batch_size, sizes=(("width", width),)),
        "device": CPU,
        "samples": 60000,
        "data": "synthetic",
        "warmup_seconds": (0.05, 0.002),
        "step_seconds": (0.001, 0.0012, 0.0011),
        "created_at": "2026-01-02T03:04:05.678901+00:00",
    }
    return Measurement(**(values | changes))


def make_outcome(run: str = "run-1", **changes: Any) -> RunOutcome:
    """A run of three epochs that took what was predicted; ``changes`` replaces any field."""
    values: dict[str, Any] = {
        "run": run,
        "workload": "mnist-mlp",
        "source": "abc123",
        "device": CPU,
        "config": RunConfig(batch_size=32, sizes=(("width", 256),)),
        "samples": 60000,
        "epochs": 3,
        "reason": records.StopReason.PLAN_DONE,
        "predicted": records.UnitPrices(
            startup=spread(4.0),
            first_steps=spread(0.5),
            epoch=spread(10.0),
            evaluation=spread(2.0),
            save=spread(0.1),
            epoch_noise=0.0,
        ),
        "total_predicted": spread(40.6),
        "startup_seconds": (4.0,),
        "first_epoch_seconds": (10.5,),
        "epoch_seconds": (10.0, 10.0),
        "evaluation_seconds": (2.0, 2.0, 2.0),
        "save_seconds": (0.1,),
        "total_seconds": 40.6,
        "finished_at": 1_767_000_000.0,
    }
    return RunOutcome(**(values | changes))


def spread(p50: float, by: float = 1.1) -> records.Quantiles:
    """P10 and P90 a factor from P50, P5 and P95 a larger one."""
    return records.Quantiles(
        p05=p50 / by**1.3, p10=p50 / by, p50=p50, p90=p50 * by, p95=p50 * by**1.3
    )


seconds = st.floats(0, 1e9)
positive_seconds = st.floats(1e-9, 1e9)
counts = st.integers(0, 2**53)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
size_values = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    texts,
)
sizes = st.dictionaries(texts, size_values, max_size=4).map(records.make_sizes)
quantiles = st.tuples(*[seconds] * 5).map(
    lambda values: records.Quantiles(
        **dict(zip(("p05", "p10", "p50", "p90", "p95"), sorted(values), strict=True))
    )
)

chances = st.none() | st.floats(0, 1)
_rising = st.lists(st.integers(1, 10**6), min_size=1, max_size=6, unique=True).map(sorted)


@st.composite
def learning_curves(draw: st.DrawFn) -> records.LearningCurve:
    """Any curve: increasing epochs, training values for all of them or none."""
    epochs = tuple(float(e) for e in draw(_rising))
    series = st.tuples(*[st.floats(-1e6, 1e6)] * len(epochs))
    return records.LearningCurve(
        epochs=epochs, validation=draw(series), training=draw(st.just(()) | series)
    )


@st.composite
def budgets(draw: st.DrawFn) -> records.Budget:
    """Any budget: a limit of money comes with a price, one of energy with a power."""
    limits = {name: draw(st.none() | seconds) for name in ("deadline", "memory", "disk")}
    if draw(st.booleans()):
        limits |= {"money": draw(seconds), "price_per_hour": draw(seconds)}
    if draw(st.booleans()):
        limits |= {"energy": draw(seconds), "watts": draw(positive_seconds)}
    return records.Budget(
        **limits,
        confidence=draw(st.floats(0.01, 0.99)),
        spent_seconds=draw(seconds),
        counted_from=draw(st.sampled_from(("now", "start", "total"))),
    )


def _of_type(kind: Any) -> st.SearchStrategy[Any]:
    """The strategy for the type of a field, nested records and tuples included."""
    simple = {int: counts, float: seconds, str: texts, bool: st.booleans(), type(None): st.none()}
    if kind == Sizes:
        return sizes
    if kind is records.Quantiles:
        return quantiles
    if kind is records.Timeline:
        return timelines()
    if kind is records.Budget:
        return budgets()
    if kind is RunConfig:
        return run_configs
    if kind is records.Option:
        return options
    if kind is records.UnitPrices:
        return unit_prices
    if kind is records.EpochRange:
        return epoch_ranges()
    if kind is records.Checkpoint:
        return _record(kind, epoch=positive, reach_probability=chances, stop_probability=chances)
    if kind in simple:
        return simple[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        return _of_tuple(get_args(kind))
    if get_args(kind):
        return st.one_of([_of_type(part) for part in get_args(kind)])
    return _record(kind)


def _of_tuple(parts: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if parts[-1] is Ellipsis:
        return st.lists(_of_type(parts[0]), max_size=4).map(tuple)
    return st.tuples(*[_of_type(part) for part in parts])


@st.composite
def timelines(draw: st.DrawFn) -> records.Timeline:
    """Any timeline: each block is made once, and some are freed later."""
    sizes = draw(st.lists(st.integers(0, 2**40), max_size=6))
    count = len(sizes)
    order = draw(st.permutations([e for n in range(1, count + 1) for e in (n, -n)]))
    made = {n: order.index(n) for n in range(1, count + 1)}
    events = [e for i, e in enumerate(order) if e > 0 or made[-e] < i]
    ends = sorted(draw(st.tuples(*[st.integers(0, len(events))] * 2)))
    names = st.lists(texts, max_size=3).map(tuple)
    return records.Timeline(
        block_bytes=tuple(sizes),
        block_kinds=tuple(draw(st.sampled_from(get_args(records.BlockKind))) for _ in sizes),
        block_operators=tuple(draw(st.integers(-1, 3)) for _ in sizes),
        block_modules=tuple(draw(st.integers(-1, 3)) for _ in sizes),
        operators=draw(names),
        modules=draw(names),
        events=tuple(events),
        forward_end=ends[0],
        step_end=ends[1],
    )


def _record(kind: type, **special: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any valid record of a class: required fields always, optional ones sometimes."""
    hints = get_type_hints(kind)
    chosen = {
        name: special[name] if name in special else _of_type(hint) for name, hint in hints.items()
    }
    required = {field.name for field in fields(kind) if field.default is MISSING}
    return st.fixed_dictionaries(
        {name: value for name, value in chosen.items() if name in required or name in special},
        optional={n: v for n, v in chosen.items() if n not in required and n not in special},
    ).map(lambda values: kind(**values))


positive = st.integers(1, 2**31)
dataset_specs = _record(records.DatasetSpec, samples=positive)
run_configs = _record(
    RunConfig,
    batch_size=positive,
    accumulation=st.integers(1, 64),
    world_size=st.integers(1, 64),
    nodes=st.just(1),  # never more than devices
    eval_batch_size=st.none() | positive,
)
devices = _record(Device)
footprints = _record(Footprint)
memory_peaks = _record(MemoryPeaks)
frequencies = _record(records.Frequency)
scripts = _record(records.Script)
communications = _record(records.Communication)
_measurement_parts: dict[str, st.SearchStrategy[Any]] = {
    "config": run_configs,
    "schema": st.just(records.SCHEMA),
    "round": st.integers(0, 100),
    "steps_per_sample": st.integers(1, 100),
}
good_measurements = _record(
    Measurement,
    **_measurement_parts,
    status=st.just("ok"),
    step_seconds=st.lists(positive_seconds, min_size=1, max_size=8).map(tuple),
)
failed_measurements = _record(
    Measurement,
    **_measurement_parts,
    status=st.sampled_from(("oom", "timeout", "crashed", "too-large")),
)
measurements = st.one_of(good_measurements, failed_measurements)
summaries = _record(records.Summary, config=run_configs)
warnings = _record(records.Warning_)
terms = _record(records.Term)
capacities = _record(records.Capacity, config=run_configs)
estimates = _record(records.Estimate, config=run_configs)
factors = st.floats(1e-3, 1e3)
unit_prices = _record(
    records.UnitPrices,
    epoch_noise=st.floats(0, 10),
    round_scatter=st.floats(0, 10),
    calibration=factors,
    startup_calibration=factors,
    evaluation_calibration=factors,
    save_calibration=factors,
)
options = _record(
    records.Option,
    epochs=positive,
    steps_per_epoch=positive,
    horizon_steps=positive,
    target_epochs=st.none() | positive,
    max_epochs=st.none() | positive,
    efficiency=st.none() | factors,
    probability=st.floats(0, 1),
    target_probability=chances,
)
checkpoints = _of_type(records.Checkpoint)


@st.composite
def _schedules(draw: st.DrawFn) -> tuple[records.Checkpoint, ...]:
    """Moments of a run, epoch by epoch."""
    return tuple(replace(draw(checkpoints), epoch=epoch) for epoch in draw(_rising)[:4])


@st.composite
def epoch_ranges(draw: st.DrawFn) -> records.EpochRange:
    """Any range of epochs."""
    first, every, more = draw(positive), draw(st.integers(1, 1000)), draw(st.integers(0, 10**6))
    return records.EpochRange(first=first, last=first + more * every, every=every)


_ranges = st.sets(positive, max_size=5).map(sorted).map(ranges_of)
_plan_parts: dict[str, st.SearchStrategy[Any]] = {
    "schema": st.just(records.SCHEMA),
    "options": st.lists(options, min_size=1, max_size=2).map(tuple),
    "evaluations": _ranges,
    "saves": _ranges,
    "timeline": _schedules(),
    "folds": positive,
    "min_epochs": positive,
    "target_epochs": st.none() | positive,
    "max_epochs": st.none() | positive,
    "save_interval_seconds": st.none() | factors,
    "mtbf_seconds": st.none() | factors,
}
plans = st.one_of(
    _record(records.Plan, **_plan_parts, unit=st.just("epoch"), segment_steps=st.none()),
    _record(records.Plan, **_plan_parts, unit=st.just("step"), segment_steps=positive),
)
spot_offers = _record(records.SpotOffer)
powers = _record(records.Power, watts=st.floats(0, 1e15), spread=st.floats(0, 1e15))
shortfalls = _record(records.Shortfall)
gradient_noises = _record(records.GradientNoise)
run_outcomes = _record(records.RunOutcome, schema=st.just(records.SCHEMA), epoch_share=factors)
outlooks, stop_rules = _record(records.Outlook), _record(records.StopRule)
positions = _record(records.Position)
runs_started = _record(records.RunStarted, schema=st.just(records.SCHEMA))
epochs_done, runs_ended = _record(records.EpochDone), _record(records.RunEnded)
notices = _record(records.Notice)
run_events = st.one_of(runs_started, epochs_done, notices, runs_ended)

device_specs = _record(
    records.DeviceSpec,
    memory_bytes=positive,
    capability=st.tuples(st.integers(0, 99), st.integers(0, 9)),
    multiprocessors=positive,
    threads_per_multiprocessor=positive,
)
step_marks = _record(records.StepMark, position=st.integers(0, 5))
unknown_bytes = _record(
    records.UnknownBytes,
    position=st.integers(0, 5),
    block=st.just(0),
    low_bytes=st.integers(0, 100),
    high_bytes=st.integers(100, 2**40),
)


@st.composite
def device_sequences(draw: st.DrawFn) -> records.DeviceSequence:
    """Blocks that are made one after another, and some freed."""
    count = draw(st.integers(0, 4))
    columns = st.tuples(*[st.integers(-1, 0)] * count)
    return records.DeviceSequence(
        device=draw(device_specs),
        block_bytes=draw(st.tuples(*[positive] * count)),
        block_kinds=draw(st.tuples(*[st.sampled_from(("parameter", "workspace"))] * count)),
        block_streams=(0,) * count,
        block_operators=draw(columns),
        block_modules=draw(columns),
        block_lines=draw(columns),
        operators=(draw(texts),),
        modules=(draw(texts),),
        lines=(draw(texts),),
        events=(*range(1, count + 1), *range(-count, 0)),
        marks=tuple(sorted(draw(st.lists(step_marks, max_size=3)), key=lambda m: m.position)),
        unknown=tuple(draw(st.lists(unknown_bytes, max_size=2))),
        source=draw(st.sampled_from(("device", "cpu"))),
        remarks=draw(st.tuples(texts)),
        flops_by_module=draw(st.tuples(st.tuples(texts, counts))),
        config=draw(st.none() | run_configs),
        samples=draw(counts),
    )


shares = _record(records.Share)
live_tensors = _record(records.LiveTensor)
unseen = _record(records.Unseen)
memory_curves = st.integers(0, 3).flatmap(
    lambda points: st.builds(
        records.MemoryCurve,
        kinds=st.just(("parameters", "activations")),
        live=st.tuples(*[st.tuples(counts, counts)] * points),
        reserved=st.tuples(*[counts] * points),
        moments=st.just((("forward", 0),)),
    )
)
device_needs = _record(
    records.DeviceNeed,
    config=run_configs,
    device=device_specs,
    confidence=st.floats(0.01, 0.99),
    probability=st.floats(0, 1),
    curve=st.none() | memory_curves,
)
largest_values = _record(
    records.LargestValue, need=st.none() | device_needs, above=st.none() | device_needs
)
alternatives = _record(records.Alternative, need=st.none() | device_needs)
asked_steps = _record(records.AskedStep)
timed_rounds = _record(
    records.TimedRounds, step_seconds=st.lists(st.floats(1e-9, 1e9), min_size=1).map(tuple)
)
baseline_entries = _record(
    records.BaselineEntry,
    config=run_configs,
    timed=st.lists(timed_rounds, max_size=2).map(tuple),
    counts=st.dictionaries(texts, counts, max_size=3),
    peak_by_module=st.dictionaries(texts, counts, max_size=3),
    flops_by_module=st.dictionaries(texts, counts, max_size=3),
)
baselines = _record(
    records.Baseline,
    schema=st.just(records.SCHEMA),
    entries=st.lists(baseline_entries, max_size=2).map(tuple),
)
changes = _record(records.Change)
checked_steps = _record(
    records.CheckedStep,
    before=st.none() | baseline_entries,
    after=baseline_entries,
    changes=st.lists(changes, max_size=2).map(tuple),
)

every_record = st.one_of(
    communications,
    spot_offers,
    powers,
    device_specs,
    device_sequences(),
    device_needs,
    largest_values,
    alternatives,
    baselines,
    checked_steps,
    timelines(),
    epoch_ranges(),
    dataset_specs,
    run_configs,
    devices,
    footprints,
    memory_peaks,
    measurements,
    summaries,
    quantiles,
    warnings,
    terms,
    estimates,
    capacities,
    learning_curves(),
    budgets(),
    plans,
    shortfalls,
    gradient_noises,
    frequencies,
    scripts,
    unit_prices,
    options,
    checkpoints,
    outlooks,
    stop_rules,
    positions,
    run_events,
    run_outcomes,
)
