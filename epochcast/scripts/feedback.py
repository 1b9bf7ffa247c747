"""What a real run teaches: a measurement of its first epochs, and how its plan did.

    first epochs ──measurement_of──▶ Measurement ─┐
    whole run, with a plan ────────▶ RunOutcome ──┴▶ store ──▶ the next prediction

A run measures as a probe of the same script does, under the same name, and costs no probing. The
command of a run has its values written out; those of the knobs of earlier probes are found where
their template has them:

    probed    python train.py -b {batch_size} --hidden {width}
    run       python train.py -b 48 --hidden 256 --epochs 100      batch_size=48, width=256
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from epochcast.guard.forecast import Forecast, Work
from epochcast.profiler.machine import machine
from epochcast.profiler.rounds import require_own_name
from epochcast.profiler.target import is_target, workload_name
from epochcast.records import Device, Measurement, Quantiles, RunOutcome, StopReason
from epochcast.scripts.command import PLACE, Filled, Template, verbatim
from epochcast.scripts.observed import NothingSeen, Trial, measurement_of
from epochcast.scripts.running import Finished, Run
from epochcast.scripts.tracker import Tracker
from epochcast.scripts.watch import Watch
from epochcast.storage.store import Store


def teach(run: Run, finished: Finished, store: Store) -> Measurement | None:
    """Put what a run showed into a store; None where it showed too little.

    Args:
        run: what was run.
        finished: how it went.
        store: for later predictions.

    Raises:
        UsageError: its name is another's in the store.
        StoreError: it could not be saved.
    """
    measured = measured_run(run, finished, earlier_of(run, store))
    if measured is None:
        return None
    store.add(measured)
    source = measured.source if measured.workload == run.workload else ""  # of the script alone
    outcome = outcome_of(finished.watch, finished.ended, measured.device, source)
    if outcome is not None:
        store.add_outcome(outcome)
    return measured


def earlier_of(run: Run, store: Store) -> tuple[Measurement, ...]:
    """What is stored under the name that its measurement will have.

    Raises:
        UsageError: that is another's in the store.
        StoreError: it cannot be read.
    """
    name = _measured_as(run)
    earlier = store.measurements(name)
    require_own_name(name, workload_name(run.arguments), earlier)
    return earlier


def _measured_as(run: Run) -> str:
    """As it is called; under the script's own name where that is of a workload function.

    Such a run counts for its plan. As a measurement it is of other code than what was probed, and
    newer: predictions would rest on it alone.
    """
    plan = run.plan
    of_function = plan is not None and plan.workload == run.workload and is_target(plan.target)
    return workload_name(run.arguments) if of_function else run.workload


def measured_run(
    run: Run, finished: Finished, earlier: Iterable[Measurement] = ()
) -> Measurement | None:
    """The measurement that a run is; None where it showed too little.

    Args:
        run: what was run.
        finished: how it went.
        earlier: of the same script; their templates say what its arguments are.
    """
    probed = list(earlier)
    environment = tuple((name, verbatim([x])[0]) for name, x in run.environment.items())
    template = Template(arguments=verbatim(run.arguments), environment=environment)
    templates = [m.script.arguments for m in reversed(probed) if m.script is not None]
    named = ((t, values_among(t, run.arguments)) for t in templates)
    arguments, found = next((pair for pair in named if pair[1]), (run.arguments, {}))
    known = Template(arguments=arguments)
    values = {known.setting(name) or name: text for name, text in found.items()}
    filled = Filled(arguments=run.arguments, environment=tuple(run.environment.items()))
    trial = Trial(
        workload=workload_name(run.arguments),
        template=template,
        values=values,
        request=filled.request,
        folder=Path.cwd(),
        started=finished.began,
        ended=finished.kept_until,
        machine=machine(),
        steps_per_epoch=run.steps_per_epoch,
        round=1 + max((m.round for m in probed), default=-1),
        created_at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
    )
    try:
        measured = measurement_of(finished.events, trial)
    except NothingSeen:
        return None
    finish = finished.ended - finished.watch.trained_until
    return replace(
        measured,
        workload=_measured_as(run),
        probe_seconds=0.0,
        finish_seconds=max(0.0, finish),
        note=run.note,
    )


def outcome_of(watch: Watch, ended: float, device: Device, source: str) -> RunOutcome | None:
    """How a plan did; None without one, with that of another script, and where nothing was seen.

    Args:
        watch: of the run.
        ended: when the command had ended.
        device: that it ran on.
        source: fingerprint of the script's files.
    """
    tracker, plan, samples = watch.leader, watch.watched.plan, watch.samples
    if tracker is None or plan is None or not tracker.steps:
        return None
    if plan.workload != watch.watched.workload:  # it ran something else
        return None
    done = tracker.done >= plan.chosen.epochs
    reason = StopReason.BUDGET if watch.asked is not None else None
    return RunOutcome(
        run=watch.watched.run,
        workload=plan.workload,
        source=source,
        device=device,
        config=plan.chosen.config,
        samples=plan.samples,
        epochs=tracker.done,
        reason=StopReason.PLAN_DONE if done else reason,
        predicted=plan.prices,
        total_predicted=_total_predicted(watch, tracker),
        startup_seconds=samples.startup,
        first_epoch_seconds=samples.first_epoch,
        epoch_seconds=samples.epoch,
        evaluation_seconds=samples.evaluation,
        save_seconds=samples.save,
        total_seconds=ended - watch.watched.began,
        finished_at=watch.watched.wall + ended - watch.watched.began,
        segment_steps=plan.segment_steps,
        measured=True,
    )


def _total_predicted(watch: Watch, tracker: Tracker) -> Quantiles | None:
    """As planned, of what was done; None where the last epoch was cut."""
    if tracker.epoch_steps or not tracker.done:
        return None
    samples, prices = watch.samples, watch.plan.prices
    work = Work(
        epochs=tracker.done,
        evaluations=len(samples.evaluation),
        saves=len(samples.save),
        first=True,
    )
    return prices.startup + Forecast.of_plan(prices).quantiles(work)


def values_among(template: Sequence[str], arguments: Sequence[str]) -> dict[str, str]:
    """What stands in a command where a template has names; empty where they have nothing alike.

    Args:
        template: arguments with ``{name}`` in them.
        arguments: of a command like it, perhaps with other options beside.
    """
    found: dict[str, str] = {}
    for i, part in enumerate(template):
        names = [match[2] for match in PLACE.finditer(part) if match[2]]
        if not names:
            continue
        option = i > 0 and template[i - 1].startswith("-") and "=" not in template[i - 1]
        before = template[i - 1] if option else None
        pattern = _pattern(part)
        for j, argument in enumerate(arguments):
            comes_after = arguments[j - 1] if j else None
            by_place = before is None and PLACE.fullmatch(part) is not None
            in_place = not by_place or (j == i and not argument.startswith("-"))
            match = pattern.fullmatch(argument)
            if match and in_place and before in (None, comes_after):
                found |= {name: match[name] for name in names}
                break
    return found


def _pattern(part: str) -> re.Pattern[str]:
    """A part of a template, each of its names once."""
    text, at, seen = "", 0, set()
    for match in PLACE.finditer(part):
        text += re.escape(part[at : match.start()])
        name, at = match[2], match.end()
        if name is None:
            text += re.escape(f"{{{match[1]}}}")
        else:
            text += f"(?P={name})" if name in seen else f"(?P<{name}>.+)"
            seen.add(name)
    return re.compile(text + re.escape(part[at:]), re.DOTALL)
