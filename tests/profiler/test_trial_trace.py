"""The torch.profiler trace of a configuration: what is in it, and that it is whole or absent."""

from __future__ import annotations

import gzip
import json
import sys

import pytest
import torch

from epochcast.profiler.protocol import Task, TrialSpec, WorkloadSpec
from epochcast.profiler.target import load
from epochcast.profiler.trial import ACTIVE, TRACE_NAME, trace

WORKLOAD = """
import torch
from epochcast import Workload

def workload(fail_after: int = 10**9):
    model = torch.nn.Linear(6, 3)
    steps = iter(range(fail_after))

    def loss(outputs, targets):
        next(steps)
        return torch.nn.functional.mse_loss(outputs, targets)

    return Workload(
        model=model,
        train_data=torch.utils.data.TensorDataset(torch.zeros(12, 6), torch.zeros(12, 3)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss=loss,
        batch_size=4,
    )
"""


@pytest.fixture
def task_of(tmp_path):
    load.cache_clear()
    threads, path = torch.get_num_threads(), list(sys.path)
    file = tmp_path / "traced_workload.py"
    file.write_text(WORKLOAD)

    def make(**sizes):
        workload = WorkloadSpec(target=f"{file}:workload", threads=1)
        spec = TrialSpec(workload=workload, sizes=tuple(sizes.items()))
        return Task(kind="trace", spec=spec, folder=str(tmp_path / "deep" / "in" / "folders"))

    yield make
    torch.set_num_threads(threads)
    sys.modules.pop("traced_workload", None)
    sys.path[:] = path


def files_of(task, tmp_path):
    return sorted(path.name for path in (tmp_path / "deep" / "in" / "folders").iterdir())


def test_a_trace_is_complete(task_of, tmp_path):
    task = task_of()
    path, communication = trace(task)
    assert communication is None
    assert path.name == TRACE_NAME
    assert files_of(task, tmp_path) == [TRACE_NAME]
    contents = json.loads(gzip.decompress(path.read_bytes()))
    events = contents["traceEvents"]
    for part in ("wait for data", "train step", "synchronize"):
        spans = [e for e in events if e.get("name") == f"epochcast: {part}" and e["ph"] == "X"]
        assert len([e for e in spans if e["cat"] == "user_annotation"]) == ACTIVE, part
    products = [e for e in events if e.get("name") == "aten::addmm"]
    assert len(products) == ACTIVE
    assert all([4, 6] in e["args"]["Input Dims"] for e in products)  # recorded shapes
    assert any(e.get("name") == "[memory]" for e in events)


def test_a_trace_made_again_replaces_the_old_one(task_of, tmp_path):
    task = task_of()
    first, _ = trace(task)
    first.write_bytes(b"old")
    assert trace(task) == (first, None)
    assert first.read_bytes().startswith(b"\x1f\x8b")  # gzip's magic number, RFC 1952
    assert files_of(task, tmp_path) == [TRACE_NAME]


@pytest.mark.parametrize("steps", [0, 5])
def test_a_failing_step_leaves_no_file(task_of, tmp_path, steps):
    task = task_of(fail_after=steps)
    with pytest.raises(StopIteration):
        trace(task)
    assert not list(tmp_path.rglob("*.gz"))


def test_a_step_that_fails_while_recording_leaves_no_file(task_of, tmp_path):
    """The profiler ends on the way out and offers what it has by then."""
    with pytest.raises(StopIteration):
        trace(task_of(fail_after=6))
    assert not list(tmp_path.rglob("*.gz"))


def test_a_full_disk_leaves_no_whole_trace(task_of, tmp_path, monkeypatch):
    def export(self, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", export)
    with pytest.raises(OSError, match="No space left"):
        trace(task_of())
    assert not list(tmp_path.rglob("*.gz"))
