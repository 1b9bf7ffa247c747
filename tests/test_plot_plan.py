"""The picture of a plan: what is drawn, where limits lie, into which files."""

import sys
from pathlib import Path

import pytest
import truths

from epochcast import plot_plan
from epochcast.costmodel.fitting import fit
from epochcast.errors import MissingDependency, StoreError, UsageError
from epochcast.planning.planner import plan
from epochcast.planning.stopping import Patience
from epochcast.records import Budget, LearningCurve

MODEL = fit(truths.sweep(round_sd=0.05, visit_sd=0.02))
PILOT = LearningCurve(
    epochs=tuple(range(1, 31)), validation=tuple(0.002 * (e - 12) ** 2 for e in range(1, 31))
)
FOUND = plan(
    MODEL, Budget(deadline=300, money=0.25, price_per_hour=2.5, energy=9e4, watts=200),
    epochs=90, rules=(Patience(checks=3),), curves=(PILOT,), evaluate=2,
)  # fmt: skip


def test_everything_that_happens_is_drawn() -> None:
    (axes,) = plot_plan.draw(FOUND).axes
    labels = axes.get_legend_handles_labels()[1]
    saves, evaluations = (len(FOUND.epochs_of(a)) for a in ("save", "evaluate"))
    assert labels == [
        "P05–P95", "P10–P90", "P50", f"evaluate ({evaluations})", f"save ({saves})",
        "stops here with ≥ 5%",
    ]  # fmt: skip
    assert axes.get_ylabel() == "minutes since the run began"
    curve = next(line for line in axes.lines if line.get_label() == "P50")
    assert curve.get_xdata()[-1] == FOUND.chosen.epochs
    assert curve.get_ydata()[-1] * 60 == pytest.approx(FOUND.timeline[-1].seconds.p50)


def test_limits_lie_where_they_are_used_up() -> None:
    times = plot_plan.limit_times(FOUND)
    assert times == {
        "deadline, 5m 00s": 300,
        "budget, $0.25": pytest.approx(360),
        "energy, 25 Wh": pytest.approx(450),
    }
    (axes,) = plot_plan.draw(FOUND).axes
    written = {text.get_text() for text in axes.texts}
    assert "deadline, 5m 00s" in written
    top = axes.get_ylim()[1] * 60
    assert top > 300


@pytest.mark.parametrize(("name", "magic"), [("plan.png", b"\x89PNG"), ("plan.svg", b"<?xml")])
def test_pictures_are_written(tmp_path: Path, name: str, magic: bytes) -> None:
    plot_plan.save_picture(FOUND, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert "matplotlib.pyplot" not in sys.modules


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        plot_plan.save_picture(FOUND, tmp_path / "plan.pdf")
    with pytest.raises(StoreError, match="cannot write"):
        plot_plan.save_picture(FOUND, tmp_path / "absent" / "plan.png")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match="pip install"):
        plot_plan.draw(FOUND)


def test_the_shortest_plan_can_be_drawn() -> None:
    one = plan(MODEL, Budget(), epochs=1, evaluate=0, save=0, folds=3)
    (axes,) = plot_plan.draw(one).axes
    assert "one fold" in axes.get_ylabel()
