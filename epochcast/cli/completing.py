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

Names = Callable[[click.Context], Iterable[str]]
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _completing(names: Names) -> Complete:
    """What click asks for: those of the names that begin as the word does."""
    return lambda ctx, parameter, begun: [
        name for name in dict.fromkeys(names(ctx)) if name.startswith(begun)
    ]


def of_words(*words: str) -> Complete:
    """Always the same."""
    return _completing(lambda ctx: words)


@_completing
def of_workloads(ctx: click.Context) -> list[str]:
    """Those built in, those probed, and Python files here, which a function's name follows."""
    from epochcast.profiler.target import BUILTIN_NAMES

    files = [f"{path}:" for path in Path().glob("*.py")]
    return [*BUILTIN_NAMES, *(m.workload for m in _stored(ctx)), *files]


@_completing
def of_knobs(ctx: click.Context) -> list[str]:
    """``"width="`` of what was probed of the workload, or of anything."""
    workload = ctx.params.get("workload") or next(iter(ctx.args), None)  # as the option ends it
    found = [m for m in _stored(ctx) if workload in (None, m.workload, m.target)]
    return [f"{knob}=" for m in found for knob, _ in m.config.sizes]


@_completing
def of_devices(ctx: click.Context) -> list[str]:
    """Ids and kinds of those that were probed on."""
    devices = {m.device.key: m.device for m in _stored(ctx)}.values()
    return [name for d in devices for name in (d.id, d.kind)]


@_completing
def of_cards(ctx: click.Context) -> Iterable[str]:
    """Those of the catalogue."""
    from epochcast.devices.cards import CATALOGUE

    return CATALOGUE


def _stored(ctx: click.Context) -> tuple[Measurement, ...]:
    from epochcast.storage.store import Store

    store: Any = ctx.params.get("store")
    with suppress(EpochcastError, OSError), Store.open(store, create=False) as opened:
        return tuple(opened.measurements())
    return ()
