"""Timing under a fake clock: when warm-up ends, what is a sample, what is a restart."""

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
from epochcast.profiler.ranks import Alone
from epochcast.profiler.timing import MAX_SAMPLES, Stepper, StepTimes
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
    """``length`` batches; starting a pass and each batch take their time.

    With workers, batches come in bursts: all of a burst when its first one is loaded. As many as
    are ready before time come at once, after the first.
    """

    def __init__(
        self, world: World, length: int, restart=0.0, wait=0.0, samples=None, workers=0
    ) -> None:
        self.world, self.length, self.restart, self.wait = world, length, restart, wait
        self.samples = samples if samples is not None else length
        self.num_workers, self.prefetch_factor = workers, 2 if workers else None
        self.passes = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        self.world.now += self.restart
        for index in range(self.length):
            in_burst = self.num_workers and index % self.num_workers
            in_stock = 0 < index <= timing.ready_before_time(self)
            self.world.now += 0.0 if in_burst or in_stock else self.wait
            yield index


class Loop:
    """Micro-steps that take what ``cost(step number)`` says; updates take 0.5 of a second more."""

    device, ranks = CPU, Alone()

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
        self.splits_update = not own_step
        self.steps = 0
        self.evaluated: list[tuple[int, bool]] = []

    def train_loader(self) -> Loader:
        return self.loader

    def eval_loader(self) -> Loader | None:
        return self.evaluations

    def micro_step(self, batch: int, timer: World) -> list[tuple[float, float]]:
        self.world.now += self.cost(self.steps)
        self.steps += 1
        if not self.splits_update or self.steps % self.config.accumulation:
            return []
        start = timer.mark()
        self.world.now += 0.5
        return [(start, timer.mark())]

    def evaluate(self, batch: int) -> None:
        self.evaluated.append((batch, self.workload.model.training))
        self.world.now += 2.0


@contextmanager
def fake(cost=lambda step: 1.0, batches=10, restart=0.0, wait=0.0, **options):
    """A stepper, its loop and its world, with the timing module's clock replaced."""
    own_step = options.pop("own_step", False)
    eval_loader = options.pop("eval_loader", None)
    world = World()
    config = RunConfig(batch_size=4, **options)
    if eval_loader is not None:
        eval_loader.world = world
    loader = Loader(world, batches, restart, wait, workers=config.workers)
    loop = Loop(world, cost, loader, config, own_step, eval_loader)
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
        series = timing.steady_steps(stepper, 16.0)
    assert series.wait == [0.25] * len(series.step)
    assert sorted(set(series.update)) == [0.0, 0.5]
    assert all(
        step == 1.25 + update for step, update in zip(series.step, series.update, strict=True)
    )


def test_slow_steps_may_stretch_a_phase_but_not_for_ever():
    with fake(cost=lambda step: 60.0, batches=100) as (stepper, loop, _):
        series = timing.steady_steps(stepper, 1.0)
    assert loop.steps == len(series.step) == 2  # the first of a pass has nothing to compare to


def test_the_first_step_of_a_pass_is_a_sample_without_the_restart():
    with fake(batches=4, restart=7.0, wait=0.25) as (stepper, loop, _):
        began = [stepper.step()[2] for _ in range(9)]
        assert began == [True, False, False, False] * 2 + [True]
        assert stepper.restarts == [7.25, 7.25]
        assert loop.loader.passes == 3
        series = timing.steady_steps(stepper, 60.0)
    assert series.step == pytest.approx([1.75] * len(series.step))
    assert series.wait == pytest.approx([0.25] * len(series.wait))


def test_passes_of_a_single_batch_hold_their_restart():
    with fake(batches=1, restart=7.0) as (stepper, _, _):
        assert all(stepper.step()[2] for _ in range(4))
        assert set(timing.steady_steps(stepper, 1.0).step) == {8.5}


@given(
    accumulation=st.integers(1, 5),
    workers=st.integers(0, 4),
    batches=st.integers(2, 12),
    restart=st.floats(0, 20),
)
def test_short_passes_do_not_change_the_share_of_updates(accumulation, workers, batches, restart):
    config = {"accumulation": accumulation, "workers": workers}
    with fake(batches=batches, restart=restart, wait=0.25, **config) as (stepper, _, _):
        series = timing.steady_steps(stepper, 200.0)
    updates = [update > 0 for update in series.update]
    assert sum(updates) * accumulation == len(updates)


@given(batches=st.integers(2, 12), restart=st.floats(0, 20), accumulation=st.integers(1, 5))
def test_steps_and_turns_add_up_to_the_time_of_the_passes(batches, restart, accumulation):
    with fake(batches=batches, restart=restart, wait=0.25, accumulation=accumulation) as (
        *(stepper, _, world),
    ):
        stepper.step()
        begun = world.now
        series = timing.steady_steps(stepper, 200.0)
        elapsed = world.now - begun
    assert sum(series.step) + restart * len(stepper.restarts) == pytest.approx(elapsed)


