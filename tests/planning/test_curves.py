"""Learning curves of known families are found again; intervals cover; shapes are named."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from epochcast.errors import UsageError
from epochcast.planning import curves as c
from epochcast.planning.stopping import Patience, SuccessiveRises, stopping_epoch
from epochcast.records import LearningCurve, Quantiles

TRUTHS: dict[str, Callable[[float], float]] = {
    "pow3": lambda e: 0.3 + 2.0 * e**-0.7,
    "pow4": lambda e: 0.3 + (0.5 * e + 1.0) ** -1.2,
    "mmf": lambda e: 0.2 + 2.0 / (1 + (0.3 * e) ** 1.3),
    "exponential": lambda e: 0.4 + 2.0 * math.exp(-0.15 * e),
}


def _curve(truth: Callable[[float], float], seen: int, noise: float = 0.0, seed: int = 0):  # type: ignore[no-untyped-def]
    random = np.random.default_rng(seed)
    epochs = tuple(float(e) for e in range(1, seen + 1))
    values = tuple(truth(e) + noise * random.standard_normal() for e in epochs)
    return LearningCurve(epochs=epochs, validation=values)


@pytest.mark.parametrize("name", TRUTHS)
def test_a_family_without_noise_is_extrapolated(name: str) -> None:
    truth = TRUTHS[name]
    fitted = c.fit_curve(_curve(truth, 30))
    assert fitted.value_quantiles(90).p50 == pytest.approx(truth(90), abs=0.03)
    assert sum(f.weight for f in fitted.families) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["pow3", "exponential"])
def test_intervals_cover(name: str) -> None:
    """P10–P90 of noisy curves seen to epoch 40 holds epoch 60 in 24 ± 5 of 30."""
    truth, inside = TRUTHS[name], 0
    random = np.random.default_rng(9)
    for seed in range(30):
        q = c.fit_curve(_curve(truth, 40, noise=0.02, seed=seed)).value_quantiles(60)
        inside += q.p10 <= truth(60) + 0.02 * random.standard_normal() <= q.p90
    assert 19 <= inside <= 29


def test_a_spike_moves_little() -> None:
    clean = _curve(TRUTHS["pow3"], 30)
    values = list(clean.validation)
    values[20] += 5.0
    spiked = LearningCurve(epochs=clean.epochs, validation=tuple(values))
    a, b = (c.fit_curve(curve).value_quantiles(60).p50 for curve in (clean, spiked))
    assert a == pytest.approx(b, abs=0.05)


def test_scores_are_losses_upside_down() -> None:
    loss = _curve(TRUTHS["pow3"], 30, noise=0.01)
    score = LearningCurve(epochs=loss.epochs, validation=tuple(-v for v in loss.validation))
    a, b = c.fit_curve(loss, "min"), c.fit_curve(score, "max")
    assert a.value_quantiles(60).p50 == pytest.approx(-b.value_quantiles(60).p50)
    assert a.value_quantiles(60).p90 == pytest.approx(-b.value_quantiles(60).p10)
    assert a.improvement_probability(60) == pytest.approx(b.improvement_probability(60))


def test_improvement_is_likely_while_it_falls_and_not_by_too_much() -> None:
    fitted = c.fit_curve(_curve(TRUTHS["pow3"], 20, noise=0.005))
    chances = [fitted.improvement_probability(60, delta) for delta in (0.0, 0.05, 0.5)]
    assert chances[0] > 0.95
    assert chances == sorted(chances, reverse=True)
    assert chances[2] < 0.01


def test_noise_is_seen_through_a_trend() -> None:
    sds = [c.fit_curve(_curve(TRUTHS["pow3"], 60, noise=0.05, seed=s)).noise for s in range(10)]
    assert float(np.median(sds)) == pytest.approx(0.05, rel=0.25)


def _turning(e: float) -> float:
    return 0.4 + 0.002 * (e - 12) ** 2


def test_overfitting_is_named_with_the_epoch_where_it_turns() -> None:
    curve = _curve(_turning, 30, noise=0.003)
    falls = tuple(1 / e for e in curve.epochs)
    with_training = LearningCurve(epochs=curve.epochs, validation=curve.validation, training=falls)
    found = c.outlook(c.fit_curve(with_training), 60)
    assert found.fit == "overfitting"
    assert found.turning_epoch == pytest.approx(12, abs=2)
    assert found.improve_probability < 0.05
    assert c.outlook(c.fit_curve(curve), 60).fit == "overfitting"


def _seen(truth: Callable[[float], float], checks: int, noise: float, seed: int) -> c.FittedCurve:
    """As far as a turn is looked for, without fitting any family."""
    curve = _curve(truth, checks, noise, seed)
    y = np.array(curve.validation)
    return c.FittedCurve(curve, "min", (float(checks), 0.0, 1.0), (), c._noise(y), 0.0)


CURVES = 400


@pytest.mark.parametrize("checks", [6, 8, 12, 20, 50, 200])
@pytest.mark.parametrize("truth", [lambda _: 0.5, lambda e: 0.5 + math.exp(-0.3 * e)])
def test_noise_is_not_called_overfitting(truth: Callable[[float], float], checks: int) -> None:
    """Under 5 % of flat and of converged curves, however many checks the best is the best of."""
    found = [c.turning_point(_seen(truth, checks, 0.02, seed)) for seed in range(CURVES)]
    assert sum(turn is not None for turn in found) < 0.05 * CURVES


@pytest.mark.parametrize("checks", [20, 50, 200])
def test_clear_overfitting_is_found_through_noise(checks: int) -> None:
    """Best after a third, then up by ten times the noise."""

    def truth(e: float) -> float:
        x = 3 * e / checks
        return 0.5 + (math.exp(-4 * x) if x < 1 else math.exp(-4) + 0.1 * (x - 1))

    found = [c.turning_point(_seen(truth, checks, 0.02, seed)) for seed in range(CURVES)]
    assert sum(turn is not None for turn in found) > 0.9 * CURVES


@pytest.mark.parametrize("late", [11, 41])
def test_a_late_median_scatters_as_medians_do(late: int) -> None:
    """By var ≈ π/2n, more than a mean would; beside the 5/9 of the lowest mean of three."""
    medians = np.median(np.random.default_rng(0).standard_normal((40_000, late)), axis=1)
    reach, exact = (c._largest_by_chance(np.zeros(60), n, 1.0) for n in (late, 10**9))
    assert 5 / 9 * ((reach / exact) ** 2 - 1) == pytest.approx(medians.var(), rel=0.07)


def test_validation_that_rises_with_training_is_not_overfitting() -> None:
    curve = _curve(_turning, 30)
    values = curve.validation
    both = LearningCurve(epochs=curve.epochs, validation=values, training=values)
    assert c.outlook(c.fit_curve(both), 40).fit == "diverging"


def test_underfitting_and_settled_are_named() -> None:
    falling = c.outlook(c.fit_curve(_curve(lambda e: 3 - 0.05 * e, 20, noise=0.01)), 40)
    settled = c.outlook(c.fit_curve(_curve(TRUTHS["exponential"], 90, noise=0.01)), 120)
    assert (falling.fit, falling.turning_epoch) == ("underfitting", None)
    assert (settled.fit, settled.turning_epoch) == ("settled", None)


def test_samples_are_the_curve_with_other_noise_and_then_the_average() -> None:
    truth = TRUTHS["pow3"]
    fitted = c.fit_curve(_curve(truth, 20, noise=0.02))
    epochs = np.array([5.0, 20.0, 60.0])
    samples = fitted.sample(epochs, 2000, np.random.default_rng(0))
    assert samples.mean(axis=0)[:2] == pytest.approx([truth(5), truth(20)], abs=0.03)
    mean, sd = fitted.mean_and_sd(epochs)
    assert samples[:, 2].mean() == pytest.approx(mean[2], abs=0.1 * sd[2])
    assert samples[:, 2].std() == pytest.approx(sd[2], rel=0.1)
    assert samples[:, 0].std() == pytest.approx(fitted.noise, rel=0.1)


@pytest.mark.parametrize("name", ["exponential", "turning"])
def test_forecasts_of_stops_have_the_distribution_of_runs(name: str) -> None:
    """Patience of four checks on runs of a known truth, and on what pilots make likely."""
    truth = TRUTHS.get(name, lambda e: 0.5 + 0.002 * (e - 14) ** 2)
    rule, runs = Patience(checks=4), range(1000, 2000)
    stopped = [stopping_epoch(rule, _curve(truth, 60, 0.02, seed)) for seed in runs]
    random, forecast = np.random.default_rng(0), []
    for seed in range(30):
        fitted = c.fit_curve(_curve(truth, 60, 0.02, seed))
        samples = fitted.sample(np.arange(1.0, 61.0), 40, random)
        forecast.append([stopping_epoch(rule, curve.tolist()) for curve in samples])
    error = np.std(np.mean(forecast, axis=1)) / 30**0.5
    assert np.mean(forecast) == pytest.approx(np.mean(stopped), abs=3 * error)
    levels = (0.1, 0.5, 0.9)
    assert np.quantile(forecast, levels) == pytest.approx(np.quantile(stopped, levels), abs=1.01)


def test_noise_is_not_seen_in_a_steep_beginning() -> None:
    """Thirty curves of 20 checks, whose bends are larger than their noise."""
    steep = lambda e: 0.3 + 2.0 * e**-0.5  # noqa: E731
    noises = [c.fit_curve(_curve(steep, 20, 0.02, seed)).noise for seed in range(30)]
    assert np.mean(noises) == pytest.approx(0.02, rel=0.12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(6))
def test_no_noise_is_too_much_to_reckon_with(seed: int) -> None:
    fitted = c.fit_curve(_curve(lambda _: 1.0, 8, noise=0.3, seed=seed))
    assert np.isfinite(fitted.mean_and_sd(np.array([1e-9, 1.0, 12.0, 1e7]))).all()


@pytest.mark.parametrize("values", [(1.0, 2.0), (1.0, math.nan, 1.0, 2.0, 3.0)])
def test_too_little_is_refused(values: tuple[float, ...]) -> None:
    epochs = tuple(float(e) for e in range(1, len(values) + 1))
    with pytest.raises(UsageError, match="at least 5 finite values"):
        c.fit_curve(LearningCurve(epochs=epochs, validation=values))


def test_a_constant_curve_is_flat() -> None:
    fitted = c.fit_curve(_curve(lambda _: 1.0, 8))
    assert fitted.value_quantiles(50).p50 == pytest.approx(1.0, abs=0.05)
    assert c.outlook(fitted, 50).fit == "settled"


def _overfit(e: float) -> float:
    return 0.5 + 0.6 * math.exp(-0.3 * e) + 0.012 * e


RISING: dict[str, Callable[[float], float]] = {
    "line": _overfit,
    "hinge": lambda e: 0.65 + 0.6 * math.exp(-0.35 * e) + 0.012 * max(0.0, e - 10),
    "root": lambda e: 0.5 + 0.8 * math.exp(-0.4 * e) + 0.1 * math.sqrt(e),
    "log": lambda e: 0.5 + 0.8 * math.exp(-0.4 * e) + 0.15 * math.log(1 + e),
    "square": lambda e: 0.6 + 0.0007 * (e - 12) ** 2,
}


@pytest.mark.parametrize("name", RISING)
def test_a_rise_goes_on(name: str) -> None:
    """P05–P95 of curves that rise 0.005 to 0.03 an epoch, seen to epoch 25, holds epoch 60.

    A rise that becomes steeper and steeper, by chance and less often.
    """
    truth, random, inside = RISING[name], np.random.default_rng(9), 0
    for seed in range(25):
        fitted = c.fit_curve(_curve(truth, 25, noise=0.01, seed=seed))
        q = fitted.value_quantiles(60)
        inside += q.p05 <= truth(60) + 0.01 * random.standard_normal() <= q.p95
        assert q.p50 > fitted.value_quantiles(30).p50 > truth(20)
        assert fitted.improvement_probability(60) < 0.05
    assert inside >= (15 if name == "square" else 20)


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.01])
def test_a_sharp_turn_is_not_taken_for_the_beginning_of_a_square(noise: float) -> None:
    """From 0.78 to 0.90 by epoch 15, and at 0.017 an epoch to 1.66."""
    turn = lambda e: 0.78 + 0.25 * math.exp(-0.8 * e) + 0.017 * max(0.0, e - 8)  # noqa: E731
    q = c.fit_curve(_curve(turn, 15, noise)).value_quantiles(60)
    assert q.p05 <= 1.66 <= q.p95
    assert 1.2 < q.p50 < 2.2


def test_the_interval_of_a_rise_widens_with_distance() -> None:
    fitted = c.fit_curve(_curve(_overfit, 25, noise=0.01))
    _, sd = fitted.mean_and_sd(np.array([25.0, 30.0, 60.0, 200.0]))
    assert (np.diff(sd) > 0).all()


def test_a_rise_is_weighed_by_name_and_turns_with_scores() -> None:
    loss = _curve(_overfit, 35, noise=0.003)
    score = LearningCurve(epochs=loss.epochs, validation=tuple(-v for v in loss.validation))
    a, b = c.fit_curve(loss), c.fit_curve(score, "max")
    assert dict(c.outlook(a, 60).families)["exponential + line"] > 0.9
    assert a.value_quantiles(60).p50 == pytest.approx(-b.value_quantiles(60).p50)


def test_a_rise_of_both_curves_is_followed_too() -> None:
    """Training rises with validation: not overfitting, but no less a rise."""
    curve = _curve(_overfit, 25, noise=0.01)
    both = LearningCurve(
        epochs=curve.epochs, validation=curve.validation, training=curve.validation
    )
    fitted = c.fit_curve(both)
    assert c.outlook(fitted, 30).fit == "diverging"
    assert fitted.value_quantiles(60).p50 > 0.95


def test_a_spike_in_a_rise_moves_little() -> None:
    clean = _curve(_overfit, 30, noise=0.003)
    values = list(clean.validation)
    values[20] += 0.15
    spiked = LearningCurve(epochs=clean.epochs, validation=tuple(values))
    a, b = (c.fit_curve(curve).value_quantiles(60).p50 for curve in (clean, spiked))
    assert a == pytest.approx(b, abs=0.1)


def test_rises_stop_forecasts_where_they_stop_runs() -> None:
    """UP over three strips, of which the pilot shows the first rise alone."""
    rule, epochs = SuccessiveRises(rises=3), np.arange(1.0, 61.0)
    runs = [stopping_epoch(rule, _curve(_overfit, 60, 0.01, seed)) for seed in range(100)]
    random, forecast = np.random.default_rng(0), []
    for seed in range(20):
        samples = c.fit_curve(_curve(_overfit, 20, 0.01, seed)).sample(epochs, 40, random)
        forecast += [stopping_epoch(rule, curve.tolist()) for curve in samples]
    assert None not in runs
    assert sum(epoch is not None for epoch in forecast) > 0.8 * len(forecast)


@pytest.mark.parametrize("value", [0.5, 0.0, 1e-7])
def test_a_constant_curve_promises_no_improvement(value: float) -> None:
    fitted = c.fit_curve(_curve(lambda _: value, 5))
    assert fitted.improvement_probability(50) == 0.0
    assert fitted.value_quantiles(50) == Quantiles.exactly(value)


def test_derivatives_are_those_of_the_function() -> None:
    x = np.array([0.5, 1.0, 2.0])
    found = c._jacobian(lambda p: p[0] * np.exp(p[1] * x), np.array([2.0, -1.0]))
    assert found[:, 0] == pytest.approx(np.exp(-x))
    assert found[:, 1] == pytest.approx(2 * x * np.exp(-x))


@pytest.mark.parametrize("name", c.FAMILIES)
def test_a_spike_hardly_moves_a_fit(name: str) -> None:
    x = np.arange(1, 41) / 40
    y = np.exp(-4 * x)
    clean = c._fit_family(name, x, y, 0.02)
    y[25] += 10.0
    spiked = c._fit_family(name, x, y, 0.02)
    values = (c._values(name, x, fit.parameters) for fit in (clean, spiked))
    assert np.abs(np.subtract(*values)).max() < 0.03


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.3e-5, 1.1e5, 0.0])
@pytest.mark.parametrize("checks", [5, 11, 30])
def test_a_curve_that_never_changes_has_settled(value: float, checks: int) -> None:
    """Means of equal numbers differ from them by rounding, which is no rise and no fall."""
    found = c.outlook(c.fit_curve(_shown([value] * checks)), 2 * checks)
    assert (found.fit, found.turning_epoch) == ("settled", None)
    assert found.improve_probability < 0.51


@pytest.mark.parametrize("factor", [1.5, 4.0, 10.0])
@pytest.mark.parametrize("checks", [5, 8, 20])
def test_losses_that_multiply_have_not_settled(factor: float, checks: int) -> None:
    losses = [factor**k for k in range(checks)]
    assert c.outlook(c.fit_curve(_shown(losses)), 2 * checks).fit == "overfitting"
    both = replace(_shown(losses), training=tuple(losses))
    found = c.outlook(c.fit_curve(both), 2 * checks)
    assert (found.fit, found.turning_epoch) == ("diverging", 1)


def _shown(values: list[float]) -> LearningCurve:
    return LearningCurve(epochs=tuple(range(1, len(values) + 1)), validation=tuple(values))
