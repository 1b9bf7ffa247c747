"""The picture of a plan: what is drawn, where limits lie, into which files."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import truths

from epochcast.costmodel.fitting import fit
from epochcast.errors import MissingDependency, StoreError, UsageError
from epochcast.planning.planner import plan
from epochcast.planning.stopping import Patience
from epochcast.records import Budget, LearningCurve
from epochcast.report.plots import plan as plot_plan
from epochcast.report.plots.pictures import save_picture
from epochcast.units import format_seconds

MODEL = fit(truths.sweep(round_sd=0.05, trial_sd=0.02))
PILOT = LearningCurve(
    epochs=tuple(range(1, 31)), validation=tuple(0.002 * (e - 12) ** 2 for e in range(1, 31))
)
FOUND = plan(
    MODEL,
    Budget(deadline=300, money=0.25, price_per_hour=2.5, energy=9e4, watts=200),
    epochs=90,
    rules=(Patience(checks=3),),
    curves=(PILOT,),
    evaluate=2,
)


def _texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_plan_without_a_timeline_is_refused() -> None:
    with pytest.raises(StoreError, match="has no timeline"):
        plot_plan.draw_plan(replace(FOUND, timeline=()))


def test_everything_that_happens_is_drawn() -> None:
    fan, strip = plot_plan.draw_plan(FOUND).axes
    assert fan.get_ylabel() == "minutes since the run began"
    (curve,) = (line for line in fan.lines if len(line.get_xdata()) > 2)
    assert curve.get_xdata()[-1] == FOUND.chosen.epochs
    assert curve.get_ydata()[-1] * 60 == pytest.approx(FOUND.timeline[-1].seconds.p50)
    rows = [text.get_text() for text in strip.get_yticklabels()]
    assert rows == ["stop early", "save", "evaluate"]
    saves, evaluations = (len(FOUND.epochs_of(a)) for a in ("save", "evaluate"))
    assert _texts(strip)[1:] == [f"{saves} times", f"{evaluations} times"]
    drawn = [segment[0][0] for segment in strip.collections[1].get_segments()]
    assert drawn == list(FOUND.epochs_of("save"))


def test_the_title_and_the_margin_have_the_numbers() -> None:
    fan, _ = plot_plan.draw_plan(FOUND).axes
    assert fan.get_title("left").startswith("imaginary: run 4")
    assert {f"P90 {format_seconds(FOUND.timeline[-1].seconds.p90)}", "deadline, 5m 00s"} <= set(
        _texts(fan)
    )


def test_limits_lie_where_they_are_used_up() -> None:
    times = plot_plan.limit_times(FOUND)
    assert times == {
        "deadline, 5m 00s": 300,
        "budget, $0.25": pytest.approx(360),
        "energy, 25 Wh": pytest.approx(450),
    }
    fan, _ = plot_plan.draw_plan(FOUND).axes
    assert fan.get_ylim()[1] * 60 > 300
    three = plot_plan.limit_times(replace(FOUND, folds=3))
    assert three["deadline, 5m 00s in 3 folds"] == 100


def test_labels_never_overlap() -> None:
    """Those of quantiles are led to where they lie; those of limits lie on their lines."""
    fan, _ = plot_plan.draw_plan(FOUND).axes
    top = fan.get_ylim()[1] * 60
    quantiles = [text for text in fan.texts if text.get_text().startswith("P")]
    moved = sorted(text.get_position()[1] for text in quantiles)
    assert len(moved) == 5
    assert min(b - a for a, b in pairwise(moved)) >= plot_plan.LINE - 1e-9
    for text in quantiles:
        seconds = getattr(FOUND.timeline[-1].seconds, text.get_text()[:3].lower())
        assert text.xy == (1.0, pytest.approx(seconds / top))
    limits = plot_plan.limit_times(FOUND)
    named = {t.get_text(): t.get_position() for t in fan.texts if t.get_text() in limits}
    assert len(named) == 3
    for text, (_, height) in named.items():
        assert height == pytest.approx(limits[text] / top)
    assert not any(text.get_bbox_patch() for text in fan.texts)  # which would hide the fan


def test_limits_close_to_each_other_stand_side_by_side() -> None:
    budget = Budget(deadline=300, money=0.209, price_per_hour=2.5)
    fan, _ = plot_plan.draw_plan(plan(MODEL, budget, epochs=90)).axes
    left = [t.get_position()[0] for t in fan.texts if not t.get_text().startswith("P")]
    assert len(set(left)) == 2


@pytest.mark.parametrize("heights", [[0.0, 0.01, 0.5, 0.99, 1.0], [0.0] * 5, [1.0] * 5, [0.2, 0.9]])
def test_moved_labels_stay_beside_the_axes(heights: list[float]) -> None:
    moved = plot_plan._apart(heights)
    assert min(b - a for a, b in pairwise(moved)) >= plot_plan.LINE - 1e-9
    assert moved[0] >= -1e-9
    assert moved[-1] <= 1 + 1e-9


def test_thousands_of_moments_are_a_bar() -> None:
    long = plan(MODEL, Budget(), epochs=2000, save=1)
    fan, strip = plot_plan.draw_plan(long).axes
    assert _texts(strip) == ["2,000 times", "2,000 times"]
    assert [len(c.get_paths()) for c in strip.collections] == [1, 1]
    assert max(len(line.get_xdata()) for line in fan.lines) <= plot_plan.POINTS + 2
    strip.figure.canvas.draw()
    assert "2,000" in [text.get_text() for text in strip.get_xticklabels()]


@pytest.mark.parametrize(("name", "magic"), [("plan.png", b"\x89PNG"), ("plan.svg", b"<?xml")])
def test_pictures_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, magic: bytes
) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    save_picture(plot_plan.draw_plan(FOUND), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert "matplotlib.pyplot" not in sys.modules


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        save_picture(plot_plan.draw_plan(FOUND), tmp_path / "plan.pdf")
    with pytest.raises(UsageError, match="cannot write"):
        save_picture(plot_plan.draw_plan(FOUND), tmp_path / "absent" / "plan.png")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match="pip install"):
        plot_plan.draw_plan(FOUND)


def test_the_shortest_plan_can_be_drawn() -> None:
    one = plan(MODEL, Budget(), epochs=1, evaluate=0, save=0, folds=3)
    fan, _ = plot_plan.draw_plan(one).axes
    assert "one fold" in fan.get_ylabel()
