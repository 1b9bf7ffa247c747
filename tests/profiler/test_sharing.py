"""What ranks share: real processes once, and what a trace tells of made-up events."""

from __future__ import annotations

import os
from itertools import pairwise
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import epochcast as ec
from epochcast.errors import WorkloadError
from epochcast.profiler.sharing import seconds_by, shared, union

RATE = 1e6  # microseconds of a trace's clock

WORKLOAD = """
import os
import signal
import torch
from epochcast import Workload

def workload(dies: str = "nobody") -> Workload:
    if dies == "the second" and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    model = torch.nn.Linear(4, 3)
    data = torch.utils.data.TensorDataset(torch.randn(101, 4), torch.randint(0, 3, (101,)))
    return Workload(
        model=model,
        train_data=data,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss=torch.nn.functional.cross_entropy,
        eval_data=data,
    )
"""


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """Worlds of one and two, of which one is asked for that dies."""
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "shares.py").write_text(WORKLOAD)
    before = os.getcwd()
    os.chdir(folder)
    try:
        measurements = ec.probe(
            "shares.py:workload",
            batch_sizes=[8],
            sizes={"dies": ["nobody", "the second"]},
            world_sizes=[1, 2],
            rounds=1,
            seconds=0.05,
            traces=False,
            progress=False,
            store=str(folder / "store"),
        )
    finally:
        os.chdir(before)
    return measurements


def of(measurements, world, dies):
    (found,) = (
        m
        for m in measurements
        if (m.config.world_size, dict(m.config.sizes)["dies"]) == (world, dies)
    )
    return found


def test_a_world_of_two_is_measured_and_compared_with_one(probed):
    measurements = probed
    two = of(measurements, 2, "nobody")
    assert (two.status, two.samples) == ("ok", 101)
    assert two.communication == ec.records.Communication(backend="gloo", gradient_bytes=4 * 15)
    assert min(two.step_seconds) > 0
    assert two.device == of(measurements, 1, "nobody").device
    assert "ranks-differ" not in {w.code for w in two.warnings}
    estimate = ec.fit(measurements).predict(epochs=3, world_size=4, dies="nobody")
    assert "unprobed-world" in {w.code for w in estimate.warnings}


def test_the_death_of_a_rank_is_the_end_of_its_trial_and_nothing_stays(probed):
    died = of(probed, 2, "the second")
    assert (died.status, died.message) == ("crashed", "rank 1 of 2 was ended by SIGKILL")
    assert of(probed, 1, "the second").status == "ok"
    ours = psutil.Process().children(recursive=True)
    assert not [p for p in ours if "epochcast.profiler.worker" in " ".join(p.cmdline())]


# -- what cannot be shared -------------------------------------------------------------------------


def workload_of(**changes):
    model = torch.nn.Linear(4, 3)
    data = torch.utils.data.TensorDataset(torch.randn(8, 4), torch.randint(0, 3, (8,)))
    values = {
        "model": model,
        "train_data": data,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loss": torch.nn.functional.cross_entropy,
    }
    values |= {name: make(model) if callable(make) else make for name, make in changes.items()}
    return ec.Workload(**values)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train_step": lambda model: lambda batch: None, "loss": None}, "wrap the model"),
        ({"optimizer": lambda model: torch.optim.LBFGS(model.parameters())}, "on one device"),
    ],
)
def test_what_ranks_cannot_share_is_refused(changes, match):
    with pytest.raises(WorkloadError, match=match):
        shared(workload_of(**changes), torch.device("cpu"), "ddp")


# -- traces ----------------------------------------------------------------------------------------


def event(name, start, end, kind="CPU", annotation=False):
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start * RATE, end=end * RATE),
        device_type=SimpleNamespace(name=kind),
        is_user_annotation=annotation,
    )


def test_communication_and_what_of_it_hides_behind_kernels():
    events = [
        event("ncclDevKernel_AllReduce", 1, 5, "CUDA"),
        event("nccl:all_reduce", 0, 9, "CUDA", annotation=True),
        event("sgemm", 0, 2, "CUDA"),
        event("sgemm", 4, 6, "CUDA"),
        event("Optimizer.step#Adam.step", 0, 9, "CUDA", annotation=True),
        event("aten::mm", 0, 9),  # the host's own time is none of the device
        event("Optimizer.step#Adam.step", 6, 7),
    ]
    assert seconds_by(events, on_cuda=True) == pytest.approx((4.0, 2.0))


def test_on_a_cpu_the_host_tells_and_updates_are_counted():
    events = [
        event("gloo:all_reduce", 1, 3),
        event("gloo:all_reduce", 2, 5),  # two buckets at once
        event("aten::mm", 0, 2),
        event("Optimizer.step#SGD.step", 5, 6),
        event("Optimizer.step#SGD.step", 8, 9),
        event("Optimizer.step#Adam.step", 5, 6),
    ]
    assert seconds_by(events, on_cuda=False) == pytest.approx((4.0, 1.0))
    assert seconds_by(events[:3], on_cuda=False) is None


INTERVALS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda x: (x[0], x[0] + x[1]))
)


@given(INTERVALS)
def test_a_union_is_the_same_moments_apart(intervals):
    found = union(intervals)
    assert all(a[1] < b[0] for a, b in pairwise(found))
    moments = {t + 0.5 for start, end in intervals for t in range(start, end)}
    assert {t + 0.5 for start, end in found for t in range(start, end)} == moments
