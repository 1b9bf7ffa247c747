"""Memory of a GPU, measured by somebody else: what the docs say of its accuracy, replayed."""

from __future__ import annotations

import public_memory
import pytest
from public_mlp import hidden_widths

KNOWN = public_memory.networks()


@pytest.mark.parametrize(
    ("shape", "inputs", "outputs", "depth", "widths"),
    [  # as in the file of the measurements
        ("pyramid", 2346, 197, 2, [1173, 586]),
        ("bottleneck", 591, 45, 2, [295, 147, 73]),
        ("uniform", 327, 46, 3, [327, 327, 327]),
        ("gradual", 616, 115, 2, [366, 116]),
    ],
)
def test_the_networks_are_those_that_were_measured(
    shape: str, inputs: int, outputs: int, depth: int, widths: list[int]
) -> None:
    assert hidden_widths(inputs, outputs, depth, shape) == widths


def test_parameters_are_those_of_the_file() -> None:
    """Whose own count leaves the one parameter of each PReLU out; the first row has none."""
    assert KNOWN[0].parameters == 3_560_152


def test_a_device_always_needs_more_than_the_tensors() -> None:
    assert all(n.device_bytes > n.peak_bytes for n in KNOWN)


def test_ten_networks_tell_what_the_others_need_within_2_percent() -> None:
    ours, large, _, alone, *by_weights = public_memory.compared(KNOWN, subsets=20)
    assert ours["median"] < 0.015
    assert ours["mean"] < 0.02
    assert ours["p90"] < 0.05
    assert 0.85 <= ours["p05_p95"] <= 0.97
    assert ours["under_p95"] <= 0.07
    assert large["median"] < 0.03
    assert ours["mean"] < alone["mean"] < max(row["mean"] for row in by_weights)
