"""``epochcast calibration`` through its front door: the table, the document, the picture."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import truths
from click.testing import CliRunner, Result
from rich.console import Console
from strategies import CPU, make_outcome

from epochcast.cli import cli
from epochcast.costmodel.outcomes import comparison
from epochcast.errors import MissingDependency, UsageError
from epochcast.planning.planner import plan
from epochcast.records import RunConfig, RunOutcome, make_sizes
from epochcast.report.plots.comparison import draw_comparison
from epochcast.report.plots.pictures import save_picture
from epochcast.report.text.estimate import print_compared
from epochcast.storage.query import Compared, compare, fitted_model
from epochcast.storage.store import Store

CONFIG = RunConfig(batch_size=64, sizes=make_sizes({"depth": 1, "width": 512}))


def ran(run: str, epoch: float, **changes: object) -> RunOutcome:
    """A run of the imaginary workload: 10 s an epoch predicted, P10–P90 9.1 s to 11 s."""
    values = {"workload": "imaginary", "source": "", "device": truths.DEVICE, "config": CONFIG}
    values |= {"epoch_seconds": (epoch,) * 3, "finished_at": 1.767e9 + float(run)}
    return make_outcome(run, **(values | changes))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a sweep in its store, and no run yet."""
    monkeypatch.chdir(tmp_path)
    with Store.open() as store:
        store.add_all(truths.sweep(round_sd=0.03, trial_sd=0.02))
    return tmp_path


@pytest.fixture
def followed(folder: Path) -> Path:
    """The same after four runs, which were added in another order than they ended in."""
    with Store.open() as store:
        store.add_outcome(ran("3", 11.2))
        store.add_outcome(ran("2", 13.0))
        store.add_outcome(ran("1", 10.2))
        store.add_outcome(
            ran("4", 0, epoch_seconds=(), epochs=0, reason="signal", total_predicted=None)
        )
    return folder


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["calibration", *arguments], prog_name="epochcast")
    assert result.exit_code == code, result.output
    return result


def test_every_run_is_a_row_the_newest_last(followed: Path) -> None:
    lines = run().stdout.splitlines()
    rows = [line.split() for line in lines if line.startswith("imaginary  ")]
    at = ["ratio", "inside"]
    heading = lines[0].replace("epoch P10", "P10").replace("total P50", "total").split()
    found = [[row[heading.index(name) - len(heading)] for name in at] for row in _joined(rows)]
    assert found == [["1.02", "yes"], ["1.30", "no"], ["1.12", "P5–P95"], ["–", "–"]]
    assert "batch_size=64 depth=1 width=512" in lines[1]
    assert "signal" in lines[4]


def _joined(rows: list[list[str]]) -> list[list[str]]:
    """Cells again, where a number and its unit were split."""
    units = ("s", "ms")
    joined = []
    for row in rows:
        cells: list[str] = []
        for word in row:
            if word in units:
                cells[-1] += f" {word}"
            else:
                cells.append(word)
        joined.append(cells)
    return joined


def test_how_many_were_inside_and_what_comes_of_it(followed: Path) -> None:
    text = run("imaginary").stdout
    assert "Epochs of 1 of 3 runs lie between P10 and P90 (expected: 2.4)" in text
    assert "of 2 between P5 and P95 (expected: 2.7)" in text
    with Store.open() as store:
        factor = fitted_model(store)[0].calibration.epoch.factor
    assert f"corrected by 4 runs: epochs × {factor:.3g}, start-up × 1" in text
    assert "times as wide as by probes." in text


def test_one_document_for_programs(followed: Path) -> None:
    found = json.loads(run("--json").stdout)
    assert [r["run"] for r in found["runs"]] == ["1", "2", "3", "4"]
    assert [r["inside_80"] for r in found["runs"]] == [True, False, False, None]
    assert [r["inside_90"] for r in found["runs"]] == [True, False, True, None]
    assert found["runs"][0]["predicted"]["p50"] == 10.0
    assert found["runs"][0]["ratio"] == pytest.approx(1.02)
    (correction,) = found["corrections"]
    assert correction["calibrations"]["epoch"]["runs"] == 3
    assert correction["calibrations"]["startup"]["runs"] == 4


def test_without_runs_it_says_how_to_follow_one(folder: Path) -> None:
    text = run().stdout
    assert text.startswith("No run has been followed: nothing to compare yet.")
    assert 'with ec.follow("plan.json"' in text
    assert json.loads(run("--json").stdout)["runs"] == []
    run("--plot", "none.png")
    assert not Path("none.png").exists()


