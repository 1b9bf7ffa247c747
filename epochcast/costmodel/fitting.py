"""Measurements to a cost model: one surface per quantity, one set of surfaces per variant.

visits ──▶ means over rounds, per configuration ──▶ counts(B, knobs)   exact polynomials
                                               ├──▶ micro-step(counts), update(counts), …
                                               └──▶ run-level scatter from round to round
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean, median, pstdev

from epochcast.costmodel import features as f
from epochcast.costmodel import summary
from epochcast.costmodel.intervals import ASSUMED_DOF, Scatter, round_scatter
from epochcast.costmodel.model import Constant, CostModel, Variant
from epochcast.costmodel.selection import Form, fit_surface
from epochcast.costmodel.surface import Surface
from epochcast.errors import FitError
from epochcast.records import Measurement, RunConfig

Value = Callable[[Measurement], float | None]

PROCESS_SCATTER = Scatter(sd=0.3, dof=ASSUMED_DOF)  # of start-up where one process was measured


def fit(measurements: Iterable[Measurement]) -> CostModel:
    """Learn a cost model from measurements of one workload on one device.

    Raises:
        FitError: there is nothing to learn from, or the measurements do not belong together.
    """
    known = sorted(measurements, key=lambda m: (m.created_at, m.key))
    good = [m for m in known if m.status == "ok"]
    _require_one_origin(known, good)
    newest = good[-1]
    return CostModel(
        workload=newest.workload,
        source=newest.source,
        device=newest.device,
        data=newest.data,
        samples=newest.samples,
        eval_samples=newest.eval_samples,
        imports=_constant([m.import_seconds for m in good if m.visit == 0]),
        variants=tuple(_variant(visits) for visits in _by_variant(good)),
        probing_seconds=sum(m.probe_seconds for m in known)
        + sum(m.import_seconds for m in known if m.visit == 0),
        measured_at=newest.created_at,
    )


def _require_one_origin(known: Sequence[Measurement], good: Sequence[Measurement]) -> None:
    if not known:
        raise FitError("there are no measurements to fit; probe the workload first")
    if not good:
        example = known[-1]
        raise FitError(
            f"none of the {len(known)} measurements succeeded; "
            f"the last one: {example.status}: {example.message}"
        )
    for name, values in (
        ("workload", {m.workload for m in good}),
        ("version of the workload's code", {m.source for m in good}),
        ("device", {m.device.label for m in good}),
        ("number of training samples", {str(m.samples) for m in good}),
    ):
        if len(values) > 1:
            raise FitError(
                f"a cost model belongs to one {name}, but got {len(values)}: "
                f"{', '.join(sorted(values))}; select one"
            )


def _by_variant(good: Sequence[Measurement]) -> list[list[Measurement]]:
    """Visits that differ in numbers only belong together; the most recent variant comes first."""
    groups: dict[object, list[Measurement]] = {}
    for m in good:
        c = m.config
        way = (c.precision, c.compiled, c.workers, c.world_size, c.drop_last)
        groups.setdefault((way, f.categories(c.sizes)), []).append(m)
    return sorted(groups.values(), key=lambda visits: visits[-1].created_at, reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The visits of a variant by configuration, and how to fit quantities to them."""

    groups: Mapping[RunConfig, Sequence[Measurement]]
    run: Scatter

    @property
    def axes(self) -> list[str]:
        """What may place a configuration: the batch size and the numeric knobs."""
        config = next(iter(self.groups))
        return ["batch_size", *f.numeric_knobs(config.sizes)]

    def surface(
        self, value: Value, candidates: Sequence[Form], *, drop: Sequence[str] = ()
    ) -> Surface | None:
        """The surface of a quantity over the configurations in which it is known."""
        rows, y = [], []
        for config, visits in self.groups.items():
            values = [v for m in visits if (v := value(m)) is not None and v > 0]
            if values:
                rows.append(self.variables(config, visits))
                y.append(exp(fmean(log(v) for v in values)))
        if not rows:
            return None
        axes = [axis for axis in self.axes if axis not in drop]
        known = set(rows[0]).intersection(*rows[1:])
        usable = _only_known(candidates, known)
        repeats = max(len(visits) for visits in self.groups.values())
        return fit_surface(rows, y, usable, axes, noise_sd=self.run.sd / repeats**0.5)

    def variables(self, config: RunConfig, visits: Sequence[Measurement]) -> dict[str, float]:
        footprint = next((m.footprint for m in visits if m.footprint), None)
        return f.variables(config, footprint)


