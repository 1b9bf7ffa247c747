"""``epochcast compare``: each kind of thing beside another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import truths
from click.testing import CliRunner, Result

from epochcast.cli import cli
from epochcast.storage.store import Store


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("compared")
    for name, batches in ((".epochcast/measurements.sqlite", (32, 64, 128)), ("other", (16, 32))):
        with Store.open(str(where / name)) as store:
            store.add_all(truths.sweep(batches, rounds=2, round_sd=0.02))
    return where


@pytest.fixture(autouse=True)
def there(probed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(probed)


def run(line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["compare", *line.split()], prog_name="epochcast")
    assert result.exit_code == code, result.output
    return result


def test_two_configurations_and_their_probability() -> None:
    found = json.loads(run("batch-size=32 batch-size=128,width=256 --epochs 3 --json").stdout)
    assert found["probability_faster"] < 0.05
    assert [side["length"] for side in found["sides"]] == ["3 epochs"] * 2
    text = run("batch-size=32 batch-size=128,width=256 --epochs 3").stdout
    assert text.startswith("B is faster with a probability of ")
    table = [line for line in text.splitlines()[3:] if not line.startswith("note: ")]
    assert max(map(len, table)) <= 80


def test_equal_runs_of_two_stores_are_told_from_each_other_by_nobody() -> None:
    text = run("batch-size=32 store=other,batch-size=32 --steps 100").stdout
    assert text.startswith("Neither is faster: A is with a probability of 5")


def test_two_plans() -> None:
    for name, batch in (("slow", 32), ("fast", 128)):
        plan = ["plan", "--epochs", "3", "--batch-size", str(batch), "-o", f"{name}.json"]
        assert CliRunner().invoke(cli, plan).exit_code == 0
    text = run("slow.json fast.json").stdout
    assert "A: 3 epochs of imaginary  batch_size=32" in text
    assert "total P50" in text


def test_a_prediction_beside_a_plan_is_as_long_as_the_plan() -> None:
    """It was 10 epochs beside 90, and the shorter run was called the faster."""
    plan = ["plan", "--epochs", "7", "--batch-size", "32", "-o", "lr=0.1.json"]
    assert CliRunner().invoke(cli, plan).exit_code == 0
    found = json.loads(run("lr=0.1.json batch-size=32 --json").stdout)
    assert [side["length"] for side in found["sides"]] == ["7 epochs"] * 2
    assert 0.2 < found["probability_faster"] < 0.8
    refused = run("lr=0.1.json batch-size=32 --epochs 3", code=2).stderr
    assert "--epochs is for predictions; lr=0.1.json is a plan, which has its own" in refused


def test_which_measurements_were_taken_is_said(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "named")) as store:
        for name in ("before", "after"):
            sweep = truths.sweep((32, 64))
            store.add_all(replace(m, workload=name, target="a.py:f") for m in sweep)
    text = run(f"workload=before workload=a.py:f --epochs 3 --store {tmp_path / 'named'}").stdout
    assert "note: B: before was probed most recently; also in the store: after" in text


def test_what_a_prediction_warns_of_is_said_here_too() -> None:
    text = run("batch-size=32 batch-size=30000,width=256 --epochs 3").stdout
    assert "note: B: batch_size lies far outside" in text
    assert "note: " in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("workers=-1 workers=0 --epochs 9", "workers is a whole number, at least 0, but got -1"),
        ("workers=abc workers=0 --epochs 9", "workers is a whole number, at least 0"),
        ("batch-size=1,batch-size=2 batch-size=3 --epochs 9", "says batch_size a second time"),
        ("batch-size=32 batch-size=64", "how long are the runs? give --epochs"),
        ("absent.json batch-size=64 --epochs 1", "expected a plan's file, or NAME=VALUE"),
        ("precision=bf17 batch-size=64 --epochs 1", "one of fp32, bf16, fp16, but got 'bf17'"),
        ("world-size=2 batch-size=64 --epochs 1", "measured on 1 device only"),
        ("batch-size= batch-size=64 --epochs 1", "expected a plan's file, or NAME=VALUE"),
        ("height=3 batch-size=64 --epochs 1", "no knob 'height'"),
        ("device=cuda batch-size=64 --epochs 1", "not probed on 'cuda'"),
        ("batch-size=x batch-size=64 --epochs 1", "batch-size is a whole number, at least 1"),
    ],
)
def test_what_cannot_be_compared_is_one_line(line: str, message: str) -> None:
    failed = CliRunner().invoke(cli, ["compare", *line.split()], prog_name="epochcast")
    assert failed.exit_code in (1, 2)
    assert message in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
