"""Who is asked for a sequence: a process that claims the device, and after it one that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from followed_on_cards import T4

from epochcast.errors import DryRunError
from epochcast.profiler.footprint.cuda.trace import cuda_sequences
from epochcast.profiler.process import WorkerDied, WorkerProcess, Workers
from epochcast.profiler.protocol import Reply, TrialSpec, WorkloadSpec
from epochcast.records import DeviceSequence

EMPTY = DeviceSequence(
    device=T4,
    block_bytes=(),
    block_kinds=(),
    block_streams=(),
    block_operators=(),
    block_modules=(),
    block_lines=(),
    operators=(),
    modules=(),
    lines=(),
    events=(),
    marks=(),
)
SPEC = TrialSpec(workload=WorkloadSpec(target="mnist-mlp"))
COUNTED = replace(EMPTY, source="cpu", remarks=("counted",))


class Answers:
    """A worker that answers what it was told to, in place of a process."""

    def __init__(self, log, told):
        self.log, self.told = log, told

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, task, timeout):
        answer = self.told[task.source]
        if isinstance(answer, Exception):
            raise answer
        return answer


def ask(tmp_path, **told):
    workers = Workers(tmp_path, lambda log: Answers(log, told))
    return cuda_sequences(workers, SPEC, [8], T4)


DIED = WorkerDied(-6)
GOOD = Reply(kind="sequenced", sequences=(EMPTY,))
INSTEAD = Reply(kind="sequenced", sequences=(COUNTED,))
REFUSED = Reply(kind="sequenced", problem="train.py, line 3: item", error="DryRunError")
NO_DEVICE = Reply(kind="sequenced", problem="no device guards", error="NoFakeDevice")


def test_the_devices_own_sequence_needs_no_other(tmp_path):
    assert ask(tmp_path, device=GOOD) == (EMPTY,)


@pytest.mark.parametrize(("first", "said"), [(DIED, "SIGABRT"), (NO_DEVICE, "no device guards")])
def test_otherwise_the_cpus_operators_are_followed_and_it_is_said(tmp_path, first, said):
    (made,) = ask(tmp_path, device=first, cpu=INSTEAD)
    why, *others = made.remarks
    assert made.source == "cpu"
    assert said in why
    assert others == ["counted"]


def test_what_nobody_can_follow_is_an_error_that_names_the_line(tmp_path):
    with pytest.raises(DryRunError, match="line 3"):
        ask(tmp_path, device=DIED, cpu=REFUSED)


def test_a_real_process_follows_a_built_in_workload(tmp_path):
    (made,) = cuda_sequences(Workers(tmp_path, WorkerProcess), SPEC, [None], T4)
    assert (made.source, made.remarks) == ("device", ())
    assert [mark.step for mark in made.marks if mark.moment == "update"] == [1, 2]
