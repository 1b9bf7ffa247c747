"""Formulas of what each of several devices needs."""

import pytest
from sequences import CONFIG, PARAMETER, STATE, training

from epochcast.devices.need import device_need
from epochcast.devices.sharding import by_formulas
from epochcast.errors import UsageError

NEED = device_need(training(), CONFIG)
GRADIENT = PARAMETER


@pytest.mark.parametrize("devices", [2, 8])
def test_closed_forms(devices) -> None:
    whole, kept = NEED.device_bytes.p50, 1 / devices
    ddp, view, one, two, three = (share.bytes for share in by_formulas(NEED, devices))
    assert ddp == pytest.approx(whole + GRADIENT)
    assert view == pytest.approx(whole)
    assert one == pytest.approx(whole + GRADIENT - STATE * (1 - kept))
    assert two == pytest.approx(whole - (STATE + GRADIENT) * (1 - kept))
    assert three == pytest.approx(whole - (STATE + GRADIENT + PARAMETER) * (1 - kept))


def test_one_device_shares_nothing() -> None:
    with pytest.raises(UsageError, match="at least two devices, but got 1"):
        by_formulas(NEED, 1)
