"""The power sensor of a CUDA device: read where it can be, missing where it cannot."""

import pytest
import torch

from epochcast.profiler.device import power_watts


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
