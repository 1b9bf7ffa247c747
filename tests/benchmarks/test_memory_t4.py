"""Peaks of a T4 beside what was said of them without one: what the docs say, replayed."""

from __future__ import annotations

import json
from statistics import median

import memory
import memory_models
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

RUNS = json.loads(memory.RESULT.read_text("utf-8"))["runs"]


def errors(name: str, truth: str) -> list[float]:
    return [memory.relative(run[f"said_{name}_bytes"], run[f"{truth}_bytes"]) for run in RUNS]


def test_the_runs_are_those_that_were_measured() -> None:
    measured = [{k: run[k] for k in row} for row, run in zip(memory.rows(), RUNS, strict=True)]
    assert measured == memory.rows()


def test_allocated_bytes_are_within_half_a_percent() -> None:
    assert max(map(abs, errors("allocated", "allocated"))) < 0.005


def test_reserved_bytes_are_within_3_percent_in_the_median_and_none_is_above_p95() -> None:
    assert median(map(abs, errors("reserved", "reserved"))) < 0.03
    assert min(errors("reserved_p95", "reserved")) > 0


def test_other_tools_are_further_off() -> None:
    ours = median(memory.relative(r["said_device_bytes"], memory.device_bytes(r)) for r in RUNS)
    for tool in ("MemTracker", "accelerate", "DeepSpeed"):
        said = [abs(memory.relative(r["others"][tool], memory.device_bytes(r))) for r in RUNS]
        assert median(said) > 5 * abs(ours)
    assert len(memory.table(RUNS)) == 8 + 2 + 3 + 2 + len(RUNS[0]["others"])


@pytest.mark.parametrize("name", ["resnet50"])
def test_the_network_has_the_parameters_of_the_measured_one(name: str) -> None:
    with FakeTensorMode():
        workload = getattr(memory_models, name)(64)
        loss = workload.forward(workload.model, torch.empty(2, 3, 64, 64))
    (row,) = {r["parameters"] for r in memory.rows() if r["model"] == name}
    assert sum(p.numel() for p in workload.model.parameters()) == row
    assert loss.shape == ()
