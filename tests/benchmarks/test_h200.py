"""What was recorded on an H200, replayed: dry runs made without it against what it allocated."""

from pathlib import Path

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
