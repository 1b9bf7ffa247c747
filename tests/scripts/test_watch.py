"""A watched run told from events of known costs, under a fake clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import FIRST_PASS, Training

from epochcast.records import (
    Budget,
    EpochDone,
    Notice,
    Quantiles,
    RunEnded,
    RunEvent,
    RunStarted,
    StopReason,
    UnitPrices,
)
from epochcast.report.text.following import Narrator, summary_lines
from epochcast.scripts import events as e
from epochcast.scripts import tracker
from epochcast.scripts.unplanned import epochs_among, unplanned
from epochcast.scripts.watch import Watch, Watched

WALL = 1.76e9
WHOLE = 10**9  # batches: no pass is cut
BLOCK = 25  # steps


def whole(**parts: object) -> Training:
    """A run of whole epochs."""
    return Training(miniature=WHOLE, eval_miniature=WHOLE, **parts)  # type: ignore[arg-type]


def streamed(training: Training, block: int = BLOCK) -> Iterator[e.Event]:
    """As it is reported while it goes on: steps in blocks, and no ending of ours."""
    for event in training.events()[:-2]:
        if not isinstance(event, e.Steps):
            yield event
            continue
        for i in range(0, len(event.steps), block):
            part = event.steps[i : i + block]
            yield e.Steps(at=part[-1].at, loader=event.loader, pass_=event.pass_, steps=part)


def watched(**parts: object) -> Watched:
    return Watched(
        run="r1",
        workload="train.py",
        arguments=("python", "train.py"),
        began=FIRST_PASS,
        wall=WALL,
        **parts,  # type: ignore[arg-type]
    )


def replayed(training: Training, watch: Watch, code: int = 0) -> list[RunEvent]:
    """What is told of a run, looked at whenever something was reported."""
    told: list[RunEvent] = []
    for event in streamed(training):
        watch.see(7, event)
        told += watch.look(event.at)
    return told + watch.end(training.at, code)


def epochs_of(told: list[RunEvent]) -> list[EpochDone]:
    return [event for event in told if isinstance(event, EpochDone)]


def notices(told: list[RunEvent], code: str) -> list[dict[str, str]]:
    found = (event.notice for event in told if isinstance(event, Notice))
    return [dict(notice.details) for notice in found if notice.code == code]


def prices(training: Training) -> UnitPrices:
    """Exactly what it takes."""
    exactly = Quantiles.exactly
    return UnitPrices(
        startup=exactly(training.startup),
        first_steps=exactly(training.first),
        epoch=exactly(training.batches * training.step + training.restart + training.fixed),
        evaluation=exactly(training.evaluation_seconds()),
        save=exactly(training.save),
        epoch_noise=0.0,
    )


def test_parts_of_each_epoch_are_what_they_took() -> None:
    training = whole(epochs=4)
    told = replayed(training, Watch(watched(epochs=4)))
    done = epochs_of(told)
    epoch = prices(training).epoch.p50
    assert [event.position.epoch for event in done] == [1, 2, 3, 4]
    assert [event.first for event in done] == [True, False, False, False]
    assert done[0].seconds == pytest.approx(epoch + training.first)
    assert [event.seconds for event in done[1:3]] == pytest.approx([epoch, epoch])
    # nothing tells what an epoch does after its last save from what follows the last epoch
    assert done[3].seconds == pytest.approx(epoch - training.fixed)
    for event in done:
        assert event.evaluation_seconds == pytest.approx(training.evaluation_seconds())
        assert event.save_seconds == pytest.approx(training.save)


def test_parts_add_up_to_the_time_of_the_run() -> None:
    training = whole(epochs=3, evaluate_every=2)
    told = replayed(training, Watch(watched(epochs=3)))
    start, done = told[0], epochs_of(told)
    assert isinstance(start, RunStarted)
    parts = [
        event.seconds + (event.evaluation_seconds or 0.0) + (event.save_seconds or 0.0)
        for event in done
    ]
    assert start.spent_seconds + sum(parts) == pytest.approx(done[-1].spent_seconds)


def test_without_a_plan_the_total_is_known_from_the_first_steady_epoch_on() -> None:
    training = whole(epochs=10)
    told = replayed(training, Watch(watched(epochs=10)))
    real = training.total(10) - training.finish
    for event in epochs_of(told)[2:]:
        assert event.projected_seconds.p50 == pytest.approx(real, rel=0.02)
        assert event.projected_seconds.p10 <= event.projected_seconds.p90
        assert event.on_plan_probability is None  # of no limit


def test_first_word_on_the_time_left_comes_within_the_first_epoch() -> None:
    training = whole(epochs=10, samples=64000, evaluate_every=0, save_every=0, fixed=0.0)
    watch = Watch(watched(epochs=10))
    told = replayed(training, watch)
    first = next(event for event in told if isinstance(event, Notice))
    assert first.notice.code == "time-left"
    assert first.position.epoch == 0
    assert first.wall_time - WALL < training.startup + 10
    assert "come on top" in dict(first.notice.details)["beside"]


def test_words_become_rarer() -> None:
    training = whole(epochs=1, samples=1_600_000, evaluate_every=0, save_every=0)
    told = replayed(training, Watch(watched(epochs=1)))
    at = [event.wall_time for event in told if isinstance(event, Notice)]
    assert 5 < len(at) < 12
    gaps = [b - a for a, b in pairwise(at)]
    assert all(b > 1.5 * a for a, b in pairwise(gaps))


def test_interval_of_the_time_left_holds_what_was_left() -> None:
    training = whole(epochs=2, samples=64000, evaluate_every=0, save_every=0, fixed=0.0)
    watch, inside = Watch(watched(epochs=2)), []
    ends = FIRST_PASS + training.total(2) - training.finish
    for event in streamed(training):
        watch.see(7, event)
        watch.look(event.at)
        outlook = watch._outlook(event.at)
        if outlook is not None and watch.leader is not None and watch.leader.share_done < 1:
            forecast, work = outlook
            left = forecast.quantiles(work)
            inside.append(left.p10 - 1.0 <= ends - event.at <= left.p90 + 1.0)
    assert sum(inside) >= 0.9 * len(inside) > 0


def test_as_planned_the_ratio_is_one_and_the_plan_is_kept() -> None:
    training = whole(epochs=4)
    plan = unplanned("train.py", Budget(deadline=600.0))
    chosen = replace(plan.chosen, epochs=4, steps_per_epoch=training.batches)
    chosen = replace(chosen, config=replace(chosen.config, batch_size=training.batch_size))
    plan = replace(plan, options=(chosen,), prices=prices(training))
    told = replayed(training, Watch(watched(plan=plan)))
    assert [event.ratio for event in epochs_of(told)[:3]] == pytest.approx([1.0, 1.0, 1.0])
    assert all((event.on_plan_probability or 0) > 0.9 for event in epochs_of(told))
    codes = {event.notice.code for event in told if isinstance(event, Notice)}
    assert codes <= {"time-left"}


def test_another_batch_size_and_number_of_steps_than_planned_are_said() -> None:
    training = whole(epochs=2)
    plan = unplanned("other.py", Budget())
    plan = replace(plan, options=(replace(plan.chosen, epochs=2, steps_per_epoch=7),))
    told = replayed(training, Watch(watched(plan=plan)))
    assert notices(told, "batch-differs") == [{"planned": "1", "seen": "16"}]
    assert notices(told, "steps-differ") == [{"planned": "7", "seen": "400"}]
    assert notices(told, "script-differs")


def test_two_optimizers_make_no_difference_to_time() -> None:
    one, two = whole(epochs=3), whole(epochs=3, steps_a_batch=2)
    seconds = [
        [event.seconds for event in epochs_of(replayed(training, Watch(watched(epochs=3))))]
        for training in (one, two)
    ]
    assert seconds[0] == pytest.approx(seconds[1])


def test_evaluations_within_an_epoch_are_told_apart() -> None:
    training = whole(epochs=2, evaluate_each=100, evaluate_every=0)
    done = epochs_of(replayed(training, Watch(watched(epochs=2))))
    assert done[1].evaluation_seconds == pytest.approx(4 * training.evaluation_seconds())
    plain = training.batches * training.step + training.restart
    assert done[1].seconds == pytest.approx(plain, abs=training.fixed + 0.01)


def test_only_rank_zero_is_told_of() -> None:
    training = whole(epochs=2)
    watch = Watch(watched(epochs=2))
    told: list[RunEvent] = []
    for event in streamed(training):
        for pid, rank in ((11, 1), (12, 0)):
            own = replace_rank(event, rank)
            watch.see(pid, own)
            told += watch.look(event.at)
    assert [event.position.epoch for event in epochs_of(told)] == [1]
    assert watch.training == (11, 12)
    assert told[0].config.world_size == 2  # type: ignore[union-attr]


def replace_rank(event: e.Event, rank: int) -> e.Event:
    if not isinstance(event, e.Began):
        return event
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return e.Began(**{**fields, "rank": rank, "world_size": 2})


def test_steps_without_a_loader_make_segments() -> None:
    watch, told = Watch(watched(steps_per_epoch=100, epochs=5)), []
    at = FIRST_PASS + 1.0
    watch.see(7, loaded(at, ("train.py",)))
    for block in range(25):  # of 20 steps each; an evaluation and a save after every 100
        steps = tuple(bare_step(at + 0.05 * (i + 1)) for i in range(20))
        at += 1.0
        watch.see(7, e.Steps(at=at, loader=None, pass_=None, steps=steps))
        if block % 5 == 4:
            watch.see(7, e.Mode(at=at, training=False, module="GPT"))
            watch.see(7, e.Mode(at=at + 0.5, training=True, module="GPT"))
            watch.see(7, e.Save(at=at + 0.7, began=at + 0.5, bytes=1, path="c", writer="torch"))
            at += 0.7
        told += watch.look(at)
    told += watch.end(at + 0.1, 0)
    assert told[0].segment_steps == 100
    done = epochs_of(told)
    assert [event.position.epoch for event in done] == [1, 2, 3, 4, 5]
    assert [event.seconds for event in done[1:4]] == pytest.approx([5.0, 5.0, 5.0])
    assert done[2].evaluation_seconds == pytest.approx(0.5)
    assert done[2].save_seconds == pytest.approx(0.2)
    assert told[-1].reason is StopReason.PLAN_DONE


def loaded(at: float, argv: tuple[str, ...]) -> e.TorchLoaded:
    return e.TorchLoaded(
        at=at, began=at - 1, version="2.13.0", cuda=None, threads=1, argv=argv, main="train.py"
    )


def bare_step(at: float) -> e.Step:
    return e.Step(at=at, optimizer=0, batches=0, backwards=0, waited=0.0)


# -- the deadline ----------------------------------------------------------------------------------


def asked_at(training: Training, deadline: float) -> tuple[float, Watch]:
    """When it is asked, seconds after its start, with a look at least twice a second."""
    watch = Watch(watched(epochs=10**6, budget=Budget(deadline=deadline)))
    now = FIRST_PASS
    for event in streamed(training):
        while now + 0.5 < event.at:
            due = watch.asks_at(now)
            if due <= now + 0.5:
                return max(now, due) - FIRST_PASS, watch
            now += 0.5
            watch.look(now)
        watch.see(7, event)
        now = event.at
        watch.look(now)
        if watch.asks_at(now) <= now:
            return now - FIRST_PASS, watch
    raise AssertionError("it was not asked")


def left_at(training: Training, asked: float) -> float:
    """When a script is gone that looks after each step whether it was asked, then saves."""
    moments = [
        step.at - FIRST_PASS
        for event in training.found
        if isinstance(event, e.Steps)
        for step in event.steps
    ]
    return next(at for at in moments if at >= asked) + training.save + training.finish


@settings(max_examples=25, deadline=None)
@given(
    deadline=st.floats(25.0, 160.0),
    save=st.floats(0.01, 5.0),
    evaluation=st.floats(0.001, 0.3),
    step=st.floats(0.005, 0.2),
)
def test_who_is_asked_has_left_before_the_deadline(
    deadline: float, save: float, evaluation: float, step: float
) -> None:
    seconds = 50 * step + 25 * evaluation + save
    epochs = 2 + int(deadline / seconds)
    training = whole(
        samples=800, epochs=epochs, save=save, eval_batch=evaluation, step=step, finish=1.0
    )
    asked, _ = asked_at(training, deadline)
    seen = training.startup + training.first + seconds
    if asked > 2.5 * seen:  # an evaluation and a save were seen
        assert left_at(training, asked) <= deadline + 0.02


def test_who_is_asked_has_used_most_of_the_time() -> None:
    training = whole(samples=1600, epochs=100, save=0.1)
    asked, _ = asked_at(training, 100.0)
    assert asked > 95.0


def test_a_lead_that_was_given_is_kept_to() -> None:
    watch = Watch(watched(epochs=9, lead=17.0, budget=Budget(deadline=100.0)))
    for event in list(streamed(whole(epochs=1)))[:8]:
        watch.see(7, event)
        watch.look(event.at)
    assert watch.asks_at(FIRST_PASS + 6) == pytest.approx(FIRST_PASS + 83)


def test_asked_once_and_told_how() -> None:
    _, watch = asked_at(whole(epochs=30), 60.0)
    assert "knows no way" in Narrator(400).lines(watch.ask(FIRST_PASS + 56, "")[0])[0]
    assert not watch.ask(FIRST_PASS + 57, "")  # said once, and tried again: a handler may come
    assert watch.asks_at(FIRST_PASS + 57) <= FIRST_PASS + 57
    told = watch.ask(FIRST_PASS + 57, "SIGTERM")
    assert watch.asks_at(FIRST_PASS + 58) == float("inf")
    assert "by SIGTERM, 3 s before the deadline" in Narrator(200).lines(told[0])[0]
    assert not watch.passed(FIRST_PASS + 59, ends=False)
    assert watch.passed(FIRST_PASS + 60, ends=False)
    assert not watch.passed(FIRST_PASS + 61, ends=False)


# -- the end ---------------------------------------------------------------------------------------


def test_a_cut_epoch_teaches_nothing_of_whole_ones() -> None:
    training, watch = whole(epochs=3), Watch(watched(epochs=3))
    told: list[RunEvent] = []
    for event in streamed(training):
        if isinstance(event, e.Steps) and event.pass_ == 4 and event.steps[0].batches > 350:
            break
        watch.see(7, event)
        told += watch.look(event.at)
    told += watch.end(event.at, 143, "SIGTERM")
    last = epochs_of(told)[-1]
    assert (last.position.epoch, last.position.step) == (2, 350)
    assert len(watch.samples.epoch) == 1
    ended = told[-1]
    assert isinstance(ended, RunEnded)
    assert (ended.reason, ended.exit_code) == (StopReason.SIGNAL, 143)
    assert "ended by SIGTERM, with exit code 143" in summary_lines(told)[0]


def test_a_command_that_trains_nothing_tells_nothing() -> None:
    watch = Watch(watched())
    watch.see(7, loaded(FIRST_PASS + 1, ()))
    assert watch.look(FIRST_PASS + 2) == []
    assert watch.end(FIRST_PASS + 3, 1) == []


def test_a_loop_whose_options_say_its_steps_is_one_segment_of_them() -> None:
    watch, told = Watch(watched()), []
    at = FIRST_PASS + 1.0
    watch.see(7, loaded(at, ("train.py", "--max_iters=2000")))
    for _ in range(40):
        steps = tuple(bare_step(at + 0.02 * (i + 1)) for i in range(25))
        at += 0.5
        watch.see(7, e.Steps(at=at, loader=None, pass_=None, steps=steps))
        told += watch.look(at)
    assert told[0].segment_steps == 2000
    words = [event for event in told if isinstance(event, Notice)]
    assert "come on top" in dict(words[-1].notice.details)["beside"]
    outlook = watch._outlook(at)
    assert outlook is not None
    assert outlook[0].seconds(outlook[1], 0.5) == pytest.approx(20.0, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "epochs"),
    [
        ("train.py --epochs 90", 90),
        ("train.py --max_epochs=12 --lr 0.1", 12),
        ("train.py --num-train-epochs 3.0", 3),
        ("train.py --n_epochs 4", 4),
        ("train.py trainer.max_epochs=7", 7),
        ("train.py -epochs 5", 5),
        ("train.py --warmup-epochs 5", None),
        ("train.py --epochs", None),
        ("train.py --epochs many", None),
        ("train.py --eval-every-epochs 2", None),
        ("train.py --epochs 0", None),
        ("train.py epochs 9", None),
    ],
)
def test_epochs_are_read_from_the_options_of_a_script(arguments: str, epochs: int | None) -> None:
    assert epochs_among(arguments.split()) == epochs


def test_an_evaluation_whose_end_is_told_late_is_one() -> None:
    """Lightning: gradients are off, then the mode changes; the pass is closed in the next epoch."""
    training, watch = whole(epochs=2), Watch(watched(epochs=2))
    told: list[RunEvent] = []
    late: list[e.Event] = []
    for event in streamed(training):
        if isinstance(event, e.PassEnded) and event.loader == 1:
            late.append(event)
            began = event.at - training.evaluation_seconds()
            watch.see(7, e.NoGrad(at=event.at, began=began))
            continue
        if isinstance(event, e.PassBegan) and event.loader == 1:
            watch.see(7, e.Mode(at=event.at + 0.001, training=False, module="Net"))
        watch.see(7, event)
        told += watch.look(event.at)
    for event in late:
        watch.see(7, event)
    told += watch.end(training.at, 0)
    seconds = [event.evaluation_seconds for event in epochs_of(told)]
    assert seconds == pytest.approx([training.evaluation_seconds()] * 2, abs=0.01)


def test_a_plan_of_steps_cuts_a_run_in_segments_whatever_its_loader_says() -> None:
    training = whole(epochs=3, evaluate_every=0, save_every=0, fixed=0.0, restart=0.0, first=0.0)
    plan = unplanned("train.py", Budget())
    chosen = replace(plan.chosen, epochs=12, steps_per_epoch=100, horizon_steps=1200)
    plan = replace(plan, options=(chosen,), unit="step", segment_steps=100, prices=prices(training))
    done = epochs_of(replayed(training, Watch(watched(plan=plan))))
    assert [event.position.steps for event in done] == [100 * i for i in range(1, 13)]
    assert [event.seconds for event in done[1:]] == pytest.approx([2.0] * 11)


def test_after_a_short_first_epoch_the_total_is_one_of_such_epochs() -> None:
    training = whole(epochs=3, samples=160, first=1.0)
    done = epochs_of(replayed(training, Watch(watched(epochs=3))))
    each = done[0].seconds + training.evaluation_seconds() + training.save
    whole_run = training.startup + 3 * each  # by the first, but for what of the second is done
    assert done[0].projected_seconds.p50 == pytest.approx(whole_run - 1.0, abs=1.0)
    assert done[1].predicted.p50 == pytest.approx(done[0].seconds, rel=0.01)
    assert done[2].projected_seconds.p50 == pytest.approx(done[2].spent_seconds)


def test_of_an_epoch_of_very_many_steps_few_are_kept_and_its_parts_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seen() -> tuple[list[float | None], int]:
        training = whole(epochs=2, samples=64000, evaluate_each=500, evaluate_every=0)
        watch, most, told = Watch(watched(epochs=2)), 0, []
        for event in streamed(training, block=250):
            watch.see(7, event)
            told += watch.look(event.at)
            window = watch._trackers[7]._window
            most = max(most, sum(len(x.steps) for x in window if isinstance(x, e.Steps)))
        done = epochs_of(told + watch.end(training.at, 0))
        return [x for d in done for x in (d.seconds, d.evaluation_seconds, d.save_seconds)], most

    everything, all_steps = seen()
    monkeypatch.setattr(tracker, "MANY", 100)
    thinned, few = seen()
    assert thinned == pytest.approx(everything)
    assert few < all_steps / 5
