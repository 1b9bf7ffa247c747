"""A sweep adds rounds where they differ, keeps to a number that was asked for, and says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted import KNOBS, TRIAL_SECONDS, Machine, Memory, Noting, request_of

from epochcast.profiler.adaptive import TOLERATED, enough_rounds, later_run_half_width
from epochcast.profiler.process import Workers
from epochcast.profiler.request import DEFAULT_ROUNDS, MAX_ROUNDS
from epochcast.profiler.sweep import sweep
from epochcast.units import format_half_width


class Unsteady(Machine):
    """One whose rounds are so many times as slow, and its batch sizes too."""

    def __init__(self, archive, factors, off):
        super().__init__(archive)
        self.factors, self.off = dict(enumerate(factors)), off or {}

    def answer(self, task):
        reply = super().answer(task)
        if task.kind != "trial":
            return reply
        batch_size = task.spec.batch_size
        seconds = 1e-3 * batch_size * self.off.get(batch_size, 1.0)
        seconds *= self.factors.get(task.round, self.factors[0])
        return replace(reply, measured=replace(reply.measured, step_seconds=(seconds,) * 9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rounds")


def probed(folder, factors, rounds=None, archive=None, off=None, **changes):
    machine = Unsteady(archive or Memory(folder), factors, off)
    observer = Noting()
    result = sweep(
        request_of(rounds=rounds, **changes),
        machine.archive,
        observer,
        rounds=enough_rounds,
        workers=Workers(machine.archive.folder, machine.start),
        clock=lambda: machine.now,
    )
    return machine, result, [(w.code, dict(w.details)) for w in observer.warnings]


def test_a_quiet_machine_is_measured_three_times(folder) -> None:
    machine, result, told = probed(folder, (1.0, 1.01, 0.99))
    assert len(machine.trials()) == 3 * DEFAULT_ROUNDS
    assert (result.stopped, result.rounds, told) == ("complete", DEFAULT_ROUNDS, [])
    assert result.half_width < TOLERATED


def test_rounds_that_differ_are_followed_by_more_up_to_a_limit(folder) -> None:
    machine, result, told = probed(folder, (1.0, 2.0, 1.0, 2.0, 1.0, 2.0))
    assert [b for b, _, r in machine.measured() if r >= DEFAULT_ROUNDS]
    assert len(machine.trials()) == 3 * MAX_ROUNDS
    assert (result.stopped, result.rounds) == ("max-rounds", MAX_ROUNDS)
    assert [code for code, _ in told] == ["more-rounds", "rounds-differ"]
    assert told[0][1]["rounds"] == "3"
    assert told[1][1] == {"rounds": "6", "width": format_half_width(result.half_width)}


def test_no_more_are_made_than_it_takes(folder) -> None:
    _, result, told = probed(folder, (1.0, 1.1, 1.0))
    assert (result.stopped, result.rounds) == ("complete", 4)
    assert [code for code, _ in told] == ["more-rounds"]


@pytest.mark.parametrize("rounds", [2, 3, 7])
def test_a_number_that_was_asked_for_is_kept_and_the_scatter_told(folder, rounds: int) -> None:
    machine, result, told = probed(folder, (1.0, 2.0) * 4, rounds=rounds)
    assert len(machine.trials()) == 3 * rounds
    assert (result.stopped, [code for code, _ in told]) == ("complete", ["rounds-differ"])
    assert told[0][1]["rounds"] == str(rounds)


def test_the_time_limit_holds_for_added_rounds_too(folder) -> None:
    limit = TRIAL_SECONDS * 11
    machine, result, _ = probed(folder, (1.0, 2.0, 1.0, 2.0), max_seconds=limit)
    assert len(machine.trials()) == 11
    assert (result.stopped, result.rounds) == ("max-seconds", 4)


def test_the_same_command_again_adds_nothing_to_what_it_made(folder) -> None:
    archive = Memory(folder)
    factors = (1.0, 2.0, 1.0, 2.0, 1.0, 2.0)
    _, first, _ = probed(folder, factors, archive=archive)
    machine, again, told = probed(folder, factors, archive=archive)
    assert not machine.trials()
    assert (again.stopped, again.half_width) == (first.stopped, first.half_width)
    assert told[-1][0] == "rounds-differ"


def test_one_round_is_judged_by_how_far_it_strays_from_a_smooth_form(folder) -> None:
    sizes = (8, 16, 32, 64, 128, 256)
    for strays in (1.0, 1.6):
        off = dict(zip(sizes, (1.0, strays) * 3, strict=True))
        _, result, told = probed(folder, (1.0,), rounds=1, batch_sizes=sizes, off=off)
        assert result.stopped == "complete"
        assert [code for code, _ in told] == ["one-round-strays"] * (strays > 1)


def test_three_configurations_of_one_round_tell_nothing(folder) -> None:
    _, result, told = probed(folder, (1.0,), rounds=1, sizes={"width": (dict(KNOBS)["width"],)})
    assert (result.half_width, told) == (None, [])
    assert later_run_half_width(()) is None
