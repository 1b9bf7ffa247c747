"""What an H200 and an H100 recorded, replayed: dry runs made without them, beside it."""

import json
from pathlib import Path

import memory_hopper
import pytest
from gpu_parts import summary
from gpu_parts.results import Folder, read_folder

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def h200() -> Folder:
    return read_folder(RESULTS / "h200")


def test_the_summary_tells_all_of_it(h200: Folder) -> None:
    lines = summary.lines(h200)
    assert "NVIDIA H200, 143,156 MiB, cuDNN 91900" in lines
    assert "deadline of 25 s: ended after 20.5 s, the checkpoint is whole" in lines
    assert any(line.startswith("char-gpt: 2.88 s predicted, 2.11 s measured") for line in lines)


def test_dry_runs_told_what_was_allocated(h200: Folder) -> None:
    """Those made on its machine, by a torch with CUDA: within 2 % at the peak."""
    measured = {p["scenario"]: p["stages"] for p in h200.of("snapshots", "peaks")}
    for found in h200.of("snapshots", "dry run"):
        peak = max(stage["allocated_bytes.all.peak"] for stage in measured[found["of"]])
        assert found["need"]["source"] == "device"
        assert found["need"]["allocated_bytes"]["p50"] == pytest.approx(peak, rel=0.02)


# -- dry runs made without it ----------------------------------------------------------------------

DOCUMENT = json.loads(memory_hopper.RESULT.read_text("utf-8"))
RUNS = {run["run"]: run for run in DOCUMENT["runs"]}
TRIED = memory_hopper.TRIED  # algorithms that take what is free for a moment: said, and not needed


@pytest.mark.parametrize("name", [name for name in RUNS if name != TRIED])
def test_what_a_dry_run_said_holds_what_was_measured(name: str) -> None:
    measured, said = RUNS[name]["measured"], RUNS[name]["said"]
    assert said["source"] == "device"
    assert said["allocated"]["p50"] == pytest.approx(measured["allocated"], rel=0.005)
    for quantity in memory_hopper.QUANTITIES:
        assert said[quantity]["p05"] <= measured[quantity] <= said[quantity]["p95"]


def test_it_is_said_that_trials_of_algorithms_take_more() -> None:
    assert [name for name, run in RUNS.items() if run["said"]["remarks"]] == [
        TRIED,
        f"{TRIED}, afterwards",
    ]
    (remark,) = RUNS[TRIED]["said"]["remarks"]
    assert "cudnn.benchmark" in remark


def test_batches_run_in_limited_memory_as_replayed() -> None:
    assert [row["batch_size"] for row in DOCUMENT["limited"]] == [16, 32, 64, 128]
    for row in DOCUMENT["limited"]:
        assert (row["retries"] is not None) == row["ran"]


def test_what_was_measured_is_what_was_recorded(h200: Folder) -> None:
    for peaks in h200.of("snapshots", "peaks"):
        if run := RUNS.get(peaks["scenario"]):
            assert run["measured"] == memory_hopper.peaks(peaks["stages"])


# -- what probes measured --------------------------------------------------------------------------

PROBES = {probe["run"]: probe for probe in DOCUMENT["probes"]}
KEPT_BY_2_11 = 2**20  # bytes, of cuBLASLt: torch 2.11 measured, and 2.13 counted


@pytest.mark.parametrize("name", PROBES)
def test_what_a_dry_run_said_holds_what_a_probe_measured(name: str) -> None:
    measured, said = PROBES[name]["measured"], PROBES[name]["said"]
    assert said["source"] == "device"
    for quantity in ("reserved", "outside", "device"):
        assert said[quantity]["p05"] <= measured[quantity] <= said[quantity]["p95"]
    allocated = measured["allocated"] - KEPT_BY_2_11
    assert said["allocated"]["p05"] <= allocated <= said["allocated"]["p95"]
    low, high = said["evaluation"]
    assert low * 0.98 <= measured["evaluation"] <= high * 1.02


def test_the_third_step_of_a_gpt_is_told_to_the_byte() -> None:
    probe = PROBES["h100 char-gpt, 32 × 768, bf16"]
    assert probe["said"]["reserved"]["p50"] == probe["measured"]["reserved"]


def test_what_probes_measured_is_what_was_recorded() -> None:
    for card in memory_hopper.CARDS:
        for m in memory_hopper.measurements(read_folder(RESULTS / card)):
            assert PROBES[memory_hopper.name_of(card, m)]["measured"] == memory_hopper.probed(m)


def test_the_table_is_in_the_documents() -> None:
    docs = RESULTS.parents[1] / "docs" / "memory.md"
    assert memory_hopper.table(DOCUMENT) in docs.read_text("utf-8")
