"""What a shell completes after a Tab: workloads, knobs, devices and cards.

Asked of the store that the command would read; nothing is imported that a Tab would feel, and what
goes wrong completes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from epochcast.errors import EpochcastError

if TYPE_CHECKING:
    from epochcast.records import Measurement

Complete = Callable[[click.Context, click.Parameter, str], list[str]]

BUILTIN_NAMES = (  # their own module imports torch
    "mnist-mlp",
    "cifar10-cnn",
    "cifar10-resnet",
    "char-gpt",
    "digits-mlp",
)


def of_workloads(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Those built in, those probed, and Python files here, which a function's name follows."""
    files = [f"{path}:" for path in Path().glob("*.py")]
    return _matching([*BUILTIN_NAMES, *(m.workload for m in _stored(ctx)), *files], begun)


def of_knobs(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """``"width="`` of what was probed of the workload, or of anything."""
    workload = ctx.params.get("workload") or next(iter(ctx.args), None)  # as the option ends it
    found = [m for m in _stored(ctx) if workload in (None, m.workload)]
    return _matching([f"{knob}=" for m in found for knob, _ in m.config.sizes], begun)


def of_devices(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Ids and kinds of those that were probed on."""
    devices = {m.device.key: m.device for m in _stored(ctx)}.values()
    return _matching([name for d in devices for name in (d.id, d.kind)], begun)


def of_cards(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Those of the catalogue."""
    from epochcast.devices.cards import CATALOGUE

    return _matching(CATALOGUE, begun)


def of_words(*words: str) -> Complete:
    """Always the same."""
    return lambda ctx, parameter, begun: _matching(words, begun)


def _matching(names: Iterable[str], begun: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(begun)]


def _stored(ctx: click.Context) -> tuple[Measurement, ...]:
    from epochcast.storage.store import Store

    store: Any = ctx.params.get("store")
    with suppress(EpochcastError, OSError), Store.open(store, create=False) as opened:
        return tuple(opened.measurements())
    return ()