def _only_known(candidates: Sequence[Form], known: set[str]) -> list[Form]:
    """The candidates without features of variables that were not measured."""
    usable = []
    for form in candidates:
        groups = tuple(
            tuple(x for x in group if all(name in known for name, _ in x)) for group in form.groups
        )
        if all(groups):
            usable.append(Form(name=form.name, groups=groups, length_scale=form.length_scale))
    return usable


def _variant(visits: Sequence[Measurement]) -> Variant:
    groups = summary.group_by_config(visits)
    logs = [{m.round: log(summary.step_seconds(m)) for m in g} for g in groups.values()]
    newest = visits[-1]
    rows = _Rows(groups=groups, run=round_scatter(logs, newest.device.kind))
    knobs = [axis for axis in rows.axes if axis != "batch_size"]
    has_counts = all(any(_count("flops")(m) for m in g) for g in groups.values())
    time = _time_forms(knobs, has_counts=has_counts)
    counted, static = _count_forms(knobs), _static_forms(knobs)
    micro_step = rows.surface(micro_seconds, time)
    if micro_step is None:
        raise FitError(f"no step of {newest.workload} took any time; the measurements are broken")
    return Variant(
        precision=newest.config.precision,
        compiled=newest.config.compiled,
        workers=newest.config.workers,
        world_size=newest.config.world_size,
        drop_last=newest.config.drop_last,
        accumulation=newest.config.accumulation,
        categories=f.categories(newest.config.sizes),
        typical_sizes=newest.config.sizes,
        counts=tuple(
            (name, surface)
            for name in f.COUNTS
            if (surface := rows.surface(_count(name), counted)) is not None
        ),
        micro_step=micro_step,
        update=rows.surface(update_seconds, _update_forms(knobs), drop=["batch_size"]),
        evaluation=rows.surface(_eval_batch, time),
        step_peak=rows.surface(_step_peak, counted),
        update_peak=rows.surface(_count("update_peak_bytes"), counted),
        device_bytes=rows.surface(_device_bytes, _device_forms(knobs)),
        save_seconds=rows.surface(_median_of("save_seconds"), static, drop=["batch_size"]),
        save_bytes=rows.surface(lambda m: float(m.save_bytes), static, drop=["batch_size"]),
        build=rows.surface(_fresh_build, static, drop=["batch_size"]),
        epoch_turn=_constant([_turn_beyond_wait(m) for m in visits]),
        eval_turn=_constant([t for m in visits for t in m.eval_turn_seconds]),
        first_steps=_first_steps(visits),
        run=rows.run,
        step_sd=median(_relative_sd(m) for m in visits),
        configurations=tuple(groups),
        rounds=len({m.round for m in visits}),
    )


# -- candidates ---------------------------------------------------------------------------------


def _time_forms(knobs: Sequence[str], *, has_counts: bool) -> list[Form]:
    if has_counts:
        everything = (f.LAUNCH + f.WORK,)
        return _forms([("sum", everything), ("floor", (f.LAUNCH, f.LAUNCH + f.WORK))])
    scales = f.knob_monomials(knobs)
    floor = (scales, scales + f.times_batch(scales))
    return _forms([("line", (scales + f.times_batch(scales),)), ("floor and line", floor)])


def _forms(named: Sequence[tuple[str, tuple[tuple[f.Feature, ...], ...]]]) -> list[Form]:
    return [Form(name=name, groups=groups) for name, groups in named]


def _update_forms(knobs: Sequence[str]) -> list[Form]:
    by_size = (f.CONSTANT, (("parameters", 1.0),), (("static_bytes", 1.0),))
    return _forms([("sum", (by_size,)), ("by knobs", (f.knob_monomials(knobs),))])


