"""The benchmark of following: rows among a framework's own lines, and runs that begin too late."""

import json
import time
from dataclasses import replace
from pathlib import Path

import followed
import following
import pytest
from rehearsal import make_plan

from epochcast.records import Plan, RunConfig, make_sizes


def late(path: Path) -> Plan:
    """A plan of digits-mlp whose deadline is over before the process has begun."""
    plan = make_plan(deadline=1e-3)
    config = RunConfig(batch_size=32, sizes=make_sizes({"depth": 2, "width": 8}))
    plan = replace(plan, options=(replace(plan.chosen, config=config),))
    plan.save(path)
    return plan


def test_what_a_framework_prints_is_no_row() -> None:
    row = {"steps": 1}
    printed = f"{{'eval_loss': 1.0}}\n{followed.ROW}{json.dumps(row)}\n{{}}\n"
    assert following.rows_of(printed) == [row]


def test_a_run_that_begins_too_late_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    followed.budget("plain", late(tmp_path / "plan.json"), tmp_path, 2, 0)
    rows = following.rows_of(capsys.readouterr().out)
    found = following.summed_up("plain", rows, 1e-3)
    assert (found["runs"], found["trained_nothing"], found["whole"]) == (2, 2, 0)
    assert found["in_time"] == 0


def test_a_runs_time_is_that_of_the_wall_clock(tmp_path: Path) -> None:
    began = time.time()
    with (tmp_path / "log.jsonl").open("w") as log:
        print(json.dumps({"wall_time": began + 2, "spent_seconds": 2.0}), file=log)
        end = {"reason": "budget", "position": {"epoch": 1, "steps": 4}, "spent_seconds": 3.0}
        print(json.dumps(end), file=log)
    assert followed.row_of(tmp_path, began + 3.5, True)["seconds"] == pytest.approx(3.5)
