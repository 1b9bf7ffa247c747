"""What was asked last of a store, in a file beside it: what TensorBoard and reports show.

    predict ──▶ its questions ─┐
    plan ─────▶ its answer ────┴─▶ <folder>/asked.json ──▶ last_asked

Questions are answered anew where they are shown, by what has been measured since; a plan is shown
as it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from epochcast.costmodel.model import CostModel
from epochcast.costmodel.prediction import predict
from epochcast.costmodel.question import Question
from epochcast.errors import EpochcastError, PredictionError
from epochcast.records import SCHEMA, Estimate, Plan, from_json, to_json
from epochcast.records.documents import write_atomic
from epochcast.storage.store import Store

FILE = "asked.json"
EXAMPLE_EPOCHS, EXAMPLE_STEPS = 10, 1000  # of the run that is priced where nobody asked for one


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The last thing that was asked.

    Attributes:
        device: its key.
        questions: to be priced; empty where a plan was asked for.
        plan: the answer; None where questions were asked.
    """

    schema: int = SCHEMA
    workload: str
    device: str
    questions: tuple[Question, ...] = ()
    plan: Plan | None = None


def note_questions(store: Store, model: CostModel, questions: Sequence[Question]) -> None:
    """Remember what was asked; where the store's folder cannot be written, nothing is.

    Args:
        store: that it was asked of.
        model: that answered.
        questions: that it could answer.
    """
    asked = tuple(questions)
    _note(store, Asked(workload=model.workload, device=model.device.key, questions=asked))


def note_plan(store: Store, plan: Plan) -> None:
    """Remember a plan that was made; where the store's folder cannot be written, nothing is."""
    _note(store, Asked(workload=plan.workload, device=plan.device.key, plan=plan))


def _note(store: Store, asked: Asked) -> None:
    with suppress(OSError, EpochcastError):
        write_atomic(store.folder / FILE, to_json(asked).encode())


def last_asked(store: Store) -> Asked | None:
    """What was asked last; None where nothing was, or it cannot be read."""
    with suppress(OSError, EpochcastError):
        return from_json((store.folder / FILE).read_bytes(), Asked)
    return None


def asked_about(store: Store, model: CostModel) -> Asked | None:
    """What was asked last, if it was about this workload on this device."""
    asked = last_asked(store)
    here = (model.workload, model.device.key)
    return asked if asked and (asked.workload, asked.device) == here else None


def answers(model: CostModel, questions: Sequence[Question]) -> tuple[Estimate, ...]:
    """Answers by what is known now; none where the model cannot give them any more."""
    with suppress(PredictionError):  # a knob that they ask about may be gone
        return tuple(predict(model, question) for question in questions)
    return ()


def example(model: CostModel) -> Estimate:
    """A run that nobody asked for; one of steps where no epoch was seen, or it never ends."""
    in_steps = model.predict(steps=EXAMPLE_STEPS)
    return model.predict(epochs=EXAMPLE_EPOCHS) if in_steps.has_epochs else in_steps
