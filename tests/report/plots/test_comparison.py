"""The figures: what is drawn, and that it is drawn without matplotlib's global state."""

from __future__ import annotations

import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import image, rcParams

from epochcast.errors import MissingDependency, UsageError
from epochcast.records import Device, Quantiles, RunConfig, Summary, make_sizes
from epochcast.report.plots import comparison as plots
from epochcast.report.plots.pictures import png
from epochcast.report.plots.probed import ProbedPrediction

DEVICE = Device(kind="cpu", name="Xeon", memory_bytes=2**33, torch="2.13.0", threads=2)
WHITE = 0.99


def _around(value: float) -> Quantiles:
    return Quantiles(p05=0.85 * value, p10=0.9 * value, p50=value, p90=1.1 * value, p95=1.2 * value)


def predictions_of(widths: tuple[int, ...]) -> list[ProbedPrediction]:
    return [
        ProbedPrediction(
            config=RunConfig(batch_size=batch, sizes=make_sizes({"width": width})),
            workload="mnist-mlp",
            device=DEVICE,
            measured_step_seconds=1e-6 * batch * width,
            predicted_step_seconds=_around(1e-6 * batch * width),
            measured_peak_bytes=batch * width * 100,
            predicted_peak_bytes=_around(batch * width * 100.0),
        )
        for width in widths
        for batch in (32, 64, 128)
    ]


def summaries_of(widths: tuple[int, ...]) -> list[Summary]:
    return [
        Summary(
            workload="mnist-mlp",
            config=p.config,
            device=DEVICE,
            status="ok",
            step_seconds=p.measured_step_seconds,
            peak_bytes=p.measured_peak_bytes,
        )
        for p in predictions_of(widths)
    ]


def pixels(png: bytes, tmp_path) -> np.ndarray:  # type: ignore[no-untyped-def, type-arg]
    path = tmp_path / "figure.png"
    path.write_bytes(png)
    return image.imread(path)[..., :3]


def has_color(picture: np.ndarray, color: str) -> bool:  # type: ignore[type-arg]
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(picture - wanted).max(axis=-1) < 0.02).sum() > 20)


@pytest.mark.parametrize("subject", ["time", "memory"])
def test_every_model_size_has_its_colour(subject: plots.Subject, tmp_path) -> None:  # type: ignore[no-untyped-def]
    drawn = plots.draw_against_measured(predictions_of((64, 512, 4096)), subject)
    picture = pixels(png(drawn), tmp_path)
    blue, vermilion, green, purple = plots.PALETTE[:4]
    assert [has_color(picture, c) for c in (blue, vermilion, green, purple)] == [True] * 3 + [False]


def test_measured_points_lie_over_curves_and_bands(tmp_path) -> None:  # type: ignore[no-untyped-def]
    measured, predicted = summaries_of((64,)), predictions_of((64,))
    with_curve = pixels(png(plots.draw_by_batch_size(measured, predicted)), tmp_path)
    without = pixels(png(plots.draw_by_batch_size(measured)), tmp_path)
    coloured = [(p.min(axis=-1) < WHITE).mean() for p in (with_curve, without)]
    assert coloured[0] > 1.5 * coloured[1]
    assert has_color(with_curve, plots.PALETTE[0])


def test_it_is_a_png_of_a_legible_size() -> None:
    content = png(plots.draw_against_measured(predictions_of((64,))))
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 500 < width < 1200
    assert 400 < height < 1000


@pytest.mark.parametrize(
    ("low", "high", "base"),
    [
        (1e-6, 1e3, 1000),
        (1.0, 1.01, 1000),
        (3e-3, 4e-3, 1000),
        (2**20, 2**34, 1024),
        (1e7, 1.1e7, 1024),
    ],
)
def test_ticks_are_few_and_inside(low: float, high: float, base: float) -> None:
    ticks = plots._ticks(low, high, base)
    assert 2 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_a_legend_names_what_differs() -> None:
    labels = {"context=256 width=192 workers=2", "context=256 width=64", "context=256 width=512"}
    assert list(plots._names(labels).values()) == ["width=64", "width=192 workers=2", "width=512"]
    assert list(plots._names({"width=64"}).values()) == ["width=64"]


def test_sizes_are_ordered_by_number() -> None:
    labels = ["width=1024", "width=64", "", "depth=2 width=8", "width=512"]
    ordered = sorted(labels, key=plots._natural)
    assert ordered == ["", "depth=2 width=8", "width=64", "width=512", "width=1024"]


@pytest.mark.parametrize("widths", [(64,), tuple(range(1, 41))])
def test_one_and_many_sizes_can_be_drawn(widths: tuple[int, ...]) -> None:
    pictures = plots.probed_pictures(summaries_of(widths), predictions_of(widths))
    assert [picture.name for picture in pictures] == [
        "step time by batch size",
        "step time, predicted against measured",
        "peak memory by batch size",
        "peak memory, predicted against measured",
    ]
    for picture in pictures:
        assert png(picture.draw())


def test_a_point_of_a_curve_is_no_measurement() -> None:
    """Between probed batch sizes there is a prediction, and nothing to hold it to."""
    some = predictions_of((64,))
    more = replace(some[0], config=RunConfig(batch_size=48), measured_step_seconds=None)
    title = plots.draw_against_measured([*some, more]).axes[0].get_title("left")
    assert title == "mnist-mlp: median error 0.0 % of 3 configurations"


def test_global_state_stays_as_it_is() -> None:
    before = dict(rcParams)
    png(plots.draw_against_measured(predictions_of((64, 512))))
    assert dict(rcParams) == before


def test_nothing_to_draw_is_an_error() -> None:
    [first, *_] = predictions_of((64,))
    with pytest.raises(UsageError, match="no prediction of time"):
        plots.draw_against_measured([])
    with pytest.raises(UsageError, match="no prediction of memory"):
        plots.draw_against_measured([replace(first, measured_peak_bytes=None)], "memory")
    with pytest.raises(UsageError, match="no configuration has a measured time of one step"):
        plots.draw_by_batch_size([])


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match=r"matplotlib is not installed; next: pip install"):
        plots.draw_against_measured(predictions_of((64,)))
