"""Stop rules on curves whose stopping epoch can be counted by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.errors import UsageError
from epochcast.planning import stopping as s
from epochcast.records import LearningCurve, StopReason, StopRule, from_json, to_json

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("checks", "curve", "epoch"),
    [
        (3, [5, 4, 3, 3, 3, 3, 1], 6),  # the third check without improvement, as in Keras
        (1, [5, 4, 4], 3),
        (3, [5, 6, 6, 4, 6, 6, 6], 7),
        (3, [5, 6, 6, 4, 6, 6], None),
        (2, [5.0], None),
    ],
)
def test_patience_counts_as_keras_and_lightning_do(
    checks: int, curve: list[float], epoch: int | None
) -> None:
    assert s.stopping_epoch(s.Patience(checks=checks), curve) == epoch


def test_an_improvement_must_exceed_min_delta() -> None:
    curve = [1.0, 0.95, 0.90, 0.85, 0.5]
    assert s.stopping_epoch(s.Patience(checks=2, min_delta=0.06), curve) is None
    assert s.stopping_epoch(s.Patience(checks=2, min_delta=0.2), curve) == 3


def test_scores_are_better_when_larger() -> None:
    curve = [0.1, 0.5, 0.4, 0.45, 0.9]
    assert s.stopping_epoch(s.Patience(checks=2, mode="max"), curve) == 4
    assert s.stopping_epoch(s.Target(value=0.45, mode="max"), curve) == 2
    assert s.stopping_epoch(s.Divergence(value=0.3, mode="max"), curve) == 1


def test_epochs_are_those_of_the_curve() -> None:
    curve = LearningCurve(epochs=(2, 4, 6, 8), validation=(3.0, 2.0, 2.5, 2.5))
    assert s.stopping_epoch(s.Patience(checks=2), curve) == 8
    assert s.stop([s.Patience(checks=2)], curve) == (8, StopReason.PATIENCE)


def test_generalisation_loss() -> None:
    """GL = 100·(E/E_opt − 1): 2.0 → 2.09 is 4.5 %, 2.11 is 5.5 %."""
    assert s.stopping_epoch(s.GeneralizationLoss(percent=5), [3, 2.0, 2.09, 2.11]) == 4


def test_progress_quotient_waits_for_the_end_of_a_strip() -> None:
    """P_5 = 1000·(mean/min − 1) = 1000·(1.1/1.0 − 1) = 100; GL = 10 %: 0.1 > 0.09 stops."""
    training = (1.2, 1.15, 1.1, 1.05, 1.0)
    curve = LearningCurve(
        epochs=(1, 2, 3, 4, 5), validation=(2.0, 2.0, 2.0, 2.4, 2.2), training=training
    )
    assert s.stopping_epoch(s.ProgressQuotient(quotient=0.09), curve) == 5
    assert s.stopping_epoch(s.ProgressQuotient(quotient=0.11), curve) is None
    with pytest.raises(UsageError, match="needs training losses"):
        s.stopping_epoch(s.ProgressQuotient(quotient=0.09), [1.0, 2.0])


def test_successive_rises_compare_ends_of_strips() -> None:
    """Strips of 2 end at 4, 3, 5, 6: it rose twice in a row by the eighth check."""
    curve = [9, 4, 9, 3, 9, 5, 9, 6]
    assert s.stopping_epoch(s.SuccessiveRises(rises=2, strip=2), curve) == 8
    assert s.stopping_epoch(s.SuccessiveRises(rises=1, strip=2), curve) == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_always_stop(bad: float) -> None:
    watch = s.EarlyStopping([])
    assert watch.update(s.Check(1, 1.0)) is None
    assert watch.update(s.Check(2, bad)) is StopReason.NON_FINITE


def test_the_first_of_several_rules_stops() -> None:
    rules = [s.Patience(checks=9), s.Target(value=0.5), s.Divergence(value=100)]
    assert s.stop(rules, LearningCurve(epochs=(1, 2, 3), validation=(3, 0.4, 900))) == (
        2,
        StopReason.TARGET,
    )
    assert s.stop(rules, LearningCurve(epochs=(1, 2), validation=(3, 900))) == (
        2,
        StopReason.DIVERGED,
    )


def test_futility_looks_ahead() -> None:
    """A curve that has reached its limit cannot improve by 0.5; one that falls can."""
    flat = [1 + math.exp(-e) for e in range(1, 9)]
    rule = s.Futility(probability=0.05, horizon=100, min_delta=0.5)
    assert s.stop([rule], _curve(flat)) == (8, StopReason.FUTILE)
    falling = [10 - 0.5 * e for e in range(1, 11)]
    assert s.stop([rule], _curve(falling)) is None


def _curve(validation: list[float]) -> LearningCurve:
    epochs = tuple(float(e) for e in range(1, len(validation) + 1))
    return LearningCurve(epochs=epochs, validation=tuple(validation))


rules = st.one_of(
    st.builds(s.Patience, checks=st.integers(1, 9), min_delta=st.floats(0, 1)),
    st.builds(s.SuccessiveRises, rises=st.integers(1, 4), strip=st.integers(1, 5)),
    st.builds(s.Target, value=st.floats(-10, 10)),
    st.builds(s.GeneralizationLoss, percent=st.floats(0, 50)),
    st.builds(s.Divergence, value=st.floats(0, 1e6)),
)


@given(rules, values, st.integers(1, 60))
def test_a_stored_state_continues_as_if_never_interrupted(
    rule: s.Rule, curve: list[float], cut: int
) -> None:
    whole, first = s.EarlyStopping([rule]), s.EarlyStopping([rule])
    expected = [whole.update(s.Check(e, v)) for e, v in enumerate(curve)]
    before = [first.update(s.Check(e, v)) for e, v in enumerate(curve[:cut])]
    stored = from_json(to_json(tuple(first.states)), list[tuple[float, ...]])
    second = s.EarlyStopping([rule], stored)
    after = [second.update(s.Check(e, v)) for e, v in enumerate(curve[cut:], start=cut)]
    assert before + after == expected


@given(values, st.integers(1, 20))
def test_more_patience_never_stops_earlier(curve: list[float], checks: int) -> None:
    less, more = (s.stopping_epoch(s.Patience(checks=c), curve) for c in (checks, checks + 1))
    assert more is None or (less is not None and less < more)


@given(rules)
def test_a_rule_survives_as_data(rule: s.Rule) -> None:
    record = s.rule_record(rule)
    assert s.rule_from(from_json(to_json(record), StopRule)) == rule


def test_unknown_rules_and_wrong_modes_are_refused() -> None:
    with pytest.raises(UsageError, match="no stop rule 'luck'; there are: patience, gl"):
        s.rule_from(StopRule(kind="luck"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="its mode must be min"):
        s.GeneralizationLoss(percent=5, mode="max")


def test_a_curve_without_values_stops_nothing() -> None:
    assert s.stopping_epoch(s.Patience(checks=1), []) is None


def test_training_losses_may_come_down_to_nothing() -> None:
    """Progress is without end while they do, and there is none once they are there."""
    rule = s.ProgressQuotient(quotient=1, strip=2)
    validation = (1.0, 2.0, 1.0, 2.0)
    falls = LearningCurve(epochs=(1, 2, 3, 4), validation=validation, training=(0.5, 0, 0.1, 0))
    there = LearningCurve(epochs=(1, 2, 3, 4), validation=validation, training=(0.5, 0, 0, 0))
    assert s.stopping_epoch(rule, falls) is None
    assert s.stopping_epoch(rule, there) == 4


def test_losses_of_any_sign_are_compared_by_their_size() -> None:
    """−5 after a best of −10 is 50 % worse, and anything is worse than 0 beyond measure."""
    for percent, stops in ((49.0, 2), (51.0, None)):
        assert s.stopping_epoch(s.GeneralizationLoss(percent=percent), [-10.0, -5.0]) == stops
    assert s.stopping_epoch(s.GeneralizationLoss(percent=1e6), [0.0, 1e-9]) == 2
    assert s.stopping_epoch(s.GeneralizationLoss(percent=0.0), [0.0, 0.0, -1.0]) is None


@pytest.mark.parametrize("offset", [0.0, -50.0])
def test_progress_of_losses_below_nothing_counts(offset: float) -> None:
    """Training falls by 0.1 a check from 1 to 0.6, or from −49 to −49.4; GL is 20 % of either."""
    training = tuple(offset + 1 - 0.1 * k for k in range(5))
    best = offset + 0.5
    validation = (best, best, best, best, best + 0.2 * abs(best))
    progress = 1000 * (sum(training) / 5 - min(training)) / abs(min(training))
    curve = LearningCurve(epochs=(1, 2, 3, 4, 5), validation=validation, training=training)
    for quotient, stops in ((0.99 * 20 / progress, 5), (1.01 * 20 / progress, None)):
        assert s.stopping_epoch(s.ProgressQuotient(quotient=quotient), curve) == stops


def test_a_value_that_is_not_finite_stops_a_pilot_where_it_would_stop_a_run() -> None:
    curve = LearningCurve(epochs=(1, 2, 4, 5), validation=(3.0, 2.0, 2.5, 2.6), non_finite_epoch=3)
    assert s.stop((), curve) == (3, StopReason.NON_FINITE)
    assert s.stop((s.Patience(checks=2),), curve) == (3, StopReason.NON_FINITE)
    assert s.stop((s.Target(value=2.0),), curve) == (2, StopReason.TARGET)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    ("best", "value", "min_delta", "better"),
    [
        (0.4, 0.3, 0.1, False),  # 0.4 - 0.1 is a little more than 0.3
        (0.8, 0.7, 0.1, False),  # and 0.7 + 0.1 a little less than 0.8
        (0.3, 0.2, 0.1, False),
        (0.800000011920929, 0.699999988079071, 0.1, False),  # 0.8 and 0.7 of single precision
        (1e9 + 0.4, 1e9 + 0.3, 0.1, False),
        (1e9, 1e9 - 1, 0.1, True),
        (0.4, 0.2999, 0.1, True),
        (0.4, 0.4 - 1e-16, 0.0, True),
        (0.4, 0.4, 0.0, False),
    ],
)
def test_an_improvement_is_more_than_min_delta_as_in_keras_and_lightning(
    mode: str, best: float, value: float, min_delta: float, better: bool
) -> None:
    sign = 1 if mode == "min" else -1
    rule = s.Patience(checks=1, min_delta=min_delta, mode=mode)
    reason = s.stopping_epoch(rule, [sign * best, sign * value])
    assert (reason is None) is better
