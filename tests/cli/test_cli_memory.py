"""``dry-run --device``: from the options to what is printed, written and drawn."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from epochcast.cli import cli


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["dry-run", *arguments], prog_name="epochcast")
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def answered(tmp_path_factory) -> tuple[dict, Path]:
    """One dry run on a card that is not here, as a document and as a picture."""
    pytest.importorskip("matplotlib")
    picture = tmp_path_factory.mktemp("memory") / "memory.png"
    arguments = ["mnist-mlp", "--batch-size", "64", "--set", "width=64", "--device", "rtx-3090"]
    result = run(
        *arguments, "--used", "1GiB", "--plot", str(picture), "--world-size", "8", "--json"
    )
    return json.loads(result.stdout), picture


def test_a_document_has_everything(answered) -> None:
    need = answered[0]["needs"][0]
    assert need["device"]["name"] == "rtx-3090"
    assert need["used_bytes"] == 2**30
    assert need["config"]["batch_size"] == 64
    assert 0 < need["allocated_bytes"]["p50"] < need["reserved_bytes"]["p50"]
    assert need["reserved_bytes"]["p95"] < need["device_bytes"]["p95"]
    assert need["needed_bytes"] == round(need["device_bytes"]["p95"])
    assert need["probability"] == 1.0
    assert {"parameters", "optimizer states"} <= {share["name"] for share in need["kinds"]}
    assert need["flops"] > 0


def test_parameters_are_counted_to_the_byte(answered) -> None:
    kinds = {share["name"]: share["bytes"] for share in answered[0]["needs"][0]["kinds"]}
    assert kinds["parameters"] == 4 * (784 * 64 + 64 + 64 * 10 + 10)


def test_what_each_of_several_devices_needs_is_in_it(answered) -> None:
    """ZeRO-1 keeps an eighth of the states, and buckets of all gradients as DDP does."""
    (shares,) = answered[0]["each_of_several_devices"]
    needs = {share["name"]: share["bytes"] for share in shares}
    kinds = {share["name"]: share["bytes"] for share in answered[0]["needs"][0]["kinds"]}
    assert needs["DDP"] - needs["ZeRO-1"] == round(kinds["optimizer states"] * 7 / 8)


def test_a_picture_is_written(answered) -> None:
    assert answered[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "a100"), "'a100' may be any of a100-40gb, a100-80gb"),
        (("--device", "t4", "--fit", "t4"), "either --device or --fit"),
        (("--plot", "m.png"), "--plot is about a device"),
        (("--used", "1GiB"), "--used is about a device"),
        (("--device", "t4", "--allocator", "split:1"), "allocator settings are"),
        (("--device", "t4", "--confidence", "200%"), "less than 100%"),
    ],
)
def test_refused_before_anything_is_counted(arguments, message) -> None:
    assert message in run("mnist-mlp", *arguments, code=2).output
