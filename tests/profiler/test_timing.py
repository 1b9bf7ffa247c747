"""Timing under a fake clock: when warm-up ends, what is a sample, what is a turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from epochcast.profiler import timing
from epochcast.profiler.timing import MAX_SAMPLES, Series, Stepper
from epochcast.records import RunConfig

CPU = torch.device("cpu")


class World:
    """A clock that only the fake loader and the fake loop advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def mark(self) -> float:
        return self.now

    def seconds(self, start: float, end: float) -> float:
        return end - start


class Loader:
    """``length`` batches; starting a pass and each batch take their time."""

    def __init__(self, world: World, length: int, turn=0.0, wait=0.0, samples=None) -> None:
        self.world, self.length, self.turn, self.wait = world, length, turn, wait
        self.dataset = range(samples if samples is not None else length)
        self.passes = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        self.world.now += self.turn
        for index in range(self.length):
            self.world.now += self.wait
            yield index


class Loop:
    """Micro-steps that take what ``cost(step number)`` says; updates take 0.5 of a second more."""

    device = CPU

    def __init__(
        self,
        world: World,
        cost: Callable[[int], float],
        loader: Loader,
        config: RunConfig,
        own_step: bool = False,
        eval_loader: Loader | None = None,
    ) -> None:
        self.world, self.cost, self.config = world, cost, config
        self.loader, self.evaluations = loader, eval_loader
        self.workload = SimpleNamespace(train_step=print if own_step else None, model=nn.Identity())
        self.steps = 0
        self.evaluated: list[tuple[int, bool]] = []

    def train_loader(self) -> Loader:
        return self.loader

    def eval_loader(self) -> Loader | None:
        return self.evaluations

    def micro_step(self, batch: int, clock: World) -> tuple[float, float] | None:
        self.world.now += self.cost(self.steps)
        self.steps += 1
        if self.workload.train_step is not None or self.steps % self.config.accumulation:
            return None
        start = clock.mark()
        self.world.now += 0.5
        return start, clock.mark()

    def evaluate(self, batch: int) -> None:
        self.evaluated.append((batch, self.workload.model.training))
        self.world.now += 2.0


