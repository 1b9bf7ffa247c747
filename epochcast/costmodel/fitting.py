"""Measurements to a cost model: one surface per quantity, one set of surfaces per variant.

trials ──▶ means over rounds, per configuration ──▶ counts(B, knobs)   exact where counted
                                               ├──▶ micro-step(counts), update(counts), …
                                               └──▶ run-level scatter from round to round
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import hypot, log
from statistics import fmean, geometric_mean, median

from epochcast.costmodel import features as f
from epochcast.costmodel import kernels, phases, summary
from epochcast.costmodel.averaging import fit_surface
from epochcast.costmodel.learned import Variant
from epochcast.costmodel.loading import fit_loading
from epochcast.costmodel.memory import envelopes
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.outcomes import calibrate
from epochcast.costmodel.phases import Footprints
from epochcast.costmodel.pooling import Known, pooled_surface
from epochcast.costmodel.rows import CountedPairs, Rows
from epochcast.costmodel.scatter import (
    Amount,
    Expected,
    RoundScatter,
    Scatter,
    constant_scatter,
    expected_scatter,
    of_one_round,
    round_pace,
    round_scatter,
)
from epochcast.costmodel.summary import Value, with_slow
from epochcast.costmodel.surface import Surface
from epochcast.costmodel.tails import tails_of
from epochcast.costmodel.worlds import family, scaling_of
from epochcast.errors import FitError
from epochcast.records import (
    DeviceKind,
    Footprint,
    Frequency,
    Measurement,
    RunConfig,
    RunOutcome,
    Script,
    Sizes,
    Warning_,
)
from epochcast.records.measurement import ONE_TIME_ONLY, share_a_number

MOST_LENDERS = 3  # the most recent ones: each is fitted by itself
LEAST_BESIDE = 0.1  # of a step beside its update, however long the updates of others are
SAME_MODEL = 1.001  # more parameters, as counts are rounded in tables, are another model's


def fit(
    measurements: Iterable[Measurement],
    footprints: Footprints | None = None,
    outcomes: Iterable[RunOutcome] = (),
) -> CostModel:
    """Learn a cost model from measurements of one workload on one device.

    Args:
        measurements: of any configurations, in any order.
        footprints: dry runs of configurations that were not measured; a prediction for one of
            them is priced by its own counts, and for others the counts between are known better.
        outcomes: of followed runs, as from ``Store.outcomes``: what they took beside what was
            predicted corrects times and intervals; those of other workloads are left out.

    Raises:
        FitError: there is nothing to learn from, or the measurements do not belong together.
    """
    known = sorted(measurements, key=_when)
    good = [m for m in known if m.status == "ok"]
    _require_one_origin(known, good)
    newest = good[-1]
    model = CostModel(
        workload=newest.workload,
        target=newest.target,
        source=newest.source,
        device=newest.device,
        data=newest.data,
        samples=newest.samples,
        eval_samples=newest.eval_samples,
        imports=_constant([m.import_seconds for m in good if m.trial == 0]),
        variants=_variants(_by_variant(good), footprints or {}),
        probing_seconds=sum(m.probe_seconds for m in known)
        + sum(m.import_seconds for m in known if m.trial == 0 and m.script is None),
    )
    return replace(model, calibration=calibrate(model, outcomes))


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
        ("workload function or script", {m.target for m in good}),
        ("version of the workload's code", {m.source for m in good}),
        ("device", {m.device.key: m.device.label for m in good}.values()),
    ):
        if len(values) > 1:
            raise FitError(
                f"a cost model belongs to one {name}, but got {len(values)}: "
                f"{', '.join(sorted(values))}; select one"
            )
    if problem := share_a_number(good):
        raise FitError(problem)
    _require_one_data_set(good)
    _require_one_model_each(good)


def _require_one_data_set(good: Sequence[Measurement]) -> None:
    """Knobs may change the number of samples (char-gpt's context); nothing else does."""
    known: dict[Sizes, set[int]] = {}
    for m in good:
        known.setdefault(m.config.sizes, set()).add(m.samples)
    for sizes, samples in known.items():
        if len(samples) > 1:
            numbers = ", ".join(f"{n:,}" for n in sorted(samples))
            knobs = " ".join(f"{name}={value}" for name, value in sizes)
            where = f" with {knobs}" if knobs else ""
            raise FitError(
                f"a cost model belongs to one number of training samples, but got {len(samples)}"
                f"{where}: {numbers}; another data set needs another workload name"
            )


def _require_one_model_each(good: Sequence[Measurement]) -> None:
    """Trials that are equal in every knob are rounds of one model, not several without a name."""
    for config, trials in summary.group_by_config(good).items():
        sizes = {m.footprint.parameters for m in trials if m.footprint and m.footprint.parameters}
        if sizes and max(sizes) > SAME_MODEL * min(sizes):
            knobs = "".join(f" {name}={value}" for name, value in config.sizes)
            raise FitError(
                f"runs that are alike (batch size {config.batch_size}{knobs}) have between "
                f"{min(sizes):,} and {max(sizes):,} parameters; name what tells their models "
                "apart as a knob"
            )


def _by_variant(good: Sequence[Measurement]) -> list[list[Measurement]]:
    """Trials that differ in numbers only belong together; the variant probed last comes first.

    One that is known by real runs alone is after all that were probed; a sweep makes its trials in
    random order, so of those of one sweep the words decide.
    """
    groups: dict[object, list[Measurement]] = {}
    ended: dict[str, str] = {}
    for m in good:
        c = m.config
        groups.setdefault((*_way(c), c.workers, c.drop_last), []).append(m)
        ended[_sweep(m)] = m.created_at

    def recent(trials: Sequence[Measurement]) -> tuple[bool, str, str]:
        probed = any(m.probe_seconds for m in trials)
        return probed, ended[_sweep(trials[-1])], _typical(trials).label

    return sorted(groups.values(), key=recent, reverse=True)


def _sweep(m: Measurement) -> str:
    """What trials of one sweep have in common; of a real run, itself."""
    return m.sweep or m.key


def _typical(trials: Sequence[Measurement]) -> RunConfig:
    """The largest configuration of the sweep that came last."""
    last = _sweep(trials[-1])
    configs = [m.config for m in trials if _sweep(m) == last]
    return max(
        configs,
        key=lambda c: (
            c.batch_size * c.accumulation,
            c.batch_size,
            c.sizes,
            c.eval_batch_size or 0,
        ),
    )


def _when(m: Measurement) -> tuple[str, str]:
    return m.created_at, m.key


def _variants(
    groups: Sequence[Sequence[Measurement]], footprints: Footprints
) -> tuple[Variant, ...]:
    """Each from its own trials, and where these say too little from those of its kin, too."""
    rows = [_rows(trials, footprints) for trials in groups]
    kin = [_kin(trials[-1].config) for trials in groups]
    found = []
    for own, like in zip(rows, kin, strict=True):
        others = [r for r, k in zip(rows, kin, strict=True) if k == like and r is not own]
        some = [other for other in others if own.lacks(other)][:MOST_LENDERS]
        if not own.has_counts:
            some = [other.without_counts() for other in some]
        found.append(_variant(replace(own, lenders=tuple(some)) if some else own))
    return _with_worlds(found, groups)


def _with_worlds(
    variants: Sequence[Variant], groups: Sequence[Sequence[Measurement]]
) -> tuple[Variant, ...]:
    """The variants with what those say of each other that differ in their devices alone."""
    families = [family(trials[-1].config) for trials in groups]
    known = {
        kind: scaling_of([g for g, own in zip(groups, families, strict=True) if own == kind])
        for kind in dict.fromkeys(families)
    }
    return tuple(
        replace(variant, scaling=known[kind])
        for variant, kind in zip(variants, families, strict=True)
    )


def _kin(c: RunConfig) -> tuple[object, ...]:
    """What is equal in variants that differ in words alone."""
    words = tuple(name for name, _ in f.categories(c.sizes))
    return (*_way(c)[:-1], words, c.workers, c.drop_last)


def _way(c: RunConfig) -> tuple[object, ...]:
    """What must be equal for two configurations to have comparable counts."""
    names = tuple(name for name, _ in c.sizes)
    ways = (c.precision, c.compiled, c.world_size, c.nodes, c.sharding, c.accumulation > 1)
    return (*ways, names, f.categories(c.sizes))


@lru_cache(maxsize=64)  # a sweep fits after each trial, and what was counted stays the same
def _count_surfaces(
    counted: CountedPairs,
    lent: tuple[CountedPairs, ...],
    knobs: tuple[str, ...],
    axes: tuple[str, ...],
) -> phases.CountSurfaces:
    """The surface of everything that was counted wherever anything was.

    Args:
        counted: see ``_count_surface``.
        lent: likewise.
        knobs: likewise.
        axes: likewise.
    """
    known = [set(f.counts(footprint)) for _, footprint in counted]
    every = set.intersection(*known) - {"eval_peak_bytes"} if known else set()
    names = sorted(every.union(*(f.work_classes(names) for names in known)))
    found = ((name, _count_surface(name, counted, lent, knobs, axes)) for name in names)
    return tuple((name, surface) for name, surface in found if surface is not None)


@lru_cache(maxsize=64)
def _count_surface(
    name: str,
    counted: CountedPairs,
    lent: tuple[CountedPairs, ...],
    knobs: tuple[str, ...],
    axes: tuple[str, ...],
) -> Surface | None:
    """The surface of one count over the configurations in which it is known.

    Args:
        name: of the count.
        counted: the configurations, and what was counted in each.
        lent: the same of each variant that lends.
        knobs: model-size knobs that vary.
        axes: variables that say where a configuration is.
    """
    own, *others = (_known_count(name, pairs) for pairs in (counted, *lent))
    if not own.rows:
        return None

    def fitted(one: Known) -> Surface:
        return fit_surface(one.rows, one.y, f.count_forms(knobs), axes, careful=True)

    return pooled_surface(own, [other for other in others if other.rows], axes, fitted)


def _known_count(name: str, counted: CountedPairs) -> Known:
    rows = [f.variables(config, None) | f.counts(footprint) for config, footprint in counted]
    some = [row for row in rows if row.get(name, 0.0) > 0]
    return Known(some, [row[name] for row in some])


def _counted(
    groups: Mapping[RunConfig, Sequence[Measurement]], footprints: Footprints, kind: DeviceKind
) -> dict[RunConfig, Footprint]:
    """The footprint of every configuration measured, and of those counted that are like them.

    What was measured goes before what a dry run said of the same; its timeline is kept.

    Args:
        groups: trials by configuration.
        footprints: dry runs.
        kind: of the device.
    """
    like = next(iter(groups))
    dry = {c: x for c, x in footprints.items() if _way(c) == _way(like)}
    measured = {c: x for c, group in groups.items() if (x := _first_footprint(group))}
    if kind != "cpu":
        dry = _of_kernels_that_ran(dry, measured)
    found = {
        c: replace(x, timeline=x.timeline or dry.get(c, x).timeline) for c, x in measured.items()
    }
    return {**dry, **found}


def _first_footprint(trials: Sequence[Measurement]) -> Footprint | None:
    return next((m.footprint for m in trials if m.footprint), None)


def _of_kernels_that_ran(dry: Footprints, measured: Footprints) -> dict[RunConfig, Footprint]:
    """None, if any of a configuration that was measured is of others; see kernels.py."""
    ran = kernels.check_against({c: f.counts(x) for c, x in measured.items()})
    alike = {c: x for c, x in dry.items() if ran(c, f.counts(x))}
    return {} if any(c in measured and c not in alike for c in dry) else alike


def _rows(trials: Sequence[Measurement], footprints: Footprints) -> Rows:
    """The trials of one variant."""
    groups = summary.group_by_config(trials)
    slow = tails_of(trials, summary.step_series)
    logs = summary.round_logs(groups, lambda m: summary.step_seconds(m, slow))
    newest = trials[-1]
    found, expected = round_scatter(logs), _expected(trials)
    run = found.among(expected) if found else of_one_round(expected)
    return Rows(
        groups=groups,
        counted=_counted(groups, footprints, newest.device.kind),
        run=run,
        pace=round_pace(logs, run),
        kind=newest.device.kind,
        axes=["batch_size", *f.numeric_knobs(newest.config.sizes)],
    )


def _expected(trials: Sequence[Measurement]) -> Expected:
    """How far runs differ, by the kind of device and the share of a step that waits for data."""
    shares = [summary.waiting_share(m) or 0.0 for m in trials]
    return expected_scatter(trials[-1].device.kind, median(shares))


def _variant(rows: Rows) -> Variant:
    trials, groups, run = sorted(rows.trials, key=_when), rows.groups, rows.run
    newest, script = trials[-1], _seen_longest(trials)
    typical = _typical(trials)
    slow = tails_of(rows.all_trials, summary.step_series)
    knobs = rows.varied_knobs
    updates = with_slow(summary.update_seconds, slow)
    update = rows.surface(updates, f.update_forms(knobs), drop=["batch_size"], paced=True)

    def beside_the_update(ordinary: Value) -> Value:
        return _beside_the_update(with_slow(ordinary, slow), updates, update, rows)

    micro = beside_the_update(summary.micro_seconds)
    footprints = [x for part in (rows, *rows.lenders) for x in part.counted.values()]
    aligned = rows.has_counts and all(footprint.aligned_flops for footprint in footprints)
    time = f.time_forms(knobs, newest.device.kind, has_counts=rows.has_counts, aligned=aligned)
    static, untracked = f.static_forms(knobs), f.untracked_forms(knobs)
    samples_of = f.sample_forms(knobs)
    fragments = newest.device.kind != "cpu"  # whose memory goes back to the system, page by page
    found: list[RoundScatter] = []

    def told(residual: Scatter) -> Scatter:
        found.append(of_one_round(_expected(trials), residual))
        return found[-1].own

    once = told if run.rounds == 1 else None
    micro_step = _required(rows.surface(micro, time, paced=True, told=once))
    if found:  # the last one is of all rows, those borrowed included
        rows = replace(rows, run=found[-1], once=found[-1].own)
    build = rows.surface(summary.fresh_build_seconds, static, drop=["batch_size"])
    where = tuple(knobs), tuple(rows.axes)
    counts = _count_surfaces(rows.pairs, rows.lent_pairs, *where)
    evaluated, saved = rows.of_evaluation(counts, newest.eval_samples), rows.of_saving()
    slow_evaluations = tails_of(evaluated.all_trials, summary.eval_series)
    return Variant(
        precision=newest.config.precision,
        compiled=newest.config.compiled,
        workers=newest.config.workers,
        world_size=newest.config.world_size,
        nodes=newest.config.nodes,
        drop_last=newest.config.drop_last,
        accumulation=typical.accumulation,
        categories=rows.words,
        typical=typical,
        samples=_required(rows.surface(summary.samples, samples_of, drop=["batch_size"])),
        eval_samples=rows.surface(summary.eval_samples, samples_of, drop=["batch_size"]),
        counted=tuple((config, tuple(sorted(f.counts(x).items()))) for config, x in rows.pairs),
        counts=counts,
        evaluation_peak=_count_surface(
            "step_peak_bytes", evaluated.pairs, evaluated.lent_pairs, *where
        ),
        envelopes=envelopes(rows.counted),
        micro_step=micro_step,
        loading=fit_loading(
            rows.surface(beside_the_update(summary.compute_seconds), time, paced=True),
            rows.surface(with_slow(summary.loader_seconds, slow), f.loader_forms(knobs)),
            [
                (f.variables(config, rows.counted.get(config)), geometric_mean(times))
                for config, trials_ in groups.items()
                if (times := [v / rows.pace[m.round] for m in trials_ if (v := micro(m))])
            ],
            direct_error=micro_step.left_out_rmse,
            workers=newest.config.workers,
        ),
        update=update,
        evaluation=evaluated.surface(
            with_slow(summary.eval_batch_seconds, slow_evaluations), time, paced=True
        ),
        allocated=rows.layer(summary.allocated_bytes, untracked),
        reserved=rows.layer(summary.reserved_bytes, untracked, fragments=fragments),
        device_bytes=rows.layer(summary.device_bytes, untracked, fragments=fragments),
        evaluating=evaluated.layers(untracked, fragments=fragments),
        saving=saved.layers(untracked, fragments=fragments),
        save_seconds=rows.surface(summary.save_seconds, static, drop=["batch_size"]),
        save_bytes=rows.surface(summary.save_bytes, static, drop=["batch_size"]),
        build=build,
        build_scatter=_build_scatter(build, rows),
        loader_restart=_constant([summary.restart_beyond_wait_seconds(m) for m in trials]),
        eval_restart=_constant([t for m in trials for t in m.eval_restart_seconds]),
        first_steps=_first_steps(trials),
        run=rows.run.of_steps_of_a_later_run() + slow.scatter,
        step_sd=median(hypot(summary.relative_sd(m), slow.of(m).step_sd) for m in trials),
        steps=sum(len(m.step_seconds) * m.steps_per_sample for m in trials) / len(groups),
        step_dof=max(1, sum(summary.noise_dof(m) for m in trials)),
        configurations=tuple(groups),
        rounds=len({m.round for m in trials}),
        trials=len(trials),
        doubts=_doubts(trials, script),
        single_times=sum(m.message == ONE_TIME_ONLY for m in trials),
        fixed=_constant([t for m in trials for t in m.epoch_fixed_seconds]),
        finish=_constant([m.finish_seconds for m in trials if m.script is not None]),
        evaluations=script.evaluations if script else None,
        saves=script.saves if script else None,
        lent=rows.lent,
        lenders=tuple(lender.words for lender in rows.lenders),
    )


def _beside_the_update(seconds: Value, updates: Value, update: Surface | None, rows: Rows) -> Value:
    """What a micro-step takes beside the update, of steps as they were measured.

    A device that works through a queue shows the update at the length of its launches where it
    waits for them, and at that of its work where it does not; one surface for both would be
    too short in the one and too long in the other. What it misses of a trial's update is therefore
    left to the rest of that trial's step, so that both together are what was measured.

    Args:
        seconds: of a micro-step without the trial's own update.
        updates: the trial's own.
        update: the surface of these.
        rows: of all trials.
    """
    if update is None or rows.kind == "cpu":
        return seconds
    counted = {c: x for part in (*rows.lenders, rows) for c, x in part.counted.items()}

    def beside(m: Measurement) -> float | None:
        rest, own = seconds(m), updates(m)
        if rest is None or own is None:
            return rest
        fitted = rows.pace[m.round] * update.value(f.variables(m.config, counted.get(m.config)))
        return max(rest + (own - fitted) / m.config.accumulation, LEAST_BESIDE * rest)

    return beside


def _seen_longest(trials: Sequence[Measurement]) -> Script | None:
    """Of the command that was started last, the trial that saw most steps: what comes every 200
    steps may not come in a short one."""
    scripts = [m.script for m in reversed(trials) if m.script is not None]
    alike = [s for s in scripts if s.arguments == scripts[0].arguments]
    return max(alike, key=lambda script: script.steps, default=None)


def _doubts(trials: Sequence[Measurement], script: Script | None) -> tuple[Warning_, ...]:
    """One of each kind; that something was not seen is none where another trial saw it."""
    found = {w.code: w for m in trials for w in m.warnings}
    if script is not None and script.evaluations != Frequency():
        found.pop("no-evaluation-seen", None)
    if script is not None and script.saves != Frequency():
        found.pop("no-save-seen", None)
    return tuple(found.values())


def _required(surface: Surface | None) -> Surface:
    if surface is None:
        raise FitError("steps took no time or an epoch has no samples; the measurements are broken")
    return surface


def _build_scatter(build: Surface | None, rows: Rows) -> Scatter:
    """From process to process, around the surface; the sizes built in each process differ."""
    if build is None:
        return Scatter(sd=0.0)
    errors = []
    for config, trials in rows.groups.items():
        fresh = [t for m in trials if (t := summary.fresh_build_seconds(m))]
        if fresh:
            expected = build.value(f.variables(config, rows.counted.get(config)))
            errors += [log(seconds / expected) for seconds in fresh]
    return constant_scatter(errors)


def _first_steps(trials: Sequence[Measurement]) -> Amount:
    """What a process's first steps cost: those of its first trial, which pays for everything."""
    fresh = [m for m in trials if m.trial == 0] or list(trials)
    return _constant([summary.first_steps_seconds(m) for m in fresh])


def _constant(samples: Sequence[float]) -> Amount:
    if not samples or median(samples) == 0:
        return Amount()
    logs = [log(s) for s in samples if s > 0]
    middle = fmean(logs)
    return Amount(median(samples), constant_scatter([x - middle for x in logs]))
