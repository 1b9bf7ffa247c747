"""The fixture ``epochcast_check`` for pytest: a training step held to the committed baseline.

    def test_what_a_step_costs(epochcast_check):
        epochcast_check("train.py:workload", 32, width=256)

``pytest --epochcast-update`` writes what is found into the baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # every pytest of whoever has installed this imports the file
    from epochcast.records import SizeValue


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--epochcast-update`` and ``--epochcast-baseline``."""
    group = parser.getgroup("epochcast")
    group.addoption(
        "--epochcast-update",
        action="store_true",
        help="Write what training steps cost now into the baseline.",
    )
    group.addoption("--epochcast-baseline", help="The baseline, in place of the usual file.")


@pytest.fixture
def epochcast_check(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Fails where a training step costs more than the baseline says.

    Its arguments are a workload, a batch size, ``limits`` (an ``ec.Limits``) and model-size knobs.
    """
    update = bool(request.config.getoption("--epochcast-update"))
    baseline = request.config.getoption("--epochcast-baseline")

    def run(
        workload: str,
        batch_size: int | None = None,
        *,
        limits: object = None,
        **sizes: SizeValue,
    ) -> None:
        from rich.console import Console

        from epochcast.api.check import BASELINE, Limits, check
        from epochcast.errors import EpochcastError
        from epochcast.report.text.checking import print_checked

        if limits is not None and not isinstance(limits, Limits):
            pytest.fail(f"limits= is an ec.Limits, but got {limits!r}", pytrace=False)
        file = baseline or BASELINE
        try:
            checked = check(
                workload, batch_size, sizes=sizes, baseline=file, update=update, limits=limits
            )
        except EpochcastError as error:
            said = str(error).replace("; --update adds it", "; pytest --epochcast-update adds it")
            pytest.fail(said, pytrace=False)
        if update or all(step.passed for step in checked):
            return
        console = Console(width=100, no_color=True)
        with console.capture() as printed:
            print_checked(console, checked, file)
        pytest.fail(printed.get(), pytrace=False)

    return run
