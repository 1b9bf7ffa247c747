"""What another batch size changes, in closed form."""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from epochcast.errors import UsageError
from epochcast.planning import batch as b
from epochcast.records import GradientNoise

positive = st.floats(1, 1e5)


def test_efficiency_and_epochs() -> None:
    """Pollux, equation 5: (φ + B₀)/(φ + B); with φ = 100, 32 → 164 halves it."""
    assert b.efficiency(164, 32, 100) == pytest.approx(0.5)
    assert b.equivalent_epochs(90, 164, 32, 100) == 180
    assert b.equivalent_epochs(90, 32, 32, 100) == 90


def test_learning_rates() -> None:
    assert b.learning_rate_factor(256, 64, "sgd") == 4
    assert b.learning_rate_factor(256, 64, "adaptive") == 2


def _scale(small: int, large: int, small_norms: list[float], large_norms: list[float]) -> float:
    return b.noise_scale(
        GradientNoise(
            small_batch=small,
            large_batch=large,
            small_norms=tuple(small_norms),
            large_norms=tuple(large_norms),
        )
    )


def test_noise_scale_from_gradients_of_known_mean_and_noise() -> None:
    """Gradients G + noise with |G|² = 4 and tr Σ = 1000: the noise scale is 250 samples."""
    random = np.random.default_rng(0)
    mean = np.full(100, 0.2)

    def norms(batch: int, count: int = 4000) -> list[float]:
        noise = random.normal(0, math.sqrt(10 / batch), (count, 100))
        return [float(x) for x in ((mean + noise) ** 2).sum(axis=1)]

    assert _scale(32, 512, norms(32), norms(512)) == pytest.approx(250, rel=0.05)


def test_noise_scale_without_noise_or_without_signal() -> None:
    assert _scale(8, 64, [4.0], [4.0]) == 0.0
    with pytest.raises(UsageError, match="take more gradients"):
        _scale(8, 64, [8.0], [1.0])