@contextmanager
def fake(cost=lambda step: 1.0, batches=10, turn=0.0, wait=0.0, **options):
    """A stepper, its loop and its world, with the timing module's clock replaced."""
    own_step = options.pop("own_step", False)
    eval_loader = options.pop("eval_loader", None)
    world = World()
    config = RunConfig(batch_size=4, **options)
    if eval_loader is not None:
        eval_loader.world = world
    loop = Loop(world, cost, Loader(world, batches, turn, wait), config, own_step, eval_loader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time", SimpleNamespace(perf_counter=world.perf_counter))
        yield Stepper(loop, world), loop, world


def warmed(stepper, world):
    stepper.step()
    return timing.warm_up(stepper, world.mark())


# -- warm-up ------------------------------------------------------------------------------------


def test_a_steady_series_warms_up_in_two_windows():
    with fake() as (stepper, _, world):
        assert warmed(stepper, world) == [1.5] * 6


@given(slow=st.integers(0, 12), factor=st.floats(3, 100))
def test_slow_first_steps_are_waited_out(slow, factor):
    with fake(cost=lambda step: 0.1 * (factor if step <= slow else 1)) as (stepper, _, world):
        seconds = warmed(stepper, world)
        earlier, later = sum(seconds[-6:-3]) / 3, sum(seconds[-3:]) / 3
        stable = abs(earlier - later) <= timing.STABLE_WITHIN * min(earlier, later)
        assert stable or world.now > timing.WARMUP_LIMIT_SECONDS
        assert len(seconds) >= timing.MIN_WARMUP_UPDATES - 1


@given(accumulation=st.integers(1, 20))
def test_never_before_two_updates(accumulation):
    with fake(accumulation=accumulation, cost=lambda step: 100.0) as (stepper, _, world):
        warmed(stepper, world)  # the time limit has passed long before
        assert stepper.updated >= timing.MIN_WARMUP_UPDATES


def test_a_series_that_never_settles_ends_at_the_time_limit():
    with fake(cost=lambda step: 1.1**step) as (stepper, _, world):
        seconds = warmed(stepper, world)
        assert sum(seconds[:-1]) <= timing.WARMUP_LIMIT_SECONDS < sum(seconds)


@given(workers=st.integers(1, 9))
def test_batches_that_were_ready_before_time_are_used_up_first(workers):
    with fake(workers=workers) as (stepper, _, world):
        assert len(warmed(stepper, world)) >= 2 * workers


# -- steady steps -------------------------------------------------------------------------------


@given(
    accumulation=st.integers(1, 5),
    workers=st.integers(0, 4),
    batches=st.integers(1, 12),
    seconds=st.floats(0.1, 100),
    own_step=st.booleans(),
)
def test_whole_periods_and_aligned_series(accumulation, workers, batches, seconds, own_step):
    config = {"accumulation": accumulation, "workers": workers}
    with fake(batches=batches, wait=0.25, own_step=own_step, **config) as (stepper, loop, world):
        series = timing.steady_steps(stepper, seconds)
        assert len(series.step) > 0
        assert len(series.step) % loop.config.period == 0
        assert len(series.wait) == len(series.step)
        assert len(series.update) == (0 if own_step else len(series.step))
        assert series.steps_per_sample == 1
        enough = len(series.step) >= timing.MIN_STEADY_STEPS
        assert world.now >= seconds if enough else world.now >= timing.PATIENCE * seconds


def test_a_step_holds_its_wait_and_its_update():
    with fake(wait=0.25, accumulation=2) as (stepper, _, _):
        series = timing.steady_steps(stepper, 6.0)
    assert series.wait == [0.25] * len(series.step)
    assert sorted(set(series.update)) == [0.0, 0.5]
    assert all(
        step == 1.25 + update for step, update in zip(series.step, series.update, strict=True)
    )


def test_slow_steps_may_stretch_a_phase_but_not_for_ever():
    with fake(cost=lambda step: 60.0, batches=100) as (stepper, loop, _):
        series = timing.steady_steps(stepper, 1.0)
    assert len(series.step) == 1  # one step took longer than PATIENCE allows
    assert loop.steps == 2  # the first of the pass is not a sample


def test_the_first_step_of_a_pass_is_a_turn_and_not_a_sample():
    with fake(batches=4, turn=7.0) as (stepper, loop, _):
        samples = [stepper.step()[2] for _ in range(9)]
        assert samples == [False, True, True, True] * 2 + [False]
        assert stepper.turns == [7.0, 7.0]
        assert loop.loader.passes == 3
        assert set(timing.steady_steps(stepper, 20.0).step) == {1.5}


def test_passes_of_a_single_batch_are_all_samples():
    with fake(batches=1, turn=7.0) as (stepper, _, _):
        assert all(stepper.step()[2] for _ in range(4))
        assert set(timing.steady_steps(stepper, 1.0).step) == {8.5}


def test_a_turn_can_be_forced():
    with fake(batches=4, turn=7.0, wait=0.5) as (stepper, loop, _):
        stepper.step()
        stepper.turn()
        assert stepper.turns == [7.5]
        assert loop.loader.passes == 2
        assert stepper.step()[2] is False


def test_further_batches_go_on_over_the_end_of_a_pass():
    with fake(batches=3) as (stepper, _, _):
        batches = stepper.batches()
        assert [next(batches) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_an_own_step_counts_as_an_update():
    with fake(own_step=True) as (stepper, _, _):
        stepper.step()
        stepper.step()
        assert stepper.updated == 2


# -- thinning -----------------------------------------------------------------------------------

long_series = st.integers(0, 5000).flatmap(
    lambda length: st.tuples(st.just(length), st.integers(1, 12), st.randoms(use_true_random=False))
)


@given(long_series, st.booleans())
@settings(max_examples=30, deadline=None)
def test_thinning_keeps_sums_and_alignment(drawn, with_updates):
    length, period, random = drawn
    step = [random.uniform(0.5, 2.0) for _ in range(length)]
    series = Series(
        step=step,
        wait=[s / 2 for s in step],
        update=[s / 4 for s in step] if with_updates else [],
    )
    thin = series.thinned(period)
    run = thin.steps_per_sample
    assert len(thin.step) <= MAX_SAMPLES
    assert len(thin.wait) == len(thin.step)
    assert len(thin.update) == (len(thin.step) if with_updates else 0)
    assert run == 1 or run % period == 0
    assert length - len(thin.step) * run < run
    assert sum(thin.step) * run == pytest.approx(sum(step[: len(thin.step) * run]))
    for a, b in zip(thin.step, thin.wait, strict=True):
        assert b == pytest.approx(a / 2)


def test_a_long_phase_is_thinned():
    with fake(batches=10**6, accumulation=3) as (stepper, _, _):
        series = timing.steady_steps(stepper, 10_000.0)
    assert series.steps_per_sample % 3 == 0
    assert len(series.step) <= MAX_SAMPLES
    assert series.step == pytest.approx([1 + 0.5 / 3] * len(series.step))


# -- the loader alone, evaluation ---------------------------------------------------------------


def test_the_loader_alone_computes_nothing_and_leaves_out_its_start():
    with fake(batches=50, turn=9.0, wait=0.25) as (stepper, loop, _):
        assert timing.loader_alone(stepper, 5.0) == [0.25] * 2
        assert loop.steps == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_alone_ends_with_its_pass(workers):
    with fake(batches=8, turn=1.0, wait=0.25, workers=workers) as (stepper, _, _):
        assert timing.loader_alone(stepper, 100.0) == [0.25] * (7 - 2 * workers)


def test_a_pass_too_short_to_leave_out_anything_is_kept():
    with fake(batches=1, turn=1.0, wait=0.25) as (stepper, _, _):
        assert timing.loader_alone(stepper, 1.0) == [1.25]


@pytest.mark.parametrize(
    ("samples", "timed"),
    [(16, [0, 1, 2, 3]), (15, [0, 1, 2]), (4, [0]), (3, [0])],
    ids=["full batches", "a partial last batch is no sample", "one batch", "one partial batch"],
)
def test_evaluation_times_full_batches(samples, timed):
    loader = Loader(World(), -(-samples // 4), turn=3.0, wait=0.5, samples=samples)
    with fake(eval_loader=loader) as (_, loop, world):
        seconds, turns = timing.evaluation(loop, world, 1e6)
    assert turns == [3.5]
    assert seconds == [2.0] + [2.5] * (len(timed) - 1)
    assert loop.workload.model.training
    assert not any(training for _, training in loop.evaluated)


def test_evaluation_stops_after_its_time_with_two_samples_at_least():
    with fake(eval_loader=Loader(World(), 100, samples=400)) as (_, loop, world):
        assert timing.evaluation(loop, world, 0.0)[0] == [2.0, 2.0]
        assert timing.evaluation(loop, world, 9.0)[0] == [2.0] * 5


def test_without_evaluation_data_there_is_nothing_to_time():
    with fake() as (_, loop, world):
        assert timing.evaluation(loop, world, 1.0) == ([], [])
