"""Several devices side by side: each with its model and its price, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import truths
from click.testing import CliRunner, Result

from epochcast.cli import cli
from epochcast.records import Device
from epochcast.storage.store import Store

FAST, SLOW = (
    Device(kind="cuda", name=name, memory_bytes=80 << 30, torch="2.13.0", cuda="12.8", threads=8)
    for name in ("NVIDIA H100", "NVIDIA A100")
)
TIMES = {FAST: 1.0, SLOW: 2.5}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("devices")
    with Store.open(folder=where / ".epochcast") as store:
        for device, factor in TIMES.items():
            trials = truths.sweep((64, 128, 256), rounds=2)
            store.add_all(slower(m, device, factor) for m in trials)
    return where


def slower(m, device, factor):
    times = {
        name: tuple(factor * x for x in getattr(m, name))
        for name in ("step_seconds", "update_seconds", "data_wait_seconds", "eval_batch_seconds")
    }
    return replace(m, device=device, **times)


@pytest.fixture(autouse=True)
def there(probed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(probed)


def run(line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, line.split(), prog_name="epochcast")
    assert result.exit_code == code, result.output
    return result


PREDICT, PLAN = "predict --epochs 90 --batch-size 128", "plan --epochs 90 --batch-size 128"
PRICES = "--price-per-hour h100=4.5,a100=1.2"


@pytest.mark.parametrize("question", [PREDICT, PLAN])
def test_each_device_has_its_model_and_its_price(question: str) -> None:
    found = json.loads(run(f"{question} --device each {PRICES} --json").stdout)["devices"]
    alone = {}
    for name, price in (("h100", 4.5), ("a100", 1.2)):
        one = json.loads(run(f"{question} --device {name} --price-per-hour {price} --json").stdout)
        alone[name] = one["estimates"][0] if "estimates" in one else one["options"][0]
    by_name = {record["device"]["name"]: record.get("options", [record])[0] for record in found}
    for of_it in ("seconds" if question == PLAN else "total_seconds", "money", "cost"):
        assert by_name["NVIDIA H100"].get(of_it) == alone["h100"].get(of_it)
        assert by_name["NVIDIA A100"].get(of_it) == alone["a100"].get(of_it)


@pytest.mark.parametrize("question", [PREDICT, PLAN])
def test_energy_is_shown_where_a_power_is_known(question: str) -> None:
    assert "energy" not in run(f"{question} --device each").stdout
    assert "energy P50" in run(f"{question} --device each --watts 300").stdout
    assert "energy" in run(f"{question} --device h100 --watts 300").stdout


@pytest.mark.parametrize("question", [PREDICT, PLAN])
def test_another_card_is_flagged_and_wide(question: str) -> None:
    measured, transferred = run(f"{question} --device h100"), run(f"{question} --on h200")
    assert "transferred to" not in measured.output
    assert "transferred to" in transferred.output
    assert "with --on give watts" in run(f"{question} --on h200 --watts measured", code=2).output
    assert "one --device" in run(f"{question} --on h200 --device each", code=2).output


@pytest.mark.parametrize("question", [PREDICT, PLAN])
def test_the_answer_is_one_line_the_fastest_first(question: str) -> None:
    text = run(f"{question} --device a100,h100 {PRICES}").stdout
    first, second = text.splitlines()[0].removesuffix(" (P50)").split("; ")
    assert first.endswith(" on NVIDIA H100")
    assert second.endswith(" on NVIDIA A100")
    assert all(" and $" in answer for answer in (first, second))
    assert "cost P50" in text
    table = [line for line in text.splitlines()[2:] if not line.startswith("note: ")]
    assert max(map(len, table)) <= 80


def test_one_price_is_of_all_and_none_says_no_cost() -> None:
    shared = run(f"{PREDICT} --device each --price-per-hour 2").stdout
    assert shared.count("$") >= 4
    assert "$" not in run(f"{PREDICT} --device each").stdout


def test_more_epochs_come_before_less_time() -> None:
    text = run(f"{PLAN} --device a100,h100 --deadline 5m").stdout
    first, second = text.splitlines()[0].split("; ")
    assert int(first.split()[0]) > int(second.split()[0])
    assert " on NVIDIA H100" in first


def test_where_nothing_fits_is_said_beside_where_something_does() -> None:
    found = json.loads(run(f"{PLAN} --device h100,a100 --json").stdout)["devices"]
    seconds = [record["options"][0]["seconds"]["p50"] for record in found]
    deadline = f"{sum(seconds) / 2:.0f}s"
    shorter = run(f"{PLAN} --device each --deadline {deadline}").stdout
    assert shorter.startswith("90 epochs in ")
    assert " epochs in " in shorter.splitlines()[0].partition("; ")[2]
    text = run(f"{PLAN} --min-epochs 90 --device each --deadline {deadline}").stdout
    assert text.splitlines()[0].count(" on NVIDIA") == 1
    assert "NVIDIA A100 (cuda, torch 2.13.0): " in text
    run(f"{PLAN} --min-epochs 90 --device each --deadline {min(seconds) / 2:.0f}s", code=3)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{PREDICT} --device h100,t4", "was not probed on 't4'"),
        (f"{PREDICT} --device h100,H100", "names a device twice"),
        (f"{PREDICT} --device each --price-per-hour t4=1", "given for 't4'"),
        (f"{PREDICT} --device a100 --price-per-hour h100=1", "given for 'h100', but the device is"),
        (f"{PLAN} --device a100 --price-per-hour h100=1", "given for 'h100', but the device is"),
        (f"{PREDICT} --device each --price-per-hour a100=1,A100=2", "has several prices"),
        (f"{PREDICT} --device each --price-per-hour h100=x", "at least 0"),
        (f"{PREDICT} --device each --price-per-hour h100=1,h100=2", "once for each device"),
        (f"{PREDICT},64 --device each", "one run on each"),
        (f"{PLAN} --device each -o p.json", "makes no file"),
    ],
)
def test_mistakes_are_one_line(line: str, said: str) -> None:
    result = CliRunner().invoke(cli, line.split(), prog_name="epochcast")
    assert result.exit_code == 2
    assert said in result.output


def test_compare_takes_a_price_for_each_side() -> None:
    a, b = "device=h100,price-per-hour=4.5", "device=a100,price-per-hour=1.2"
    found = json.loads(run(f"compare {a} {b} --epochs 90 --json").stdout)
    fast, slow = (side["money"]["p50"] / side["seconds"]["p50"] for side in found["sides"])
    assert fast == pytest.approx(4.5 / 3600)
    assert slow == pytest.approx(1.2 / 3600)
