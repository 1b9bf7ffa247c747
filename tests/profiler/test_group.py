"""Ranks asked as one: the first failure is everybody's, and the cause of it is what is told."""

from __future__ import annotations

import threading

import pytest
from scripted import measurement_of, request_of

from epochcast.errors import UsageError, WorkloadError
from epochcast.profiler import process
from epochcast.profiler.process import WorkerDied, WorkerGroup, WorkerTimeout
from epochcast.profiler.protocol import Reply, Task, TrialSpec, WorkloadSpec

SPEC = TrialSpec(workload=WorkloadSpec(target="t"), batch_size=8, world_size=3)
TASK = Task(kind="trial", spec=SPEC, log="sweep.log")


class Rank:
    """Answers with the next of its outcomes; one of ``None`` waits until it is killed."""

    def __init__(self, log, outcome):
        self.log, self.outcome, self.tasks = log, outcome, []
        self.killed = threading.Event()

    def ask(self, task, timeout, on_phase=lambda phase: None):
        self.tasks.append(task)
        on_phase(f"phase of {task.rank}")
        if self.outcome is None:
            self.killed.wait(10)
            raise WorkerDied(-9)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return Reply(kind="measured", measured=measurement_of(task, self.outcome))

    def __exit__(self, *_):
        self.killed.set()


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Ask a group of ranks with these outcomes; returns the answer and the ranks."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.05)
    started = []

    def ask(*outcomes, phases=None):
        def start(log):
            started.append(Rank(log, outcomes[len(started)]))
            return started[-1]

        with WorkerGroup(tmp_path / "round-0.log", len(outcomes), start) as group:
            reply = group.ask(TASK, 5.0, (phases if phases is not None else []).append)
        assert all(rank.killed.is_set() for rank in started)
        return reply, started

    ask.started = started
    return ask


def test_every_rank_gets_the_task_with_its_number_and_all_meet_in_one_place(asked, tmp_path):
    phases = []
    reply, ranks = asked("ok", "ok", "ok", phases=phases)
    assert reply.measured.status == "ok"
    tasks = [task for rank in ranks for task in rank.tasks]
    assert [task.rank for task in tasks] == [0, 1, 2]
    assert len({task.meeting for task in tasks}) == 1
    assert len({task.log for task in tasks}) == 3
    assert tasks[0].log == str(tmp_path / "round-0.log")
    assert phases == ["phase of 0"]


def test_one_out_of_memory_is_data_of_all_though_the_others_wait_for_ever(asked):
    reply, _ = asked(None, "oom", None)
    assert reply.measured.status == "oom"
    assert reply.measured.message == "rank 1 of 3: it failed"


@pytest.mark.parametrize("order", [("crashed", WorkerDied(-9)), (WorkerDied(-9), "crashed")])
def test_a_death_is_told_rather_than_the_broken_connections_it_leaves(asked, order):
    with pytest.raises(WorkerDied) as error:
        asked(*order)
    died = order.index(next(x for x in order if isinstance(x, WorkerDied)))
    assert error.value.reason == f"rank {died} of 2 was ended by SIGKILL"


def test_memory_is_told_rather_than_a_death(asked):
    reply, _ = asked(WorkerDied(1), "oom")
    assert reply.measured.status == "oom"


@pytest.mark.parametrize("error", [WorkerTimeout(), UsageError("no"), WorkloadError("bad")])
def test_what_a_rank_refuses_is_raised(asked, error):
    with pytest.raises(type(error)):
        asked("ok", error)


def test_where_one_cannot_be_started_none_stays(tmp_path):
    started = []

    def start(log):
        if started:
            raise OSError("no memory")
        started.append(Rank(log, None))
        return started[0]

    with pytest.raises(OSError, match="no memory"):
        WorkerGroup(tmp_path / "x.log", 2, start)
    assert started[0].killed.is_set()


# -- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"world_sizes": ()}, "at least 1"),
        ({"world_sizes": (2, 0)}, "at least 1"),
        ({"sharding": "zero"}, "ddp or fsdp"),
        ({"world_sizes": (2,), "until": 0.1}, "leave out --for"),
        ({"sharding": "fsdp", "world_sizes": (2,), "asked": {"epochs": 1}}, "leave out --for"),
        ({"sharding": "fsdp"}, "left out for one device"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, match):
    with pytest.raises(UsageError, match=match):
        request_of(**wrong)


def test_a_plain_trial_is_the_same_as_before_and_every_world_another():
    specs = [
        TrialSpec(workload=WorkloadSpec(target="t"), batch_size=8, world_size=w, sharding=s)
        for w in (1, 2, 4)
        for s in ("ddp", "fsdp")
    ]
    assert [spec.ranks for spec in specs] == [0, 1, 2, 2, 4, 4]
    assert len({spec.request for spec in specs}) == len(specs)
    plain = TrialSpec(workload=WorkloadSpec(target="t"), batch_size=8)
    assert plain.request == specs[0].request
