"""How likely one run is to be faster than another, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from statistics import NormalDist

import pytest
import truths
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.side_by_side import probability_below, side_of_estimate, side_of_plan
from epochcast.planning.planner import plan
from epochcast.records import MemoryPeaks, Quantiles


def lognormal(mean: float, sd: float) -> Quantiles:
    z = [exp(mean + sd * NormalDist().inv_cdf(p)) for p in (0.05, 0.1, 0.5, 0.9, 0.95)]
    return Quantiles(p05=z[0], p10=z[1], p50=z[2], p90=z[3], p95=z[4])


@given(st.floats(-1, 1), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_of_two_lognormal_quantities_as_in_closed_form(mean: float, s: float, t: float) -> None:
    """P(A < B) = Φ((μB − μA)/√(σA² + σB²)), and both orders sum to one."""
    a, b = lognormal(0.0, s), lognormal(mean, t)
    exact = NormalDist().cdf(mean / (s**2 + t**2) ** 0.5)
    assert probability_below(a, b) == pytest.approx(exact, abs=0.004)
    assert probability_below(a, b) + probability_below(b, a) == pytest.approx(1.0)


def test_what_is_known_exactly_is_below_or_not() -> None:
    one, two = Quantiles.exactly(1.0), Quantiles.exactly(2.0)
    assert probability_below(one, two) == 1.0
    assert probability_below(one, one) == 0.5
    assert probability_below(Quantiles.exactly(0.0), one) == 1.0


def test_a_prediction_and_a_plan_need_the_same_memory_where_no_device_was_asked() -> None:
    model = fit([replace(m, memory=MemoryPeaks()) for m in truths.sweep()])
    found = model.predict(epochs=2, batch_size=64)
    assert found.device_bytes is None
    predicted = side_of_estimate("a", found, "2 epochs")
    planned = side_of_plan("b", plan(model, epochs=2, batch_sizes=64), "2 epochs")
    assert predicted.device_bytes is not None
    assert planned.device_bytes is not None
    assert predicted.device_bytes.p90 == pytest.approx(planned.device_bytes.p90, rel=0.01)