def _count_forms(knobs: Sequence[str]) -> list[Form]:
    scales = f.knob_monomials(knobs)
    lines = scales + f.times_batch(scales)
    return _forms([("polynomial", (lines,)), ("maximum of lines", (lines, lines))])


def _static_forms(knobs: Sequence[str]) -> list[Form]:
    by_size = (f.CONSTANT, (("static_bytes", 1.0),))
    return _forms([("line", (by_size,)), ("by knobs", (f.knob_monomials(knobs),))])


def _device_forms(knobs: Sequence[str]) -> list[Form]:
    scales = f.knob_monomials(knobs)
    line = (f.CONSTANT, (("peak_bytes", 1.0),))
    lines = scales + f.times_batch(scales)
    return _forms([("line", (line,)), ("maximum of lines", (lines, lines))])


# -- quantities ---------------------------------------------------------------------------------


def update_seconds(m: Measurement) -> float | None:
    """Seconds of one optimizer update; None where it was not told apart."""
    if not m.update_seconds:
        return None
    return summary.steady_mean(m.update_seconds, _period(m)) * m.config.accumulation


def micro_seconds(m: Measurement) -> float | None:
    """Seconds of one steady micro-step without the optimizer's update."""
    if not m.update_seconds:
        return summary.step_seconds(m)
    rest = [step - update for step, update in zip(m.step_seconds, m.update_seconds, strict=True)]
    return summary.steady_mean(rest, _period(m))


def _period(m: Measurement) -> int:
    return m.config.period if m.steps_per_sample == 1 else 1


def _count(name: str) -> Value:
    def value(m: Measurement) -> float | None:
        count = m.footprint.count(name) if m.footprint else None
        return None if count is None else float(count)

    return value


def _step_peak(m: Measurement) -> float | None:
    """Live bytes in forward and backward; where no tensors were tracked, the allocator's peak."""
    counted = _count("step_peak_bytes")(m)
    if counted is not None:
        return counted
    return float(m.memory.allocated_bytes) if m.memory and m.memory.allocated_bytes else None


def _device_bytes(m: Measurement) -> float | None:
    return float(m.memory.device_bytes) if m.memory and m.memory.device_bytes else None


def _fresh_build(m: Measurement) -> float | None:
    """Building in a process that has built nothing yet, as a real run does: what the user's code
    imports on the way is paid once, by the first visit."""
    return m.build_seconds if m.visit == 0 else None


def _median_of(name: str) -> Value:
    def value(m: Measurement) -> float | None:
        samples = getattr(m, name)
        return median(samples) if samples else None

    return value


def _eval_batch(m: Measurement) -> float | None:
    return summary.steady_mean(m.eval_batch_seconds) if m.eval_batch_seconds else None


def _turn_beyond_wait(m: Measurement) -> float:
    """Starting a pass over the loader, beyond the wait that every step's own time includes."""
    if not m.epoch_turn_seconds or not m.data_wait_seconds:
        return 0.0
    return max(0.0, median(m.epoch_turn_seconds) - fmean(m.data_wait_seconds))


def _first_steps(visits: Sequence[Measurement]) -> Constant:
    """What a process's first steps cost; compiled models pay again for every configuration."""
    fresh = [m for m in visits if m.visit == 0 or m.config.compiled] or list(visits)
    return _constant([summary.first_steps_seconds(m) for m in fresh])


def _relative_sd(m: Measurement) -> float:
    """Of single micro-steps, glitches trimmed: half the range of the middle 68 %."""
    samples, last = sorted(m.step_seconds), len(m.step_seconds) - 1
    spread = samples[round(0.84 * last)] - samples[round(0.16 * last)]
    return float(spread / 2 / fmean(samples) * m.steps_per_sample**0.5)


def _constant(samples: Sequence[float]) -> Constant:
    positive = [s for s in samples if s > 0]
    if not positive:
        return Constant()
    if len(positive) == 1:
        return Constant(seconds=positive[0], scatter=PROCESS_SCATTER)
    sd = pstdev(map(log, positive)) * (len(positive) / (len(positive) - 1)) ** 0.5
    return Constant(seconds=median(positive), scatter=Scatter(sd=sd, dof=len(positive) - 1))
