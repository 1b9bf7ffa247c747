"""Rare slow steps: closed forms, what must not matter, and the law that an epoch is a sum."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel import summary
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.tails import UNSEEN, Series, divided, ordinary_samples, tails
from epochcast.records import Device, Measurement

GPU = Device(kind="cuda", name="Imaginary", memory_bytes=2**34, torch="2.13.0", threads=2)


def series(*slow: float, steps: int = 100, at: tuple[int, ...] = ()) -> Series:
    """Steps of one second, some of which take so many more; by default far from each other."""
    samples = np.ones(steps)
    places = at or tuple(int((i + 0.5) * steps / len(slow)) for i in range(len(slow)))
    samples[list(places)] += slow
    return divided(samples.tolist())


# -- one trial ------------------------------------------------------------------------------------


def test_ordinary_and_slow_steps_are_told_apart() -> None:
    one = series(9.0, 4.0, steps=50)
    assert (one.ordinary, one.steps, one.events) == (1.0, 50, (9.0, 4.0))


def test_steps_that_are_slow_together_are_one_event() -> None:
    one = series(9.0, 9.0, 4.0, at=(10, 12, 60))
    assert (one.events, one.lengths, one.thirds) == ((18.0, 4.0), (2, 1), (0, 1))


def test_a_quarter_more_is_not_slow_and_six_deviations_are_where_steps_scatter() -> None:
    assert not series(0.25).events
    assert series(0.26).events == (pytest.approx(0.26),)
    scattered = [0.9, 1.0, 1.1] * 33  # the median deviation is 0.1: six standard ones are 0.89
    assert not divided([*scattered, 1.85]).events
    assert divided([*scattered, 1.95]).events


def test_samples_of_whole_epochs_count_their_steps() -> None:
    one = divided([1.0] * 9 + [2.0], steps_per_sample=200)
    assert (one.steps, one.events, one.least) == (2000, (200.0,), pytest.approx(50.0))


def test_two_samples_tell_nothing_of_what_is_slow() -> None:
    one = divided([1.0, 8.0])
    assert (one.ordinary, one.events, one.least) == (4.5, (), inf)


def test_a_burst_of_the_loader_is_not_slow() -> None:
    assert not divided([1.0, 1.0, 1.0, 7.0] * 20, period=4).events


def test_what_is_slow_is_not_in_the_noise_of_ordinary_steps() -> None:
    samples = [1.0, 1.02] * 45
    noisy = measurement(1, 0, np.array([*samples, 30.0, *samples]))
    clean = measurement(1, 0, np.array([*samples, *samples]))
    assert summary.relative_sd(noisy) == pytest.approx(summary.relative_sd(clean), abs=0.01)


# -- all trials -----------------------------------------------------------------------------------


def test_without_events_nothing_is_added() -> None:
    (tail, _) = tails([series(), series()], "ab")
    assert (tail.share, tail.variance, tail.step_sd) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seconds", [0.5, 60.0, 1e6])
def test_one_glitch_leaves_the_mean_and_widens_it_by_what_might_come_again(seconds) -> None:
    found = tails([series(seconds), series(), series()], "abc")
    assert {tail.share for tail in found} == {0.0}
    assert sqrt(found[0].variance) == pytest.approx(min(seconds, UNSEEN) / 300)


def test_equal_events_are_shared_by_all_trials() -> None:
    """Four of nine steps in 400: s = 36/400, D = 4·81/400, sd² = D/400 · 5/4 / (1 + s)²."""
    found = tails([series(9.0), series(9.0), series(9.0), series(9.0)], "aabb")
    for tail in found:
        assert tail.share == pytest.approx(0.09)
        assert tail.variance == pytest.approx(0.81 / 400 * 1.25 / 1.09**2)
        assert tail.step_sd == pytest.approx(0.9 / 1.09)
        assert tail.dof == pytest.approx(8.0)


def test_a_glitch_among_slow_steps_counts_as_one_of_them() -> None:
    plain = tails([series(9.0), series(9.0), series(9.0)], "abc")
    glitch = tails([series(9.0), series(6e4), series(9.0)], "abc")
    assert [t.share for t in glitch] == pytest.approx([t.share for t in plain])


def test_events_that_come_together_are_known_less_well() -> None:
    even = tails([series(9.0, 9.0, 9.0)] * 4, "abcd")
    near = tails([series(9.0, 9.0, 9.0, at=(2, 12, 22))] * 4, "abcd")
    assert near[0].share == pytest.approx(even[0].share)
    # thirds hold 3, 0, 0 of one expected each: X² is 6 a trial with two degrees of freedom
    assert near[0].variance == pytest.approx(3 * even[0].variance)


def test_a_configuration_with_far_more_slow_steps_keeps_its_own_share() -> None:
    """DerSimonian and Laird's w for shares S_c of 0.9 and 0, each of n = 200 steps."""
    found = tails([series(*[9.0] * 10), series(*[9.0] * 10), series(), series()], "aabb")
    v = 20 * 81 / 400 / 200  # D/n_c, with φ = 1
    between = 2 * 0.45**2 - v  # of two: Q − 1 = 2·0.45²/v − 1, over 1/v
    w = between / (between + v)
    shares = [tail.share for tail in found]
    assert shares == pytest.approx([0.45 * (1 + w)] * 2 + [0.45 * (1 - w)] * 2)


