"""A training step held to a baseline: what is the same, better, worse, and not clear."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.metadata import entry_points
from math import exp, inf, log, sqrt
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from epochcast.api import check as module
from epochcast.api.check import Limits, check, compare, peak_by_module, ratio
from epochcast.cli import cli
from epochcast.errors import StoreError, UsageError
from epochcast.profiler.protocol import Counted
from epochcast.records import (
    AskedStep,
    Baseline,
    BaselineEntry,
    CheckedStep,
    Footprint,
    RunConfig,
    TimedRounds,
    Timeline,
    from_json,
    to_json,
)
from epochcast.report.text.checking import print_checked

pytest_plugins = ["pytester"]

SCRIPT = """
import torch
from torch.utils.data import TensorDataset
from epochcast import Workload

def workload(width: int = 8):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 3))
    data = TensorDataset(torch.randn(64, 4), torch.arange(64) % 3)
    return Workload(
        model=model, train_data=data, batch_size=16, loss=torch.nn.functional.cross_entropy,
        optimizer=torch.optim.SGD(model.parameters()),
    )
"""


def entry(timed=(), **counts):
    known = {"parameters": 10, "samples": 64, "flops": 100, "peak_bytes": 1000} | counts
    asked = AskedStep(workload="train.py:workload")
    rounds = tuple(
        TimedRounds(device=name, label=name, step_seconds=seconds) for name, seconds in timed
    )
    return BaselineEntry(
        asked=asked, config=RunConfig(batch_size=16), torch="2.13.0", counts=known, timed=rounds
    )


def verdicts(before, after, **limits):
    return {c.name: c.verdict for c in compare(before, after, Limits(**limits))}


# -- counts ---------------------------------------------------------------------------------------


def test_what_is_the_same_is_not_mentioned():
    assert compare(entry(), entry(), Limits()) == ()


@pytest.mark.parametrize(
    ("name", "now", "limits", "verdict"),
    [
        ("flops", 101, {}, "worse"),
        ("flops", 99, {}, "better"),
        ("flops", 102, {"work": 0.02}, "allowed"),
        ("flops", 103, {"work": 0.02}, "worse"),
        ("flops", 103, {"memory": 0.5}, "worse"),
        ("peak_bytes", 1020, {"memory": 0.02}, "allowed"),
        ("peak_bytes", 1021, {"memory": 0.02}, "worse"),
        ("peak_bytes", 900, {}, "better"),
        ("eval_peak_bytes", 1, {"memory": 5.0}, "worse"),  # there was no evaluation
        ("parameters", 9, {"work": 1.0, "memory": 1.0}, "worse"),  # fewer is another model, too
        ("samples", 65, {"work": 1.0, "memory": 1.0}, "worse"),
    ],
)
def test_counts(name, now, limits, verdict):
    assert verdicts(entry(), entry(**{name: now}), **limits) == {name: verdict}


def test_what_is_known_of_one_side_alone_fails():
    """A number that was cut out by hand, or that can be counted no more, may have grown."""
    known = entry(eval_peak_bytes=0)
    (gone,) = compare(known, entry(), Limits())
    (came,) = compare(entry(), known, Limits())
    assert (gone.before, gone.after, gone.verdict) == ("0", "unknown", "worse")
    assert (came.before, came.after, came.verdict) == ("unknown", "0", "worse")


def test_another_default_of_the_workload_is_another_step():
    after = replace(entry(), config=RunConfig(batch_size=32, sizes=(("width", 8),)))
    (batch, width) = compare(entry(), after, Limits(work=9.0, memory=9.0))
    changes = {c.name: (c.before, c.after, c.verdict) for c in (batch, width)}
    assert changes == {"batch_size": ("16", "32", "worse"), "width": ("–", "8", "worse")}


def test_the_modules_that_made_a_peak_larger_are_named():
    before = replace(entry(), peak_by_module={"a": 500, "b": 400, "(parameter)": 100})
    after = replace(
        entry(peak_bytes=1400), peak_by_module={"a": 490, "b": 700, "(parameter)": 100, "c": 110}
    )
    (change,) = compare(before, after, Limits())
    assert change.culprits == (("b", 300), ("c", 110), ("a", -10))


def test_the_modules_that_made_more_flops_are_named(capsys):
    before = replace(entry(), flops_by_module={"a": 60, "b": 40})
    after = replace(entry(flops=5090), flops_by_module={"a": 50, "b": 40, "c": 5000})
    (change,) = compare(before, after, Limits())
    assert change.culprits == (("c", 5000), ("a", -10))
    step = CheckedStep(asked=before.asked, before=before, after=after, changes=(change,))
    print_checked(Console(width=200), [step], "b.json")
    assert "FLOPs: c +5,000, a -10." in capsys.readouterr().out


def test_where_one_side_does_not_know_its_modules_none_is_named():
    (change,) = compare(entry(), replace(entry(flops=1), flops_by_module={"a": 1}), Limits())
    assert (change.name, change.culprits) == ("flops", ())


def test_flops_outside_the_model_have_a_name(monkeypatch):
    """Those of a loss, or of the gradient of a gradient."""
    counts = Footprint.of_counts(flops=5)
    found = replace(counts, flops_by_module=(("", 2), ("a", 3)))
    counted = Counted(config=RunConfig(batch_size=1), footprint=found, data="", samples=1)
    monkeypatch.setattr(module, "count_footprints", lambda *_, **__: (counted,))
    by_module = module._counted(AskedStep(workload="t.py:w")).flops_by_module
    assert by_module == {"(outside the model)": 2, "a": 3}


def test_the_peak_is_told_by_module():
    timeline = Timeline(
        block_bytes=(100, 30, 40, 50),
        block_kinds=("parameter", "activation", "activation", "other"),
        block_operators=(-1, 0, 0, 0),
        block_modules=(-1, 0, 1, 2),
        operators=("aten.mm",),
        modules=("layer", "head", ""),
        events=(1, 2, 3, -2, 4, -3, -4),
        forward_end=3,
        step_end=7,
    )
    assert peak_by_module(timeline) == {"(parameter)": 100, "head": 40, "(other)": 50}
    assert sum(peak_by_module(timeline).values()) == timeline.peak_bytes()


# -- times ----------------------------------------------------------------------------------------


def test_the_ratio_of_two_times_is_welchs():
    before, after = (1.0, 1.1, 1.21), (1.2, 1.32, 1.452)  # logs are equidistant by log 1.1
    low, middle, high = ratio(before, after)
    error = sqrt(2 * log(1.1) ** 2 / 3)  # two variances of log(1.1)², three values each
    reach = 2.13184678 * error  # P95 of Student's t with 4 degrees of freedom
    assert middle == pytest.approx(1.2)
    assert (low, high) == pytest.approx((1.2 * exp(-reach), 1.2 * exp(reach)))


def test_one_process_bounds_nothing():
    assert ratio((1.0,), (2.0, 2.1)) == (0.0, pytest.approx(sqrt(4.2)), inf)
    assert ratio((1.0, 1.0), (2.0, 2.0)) == pytest.approx((2.0, 2.0, 2.0))


@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=6),
    st.lists(st.floats(0.1, 10), min_size=2, max_size=6),
    st.floats(0.1, 10),
)
def test_a_ratio_has_no_unit_and_turns_around(before, after, unit):
    found = ratio(before, after)
    scaled = ratio([x * unit for x in before], [x * unit for x in after])
    assert scaled == pytest.approx(found, rel=1e-6)
    back = ratio(after, before)
    assert [1 / x for x in reversed(back)] == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ((1.00, 1.01, 0.99), "same"),
        ((1.30, 1.31, 1.29), "worse"),
        ((0.80, 0.81, 0.79), "better"),
        ((0.70, 1.00, 1.50), "unclear"),
    ],
)
def test_a_step_is_slower_where_nothing_else_is_likely(now, verdict):
    before, after = entry([("a", (1.0, 1.01, 0.99)), ("b", (9.0,))]), entry([("a", now)])
    (change,) = compare(before, after, Limits(time=0.05))
    assert (change.name, change.verdict) == ("step_seconds", verdict)


def test_another_device_is_not_compared_which_is_said(capsys):
    before, after = entry([("a", (1.0, 1.0))]), entry([("a", (1.0, 1.0)), ("b", (9.0, 9.0))])
    assert compare(before, entry([("b", (9.0, 9.0))]), Limits()) == ()
    step = CheckedStep(asked=before.asked, before=before, after=after)
    print_checked(Console(width=200), [step], "b.json")
    said = capsys.readouterr().out
    assert "Its 9 s on b are compared with nothing: b.json has no time of this device" in said
    print_checked(Console(width=200), [replace(step, after=before)], "b.json")
    assert "with nothing" not in capsys.readouterr().out


def test_what_was_timed_elsewhere_stays(monkeypatch, tmp_path):
    old, new = entry([("a", (1.0,)), ("b", (2.0,))]), entry()
    file = tmp_path / "b.json"
    file.write_text(to_json(Baseline(entries=(old,))))
    monkeypatch.setattr(module, "_counted", lambda asked: new)
    monkeypatch.setattr(
        module, "_timed", lambda asked: TimedRounds(device="b", label="b", step_seconds=(3.0,))
    )
    check(baseline=str(file), update=True, timed=True)
    (written,) = from_json(file.read_text(), Baseline).entries
    assert [(t.device, t.step_seconds) for t in written.timed] == [("a", (1.0,)), ("b", (3.0,))]


# -- the file, the command and the fixture --------------------------------------------------------


def test_the_order_of_entries_does_not_depend_on_when_they_came():
    entries = [replace(entry(), asked=AskedStep(workload=name)) for name in "cab"]
    baseline = Baseline()
    for one in entries:
        baseline = baseline.with_entry(one)
    assert [e.asked.workload for e in baseline.entries] == ["a", "b", "c"]
    assert baseline.with_entry(entries[0]) == baseline


def test_updates_of_several_processes_are_all_kept(tmp_path, monkeypatch):
    """Each has read the baseline before the others wrote, as workers of pytest-xdist do."""
    file = tmp_path / "b.json"
    known = [replace(entry(), asked=AskedStep(workload=f"{name}.py:workload")) for name in "ab"]

    def meanwhile(asked):
        if asked.workload.startswith("a"):
            check("b.py:workload", baseline=str(file), update=True)
        return next(e for e in known if e.asked == asked)

    monkeypatch.setattr(module, "_counted", meanwhile)
    check("a.py:workload", baseline=str(file), update=True)
    assert from_json(file.read_text(), Baseline).entries == tuple(known)


def test_an_entry_that_cannot_be_counted_any_more_is_named(tmp_path):
    file = tmp_path / "b.json"
    gone = replace(entry(), asked=AskedStep(workload=f"{tmp_path}/gone.py:workload"))
    file.write_text(to_json(Baseline(entries=(gone,))))
    with pytest.raises(UsageError, match=r"gone.py:workload, an entry of .*: there is no file"):
        check(baseline=str(file))


def test_from_nothing_to_a_gate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    runner = CliRunner()
    step = ["check", "train.py:workload", "--set", "width=16"]
    assert runner.invoke(cli, [*step, "--update"]).output.strip().endswith("new")
    written = json.loads((tmp_path / "epochcast-baseline.json").read_text())
    (first,) = written["entries"]
    # (4 + 1)·16 + (16 + 1)·3 parameters; forward 2·B·Σ in·out, backward twice that less the inputs'
    assert first["counts"]["parameters"] == 131
    assert first["counts"]["flops"] == 2 * 16 * (3 * (64 + 48) - 64)
    assert first["counts"]["samples"] == 64
    assert sum(first["peak_by_module"].values()) == first["counts"]["peak_bytes"]
    assert first["flops_by_module"] == {"0": 2 * 16 * 2 * 64, "1": 2 * 16 * 3 * 48}
    passed = runner.invoke(cli, ["check"])
    assert (passed.exit_code, passed.output) == (
        0,
        "train.py:workload width=16  passed: as it was\n",
    )
    script.write_text(SCRIPT.replace("Linear(width, 3)", "Linear(width, 5)"))
    failed = runner.invoke(cli, ["check", "--json"])
    assert failed.exit_code == 3
    document = json.loads(failed.output)
    assert not document["passed"]
    names = {change["name"] for change in document["steps"][0]["changes"]}
    assert {"parameters", "flops", "peak_bytes"} <= names
    updated = runner.invoke(cli, ["check", "--update"])
    assert updated.exit_code == 0
    assert "updated" in updated.output
    assert "If this is meant" not in updated.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no epochcast-baseline.json in "),
        (["train.py:workload"], "; --update adds it"),
        (["--max-memory", "+1"], "say 1% or 100%, but got '+1'"),
        (["--batch-size", "3"], "name the workload whose batch size or knobs these are"),
        (["--max-memory", "-3%"], "a limit must be 0% or more"),
    ],
)
def test_what_cannot_be_checked(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(cli, ["check", *arguments])
    assert found.exit_code == 2
    assert message in found.output
    assert not list(tmp_path.iterdir())


def test_a_damaged_baseline_is_refused_and_kept(tmp_path):
    file = tmp_path / "b.json"
    file.write_text('{"schema": 2, "entries": [3]}')
    with pytest.raises(StoreError, match="not a baseline of epochcast, or is damaged"):
        check("mnist-mlp", baseline=str(file), update=True)
    assert file.read_text() == '{"schema": 2, "entries": [3]}'
    with pytest.raises(UsageError):
        check(baseline=str(tmp_path / "none.json"))


def test_the_fixture(pytester, monkeypatch):
    step = "train.py:workload"
    known = replace(entry(), asked=AskedStep(workload=step, sizes=(("width", 3),)))
    now = [known]
    monkeypatch.setattr(module, "_counted", lambda asked: now[0])
    pytester.makepyfile(
        f"""
        def test_costs(epochcast_check):
            epochcast_check({step!r}, width=3)
        """
    )
    installed = {point.name for point in entry_points(group="pytest11")}
    plugin = () if "epochcast" in installed else ("-p", "epochcast.api.pytest_plugin")
    missing = pytester.runpytest_inprocess(*plugin)
    missing.stdout.fnmatch_lines(["there is no epochcast-baseline.json in *; pytest --epoch*"])
    missing.stdout.no_fnmatch_line("*Traceback*")
    missing.stdout.no_fnmatch_line("*check.py:*")
    pytester.runpytest_inprocess(*plugin, "--epochcast-update").assert_outcomes(passed=1)
    pytester.runpytest_inprocess(*plugin).assert_outcomes(passed=1)
    now[0] = replace(known, counts=known.counts | {"flops": 150})
    failed = pytester.runpytest_inprocess(*plugin)
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*FLOPs*100*150*+50.00 %*worse*"])
    shutil.rmtree(pytester.path / ".pytest_cache", ignore_errors=True)
    assert Path("epochcast-baseline.json").exists()


def test_a_single_process_on_one_side_is_not_clear_and_still_a_document():
    (change,) = compare(entry([("a", (1.0,))]), entry([("a", (3.0,))]), Limits(time=0.05))
    assert (change.verdict, change.interval) == ("unclear", None)