def test_another_workload_or_device_has_no_runs(followed: Path) -> None:
    assert run("other").stdout.startswith(
        "No run of other has been followed (of imaginary there are)"
    )
    assert "No run of anything on cuda" in run("--device", "cuda").stdout
    assert run("--device", "Imaginary").stdout == run().stdout


def test_runs_of_what_was_never_probed_here_are_compared_all_the_same(followed: Path) -> None:
    with Store.open() as store:
        store.add_outcome(ran("5", 9.5, workload="elsewhere", device=CPU))
    text = run().stdout
    assert "elsewhere on Test CPU" in text
    assert "no prediction to correct: no measurements of 'elsewhere'" in text
    assert "device" in text.splitlines()[0]


def test_runs_of_other_code_are_shown_but_correct_nothing(followed: Path) -> None:
    other = replace(CONFIG, sizes=make_sizes({"layers": 3}))
    with Store.open() as store:
        store.add_outcome(ran("5", 9.5, config=other))
    assert "the other 1 ran other code or configurations" in run().stdout
    with Store.open() as store:
        for name in "1234":
            store.remove_outcome(name)
    assert "none of its runs says anything about what was probed last" in run().stdout


def test_a_broken_run_can_be_forgotten(followed: Path) -> None:
    assert [r["run"] for r in json.loads(run("--forget", "2", "--json").stdout)["runs"]] == [
        "1",
        "3",
        "4",
    ]
    assert "no run '2' to forget" in run("--forget", "2", code=2).output


def test_a_narrow_terminal_stacks_what_belongs_together(followed: Path) -> None:
    with Store.open() as store:
        compared = compare(store)
    console = Console(width=80, file=io.StringIO(), highlight=False)
    print_compared(console, compared)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(len(line) for line in lines[:15]) <= 80
    assert [line.split()[-1] for line in lines[:3]] == ["actual", "P50", "took"]
    assert sum("batch_size=64" in line for line in lines) == 4


def test_runs_without_a_steady_epoch_are_not_judged() -> None:
    cut = comparison(ran("1", 0, epoch_seconds=(), epochs=0))
    assert (cut.actual, cut.ratio, cut.inside_80, cut.inside_90) == (None,) * 4
    assert Compared(runs=(cut,)).judged == ()


@pytest.mark.parametrize(("name", "magic"), [("runs.png", b"\x89PNG"), ("runs.svg", b"<?xml")])
def test_the_picture_is_written(followed: Path, name: str, magic: bytes) -> None:
    run("--plot", name)
    assert Path(name).read_bytes().startswith(magic)


def test_the_picture_has_every_run_with_its_bar_and_the_diagonal() -> None:
    runs = [comparison(ran("1", 10.2)), comparison(ran("2", 13.0))]
    runs.append(comparison(ran("3", 1.0, workload="other")))
    (axes,) = draw_comparison(runs).axes
    assert axes.get_legend_handles_labels()[1] == ["imaginary", "other"]
    assert axes.get_title(loc="left") == "2 workloads, 3 runs: 33 % between P10 and P90"
    low, high = axes.get_xlim()
    diagonal = axes.lines[0].get_xydata()
    assert diagonal.tolist() == [[low, low], [high, high]]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    (mine,) = [c for c in axes.containers if c.get_label() == "imaginary"]
    assert mine.lines[0].get_xdata().tolist() == [10.2, 13.0]
    bars = mine.lines[2][0].get_segments()
    assert bars[0][:, 1] == pytest.approx([10 / 1.1, 11.0])


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [comparison(ran("1", 10.2))]
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        save_picture(draw_comparison(runs), tmp_path / "runs.pdf")
    with pytest.raises(UsageError, match="cannot write"):
        save_picture(draw_comparison(runs), tmp_path / "absent" / "runs.png")
    with pytest.raises(UsageError, match="no followed run"):
        draw_comparison([comparison(ran("1", 0, epoch_seconds=()))])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency, match="pip install"):
        draw_comparison(runs)


def test_predict_and_plan_say_that_they_are_corrected(followed: Path) -> None:
    line = "corrected by 4 earlier runs (epochcast calibration): epochs × 1."
    for command in (["predict", "--epochs", "3"], ["plan", "--epochs", "3"]):
        result = CliRunner().invoke(cli, command)
        assert line in result.stdout, result.output


def test_the_plan_of_a_corrected_model_carries_the_factor(followed: Path) -> None:
    with Store.open() as store:
        model, _ = fitted_model(store)
    prices = plan(model, epochs=3).prices
    assert prices.calibration == model.calibration.epoch.factor > 1
    assert prices.startup_calibration == model.calibration.startup.factor