def test_what_whole_epochs_have_in_them_is_not_added_to_them() -> None:
    """One step in a hundred takes ten: so does every epoch, whose samples show no event."""
    epochs = divided([1.09] * 10, steps_per_sample=200)
    steps = [series(9.0), series(9.0)]
    alone, with_epochs = tails(steps, "ab"), tails([*steps, epochs], "abc")
    assert with_epochs[:2] == alone
    assert with_epochs[2].share == 0.0


@given(st.permutations(range(6)), st.floats(1e-3, 1e3))
def test_neither_order_nor_unit_matters(order, unit) -> None:
    trials = [series(9.0), series(4.0, 4.0), series(), series(20.0), series(3.0), series()]
    names = "aabbcc"
    expected = [tail.share for tail in tails(trials, names)]
    scaled = [divided([unit * x for x in _samples(t)]) for t in trials]
    found = tails([scaled[i] for i in order], [names[i] for i in order])
    assert [t.share for t in found] == pytest.approx([expected[i] for i in order], rel=1e-6)


def _samples(one: Series) -> list[float]:
    samples = np.ones(one.steps)
    for i, e in enumerate(one.events):
        samples[int((i + 0.5) * one.steps / len(one.events))] += e
    return samples.tolist()


# -- the law: an epoch is a sum -------------------------------------------------------------------


def one_in(often: int, long: float, rng, n: int) -> np.ndarray:
    """Independent slow steps."""
    return np.where(rng.random(n) < 1 / often, long, 1.0)


def periodic(rng, n: int) -> np.ndarray:
    return np.where((np.arange(n) + rng.integers(50)) % 50 == 0, 10.0, 1.0)


def lognormal(rng, n: int) -> np.ndarray:
    return np.exp(rng.normal(0, 1, n) - 0.5)


def clustered(rng, n: int) -> np.ndarray:
    """Five in a row, from one step in five hundred on."""
    starts = rng.random(n + 4) < 1 / 500
    slow = np.any([starts[i : i + n] for i in range(5)], axis=0)
    return np.where(slow, 10.0, 1.0)


TAILS = {
    "1 in 100 × 10": (lambda rng, n: one_in(100, 10, rng, n), 1.09),
    "1 in 50 × 4": (lambda rng, n: one_in(50, 4, rng, n), 1.06),
    "1 in 300 × 30": (lambda rng, n: one_in(300, 30, rng, n), 1 + 29 / 300),
    "every 50th × 10": (periodic, 1.18),
    "lognormal": (lognormal, 1.0),
    "clustered": (clustered, 1 + 9 * (1 - (1 - 1 / 500) ** 5)),
}


@pytest.mark.parametrize("kind", TAILS)
def test_the_mean_is_within_two_percent_and_held_at_three_hundred_steps(kind: str) -> None:
    """Three configurations, two rounds: over 100 sweeps; four standard errors are allowed."""
    draw, truth = TAILS[kind]
    rng = np.random.default_rng(3)
    errors, held = [], []
    for _ in range(100):
        some = [draw(rng, 300) * rng.normal(1, 0.02, 300) for _ in range(6)]
        trials = [divided(x.tolist()) for x in some]
        found = tails(trials, "aabbcc")
        mean = np.mean([s.ordinary * (1 + t.share) for s, t in zip(trials, found, strict=True)])
        noise = np.mean([ordinary_samples(x.tolist()).std() for x in some]) / sqrt(1800)
        errors.append(mean / truth - 1)
        held.append(abs(errors[-1]) <= 1.7 * sqrt(found[0].variance + noise**2))
    assert abs(np.mean(errors)) <= 0.02 + 4 * np.std(errors) / 10
    assert np.mean(held) >= 0.8


def measurement(batch_size: int, run: int, factors: np.ndarray) -> Measurement:
    """A run of 1 ms and 10 µs a sample a step, each times its factor."""
    return Measurement.from_epochs(
        "imaginary",
        batch_size,
        step_seconds=(1e-3 + 1e-5 * batch_size) * factors,
        samples=50_000,
        device=GPU,
        run=run,
        includes_first=False,
        created_at=f"2026-01-01T00:00:{run:02d}.{batch_size:06d}+00:00",
    )


def test_a_predicted_epoch_includes_its_slow_steps() -> None:
    rng = np.random.default_rng(1)
    sweep = [
        measurement(b, run, one_in(100, 10, rng, 300) * rng.normal(1, 0.01, 300))
        for b in (32, 64, 256)
        for run in range(3)
    ]
    model = fit(sweep)
    epoch = model.predict(epochs=1, batch_size=64).epoch_seconds
    truth = 50_000 / 64 * (1e-3 + 1e-5 * 64) * 1.09
    assert epoch.p50 == pytest.approx(truth, rel=0.03)
    assert epoch.p05 < truth < epoch.p95
    assert model.variants[0].step_sd == pytest.approx(0.9 / 1.09, rel=0.25)


def test_a_row_of_a_table_says_what_the_model_learned() -> None:
    sweep = [
        measurement(64, run, np.where(np.arange(300) % 100 == 50, 10.0, 1.0)) for run in (0, 1)
    ]
    (row,) = summary.summarise(sweep)
    assert row.step_seconds == pytest.approx((1e-3 + 64e-5) * 1.09)


def test_a_slow_sample_may_be_the_first_of_three() -> None:
    one = divided([5.0, 1.0, 1.0])
    assert (one.lengths, one.thirds) == ((1,), (0,))


def test_durations_of_nothing_divide_nothing() -> None:
    assert divided([0.0, 0.0, 0.0, 0.0]).ordinary == 0.0
