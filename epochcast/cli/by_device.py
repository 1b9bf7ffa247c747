"""Several devices side by side: ``--device each`` or ``h100,a100``, each with its own price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epochcast.cli.model_source import ModelSource
from epochcast.cli.options import Parsed, console, print_json, reading
from epochcast.errors import DoesNotFit, UsageError
from epochcast.units import parse_price

if TYPE_CHECKING:
    from epochcast.costmodel.side_by_side import Side
    from epochcast.records import Device, Warning_

EACH = "each"
Price = float | Mapping[str, float] | None


def _read_price(text: str) -> Price:
    """``"2.5"``, or ``"h100=4.5,a100=1.8"``."""
    if "=" not in text:
        return parse_price(text)
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, amount = part.rpartition("=")
        if not name.strip() or not equals or name.strip() in found:
            raise UsageError(f"expected X, or DEVICE=X once for each device, but got {text[:60]!r}")
        found[name.strip()] = parse_price(amount)
    return found


PRICE = Parsed("X|DEVICE=X,…", _read_price)


def require_devices(price: Price, devices: Sequence[Device]) -> None:
    """Refuse a price for a device that is not among those asked about: it would say nothing.

    Raises:
        UsageError: there is one.
    """
    for name in price if isinstance(price, Mapping) else ():
        if not any(device.answers_to(name) for device in devices):
            known = ", ".join(device.label for device in devices)
            are = "device is" if len(devices) == 1 else "devices are"
            raise UsageError(f"a price is given for {name!r}, but the {are} {known}")


def only_price(price: Price, device: Device) -> float | None:
    """What an hour of the only device that is asked about costs.

    Raises:
        UsageError: a price is of another, or two are of it.
    """
    require_devices(price, [device])
    return price_on(price, device)


def price_on(price: Price, device: Device) -> float | None:
    """What an hour of a device costs; None where no price was given for it.

    Raises:
        UsageError: two prices are given for it.
    """
    if not isinstance(price, Mapping):
        return price
    named = {name: amount for name, amount in price.items() if device.answers_to(name)}
    if len(named) > 1:
        raise UsageError(f"{device.label} has several prices: {', '.join(named)}")
    return next(iter(named.values()), None)


def is_several(device: str | None) -> bool:
    """Whether a text names more than one device."""
    return device is not None and (device.strip() == EACH or "," in device)


def require_one_device(source: ModelSource, watts: str | None) -> None:
    """What ``--on`` goes from; a model's file is of one device, too, but has no counts.

    Raises:
        UsageError: something else is asked for, or measured watts, which are of another device.
    """
    if not source.on:
        return
    if source.model_file or is_several(source.device):
        raise UsageError("--on goes from one device's measurements: no --model, one --device")
    if watts == "measured":
        raise UsageError("--watts measured is of the device that was probed; with --on give watts")


def show_by_device(
    source: ModelSource,
    price: Price,
    answer: Callable[[str], tuple[Side, Any, Sequence[Warning_]]],
    as_json: bool,
) -> None:
    """Answer the same question for several devices, and print the answers side by side.

    Args:
        source: of the models; its device is ``"each"``, or names between commas.
        price: of an hour; what is given for a device that is not among them is a mistake.
        answer: of one device, by its name: beside which it stands, its record, and notes.
        as_json: whether to write a JSON document of the records.

    Raises:
        UsageError: a device is named twice, or a price is of none of them.
        DoesNotFit: on none of them.
    """
    from epochcast.report.text.estimate import print_by_device
    from epochcast.report.text.warnings import print_warnings
    from epochcast.storage.query import devices_of

    device = str(source.device)
    names = None if device.strip() == EACH else [name.strip() for name in device.split(",")]
    with reading(source.store) as archive:
        devices = devices_of(archive, source.workload, names)
    if len({found.key for found in devices}) < len(devices):
        raise UsageError(f"--device {device} names a device twice")
    require_devices(price, devices)
    sides, records, unfit = [], [], []
    notes: dict[Warning_, None] = {}
    for found in devices:
        try:
            side, record, more = answer(found.key)
        except DoesNotFit as error:
            unfit.append((found, error))
            continue
        sides.append(side)
        records.append(record)
        notes |= {note: None for note in more if note.code != "chose-device"}
    if not sides:
        raise unfit[0][1]
    print_warnings(console(stderr=True), notes)
    if as_json:
        print_json(devices=records, does_not_fit={d.label: error.shortfall for d, error in unfit})
        return
    print_by_device(console(), sides, [(d.label, str(error)) for d, error in unfit])
