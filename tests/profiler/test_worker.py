"""What a worker does with a task, in this process: the answer, or a failure that is an answer."""

from __future__ import annotations

import io
import json

import pytest

from epochcast.errors import UsageError
from epochcast.profiler import worker
from epochcast.profiler.protocol import Task, TrialSpec, WorkloadSpec

BROKEN = """
def workload(width: int = 4):
    raise ZeroDivisionError("of the workload")
"""


def task_of(target, kind, **fields):
    return Task(kind=kind, spec=TrialSpec(workload=WorkloadSpec(target=target)), **fields)


def test_a_workload_is_described_without_being_called(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(BROKEN)
    found = worker.describe(task_of(f"{path}:workload", "describe"))
    assert found.knobs == (("width", 4),)
    assert not found.takes_data
    assert len(found.source) == 12
    assert found.device.kind == "cpu"


def test_a_workload_that_cannot_be_counted_is_an_answer(tmp_path, capfd):
    path = tmp_path / "train.py"
    path.write_text(BROKEN)
    reply = worker.count(task_of(f"{path}:workload", "dry-run"))
    assert (reply.kind, reply.error) == ("counted", "WorkloadError")
    assert "of the workload" in reply.problem
    assert "Traceback" in capfd.readouterr().err  # in the worker's log


@pytest.mark.parametrize(
    ("target", "error"), [("no-such-workload", "UsageError"), ("digits-mlp", "")], ids=str
)
def test_a_failure_is_an_answer_that_names_its_class(monkeypatch, target, error):
    """One of ours by its name, so that the sweep can raise it again; another's as its text."""
    if not error:
        monkeypatch.setattr(worker, "run", lambda *_: 1 / 0)
    answers = io.StringIO()
    worker._serve(task_of(target, "describe"), answers)
    reply = json.loads(answers.getvalue())
    assert reply["kind"] == "failed"
    assert reply.get("error", "") == error
    assert target in reply["text"] or "ZeroDivisionError" in reply["text"]


def test_one_of_our_errors_leaves_run_as_it_is():
    with pytest.raises(UsageError, match="no-such-workload"):
        worker.run(task_of("no-such-workload", "describe"), print)


def test_every_task_has_empty_compilation_caches_of_its_own():
    first, second = worker.compilation_caches("a/0"), worker.compilation_caches("a/1")
    assert first.keys() == second.keys() == {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    assert not set(first.values()) & set(second.values())
