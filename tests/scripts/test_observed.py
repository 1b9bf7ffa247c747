"""A training of known costs, seen in miniature, is priced at exactly what it takes whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import Training

from epochcast.costmodel.epoch import division_of
from epochcast.costmodel.fitting import fit
from epochcast.errors import PredictionError
from epochcast.records import Frequency, Measurement, MemoryPeaks
from epochcast.scripts import events as e
from epochcast.scripts.command import Template
from epochcast.scripts.observed import NothingSeen, measurement_of


def measured(training: Training) -> Measurement:
    return measurement_of({7: training.events()}, training.trial())


def predicted(training: Training, epochs: int) -> float:
    model = fit([measured(training)])
    return model.predict(epochs=epochs).total_seconds.p50


def whole_batches(
    batches: int, batch_size: int, eval_batches: int, eval_batch_size: int, **costs: Any
) -> Training:
    """A training without smaller last batches, whose prices the cost model knows by their size."""
    return Training(
        samples=batches * batch_size,
        batch_size=batch_size,
        eval_samples=eval_batches * eval_batch_size,
        eval_batch_size=eval_batch_size,
        **costs,
    )


def test_every_term_is_the_one_that_was_put_in() -> None:
    training = Training()
    m = measured(training)
    assert m.step_seconds == pytest.approx([0.02] * len(m.step_seconds))
    assert m.epoch_fixed_seconds == pytest.approx([0.5, 0.5])  # a loader's restart is in it
    assert m.eval_batch_seconds == pytest.approx([0.01, 0.01])
    assert m.eval_restart_seconds == pytest.approx([0.05, 0.05])
    assert m.save_seconds == pytest.approx([0.25] * 3)
    assert m.warmup_seconds == pytest.approx([1.52])
    assert m.import_seconds + m.build_seconds == pytest.approx(4.0)
    assert m.finish_seconds == pytest.approx(0.7)
    assert (m.samples, m.eval_samples, m.save_bytes) == (6400, 800, 10_000)
    assert (m.config.batch_size, m.config.eval_batch_size) == (16, 32)
    assert m.script is not None
    assert m.script.evaluations == m.script.saves == Frequency(per_epoch=1.0)
    assert m.warnings == ()


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        whole_batches,
        batches=st.integers(30, 2000),
        batch_size=st.integers(1, 64),
        drop_last=st.booleans(),
        startup=st.floats(0.5, 60),
        first=st.floats(0, 30),
        step=st.floats(0.001, 2),
        fixed=st.floats(0.05, 5),
        restart=st.floats(0, 2),
        eval_batches=st.integers(0, 100),
        eval_batch_size=st.integers(1, 64),
        eval_batch=st.floats(0.001, 1),
        eval_restart=st.floats(0, 2),
        save=st.floats(0.01, 20),
        finish=st.floats(0, 10),
        evaluate_every=st.integers(0, 1),
        save_every=st.integers(0, 1),
        epochs=st.integers(2, 4),
        miniature=st.integers(8, 200),
        eval_miniature=st.integers(1, 100),
        workers=st.integers(0, 4),
    ),
    st.integers(1, 40),
)
def test_a_whole_run_is_priced_at_what_it_takes(training: Training, epochs: int) -> None:
    assert predicted(training, epochs) == pytest.approx(training.total(epochs), rel=1e-6)


@pytest.mark.parametrize(
    "training",
    [
        Training(accumulation=4),
        Training(accumulation=4, ahead=1),
        Training(ahead=1, workers=2),
        Training(steps_a_batch=2),
        Training(evaluate_every=0, evaluate_each=64, miniature=160),
        Training(evaluate_every=0, evaluate_each=16, miniature=96, accumulation=2),
        Training(eval_samples=0, save_every=0),
        Training(miniature=10**9, eval_miniature=10**9),
        Training(epochs=2),
        Training(block=7),
        Training(block=7, accumulation=4),
        Training(block=10, ahead=1, epochs=2),
        Training(block=10, miniature=24),
    ],
)
def test_how_a_loop_is_made_does_not_change_its_price(training: Training) -> None:
    assert predicted(training, 10) == pytest.approx(training.total(10), rel=0.005)


def test_an_accelerator_is_timed_where_it_was_waited_for() -> None:
    m = measured(Training(block=7, accumulation=4))
    assert (m.device.kind, m.device.name) == ("cuda", "NVIDIA T4")
    assert m.config.accumulation == 4
    assert m.step_seconds == pytest.approx([0.02] * len(m.step_seconds))


def test_a_run_of_one_miniature_has_a_warm_up_and_says_that_it_was_short() -> None:
    training = Training(epochs=1)
    m = measured(training)
    assert m.step_seconds == pytest.approx([0.02] * len(m.step_seconds))
    assert m.warmup_seconds == pytest.approx([1.5 + 0.2 + 0.02])
    assert [w.code for w in m.warnings] == ["one-pass-seen"]


def test_what_comes_between_steps_now_and_then_is_in_their_mean() -> None:
    training = Training(miniature=96)
    found = training.events()
    slowed, delay = [], 0.0
    for event in found:  # every 8th step logs for as long as a step takes
        if isinstance(event, e.Steps):
            steps = []
            for i, step in enumerate(event.steps, 1):
                delay += 0.02 * (i % 8 == 0)
                steps.append(replace_step(step, step.at + delay))
            slowed.append(e.Steps(at=event.at, loader=0, pass_=event.pass_, steps=tuple(steps)))
        else:
            slowed.append(shifted(event, delay))
    m = measurement_of({7: slowed}, replace(training.trial(), ended=training.at + delay))
    model = fit([m])
    extra = 400 / 8 * 0.02
    expected = training.total(10) + 10 * extra
    assert model.predict(epochs=10).total_seconds.p50 == pytest.approx(expected, rel=0.01)


def replace_step(step: e.Step, at: float) -> e.Step:
    return e.Step(
        at=at,
        optimizer=step.optimizer,
        batches=step.batches,
        backwards=step.backwards,
        waited=step.waited,
    )


def shifted(event: e.Event, by: float) -> e.Event:
    import msgspec

    moments = ("at", "began", "first_batch_at", "last_batch_at")
    later = {n: v + by for n in moments if isinstance(v := getattr(event, n, None), float)}
    return msgspec.structs.replace(event, **later)


@pytest.mark.parametrize(
    ("every", "frequency"),
    [(0, Frequency()), (1, Frequency(per_epoch=1.0)), (2, Frequency(per_epoch=0.5))],
)
def test_how_often_it_saves_is_how_often_it_was_seen_to(every: int, frequency: Frequency) -> None:
    script = measured(Training(save_every=every, epochs=4)).script
    assert script is not None
    assert script.saves == frequency


def test_a_script_that_never_saves_is_priced_so_and_that_is_said() -> None:
    training = Training(save_every=0, eval_samples=0)
    m = measured(training)
    assert {w.code for w in m.warnings} == {"no-save-seen", "no-evaluation-seen"}
    terms = {term.name for term in fit([m]).predict(epochs=5).terms}
    assert not terms & {"evaluation", "checkpoints"}


def test_a_batch_size_of_the_command_goes_before_the_loaders() -> None:
    training = Training(values={"batch_size": "32", "width": "64", "lr": "1e-3"})
    m = measured(training)
    assert m.config.batch_size == 32
    assert dict(m.config.sizes) == {"width": 64, "lr": 0.001}
    assert [w.code for w in m.warnings] == ["other-batch"]
    assert fit([m]).predict(epochs=10).total_seconds.p50 == pytest.approx(training.total(10))


def test_fewer_processes_than_the_launcher_was_told_are_noticed() -> None:
    training = Training()
    events = training.events()
    command = ("accelerate", "launch", "--cpu", "--num_processes", "{n}", "train.py")
    trial = replace(training.trial(), template=Template(arguments=command), values={"n": "2"})
    m = measurement_of({7: events}, trial)
    assert (m.config.world_size, m.config.sizes) == (1, ())
    assert "fewer-processes" in {w.code for w in m.warnings}


def loop(pass_: int | None = None, steps: int = 200) -> list[e.Event]:
    """A loop of steps of 10 ms without a loader, which evaluates for 1 s every 50 steps."""
    found = [x for x in Training().events() if isinstance(x, e.Began | e.TorchLoaded)]
    begin = found[-1].at + 1.0
    found.append(e.Mode(at=begin, training=True, module="GPT"))
    at = begin
    for i in range(steps):
        if i and i % 50 == 0:
            found.append(e.Mode(at=at, training=False, module="GPT"))
            found.append(e.NoGrad(at=at + 0.999, began=at))
            at += 1.0
            found.append(e.Mode(at=at, training=True, module="GPT"))
        at += 0.01
        step = e.Step(at=at, optimizer=0, batches=0, backwards=i + 1, waited=0.0)
        found.append(e.Steps(at=at, loader=None, pass_=pass_, steps=(step,), synchronized=True))
    return [*found, e.Ending(at=at, why="steps")]


def test_a_loop_without_a_loader_is_priced_by_the_step() -> None:
    m = measurement_of({7: loop()}, Training().trial())
    assert m.step_seconds == pytest.approx([0.01] * len(m.step_seconds))
    assert m.eval_batch_seconds == pytest.approx([1.0, 1.0])
    assert m.script is not None
    assert m.script.evaluations == Frequency(per_step=1 / 50)
    assert "no-epoch-seen" in {w.code for w in m.warnings}
    with pytest.raises(PredictionError, match=r"ask for steps \(--steps 20000\)"):
        fit([m]).predict(epochs=2)
    estimate = fit([m]).predict(steps=1000)
    terms = {term.name: term.seconds.p50 for term in estimate.terms}
    assert terms["training steps"] == pytest.approx(10.0)
    assert terms["evaluation"] == pytest.approx(20.0)


def test_an_epoch_of_a_loop_is_as_long_as_is_said() -> None:
    trial = replace(Training().trial(), steps_per_epoch=500)
    m = measurement_of({7: loop()}, trial)
    assert m.samples == 500
    terms = {t.name: t.seconds.p50 for t in fit([m]).predict(epochs=2).terms}
    assert terms["training steps"] == pytest.approx(10.0)
    assert terms["evaluation"] == pytest.approx(20.0)


def test_of_several_processes_the_first_rank_is_measured() -> None:
    training = Training()
    events = training.events()
    world = e.ProcessGroup(at=events[2].at, rank=0, size=2)
    other = e.ProcessGroup(at=events[2].at, rank=1, size=2)
    m = measurement_of(
        {9: [*events[:3], other, *events[3:]], 12: [*events[:3], world, *events[3:]]},
        training.trial(),
    )
    assert m.config.world_size == 2
    assert m.samples == 12_800  # each sees all of them
    assert fit([m]).predict(epochs=10).total_seconds.p50 == pytest.approx(training.total(10))


def test_what_makes_no_measurement_says_why() -> None:
    (
        began,
        torch,
        *_,
    ) = Training().events()
    with pytest.raises(NothingSeen, match="no process of the command has imported torch"):
        measurement_of({7: [began]}, Training().trial())
    with pytest.raises(NothingSeen, match="no optimizer stepped and nothing went backward"):
        measurement_of({7: [began, torch]}, Training().trial())
    with pytest.raises(NothingSeen, match="no process"):
        measurement_of({}, Training().trial())
    for short in (Training(samples=16, epochs=1).events(), loop(steps=1)):
        with pytest.raises(NothingSeen, match="it made one step and ended: too little to measure"):
            measurement_of({7: short}, Training().trial())


def test_peaks_belong_to_the_phase_in_which_they_rose() -> None:
    training = Training()
    events = training.events()
    phases = [("startup", 1), ("training", 5), ("evaluation", 4), ("training", 5), ("save", 7)]
    memory = [
        e.Memory(at=1.0, phase=phase, resident=n, resident_peak=n)  # type: ignore[arg-type]
        for phase, n in phases
    ]
    m = measurement_of({7: [*events, *memory]}, training.trial())
    assert m.memory is not None
    assert m.save_memory is not None
    assert m.memory.device_bytes == 5
    assert m.save_memory.device_bytes == 7


def test_a_device_must_have_what_its_driver_takes_beside_the_allocator() -> None:
    training = Training(block=7)
    events = training.events()
    known = {"resident": 1, "resident_peak": 1, "allocated_peak": 70, "reserved_peak": 80}
    memory = e.Memory(at=1.0, phase="training", device="cuda:0", beside=400, **known)
    m = measurement_of({7: [*events, memory]}, training.trial())
    assert m.memory == MemoryPeaks(allocated_bytes=70, reserved_bytes=80, device_bytes=480)
    unknown = e.Memory(at=1.0, phase="training", device="cuda:0", **known)  # not taken to be none
    m = measurement_of({7: [*events, unknown]}, training.trial())
    assert m.memory == MemoryPeaks(allocated_bytes=70, reserved_bytes=80)


@pytest.mark.parametrize(
    ("every", "phase", "epochs", "times"),
    [
        (2, 0, 3, 1 / 2),
        (2, 1, 3, 1 / 2),
        (3, 0, 3, 1 / 3),
        (5, 1, 3, 1 / 3),  # after the first of three: no more often than that
        (2, 0, 5, 1 / 2),
    ],
)
def test_what_comes_after_some_epochs_comes_as_far_apart_as_it_was_seen(
    every: int, phase: int, epochs: int, times: float
) -> None:
    script = measured(Training(save_every=every, save_phase=phase, epochs=epochs)).script
    assert script is not None
    assert script.saves == Frequency(per_epoch=pytest.approx(times))


def test_what_comes_without_a_rhythm_is_counted() -> None:
    training = Training(epochs=5, save_every=0)
    found = training.events()
    ends = [x.at for x in found if isinstance(x, e.PassEnded) and x.loader == 1]
    saves = [
        e.Save(at=ends[i] + 0.1, began=ends[i], bytes=9, path="", writer="torch") for i in (0, 1, 3)
    ]
    events = sorted([*found, *saves], key=lambda x: x.at)
    script = measurement_of({7: events}, training.trial()).script
    assert script is not None
    assert script.saves == Frequency(per_epoch=pytest.approx(3 / 5))


def test_a_loader_that_feeds_the_same_steps_as_another_is_no_evaluation() -> None:
    training = Training()
    found: list[e.Event] = []
    for event in training.events():  # as zip(a, b) draws: one before, the other steps
        found.append(event)
        if isinstance(event, e.PassEnded) and event.loader == 0:
            shown = {n: getattr(event, n) for n in event.__struct_fields__}
            other = {**shown, "loader": 2, "number": 100 + event.number, "steps": 0, "backwards": 0}
            began = event.first_batch_at - 0.01
            found.append(e.PassBegan(at=began, loader=2, number=100 + event.number))
            found.append(e.PassEnded(**other))
    both = measurement_of({7: found}, training.trial())
    alone = measured(training)
    assert both.step_seconds == pytest.approx(alone.step_seconds)
    assert both.eval_batch_seconds == pytest.approx(alone.eval_batch_seconds)
    assert both.epoch_fixed_seconds == pytest.approx(alone.epoch_fixed_seconds)


def left(training: Training, passes: int, zipped: str = "") -> Measurement:
    """As a script that leaves its loader after so many batches, in its first passes.

    Args:
        training: whose miniature is what it leaves after.
        passes: that it leaves.
        zipped: how a pass over another loader ended at the same step.
    """
    found: list[e.Event] = []
    for event in training.events():
        if isinstance(event, e.PassEnded) and event.loader == 0 and passes:
            passes -= 1
            event = msgspec.structs.replace(event, outcome="abandoned")
            if zipped:
                other = msgspec.structs.replace(event, loader=2, number=100 + passes)
                found.append(e.PassBegan(at=event.at - 0.01, loader=2, number=100 + passes))
                found.append(msgspec.structs.replace(other, outcome=zipped, steps=0, backwards=0))
        found.append(event)
    return measurement_of({7: found}, training.trial())


@pytest.mark.parametrize(
    ("passes", "zipped", "batches"),
    [(3, "", 50), (3, "exhausted", 50), (3, "cut", 400), (1, "", 400)],
)
def test_an_epoch_is_as_long_as_the_script_stays(passes: int, zipped: str, batches: int) -> None:
    m = left(Training(miniature=50), passes, zipped)
    assert division_of(m.samples, m.config).micro_batches == batches


def test_a_loader_of_which_single_batches_are_taken_is_no_evaluation() -> None:
    training = Training(samples=6400, batch_size=16)
    found = loop()
    loader = training._loader(0, 6400, 400, 16)
    fetches = [
        x
        for at in (1000.0, 1000.01, 1000.02)
        for x in (
            e.PassBegan(at=at, loader=0, number=round(at * 100)),
            e.PassEnded(
                at=at,
                loader=0,
                number=round(at * 100),
                batches=1,
                outcome="abandoned",
                first_batch_at=at,
                last_batch_at=at,
                waited=0.0,
                steps=0,
                backwards=0,
            ),
        )
    ]
    told = e.Feature(at=1000.02, name="fetched", detail="0")
    m = measurement_of({7: [loader, *fetches, told, *found]}, training.trial())
    assert m.config.batch_size == 16
    assert m.step_seconds == pytest.approx([0.01] * len(m.step_seconds))
    assert m.eval_batch_seconds == pytest.approx([1.0, 1.0])
    assert "no-epoch-seen" in {w.code for w in m.warnings}


def test_what_comes_after_a_framework_was_stopped_is_the_end_at_its_whole_length() -> None:
    """A last evaluation of 10 of 25 batches was seen, and a save."""
    training = Training()
    *found, _, ending = training.events()  # no further pass begins
    training.at -= training.finish
    training.found = [*found, msgspec.structs.replace(ending, attempt=0)]
    training._evaluate()
    training._save()
    training.at += training.finish
    m = measurement_of({7: training.found}, training.trial())
    whole = training.evaluation_seconds() + training.save + training.finish
    assert m.finish_seconds == pytest.approx(whole)
    assert m.epoch_fixed_seconds == pytest.approx(measured(Training()).epoch_fixed_seconds)
    assert m.script is not None
    assert m.script.ended_itself
    assert m.script.evaluations == m.script.saves == Frequency(per_epoch=1.0)


def test_what_a_script_does_when_its_framework_has_trained_is_no_part_of_an_epoch() -> None:
    training = Training(miniature=10**9, eval_miniature=10**9)  # a whole run
    alone = measured(training)
    *found, _, ending = training.events()
    training.at -= training.finish
    training.found = [*found, e.Feature(at=ending.at, name="trained")]
    training._evaluate()
    training._save()
    m = measurement_of({7: training.found}, training.trial())
    assert m.eval_batch_seconds == pytest.approx(alone.eval_batch_seconds)
    assert m.script is not None
    assert m.script.evaluations == m.script.saves == Frequency(per_epoch=1.0)
    assert m.script.ended_itself
    assert m.finish_seconds == pytest.approx(training.evaluation_seconds() + training.save)
