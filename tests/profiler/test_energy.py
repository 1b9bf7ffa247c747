"""Joules of steps by counters that zeus reads: what is counted, and what cannot be."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from epochcast.profiler.energy import open_meter

CPU, GPU, MPS = torch.device("cpu"), torch.device("cuda", 1), torch.device("mps")


class FakeMonitor:
    """Counts 40 J by two packages, 10 J by memory, 90 J by GPU 1 in each window of 2 s."""

    seconds = 2.0
    broken = False
    cpu_indices: Any = (0, 1)
    soc_is_present = True

    def __init__(self, gpu_indices: list[int], cpu_indices: list[int] | None) -> None:
        self.gpu_indices, self.open = gpu_indices, set[str]()
        if cpu_indices is not None:
            self.cpu_indices = cpu_indices

    def begin_window(self, key: str, sync_execution: bool, restart: bool) -> None:
        assert not sync_execution
        if self.broken:
            raise OSError("counter gone")
        self.open.add(key)

    def end_window(self, key: str, sync_execution: bool) -> Any:
        self.open.remove(key)
        return SimpleNamespace(
            time=self.seconds,
            gpu_energy=dict.fromkeys(self.gpu_indices, 90.0),
            cpu_energy=dict.fromkeys(self.cpu_indices, 20.0) or None,
            dram_energy={0: 10.0} if self.cpu_indices else None,
            soc_energy=SimpleNamespace(gpu_mj=30_000),
        )


@pytest.fixture
def zeus(monkeypatch: pytest.MonkeyPatch) -> type[FakeMonitor]:
    fake = type("Fake", (FakeMonitor,), {})
    gpus = SimpleNamespace(supports_get_total_energy_consumption=lambda gpu: gpu == 1)
    monkeypatch.setitem(sys.modules, "zeus", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "zeus.monitor", SimpleNamespace(ZeusMonitor=fake))
    monkeypatch.setitem(sys.modules, "zeus.device", SimpleNamespace(get_gpus=lambda: gpus))
    monkeypatch.setattr("epochcast.profiler.energy.synchronize", lambda device: None)
    return fake


def watts(device: torch.device, ranks: int = 1) -> float | None:
    meter = open_meter(device, ranks)
    if meter is None:
        return None
    meter.begin()
    meter.begin()  # a window that was left open starts again
    return meter.watts()


@pytest.mark.parametrize(
    ("device", "ranks", "expected"),
    [(GPU, 1, 45), (GPU, 2, 45), (CPU, 1, 25), (CPU, 2, 12.5), (MPS, 1, 15)],
)
def test_each_device_has_its_counter(
    device: torch.device, ranks: int, expected: float, zeus: type[FakeMonitor]
) -> None:
    """The ranks of a CPU share its packages; each has a GPU of its own."""
    assert watts(device, ranks) == expected


def test_a_window_of_few_ticks_tells_nothing(zeus: type[FakeMonitor]) -> None:
    zeus.seconds = 0.3
    assert watts(GPU) is None


def test_without_a_counter_there_is_no_meter(zeus: type[FakeMonitor]) -> None:
    assert open_meter(torch.device("cuda", 0)) is None  # zeus would poll in one more process
    zeus.cpu_indices, zeus.soc_is_present = (), False
    assert open_meter(CPU) is None
    assert open_meter(MPS) is None


def test_a_counter_that_fails_costs_no_probe(zeus: type[FakeMonitor]) -> None:
    zeus.broken = True
    assert watts(GPU) is None


def test_without_zeus_there_is_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus", None)
    assert open_meter(CPU) is None