def test_an_optimizer_that_evaluates_the_loss_has_no_update_of_its_own():
    with fake(own_step=True) as (stepper, _, _):
        assert timing.steady_steps(stepper, 6.0).update == []


def test_a_restart_can_be_forced():
    with fake(batches=4, restart=7.0, wait=0.5) as (stepper, loop, _):
        stepper.step()
        stepper.restart()
        assert stepper.restarts == [7.5]
        assert loop.loader.passes == 2
        assert stepper.step()[2] is True


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
    series = StepTimes(
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
    with fake(batches=50, restart=9.0, wait=0.25) as (stepper, loop, _):
        assert timing.loader_alone(stepper, 5.0) == [0.25] * 2
        assert loop.steps == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_alone_ends_with_its_pass(workers):
    expected = {0: [0.25] * 7, 2: [0.0, 0.25, 0.0]}[workers]  # in bursts
    with fake(batches=8, restart=1.0, wait=0.25, workers=workers) as (stepper, _, _):
        assert timing.loader_alone(stepper, 100.0) == expected


def test_a_pass_too_short_to_leave_out_anything_is_kept():
    with fake(batches=1, restart=1.0, wait=0.25) as (stepper, _, _):
        assert timing.loader_alone(stepper, 1.0) == [1.25]


def evaluated(seconds=1e6, **loader):
    """What timing an evaluation finds, and the loop it was found on."""
    options = {"restart": 3.0, "wait": 0.5, **loader}
    length = options.setdefault("samples", 400)
    loader = Loader(World(), -(-length // 4), **options)
    with fake(eval_loader=loader) as (_, loop, world):
        return *timing.evaluation(loop, world, seconds), loop


@pytest.mark.parametrize(
    ("samples", "full"), [(400, 100), (399, 99), (24, 6), (23, 5)], ids=lambda n: str(n)
)
def test_a_long_evaluation_is_sampled_in_full_batches_after_its_first(samples, full):
    seconds, restarts, loop = evaluated(samples=samples)
    assert seconds == [2.5] * (full - 1)
    assert restarts == [3.0]
    assert loop.workload.model.training
    assert not any(training for _, training in loop.evaluated)


@given(samples=st.integers(1, 40), workers=st.integers(0, 4))
def test_a_short_evaluation_is_timed_whole(samples, workers):
    """Its restart and its samples add up to the pass, the partial batch included."""
    batches = -(-samples // 4)
    if batches > 2 * workers + max(5, 3 * workers):
        batches, samples = 1, 4
    seconds, restarts, loop = evaluated(50.0, samples=samples, workers=workers)
    waits = 1 + sum(i > 2 * workers and i % max(1, workers) == 0 for i in range(1, batches))
    for sample, restart in zip(seconds, restarts, strict=True):
        assert restart + batches * sample == pytest.approx(3.0 + 2.0 * batches + 0.5 * waits)
    assert (restarts[0] > 0) == (samples >= 8)  # two full batches
    whole = len(loop.evaluated) - min(2, batches)
    assert whole == len(seconds) * batches


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_with_workers_a_long_evaluation_is_priced_in_whole_bursts(workers):
    """Nothing that was ready before time is a sample."""
    seconds, restarts, _ = evaluated(seconds=40.0, workers=workers, wait=6.0)
    assert len(seconds) % workers == 0
    assert sum(seconds) / len(seconds) == pytest.approx(2.0 + 6.0 / workers)
    assert restarts == pytest.approx([3.0 + 6.0 - 6.0 / workers])


def test_evaluation_stops_after_its_time():
    assert len(evaluated(0.1)[0]) == 1  # one step took longer than PATIENCE allows
    assert len(evaluated(2.0)[0]) == 4  # PATIENCE times two seconds
    assert len(evaluated(8.0)[0]) == timing.MIN_STEADY_STEPS
    assert len(evaluated(20.0)[0]) == 8
    assert len(evaluated(1.0, samples=4)[0]) == 1
    assert len(evaluated(55.0, samples=4)[0]) == 10


def test_evaluations_of_many_batches_are_thinned():
    seconds, *_ = evaluated(samples=4 * 2000)
    assert seconds == [2.5] * (1999 // 4)


def test_the_first_evaluations_are_of_each_size_and_without_their_data():
    with fake() as (_, loop, world):
        loop.eval_batches_of_each_size = lambda: [0, 1]
        assert timing.first_evaluations(loop, world) == [2.0, 2.0]
    assert loop.evaluated == [(0, False), (1, False)]
    assert loop.workload.model.training


def test_without_evaluation_data_there_is_nothing_to_time():
    with fake() as (_, loop, world):
        assert timing.evaluation(loop, world, 1.0) == ([], [])
