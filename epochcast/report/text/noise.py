"""The gradient noise scale in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from epochcast.errors import UsageError
from epochcast.planning.batch import noise_scale
from epochcast.records import GradientNoise, Measurement, Warning_
from epochcast.report.text.warnings import print_warnings


def print_noise(console: Console, measurements: Sequence[Measurement]) -> None:
    """The gradient noise scale of each model size where gradients were taken."""
    for m in measurements:
        if m.gradient_noise is not None:
            console.print(Text(f"{_size(m)}: {noise_text(m.gradient_noise)}"), soft_wrap=True)
    if any(m.data == "synthetic" for m in measurements if m.gradient_noise is not None):
        print_warnings(console, [Warning_(code="noise-of-synthetic-data")])


def _size(m: Measurement) -> str:
    return " ".join(f"{k}={v}" for k, v in m.config.sizes) or m.workload


def noise_text(gradients: GradientNoise) -> str:
    """A gradient noise scale and what it rests on, or why there is none."""
    basis = (
        f"from {len(gradients.large_norms)} gradients at batch sizes {gradients.small_batch} and "
        f"{gradients.large_batch}, after {gradients.trained_steps:,} optimizer steps"
    )
    try:
        return f"gradient noise scale {noise_scale(gradients):,.0f} samples, {basis}"
    except UsageError as error:
        return f"no gradient noise scale: {error}"
