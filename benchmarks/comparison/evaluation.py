"""The evaluating half of the accuracy benchmark: fit on few configurations, predict the others.

rounds 0 1   of the fitted configurations: what every method learns from
             of the held-out ones: the noise floor, against …
rounds 2 3   of the held-out ones: the truth, their median; each single value for coverage
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import epochcast as ec
from comparison import alternatives as other
from comparison import recording, report
from comparison.alternatives import Known
from comparison.cases import DEVICE, EPOCHCAST, NOISE, PEAK, STEP, WITHOUT, Answer, Case, document
from comparison.scoreboard import all_scores
from comparison.splits import SPLITS, Split, splits
from epochcast.costmodel import summary
from epochcast.records import Footprint, Measurement, RunConfig
from epochcast.records.documents import to_builtins

FIT_ROUNDS = (0, 1)
TOOLS = {
    "MemTracker (runs it)": "mem_tracker_bytes",
    "accelerate": "accelerate_bytes",
    "DeepSpeed": "deepspeed_bytes",
    "torchinfo": "torchinfo_bytes",
}

Trials = Mapping[RunConfig, Sequence[Measurement]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was found out about one configuration without measuring its time."""

    workload: str
    config: RunConfig
    footprint: Footprint
    accelerate_bytes: int
    deepspeed_bytes: int
    torchinfo_bytes: int
    mem_tracker_bytes: int


def evaluate(trials: Path, counts: Path, result: Path, docs: Path) -> None:
    """Read, compare, print, write.

    Args:
        trials: the recording of ``measure``.
        counts: what ``count`` wrote.
        result: file for scores and cases.
        docs: folder with the document that the tables belong to.
    """
    about, measurements = recording.read(trials)
    counted = msgspec.json.decode(counts.read_bytes(), type=list[Counts])
    cases = all_cases(measurements, counted)
    scores = all_scores(cases)
    head = {
        **about,
        "device": measurements[0].device.label,
        "measuring_seconds": sum(m.probe_seconds for m in measurements),
        "tables": to_builtins(scores),
    }
    result.write_text(document(head, cases))
    text = report.text(about, measurements, cases, exact_dry_runs(measurements, counted))
    print(text)
    report.insert(docs / "accuracy.md", text)


def exact_dry_runs(
    measurements: Iterable[Measurement], counted: Sequence[Counts]
) -> tuple[int, int]:
    """Of how many configurations the dry run's peak is the real step's, byte for byte; of all."""
    dry = {(c.workload, c.config): c.footprint for c in counted}
    pairs = {
        ((m.workload, m.config), m.footprint.peak_bytes): dry[m.workload, m.config].peak_bytes
        for m in measurements
        if m.footprint is not None and (m.workload, m.config) in dry
    }
    return sum(real == simulated for (_, real), simulated in pairs.items()), len(pairs)


def all_cases(
    measurements: Iterable[Measurement],
    counted: Sequence[Counts] = (),
    names: Sequence[str] = SPLITS,
) -> list[Case]:
    """Every held-out configuration of every split of every workload.

    Args:
        measurements: of full grids.
        counted: dry runs of the configurations.
        names: of the splits.
    """
    by_workload: dict[str, list[Measurement]] = defaultdict(list)
    for m in measurements:
        if m.status == "ok":
            by_workload[m.workload].append(m)
    return [
        case
        for workload, group in by_workload.items()
        for split in splits(m.config for m in group)
        if split.name in names
        for case in _split_cases(
            split,
            summary.group_by_config(group),
            {c.config: c for c in counted if c.workload == workload},
        )
    ]


def _split_cases(
    split: Split, trials: Trials, counted: Mapping[RunConfig, Counts]
) -> Iterable[Case]:
    fitted = [m for c in split.fitted for m in trials[c] if m.round in FIT_ROUNDS]
    model = ec.fit(fitted)
    for config in split.held_out:
        first = [m for m in trials[config] if m.round in FIT_ROUNDS]
        later = [m for m in trials[config] if m.round not in FIT_ROUNDS]
        if first and later:
            counts = counted.get(config)
            yield _time_case(split, model, fitted, first, later, counts)
            yield from _memory_cases(split, model, fitted, first, later, counts)


def _time_case(
    split: Split,
    model: ec.CostModel,
    fitted: Sequence[Measurement],
    first: Sequence[Measurement],
    later: Sequence[Measurement],
    counts: Counts | None,
) -> Case:
    config = first[0].config
    known = _known(fitted, summary.step_seconds)
    with_dry, without = _estimates(model, config, counts)
    return _case(
        split,
        model,
        STEP,
        later,
        summary.step_seconds,
        {
            NOISE: median(map(summary.step_seconds, first)),
            EPOCHCAST: with_dry.step_seconds,
            WITHOUT: without.step_seconds,
            "constant throughput": other.constant_throughput(known, config),
            "line per model (DeepView)": other.line(known, config),
            "first epoch (carbontracker, runs it)": other.first_epoch(first),
            "log-linear regression": other.log_linear(known, config),
            "Gaussian process": other.gaussian_process(known, config),
        },
    )


def _memory_cases(
    split: Split,
    model: ec.CostModel,
    fitted: Sequence[Measurement],
    first: Sequence[Measurement],
    later: Sequence[Measurement],
    counts: Counts | None,
) -> Iterable[Case]:
    config = first[0].config
    with_dry, without = _estimates(model, config, counts)
    quantity = {PEAK: _peak_bytes, DEVICE: summary.device_bytes}
    for name, value in quantity.items():
        if any(value(m) is None for m in (*fitted, *first, *later)):
            continue
        known = _known(fitted, value)
        field = name.replace(" ", "_")
        answers: dict[str, Answer] = {
            NOISE: median(value(m) for m in first),
            EPOCHCAST: getattr(with_dry, field),
            WITHOUT: getattr(without, field),
            "nearest": other.nearest(known, config),
            "line per model (DeepView)": other.line(known, config),
            "log-linear regression": other.log_linear(known, config),
            "Gaussian process": other.gaussian_process(known, config),
        }
        if counts is not None and name == PEAK:  # none of them knows the process
            answers |= {tool: float(getattr(counts, field_)) for tool, field_ in TOOLS.items()}
        yield _case(split, model, name, later, value, answers)


def _estimates(
    model: ec.CostModel, config: RunConfig, counts: Counts | None
) -> tuple[ec.Estimate, ec.Estimate]:
    """With the configuration's own dry run, and without."""
    asked: dict[str, Any] = {"epochs": 1, "batch_size": config.batch_size, **dict(config.sizes)}
    without = model.predict(**asked)
    if counts is None:
        return without, without
    return model.predict(**asked, footprint=counts.footprint), without


def _case(
    split: Split,
    model: ec.CostModel,
    quantity: str,
    later: Sequence[Measurement],
    value: Any,
    answers: dict[str, Answer],
) -> Case:
    values = tuple(float(value(m)) for m in later)
    return Case(
        workload=model.workload.rpartition(":")[2],
        split=split.name,
        quantity=quantity,
        config=later[0].config,
        measured=median(values),
        later=values,
        answers=answers,
        probing_seconds=model.probing_seconds,
    )


def _known(trials: Sequence[Measurement], value: Any) -> list[Known]:
    groups = summary.group_by_config(trials)
    return [Known(config, median(value(m) for m in group)) for config, group in groups.items()]


def _peak_bytes(m: Measurement) -> float | None:
    return float(m.footprint.peak_bytes) if m.footprint else None
