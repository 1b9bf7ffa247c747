"""What stop rules are forecast to do: shares of stopped runs, against runs of a known truth."""

from dataclasses import replace

import known
import numpy as np
import pytest

from epochcast.errors import UsageError
from epochcast.planning.planner import plan
from epochcast.planning.stopping import Patience, ProgressQuotient, Rule, stopping_epoch
from epochcast.planning.timeline import _chances
from epochcast.records import Budget, LearningCurve, Plan

EXAMPLE = known.model(**known.EXAMPLE)
LAST = 60


def _run(seed: int, epochs: int) -> LearningCurve:
    """Validation falls to 0.2, training to 0.1, both with noise."""
    random, e = np.random.default_rng(seed), np.arange(1.0, epochs + 1)
    validation = 0.2 + 1.5 * e**-0.8 + random.normal(0, 0.005, epochs)
    training = 0.1 + 1.5 * e**-0.9 + random.normal(0, 0.005, epochs)
    return LearningCurve(
        epochs=tuple(e.tolist()),
        validation=tuple(validation.tolist()),
        training=tuple(training.tolist()),
    )


def _forecast(*curves: LearningCurve, rule: Rule) -> Plan:
    return plan(EXAMPLE, Budget(), epochs=LAST, curves=curves, rules=(rule,))


def _stopped_early(found: Plan) -> float:
    return sum(c.stop_probability or 0.0 for c in found.timeline[:-1])


@pytest.mark.parametrize("quotient", [2.0, 0.5, 0.1, 0.05])
def test_a_progress_quotient_stops_as_many_runs_as_it_is_forecast_to(quotient: float) -> None:
    """By epoch 60, told from 20: none stops at 2, almost all at 0.05, by pilot more or fewer."""
    rule = ProgressQuotient(quotient=quotient)
    stops = [stopping_epoch(rule, _run(seed, LAST)) for seed in range(1000)]
    true = np.mean([epoch is not None and epoch < LAST for epoch in stops])
    forecast = [_stopped_early(_forecast(_run(seed, 20), rule=rule)) for seed in range(5000, 5016)]
    assert np.mean(forecast) == pytest.approx(true, abs=0.2)


def test_a_pilot_without_training_losses_is_left_out_whatever_the_order() -> None:
    whole, without = _run(1, 20), replace(_run(2, 20), training=())
    rule = ProgressQuotient(quotient=0.1)
    plans = [_forecast(*curves, rule=rule) for curves in ((whole, without), (without, whole))]
    alone = _forecast(whole, rule=rule)
    assert [p.timeline for p in plans] == [alone.timeline, alone.timeline]
    for found in plans:
        (note,) = [w for w in found.warnings if w.code == "curves-without-training"]
        assert dict(note.details) == {"count": "1", "of": "2"}
    assert not alone.warnings
    patient = _forecast(whole, without, rule=Patience(checks=3))
    assert not patient.warnings


def test_without_any_training_losses_the_rule_is_refused() -> None:
    without = replace(_run(2, 20), training=())
    with pytest.raises(UsageError, match="the learning curve has none: give one with both"):
        _forecast(without, rule=ProgressQuotient(quotient=0.1))


def test_each_pilot_has_its_own_training_losses() -> None:
    """One trains on and the other has learned all there is: half of the runs stop, in any order."""
    learning = _run(1, 20)
    settled = replace(_run(2, 20), training=tuple(1 + 1e-6 * e for e in range(20)))
    rule = ProgressQuotient(quotient=2.0)
    for curves in ((learning, settled), (settled, learning)):
        assert _stopped_early(_forecast(*curves, rule=rule)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("rule", [Patience(checks=3), ProgressQuotient(quotient=0.3)])
def test_what_a_pilot_shows_after_the_plans_end_does_not_count(rule: Rule) -> None:
    """It collapses after epoch 20, where a plan of 20 epochs is over."""
    early, late = _run(1, 20), _run(1, 60)
    risen = tuple(
        v + 3.0 * max(0.0, e - 20) for v, e in zip(late.validation, late.epochs, strict=True)
    )
    collapsing = replace(
        late, validation=early.validation + risen[20:], training=early.training + late.training[20:]
    )
    whole, cut = (
        plan(EXAMPLE, Budget(), epochs=20, curves=(curve,), rules=(rule,))
        for curve in (collapsing, early)
    )
    assert [c.stop_probability for c in whole.timeline] == [
        c.stop_probability for c in cut.timeline
    ]
    assert whole.outlook == cut.outlook


def test_a_stop_at_the_last_check_is_not_early() -> None:
    """Of four runs one is stopped at the second of three checks, two at the last, one never."""
    curves = np.array([[3.0, 2.0, 1.0]] * 4)
    chances = _chances(np.array([1, 2, 2, 3]), curves, "min")
    assert [chance.stop for chance in chances] == [0, 0.25, 0]
    assert [chance.reach for chance in chances] == [1, 1, 0.75]
    assert [chance.regret for chance in chances] == [None, 1.0, None]
