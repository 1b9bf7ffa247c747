"""A CUDA device: chosen by an index, its power sensor read where it can be."""

import pytest
import torch

from epochcast.profiler.device import open_device, power_watts


@pytest.mark.parametrize(("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_device_without_an_index_is_the_first(
    name: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own check runs here: on an H200 it refused ``torch.device("cuda")``."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    assert open_device(name, threads=None) == torch.device("cuda", index)
    assert chosen == [index]


def test_a_cpu_has_no_sensor() -> None:
    assert power_watts(torch.device("cpu")) is None


def test_milliwatts_become_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "power_draw", lambda device: 312_500)
    assert power_watts(torch.device("cuda")) == 312.5


def test_a_sensor_that_cannot_be_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: torch.device) -> int:
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "power_draw", refuse)
    assert power_watts(torch.device("cuda")) is None
