"""The picture of memory along a step."""

from dataclasses import replace

import pytest
from sequences import CONFIG, training

from epochcast.devices.need import device_need
from epochcast.errors import UsageError
from epochcast.report.plots.memory import draw_memory
from epochcast.report.plots.pictures import png

pytest.importorskip("matplotlib")
NEED = device_need(training(), CONFIG)


def test_layers_lines_and_moments() -> None:
    axes = draw_memory(NEED, "a title").axes[0]
    _, labels = axes.get_legend_handles_labels()
    layers = [label.partition(",")[0] for label in labels]
    assert layers[:2] == ["parameters", "optimizer states"]
    assert "reserved" in layers
    assert "needed with 95 %" in layers
    assert any("far above" in label for label in labels)
    assert axes.get_ylabel() == "MiB"
    assert {tick.get_text() for tick in axes.get_xticklabels()} >= {"forward", "backward"}


def test_a_device_that_is_too_small_is_drawn() -> None:
    need = replace(NEED, device=replace(NEED.device, memory_bytes=60 * 2**20))
    _, labels = draw_memory(need, "").axes[0].get_legend_handles_labels()
    assert "t4: 60 MiB free" in labels


def test_a_line_far_above_the_step_does_not_make_it_flat() -> None:
    """Of a tiny model the context and libraries are most of what is needed."""
    assert NEED.curve is not None
    need = replace(NEED, needed_bytes=20 * max(NEED.curve.reserved))
    (axes,) = draw_memory(need, "").axes
    _, labels = axes.get_legend_handles_labels()
    assert sum(label.endswith(", far above") for label in labels) == 2
    assert axes.get_ylim()[1] * 2**20 <= 1.2 * max(NEED.curve.reserved)


def test_the_same_picture_has_the_same_bytes() -> None:
    assert png(draw_memory(NEED, "w")) == png(draw_memory(NEED, "w"))


def test_without_a_curve_there_is_nothing_to_draw() -> None:
    with pytest.raises(UsageError, match="no curve"):
        draw_memory(replace(NEED, curve=None), "")
