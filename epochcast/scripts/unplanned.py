"""A run that nobody planned, as a plan without prices: what it may use, and what is seen of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil

from epochcast.records import (
    Budget,
    Device,
    DeviceKind,
    Option,
    Plan,
    Quantiles,
    RunConfig,
    UnitPrices,
)
from epochcast.scripts import events as e
from epochcast.scripts.tracker import Tracker

NOTHING = Quantiles.exactly(0.0)
_COUNTED = r"(?:(?:max|num|n|total|nb|train(?:ing)?|num[_-]train)[_-]?)?"
EPOCHS = re.compile(rf"^-{{0,2}}(?:[\w.]*[._])?{_COUNTED}epochs?$", re.IGNORECASE)
STEPS = re.compile(
    rf"^-{{0,2}}(?:[\w.]*[._])?{_COUNTED}(?:train[_-])?(?:steps|iters|iterations)$", re.IGNORECASE
)


def config_seen(tracker: Tracker) -> RunConfig:
    """How a script runs, as far as its loader and its processes say."""
    loader = tracker.loader
    worlds = [x.size for x in tracker.lasting if isinstance(x, e.ProcessGroup)]
    began = [x for x in tracker.lasting if isinstance(x, e.Began)]
    devices = max([1, *worlds, *(x.world_size for x in began)])
    return RunConfig(
        batch_size=max(1, (loader.batch_size or 1) if loader else 1),
        workers=loader.workers if loader else 0,
        drop_last=bool(loader and loader.drop_last),
        world_size=devices,
        nodes=min(devices, max([1, *(x.nodes for x in began)])),
    )


def unplanned(
    workload: str,
    budget: Budget,
    tracker: Tracker | None = None,
    epochs: int | None = None,
) -> Plan:
    """A plan that knows no price: what may be used, and what is to be done.

    Args:
        workload: what it is called.
        budget: what it may use.
        tracker: that has seen it; None before anything was.
        epochs: of the run; None if nobody knows.
    """
    loader = tracker.loader if tracker else None
    known = tracker.batches_an_epoch if tracker else None
    batches = known or 1
    segment = known if tracker and tracker.by_steps else None
    chosen = Option(
        config=config_seen(tracker) if tracker else RunConfig(batch_size=1),
        epochs=epochs or 1,
        affordable_epochs=NOTHING,
        target_epochs=None,
        target_probability=None,
        probability=1.0,
        seconds=NOTHING,
        money=None,
        energy_joules=None,
        carbon_grams=None,
        device_bytes=None,
        memory_share=None,
        save_bytes=None,
        binding=None,
        slack=(),
        next_epoch_seconds=0.0,
        next_epoch_money=None,
        efficiency=None,
        learning_rate_factor=None,
        steps_per_epoch=batches,
        horizon_steps=batches * (epochs or 1),
    )
    unknown = UnitPrices(
        startup=NOTHING,
        first_steps=NOTHING,
        epoch=NOTHING,
        evaluation=NOTHING,
        save=NOTHING,
        epoch_noise=0.0,
    )
    return Plan(
        workload=workload,
        device=_device(tracker),
        samples=(loader.samples if loader else None) or batches,
        folds=1,
        budget=budget,
        min_epochs=1,
        target_epochs=None,
        max_epochs=None,
        objective="",
        options=(chosen,),
        evaluations=(),
        saves=(),
        timeline=(),
        prices=unknown,
        metric="",
        stop_rules=(),
        final_save_seconds=0.0,
        save_interval_seconds=None,
        mtbf_seconds=None,
        keep=0,
        outlook=None,
        probing_seconds=0.0,
        seed=0,
        unit="epoch" if segment is None else "step",
        segment_steps=segment,
    )


def _device(tracker: Tracker | None) -> Device:
    lasting = tracker.lasting if tracker else ()
    optimizer = next((x for x in lasting if isinstance(x, e.Optimizer)), None)
    torch = next((x for x in lasting if isinstance(x, e.TorchLoaded)), None)
    where = optimizer.device.partition(":")[0] if optimizer else "cpu"
    kinds: dict[str, DeviceKind] = {"cuda": "cuda", "mps": "mps"}
    return Device(
        kind=kinds.get(where, "cpu"),
        name=(optimizer.device_name if optimizer else "") or where,
        memory_bytes=(optimizer.device_memory if optimizer else None) or 0,
        torch=torch.version if torch else "unknown",
        threads=torch.threads if torch else 0,
    )


def epochs_said(tracker: Tracker | None, arguments: Sequence[str]) -> int | None:
    """How many epochs a run will have, as its framework was told or as its options say.

    Args:
        tracker: of the process that leads; None while there is none.
        arguments: of the command, for what no process has said.
    """
    if tracker is None:
        return epochs_among(arguments)
    declared, options = epochs_declared(tracker), options_of(tracker)
    steps = steps_among(options)
    if declared is None and tracker.by_steps and tracker.per_epoch and steps:
        return ceil(steps / tracker.per_epoch)
    return declared or epochs_among(options)


def epochs_declared(tracker: Tracker) -> int | None:
    """As a framework was told, in epochs or in steps."""
    said = [x for x in tracker.lasting if isinstance(x, e.Declared)]
    if not said:
        return None
    if said[-1].steps and tracker.batches_an_epoch:
        return ceil(said[-1].steps * said[-1].accumulate / tracker.batches_an_epoch)
    return ceil(said[-1].epochs) if said[-1].epochs else None


def options_of(tracker: Tracker) -> Sequence[str]:
    """Of the script itself, whatever launched it."""
    loaded = [x for x in tracker.lasting if isinstance(x, e.TorchLoaded)]
    return loaded[-1].argv if loaded else ()


def epochs_among(arguments: Sequence[str]) -> int | None:
    """The number of epochs that options of a command name: ``--epochs 90``, ``max_epochs=90``."""
    return _number(EPOCHS, arguments)


def steps_among(arguments: Sequence[str]) -> int | None:
    """The number of steps that options name: ``--max_iters=600``, ``--train-steps 600``."""
    return _number(STEPS, arguments)


def _number(names: re.Pattern[str], arguments: Sequence[str]) -> int | None:
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if not names.match(name):
            continue
        text = value if equals else "".join(arguments[i + 1 : i + 2]) if name[:1] == "-" else ""
        if re.fullmatch(r"\d+(\.0*)?", text) and float(text) >= 1:
            return int(float(text))
    return None
