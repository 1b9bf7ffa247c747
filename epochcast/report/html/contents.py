"""What a page is made of: the answer, and all that a store knows around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from epochcast.costmodel.model import CostModel
from epochcast.costmodel.summary import summarise
from epochcast.errors import EpochcastError, FitError, PredictionError
from epochcast.records import (
    Device,
    Estimate,
    Measurement,
    Plan,
    RunEvent,
    RunOutcome,
    Summary,
    Warning_,
)
from epochcast.report.plots.probed import ProbedPrediction, predictions_of
from epochcast.storage.asked import answers, asked_about, example, last_asked
from epochcast.storage.query import Compared, Selection, compare, model_of, select
from epochcast.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Of one workload on one device.

    Attributes:
        plan: what the page is about; None where a question was asked, or nothing.
        estimates: without a plan: answers to the questions asked last.
        is_example: whether nobody asked, and the estimate is an example.
        measurements: the trials behind it.
        summaries, predictions: of their configurations.
        forms: which form each quantity of the cost model took.
        compared, outcomes: the runs that were followed.
        events: the log of a run that follows the plan.
        notes: on the choice of measurements.
        missing: why there are no measurements, or no cost model; empty where there are.
    """

    workload: str
    device: Device
    plan: Plan | None = None
    estimates: tuple[Estimate, ...] = ()
    is_example: bool = False
    measurements: tuple[Measurement, ...] = ()
    summaries: tuple[Summary, ...] = ()
    predictions: tuple[ProbedPrediction, ...] = ()
    forms: tuple[tuple[str, str], ...] = ()
    compared: Compared = field(default_factory=Compared)
    outcomes: tuple[RunOutcome, ...] = ()
    events: tuple[RunEvent, ...] = ()
    notes: tuple[Warning_, ...] = ()
    missing: str = ""


def contents_of_plan(plan: Plan, store: Store, events: Sequence[RunEvent] = ()) -> Contents:
    """The contents of a page about a plan; without measurements where the store has none of it.

    Args:
        plan: what it is about.
        store: which may have the measurements behind it.
        events: the log of a run that follows it.
    """
    about = Contents(workload=plan.workload, device=plan.device, plan=plan, events=tuple(events))
    try:
        selection = select(store, plan.workload, plan.device.key)
    except EpochcastError as error:
        return replace(about, missing=str(error))
    return _with_measurements(about, store, selection)


def contents_of_store(
    store: Store,
    workload: str | None = None,
    device: str | None = None,
    events: Sequence[RunEvent] = (),
) -> Contents:
    """The contents of a page about what was asked last of a store, or else about an example.

    Args:
        store: with measurements.
        workload: default: the one asked about last, else the one probed last.
        device: an id, a kind, or words of a name; default: likewise.
        events: the log of a run that is followed.

    Raises:
        PredictionError: there are no measurements of that.
    """
    asked = last_asked(store)
    selection = None
    if workload is None and device is None and asked is not None:
        try:
            selection = select(store, asked.workload, asked.device)
        except PredictionError:  # they have been removed since
            asked = None
    selection = selection or select(store, workload, device)
    newest = selection.newest
    about = Contents(workload=newest.workload, device=newest.device, events=tuple(events))
    return _with_measurements(about, store, selection)


def _with_measurements(about: Contents, store: Store, selection: Selection) -> Contents:
    """The same with what was measured, what that predicts, and how right it was before."""
    mine = (about.workload, about.device.key)
    about = replace(
        about,
        measurements=selection.measurements,
        summaries=tuple(summarise(selection.measurements)),
        compared=compare(store, *mine),
        outcomes=tuple(store.outcomes(about.workload, device_key=about.device.key)),
        notes=selection.warnings,
    )
    try:
        return _with_model(about, store, model_of(store, selection))
    except FitError as error:
        return replace(about, missing=str(error))


def _with_model(about: Contents, store: Store, model: CostModel) -> Contents:
    about = replace(
        about,
        predictions=tuple(predictions_of(model, about.summaries)),
        forms=tuple(model.explain()),
    )
    if about.plan is not None:
        return about
    asked = asked_about(store, model)
    if asked is not None and asked.plan is not None:
        return replace(about, plan=asked.plan)
    answered = answers(model, asked.questions) if asked else ()
    return replace(about, estimates=answered or (example(model),), is_example=not answered)
