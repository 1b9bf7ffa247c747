"""What a mean of epochs is known to, by their noise alone."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.prices import Prices
from epochcast.costmodel.scatter import NOTHING, Amount, Scatter
from epochcast.records import Measurement

EPOCHS = np.array([10.0, 10.2, 9.8, 10.1, 9.9])


def prices(run: Scatter = NOTHING) -> Prices:
    s = float(EPOCHS.std(ddof=1) / EPOCHS.mean())
    n = len(EPOCHS)
    mean_error = Scatter(sd=s / sqrt(n), dof=n - 1)
    return Prices(
        training=Amount(10.0, run.or_wider(mean_error)),
        epoch_noise=s,
        noise_dof=n - 1,
        mean_error=mean_error,
    )


@pytest.mark.parametrize(("epochs", "half"), [(10, 1.85), (100, 15.45)])
def test_five_epochs_foretell_the_sum_of_more_with_both_errors_of_one_source(
    epochs: int, half: float
) -> None:
    """t·s·√(m + m²/n): Hahn & Meeker 1991, "Statistical intervals", section 4.7."""
    scatter = prices().training_scatter(epochs)
    assert scatter.dof == 4
    reach = stats.t.ppf(0.95, scatter.dof) * scatter.sd * 10.0 * epochs
    assert reach == pytest.approx(half, abs=0.005)


def test_such_intervals_hold_what_they_say() -> None:
    random = np.random.default_rng(0)
    held = []
    for _ in range(4000):
        seen, later = random.normal(10, 0.15, 5), random.normal(10, 0.15, 40).mean()
        s = seen.std(ddof=1)
        known = Prices(
            training=Amount(seen.mean(), Scatter(sd=s / sqrt(5) / seen.mean(), dof=4)),
            epoch_noise=s / seen.mean(),
            noise_dof=4,
            mean_error=Scatter(sd=s / sqrt(5) / seen.mean(), dof=4),
        ).training_scatter(40)
        told = known.quantiles(seen.mean())
        held.append(told.p05 <= later <= told.p95)
    assert np.mean(held) == pytest.approx(0.9, abs=0.015)


def test_rounds_that_differ_by_more_than_epochs_do_decide() -> None:
    run = Scatter(sd=0.1, dof=3)
    scatter = prices(run).training_scatter(100)
    assert scatter.sd == pytest.approx(0.1, rel=0.01)
    assert scatter.dof == pytest.approx(3, rel=0.01)


def test_rounds_alike_by_chance_say_no_more_than_their_epochs() -> None:
    model = fit(
        Measurement.from_epochs(
            "w",
            100,
            epoch_seconds=EPOCHS.tolist(),
            samples=100,
            device="A (cuda)",
            includes_first=False,
            run=run,
        )
        for run in (0, 1)
    )
    told = model.predict(epochs=100).total_seconds
    half = stats.t.ppf(0.95, 8) * EPOCHS.std(ddof=1) * sqrt(100 + 100**2 / 10)
    assert (told.p95 - told.p05) / 2 == pytest.approx(half, rel=0.01)
