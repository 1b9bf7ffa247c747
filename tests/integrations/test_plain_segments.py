"""A plain loop follows a plan of steps: segments for epochs, a stream that goes on through them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from rehearsal import FakeClock, Listener, about, make_plan

import epochcast as ec
from epochcast.costmodel.outcomes import comparison
from epochcast.errors import UsageError
from epochcast.guard.controller import Controller, Policy
from epochcast.guard.segments import in_segments, last_share
from epochcast.integrations.follower import Follower
from epochcast.planning.cadence import Every
from epochcast.records import Checkpoint, Plan, Quantiles, StopReason, StopRule
from epochcast.report.text.estimate import runs_table
from epochcast.report.text.following import Narrator, summary_lines


def plan_of_steps(steps: int = 34, segment: int = 10, **settings) -> Plan:
    """Evaluated every 20 steps and saved every 10; 5 s a step, as ``make_plan`` has epochs."""
    made = make_plan(**{"epochs": 1, "deadline": 1e6, "epoch": about(5.0 * segment)} | settings)
    ends = [*range(segment, steps, segment), steps]
    timeline = tuple(
        Checkpoint(
            epoch=end,
            seconds=Quantiles.exactly(5.0 * end),
            money=None,
        )
        for end in ends
    )
    option = replace(
        made.chosen, epochs=steps, target_epochs=steps, steps_per_epoch=10**9, horizon_steps=steps
    )
    return replace(
        made,
        options=(option,),
        evaluations=Every(20).epochs(steps).ranges,
        saves=Every(segment).epochs(steps).ranges,
        timeline=timeline,
        target_epochs=steps,
        unit="step",
        segment_steps=segment,
    )


class Loop:
    """Trains on whatever it is given, 5 s a batch, and notes what it saw."""

    def __init__(self, folder: Path, plan: Plan, batches, clock: FakeClock | None = None) -> None:
        self.clock, self.listener = clock or FakeClock(), Listener()
        self.seen: list[int] = []
        self.segments: list[list[int]] = []
        self.evaluated: list[int] = []
        with ec.follow(
            plan,
            save=lambda path: path.write_text("weights"),
            load=lambda path: None,
            folder=folder,
            clock=self.clock,
            watchers=[self.listener],
            store=False,
        ) as self.run:
            for _ in self.run.epochs():
                self.segments.append([])
                for batch in self.run.batches(batches):
                    self.clock.pass_(5.0)
                    self.seen.append(batch)
                    self.segments[-1].append(batch)
                if self.run.due("evaluate"):
                    self.evaluated.append(self.run.position.steps)
                    self.run.report(val_loss=1 / len(self.seen))


def endless() -> Iterator[int]:
    return iter(count())


def test_an_endless_stream_is_trained_for_the_steps_planned(tmp_path: Path) -> None:
    loop = Loop(tmp_path, plan_of_steps(), endless())
    assert loop.seen == list(range(34))
    assert [len(segment) for segment in loop.segments] == [10, 10, 10, 4]
    assert loop.evaluated == [20, 34]
    assert loop.run.reason is StopReason.PLAN_DONE
    assert loop.listener.notes() == []
    narrator = Narrator()
    prints = [line for event in loop.listener.events for line in narrator.lines(event)]
    assert prints[0].startswith(
        "Following the plan of a-workload: 4 segments of 10 steps with batch_size=10."
    )
    assert not any("epoch" in line for line in [*prints, *summary_lines(loop.listener.events)])


def test_a_loader_that_ends_begins_again_and_a_short_one_is_an_error(tmp_path: Path) -> None:
    again = Loop(tmp_path / "a", plan_of_steps(), list(range(7)))
    assert again.seen == [n % 7 for n in range(34)]
    with pytest.raises(UsageError, match="the batches ended after step 12, and the plan goes on"):
        Loop(tmp_path / "b", plan_of_steps(), iter(range(12)))


def test_the_deadline_stops_within_a_segment_and_the_run_goes_on_there(tmp_path: Path) -> None:
    first = Loop(tmp_path, plan_of_steps(deadline=70.0), endless())
    assert first.run.reason is StopReason.BUDGET
    assert first.run.position.steps == len(first.seen) == 13
    second = Loop(tmp_path, plan_of_steps(), endless())
    assert len(first.seen) + len(second.seen) == 34
    assert [len(segment) for segment in second.segments] == [7, 10, 4]
    assert second.run.reason is StopReason.PLAN_DONE


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_segment_has_as_many_batches_as_its_steps_accumulate(accumulation: int) -> None:
    made = plan_of_steps()
    config = replace(made.chosen.config, accumulation=accumulation)
    made = in_segments(replace(made, options=(replace(made.chosen, config=config),)))
    assert Controller.of_plan(made, Policy()).planned_steps == 10 * accumulation
    assert Controller.of_plan(made, Policy(per_update=True)).planned_steps == 10


def test_what_a_plan_says_of_steps_is_said_of_segments() -> None:
    rules = (StopRule(kind="futility", settings=(("probability", 0.1), ("horizon", 34.0))),)
    made = in_segments(replace(plan_of_steps(rules=rules), min_epochs=21))
    assert (made.chosen.epochs, made.chosen.horizon_steps, made.least_epochs) == (4, 34, 3)
    assert tuple(made.epochs_of("evaluate")) == (2, 4)
    assert last_share(made) == pytest.approx(0.4)
    assert dict(made.stop_rules[0].settings)["horizon"] == 4
    whole = make_plan()
    assert (in_segments(whole), last_share(whole)) == (whole, 1.0)


def test_the_rest_of_a_run_ends_with_the_shorter_segment(tmp_path: Path) -> None:
    """34 steps of 5 s and 4 saves of 2 s: a deadline of 180 s is enough, one of 40 steps not."""
    loop = Loop(tmp_path, plan_of_steps(deadline=180.0), endless())
    assert (loop.run.position.steps, loop.run.reason) == (34, StopReason.PLAN_DONE)
    assert "replanned" not in loop.listener.notes()
    assert len(loop.run._guard.state.ledger.samples.epoch) == 2  # neither the first nor the last


def test_the_picture_of_a_run_has_segments(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from epochcast.report.plots.following import draw_run

    figure = draw_run(Loop(tmp_path, plan_of_steps(), endless()).listener.events)
    assert figure.axes[-1].get_xlabel() == "segments of 10 steps"
    said = [axes.get_ylabel() for axes in figure.axes]
    said += [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert any("segment" in text for text in said)
    assert not any("epoch" in text for text in said)


def test_what_a_run_teaches_says_that_its_epochs_are_segments(tmp_path: Path) -> None:
    outcome = Loop(tmp_path, plan_of_steps(), endless()).run._guard.outcome
    assert outcome is not None
    assert (outcome.segment_steps, outcome.samples, outcome.epoch_share) == (10, 100, 1.0)
    assert outcome.total_predicted is not None
    table = runs_table([comparison(outcome)], 200)
    assert "4 of 10 steps" in [cell for column in table.columns for cell in column.cells]


def test_what_follows_epochs_refuses_a_plan_of_steps(tmp_path: Path) -> None:
    """Before a model is built or data are loaded."""
    with pytest.raises(UsageError, match=r"counts optimizer steps.*--epochs .*or .*ec\.follow"):
        Follower(plan_of_steps(), folder=tmp_path / "run")
