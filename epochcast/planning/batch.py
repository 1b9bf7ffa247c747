"""What another batch size changes: progress per sample, and the learning rate.

B₀   reference batch, whose epochs are known      B   another
φ    gradient noise scale tr(Σ)/|G|², in samples  (McCandlish et al. 2018, equation 2.9)

efficiency(B)  = (φ + B₀)/(φ + B)                 progress per sample (Qiao et al. 2021, Pollux,
                                                  OSDI'21, equation 5)
epochs(B)      = epochs(B₀)/efficiency(B)         for the same progress

linear factor  B/B₀       SGD                     Goyal et al. 2017, section 2.1
square root    √(B/B₀)    adaptive optimizers     Malladi et al. 2022 (NeurIPS), definition 5.2

measured from gradients at two batch sizes b < B  (McCandlish et al. 2018, appendix A.1)
|G|²   = (B·|g_B|² − b·|g_b|²)/(B − b)
tr Σ   = (|g_b|² − |g_B|²)/(1/b − 1/B)            both averaged before the quotient is taken
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from epochcast.errors import UsageError

if TYPE_CHECKING:  # the command line names the optimizers below before anything is loaded
    from epochcast.records import GradientNoise, RateRule

OptimizerKind = Literal["sgd", "adaptive"]
OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "sgd": "sgd",
    "adam": "adaptive",
    "adamw": "adaptive",
    "adaptive": "adaptive",
    "rmsprop": "adaptive",
    "adagrad": "adaptive",
    "lamb": "adaptive",
}
RATE_RULES: Mapping[OptimizerKind, RateRule] = {"sgd": "linear", "adaptive": "square-root"}


def efficiency(batch: float, reference: float, noise_scale: float) -> float:
    """Progress per sample, relative to the reference batch: below 1 with a larger one.

    Args:
        batch: B, samples of an optimizer step on all devices together.
        reference: B₀, likewise.
        noise_scale: φ, in samples.
    """
    return (noise_scale + reference) / (noise_scale + batch)


def equivalent_epochs(epochs: float, batch: float, reference: float, noise_scale: float) -> int:
    """Whole epochs at a batch size that make at least the progress of so many at the reference.

    Args:
        epochs: at the reference batch.
        batch: B, samples of an optimizer step on all devices together.
        reference: B₀, likewise.
        noise_scale: φ, in samples.
    """
    return ceil(epochs / efficiency(batch, reference, noise_scale) - 1e-9)


def learning_rate_factor(batch: float, reference: float, optimizer: OptimizerKind) -> float:
    """What to multiply the reference's learning rate with.

    Args:
        batch: B, samples of an optimizer step on all devices together.
        reference: B₀, likewise.
        optimizer: ``"sgd"`` scales with B/B₀, ``"adaptive"`` with its square root.
    """
    ratio = batch / reference
    return ratio if RATE_RULES[optimizer] == "linear" else sqrt(ratio)


def noise_scale(gradients: GradientNoise) -> float:
    """tr(Σ)/|G|² in samples, from squared gradient norms at two batch sizes.

    Raises:
        UsageError: the gradients are so noisy that |G|² is not positive: take more of them.
    """
    small, large = gradients.small_batch, gradients.large_batch
    at_small, at_large = fmean(gradients.small_norms), fmean(gradients.large_norms)
    signal = (large * at_large - small * at_small) / (large - small)
    noise = (at_small - at_large) / (1 / small - 1 / large)
    if signal <= 0:
        raise UsageError(
            f"from {len(gradients.large_norms)} gradients at batch size {large} the mean cannot be "
            "told from its noise; take more gradients, or a larger batch"
        )
    return max(0.0, noise / signal)
