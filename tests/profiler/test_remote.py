"""What runs elsewhere, without a cluster: requests, what is sent, several sweeps at once."""

from __future__ import annotations

import sys
import threading

import pytest

import epochcast as ec
from epochcast.profiler.cluster import Cluster, ClusterRequest, Node, NodePool, Shipment, connected
from epochcast.profiler.remote import at_once, shipment_of
from epochcast.profiler.rounds import SilentObserver, SweepResult


@pytest.mark.parametrize("address", ["ray", "auto", "10.0.0.2:6379", "ray://head:10001"])
def test_addresses_of_clusters(address):
    assert ClusterRequest(address=address).address == address


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "slurm"},
        {"address": "ray://head"},
        {"cpus": 0},
        {"gpus": -1},
        {"nodes": "all"},
        {"resources": {"GPU": 1}},
        {"resources": {"fast": 0}},
        {"resources": {"fast": float("nan")}},
    ],
)
def test_what_cannot_be_asked_of_a_cluster_is_refused(wrong):
    with pytest.raises(ec.UsageError):
        ClusterRequest(**wrong)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ec.MissingDependency, match=r"pip install 'epochcast\[ray\]'"),
        connected(ClusterRequest(), Shipment()),
    ):
        pass


def test_a_workload_goes_with_the_folder_that_it_is_found_from(tmp_path, monkeypatch):
    here, other = tmp_path / "here", tmp_path / "other"
    for folder in (here / "models", other):
        folder.mkdir(parents=True)
        (folder / "net.py").touch()
    (other / "package").mkdir()
    (other / "package" / "__init__.py").touch()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(other))
    assert shipment_of("mnist-mlp") == (Shipment(), "mnist-mlp")
    inside = "models/net.py:workload"
    assert shipment_of(inside) == (Shipment(folder=here), inside)
    assert shipment_of(str(here / inside)) == (Shipment(folder=here), inside)
    outside = (Shipment(folder=other), "net.py:workload")
    assert shipment_of(f"{other}/net.py:workload") == outside
    assert shipment_of("../other/net.py:workload") == outside
    module = "package:workload"
    assert shipment_of(module) == (Shipment(modules=(other / "package",)), module)
    assert shipment_of("numpy.linalg:norm") == (Shipment(), "numpy.linalg:norm")
    with pytest.raises(ec.UsageError, match="there is no file"):
        shipment_of("missing.py:workload")


def result(stopped="complete", half_width=None, seconds=1.0):
    return SweepResult(measurements=(), seconds=seconds, stopped=stopped, half_width=half_width)


def test_sweeps_at_once_are_as_complete_and_as_sharp_as_the_worst():
    together = threading.Barrier(2, timeout=10)  # neither ends before the other has begun

    def made(of_it):
        def sweep(store, observer):
            together.wait()
            return of_it

        return sweep

    worst = result("max-seconds", 0.2, 5.0)
    sweeps = [made(result(half_width=0.1)), made(worst)]
    found = at_once(Cluster(ClusterRequest()), sweeps, None, SilentObserver())
    assert (found.stopped, found.half_width, found.seconds) == ("max-seconds", 0.2, 5.0)


def test_if_one_of_several_sweeps_fails_all_end_and_its_error_is_told():
    cluster = Cluster(ClusterRequest())

    def fails(store, observer):
        raise ec.WorkloadError("it does not train")

    def goes_on(store, observer):
        assert cluster.stopping.wait(10)
        raise ec.EpochcastError("stopped; the same command continues")

    with pytest.raises(ec.WorkloadError, match="it does not train"):
        at_once(cluster, [goes_on, fails], None, SilentObserver())


def test_one_node_is_used_unless_all_are_asked_for_and_what_was_lost_goes_elsewhere():
    class Job:
        def __init__(self, node, lost=()):
            self.node, self.lost = node, [(one, "") for one in lost]

    a, b = (Node(id=name, address=name, slots=2) for name in "ab")
    one = NodePool(Cluster(ClusterRequest()), [a, b], spread=False)
    assert [one._free([Job(a)] * busy, ()) for busy in range(3)] == [a, a, None]
    assert one._free([], [Job(None, lost=[a])]) == b
    assert one._free([], [Job(None, lost=[a, b])]) in (a, b)
    spread = NodePool(Cluster(ClusterRequest()), [a, b], spread=True)
    assert spread._free([Job(a)], ()) == b
    one._gone = {"a"}
    assert one._free([], ()) == b
    one._gone = {"a", "b"}
    with pytest.raises(ec.EpochcastError, match="is gone; the same command continues"):
        one._free([], ())
