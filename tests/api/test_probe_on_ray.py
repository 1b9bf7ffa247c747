"""Sweeps on a Ray cluster of two nodes, one core each, on this machine: what dies is made again.

One story, because a cluster takes seconds to start and every trial a process that imports torch:
the first driver is killed after its first result; a second one continues, while one trial kills its
Ray worker and the last one its whole node; a script follows on the node that is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import epochcast as ec
from epochcast.api.probe import run_sweep
from epochcast.profiler.cluster import ClusterRequest, Shipment, connected
from epochcast.profiler.request import SweepRequest
from epochcast.profiler.rounds import SilentObserver
from epochcast.storage.store import Store

WORKLOAD = """
import os, signal, time
from pathlib import Path
import psutil, torch
from torch import nn
import epochcast as ec

def workload(width: int = 8):
    marker = Path("{markers}", str(width))
    if marker.exists():
        what = marker.read_text()
        marker.unlink()
        ray_worker = psutil.Process().parent()
        if what == "node":
            ray_worker.parent().kill()
        ray_worker.kill()
        time.sleep(60)
    x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))
    return ec.Workload(
        model=model,
        train_data=torch.utils.data.TensorDataset(x, y),
        loss=nn.functional.cross_entropy,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        batch_size=16,
    )
"""

SCRIPT = """
import torch
from torch import nn
x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
model = nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for epoch in range(50):
    for xb, yb in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(xb), yb).backward()
        optimizer.step()
    torch.save(model.state_dict(), "written.pt")
"""

KILLED_DRIVER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_probe_on_ray import Store, SilentObserver, request_of, run_sweep, ClusterRequest
class Ends(SilentObserver):
    def finished(self, measurement):
        os.kill(os.getpid(), signal.SIGKILL)
with Store.open(create="late") as store:
    run_sweep(request_of(), store, Ends(), ClusterRequest(address={address!r}))
"""


def request_of(**changes):
    values = {"target": "net.py:workload", "batch_sizes": (16,), "sizes": {"width": (8, 12, 16)}}
    limits = {"rounds": 1, "steady_seconds": 0.05, "traces": False}
    return SweepRequest(**(values | limits | changes))


class Noting(SilentObserver):
    def __init__(self):
        self.begun, self.places, self.warnings, self.seen = None, [], [], []

    def begin(self, trials, done, device, data):
        self.begun = (trials, done)

    def phase(self, label, phase):
        self.places.append((label, phase))

    def warn(self, warning):
        self.warnings.append(warning.code)

    def finished(self, measurement):
        self.seen.append(measurement)


@dataclass
class Story:
    address: str
    killed: int  # exit code of the first driver
    before: tuple
    after: tuple
    noting: Noting
    kept: list  # of measurements in the store when each ended
    script: tuple
    folder: Path


@pytest.fixture(scope="module")
def address():
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must test sweeps on Ray, but lacks ray")
        pytest.skip("needs ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **node})
    for _ in range(2):  # the head is the driver's, who would die with it
        cluster.add_node(num_cpus=1, **node)
    processes = psutil.Process().children(recursive=True)
    yield cluster.address
    cluster.shutdown()
    _, left = psutil.wait_procs(processes, timeout=10)
    for process in left:
        process.kill()


@pytest.fixture(scope="module")
def story(address, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    markers = folder / "markers"
    markers.mkdir()
    here = Path.cwd()
    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    try:
        Path("net.py").write_text(WORKLOAD.replace("{markers}", str(markers)))
        Path("train.py").write_text(SCRIPT)
        code = KILLED_DRIVER.format(tests=str(Path(__file__).parent), address=address)
        paths = [*sys.path, os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        first = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
        with Store.open() as store:
            before = store.measurements()
            (markers / "12").write_text("node")
            (markers / "16").write_text("worker")
            noting, kept = Noting(), []
            noting.finished = lambda m: kept.append(len(store.measurements()))
            run_sweep(request_of(), store, noting, ClusterRequest(address=address, nodes="alike"))
            after = store.measurements()
        command = [sys.executable, "train.py"]
        script = ec.probe_script(command, rounds=1, seconds=0.1, epochs=2, on=address)
    finally:
        os.chdir(here)
    return Story(address, first.returncode, before, after, noting, kept, script, work)


def test_a_killed_driver_leaves_what_had_come_and_the_same_request_continues(story):
    assert story.killed == -9
    assert [dict(m.config.sizes)["width"] for m in story.before] == [8]  # the first of its order
    assert story.before == story.after[:1]
    assert story.noting.begun == (2, 1)
    assert {dict(m.config.sizes)["width"] for m in story.after} == {8, 12, 16}


def test_results_reach_the_store_as_they_come(story):
    assert story.kept == [2, 3]


def test_a_trial_whose_worker_or_node_died_is_made_again_and_says_so(story):
    assert all(m.status == "ok" for m in story.after)
    made_again = {
        m.node: dict(w.details) for m in story.after for w in m.warnings if w.code == "made-again"
    }
    assert sum(w.code == "made-again" for m in story.after[1:] for w in m.warnings) == 2, made_again
    assert story.noting.warnings.count("made-again") == 1
    (survivor,) = made_again  # the one node that is left made both
    assert made_again[survivor]["node"] == survivor
    assert "died" in made_again[survivor]["lost"] or "gone" in made_again[survivor]["lost"]


def test_trials_were_on_both_nodes(story):
    places = {place for _, place in story.noting.places}
    assert len(places) == 2
    assert all(place.startswith("on ") for place in places)


def test_a_measurement_is_as_of_this_machine_but_for_its_node(story):
    for m in story.after:
        assert (m.workload, m.trial) == ("net.py:workload", 0)
        assert m.import_seconds > 0
        assert Path(m.log).read_text().startswith("epochcast: ")
        assert m.device.threads == 1


def test_a_script_goes_with_its_folder_and_leaves_nothing(story):
    (m,) = story.script
    assert (m.status, m.workload) == ("ok", "train.py")
    assert m.script.files == ("train.py",)
    assert m.node
    assert not (story.folder / "written.pt").exists()


def test_what_no_node_has_is_refused_with_what_there_is(address):
    request = ClusterRequest(address=address, resources={"accelerator_type:H100": 0.001})
    with (
        connected(request, Shipment()) as cluster,
        pytest.raises(ec.UsageError, match=r"no node has 1 CPU, 0.001 acc.*; there are .*1 CPU"),
    ):
        cluster.nodes()
