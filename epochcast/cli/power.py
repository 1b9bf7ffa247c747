"""``--watts``: what one device draws, as given, or as it was counted while it was probed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from epochcast import units
from epochcast.cli.model_source import ModelSource
from epochcast.cli.options import reading
from epochcast.errors import PredictionError

if TYPE_CHECKING:
    from epochcast.records import Warning_
    from epochcast.storage.power import MeasuredPower

watts_option = click.option(
    "--watts",
    metavar="POWER|measured",
    help="One device draws so much power, '300W'; 'measured' is what probes drew. Default: what "
    "the device counted, where it did.",
)


def power_asked(
    text: str | None, source: ModelSource
) -> tuple[MeasuredPower | None, tuple[Warning_, ...]]:
    """What one device draws, and a note where it was counted and something else is given.

    A sensor's last readings are taken only where they are asked for.

    Args:
        text: of the option.
        source: of the cost model; names the store, the workload and the device.

    Raises:
        PredictionError: ``measured`` is asked for on the command line, and nothing was; a file of
            settings asks for what there is.
        UsageError: the text is no power.
    """
    from epochcast.records import Warning_
    from epochcast.storage.power import MeasuredPower, measured_power

    given = None if text in (None, "measured") else units.parse_power(str(text))
    if not source.is_probed and text != "measured":
        return (None if given is None else MeasuredPower(given, 0.0)), ()
    found = None
    try:
        with reading(source.store) as archive:
            found = measured_power(archive, source.workload, source.device)
    except PredictionError:
        if text == "measured" and _is_typed():
            raise
    counted = found if found is not None and found.powers else None
    if given is None:
        return (found if text == "measured" else counted), ()
    if counted is None:
        return MeasuredPower(given, 0.0), ()
    watts = [units.format_count(w, "W") for w in (given, counted.watts)]
    said = (counted.device, *watts)
    details = tuple(zip(("device", "given", "counted"), said, strict=True))
    return MeasuredPower(given, 0.0), (Warning_(code="power-given", details=details),)


def _is_typed() -> bool:
    """Whether it stands on the command line, and not in a file of settings."""
    context = click.get_current_context(silent=True)
    source = ParameterSource.COMMANDLINE
    return context is None or context.get_parameter_source("watts") is source
