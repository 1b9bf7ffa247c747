"""Two processes of torchrun under one plan: the first decides, both stop at the same step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from frameworks import needed
from rehearsal import about, make_plan

import epochcast as ec
from epochcast.planning.stopping import Patience, rule_record

HERE = Path(__file__).parent
LOSSES = [1.0, 0.9, 0.95, 0.93, 0.92, 0.5, 0.4]
LIMIT = 300  # seconds: processes that wait for each other for ever fail the test


def torchrun(script: str, folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(HERE / script), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=LIMIT, env=environment)


def ends(folder: Path, name: str) -> list[dict]:
    """Of both ranks: the first one's, the second one's."""
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    save = about(3.0, 0.1)
    plans = {
        "budget": make_plan(deadline=133.0, save=save),
        "richer": make_plan(deadline=300.0, save=save),
        "patience": make_plan(
            epochs=7, deadline=None, rules=(rule_record(Patience(checks=3)),), save=save
        ),
        "short": make_plan(epochs=3, deadline=None, epoch=about(1.0, 0.05)),
    }
    for name, plan in plans.items():
        plan.save(folder / f"{name}.json")
    torchrun("two_processes.py", folder)
    return folder


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    needed("transformers")
    needed("accelerate")
    folder = tmp_path_factory.mktemp("trainers")
    save = about(3.0, 0.1)
    make_plan(deadline=133.0, save=save).save(folder / "trainer.json")
    make_plan(deadline=300.0, save=save).save(folder / "trainer_richer.json")
    make_plan(epochs=3, deadline=None, epoch=about(1.0, 0.05)).save(folder / "short.json")
    torchrun("two_trainers.py", folder)
    return folder


def same(folder: Path, name: str) -> dict:
    """The first rank's end; the second one is at the same place, with the same weights."""
    first, second = ends(folder, name)
    for what in first.keys() - {"spent", "chance"}:
        assert first[what] == second[what], what
    return first


def test_both_stop_at_the_same_step_when_the_budget_of_the_first_ends(folder):
    end = same(folder, "budget")
    epoch, step, steps = end["position"]
    assert (end["reason"], epoch) == ("budget", 2)
    assert step > 0
    assert end["trained"] == steps
    assert end["spent"] - 1000 <= 133 < ends(folder, "budget")[1]["spent"] - 1000


def test_both_go_on_from_there_and_the_budget_goes_on(folder):
    end, before = same(folder, "richer"), same(folder, "budget")
    assert end["position"][2] == before["position"][2] + end["trained"]
    assert end["position"][2] > 50
    assert (end["reason"], end["spent"] - 1000 <= 300) == ("budget", True)


def test_the_first_ones_metric_decides(folder):
    end = same(folder, "patience")
    assert end["reason"] == "patience"
    assert end["position"][0] == ec.stopping_epoch(Patience(checks=3), LOSSES) == 5


def test_only_the_first_one_needs_to_report(folder):
    assert same(folder, "first_alone")["position"] == same(folder, "patience")["position"]


def test_a_signal_to_one_stops_both(folder):
    end = same(folder, "signal")
    assert (end["reason"], end["code"]) == ("signal", 128 + signal.SIGTERM)
    assert 14 <= end["trained"] < 20


@pytest.mark.parametrize("name", ["trainer", "trainer_richer"])
def test_trainer_stops_on_both_at_the_same_step(trainers, name):
    end = same(trainers, name)
    assert end["reason"] == "budget"
    assert end["spent"] - 1000 <= {"trainer": 133, "trainer_richer": 300}[name]
    assert end["steps"] > {"trainer": 20, "trainer_richer": 50}[name]


def test_trainer_goes_on_from_there(trainers):
    first, second = same(trainers, "trainer"), same(trainers, "trainer_richer")
    assert second["steps"] == first["steps"] + second["trained"]


def test_a_signal_to_one_stops_both_trainers_and_they_go_on_as_if_nothing_had_happened(trainers):
    names = ("trainer_whole", "trainer_signal", "trainer_resumed")
    whole, signalled, resumed = (same(trainers, name) for name in names)
    assert (signalled["reason"], signalled["code"]) == ("signal", 128 + signal.SIGTERM)
    assert 14 <= signalled["trained"] < 20
    assert (resumed["reason"], resumed["steps"]) == ("plan-done", 30)
    assert resumed["trained"] + signalled["trained"] == whole["trained"] == 30
    assert resumed["weights"] == whole["weights"]


def test_both_go_on_as_if_nothing_had_happened(folder):
    whole, resumed, signalled = (same(folder, n) for n in ("whole", "resumed", "signal"))
    assert (whole["trained"], whole["reason"]) == (30, "plan-done")
    assert resumed["trained"] + signalled["trained"] == 30
    assert resumed["weights"] == whole["weights"]
    assert [e["chance"] for e in ends(folder, "resumed")] == [
        e["chance"] for e in ends(folder, "whole")
    ]
