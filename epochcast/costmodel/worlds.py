"""What variants say of each other that differ in nothing but their devices, and what that adds.

trials of one device ─┐
trials of two         ├──▶ Observed ──▶ Scaling ──▶ the step in any world ──▶ an update's growth
trials of two nodes  ─┘    (``scaling``)            less the variant's own step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import hypot, log
from statistics import geometric_mean

import numpy as np

from epochcast.costmodel import features as f
from epochcast.costmodel import summary
from epochcast.costmodel.scaling import (
    SMALLEST_WORLD,
    Compute,
    Observed,
    Scaling,
    World,
    fit_scaling,
    quantiles_of,
)
from epochcast.costmodel.scatter import Amount, Scatter
from epochcast.records import Measurement, RunConfig

MOST_CONFIGURATIONS = 24  # the most recent ones: every one has two parameters
Z95 = 1.6449  # of the normal distribution


def world_of(config: RunConfig) -> World:
    """The devices of a configuration, and their nodes."""
    return World(config.world_size, config.nodes)


def nodes_of(devices: int, per_node: int | None, probed: Sequence[World]) -> int:
    """How many nodes so many devices are on.

    Args:
        devices: of the run.
        per_node: of a node; None: as many as any that was measured has, or all where none was
            measured with others.
        probed: worlds that were measured.
    """
    if per_node is None and all(w.nodes == 1 for w in probed):
        return 1
    return -(-devices // (per_node or max(-(-w.devices // w.nodes) for w in probed)))


def family(config: RunConfig) -> tuple[object, ...]:
    """What is equal in configurations that may differ in their worlds and in numbers."""
    names = tuple(name for name, _ in config.sizes)
    ways = (config.precision, config.compiled, config.sharding, config.accumulation > 1)
    return (*ways, config.workers, config.drop_last, names, f.categories(config.sizes))


def scaling_of(groups: Sequence[Sequence[Measurement]]) -> Scaling | None:
    """What the trials of variants of one family say of worlds; None where all were in one.

    Args:
        groups: trials of each variant, most recent variant first.
    """
    if len({world_of(trials[0].config) for trials in groups}) < 2:
        return None
    found: dict[str, list[Observed]] = {}
    for trials in groups:
        for config, alike in summary.group_by_config(trials).items():
            micro = geometric_mean(map(summary.step_seconds, alike))
            parameters = next((m.footprint.parameters for m in alike if m.footprint), 0)
            seen = Observed(
                configuration=name_of(config),
                world=world_of(config),
                seconds=micro * config.accumulation,
                accumulation=config.accumulation,
                payload=float(parameters or 0),
            )
            found.setdefault(seen.configuration, []).append(seen)
    most = sorted(found.values(), key=len, reverse=True)[:MOST_CONFIGURATIONS]
    observed = [x for own in most for x in own]
    if any(not x.payload for x in observed):  # not counted everywhere: taken to be alike
        observed = [replace(x, payload=1.0) for x in observed]
    return fit_scaling(observed)


def name_of(config: RunConfig) -> str:
    """A configuration, whatever its world."""
    return replace(config, world_size=1, nodes=1).label


def grown(
    scaling: Scaling, config: RunConfig, own: Amount, fewest: World, *, payload: float
) -> Amount:
    """The optimizer step of a configuration in its world, as worlds that were measured say.

    Args:
        scaling: learned from them.
        config: asked for.
        own: the micro-step in the smallest world measured, with its share of an update.
        fewest: that world.
        payload: parameters of the model; 0 where they were not counted.
    """
    share, sd = (1.0, 0.0) if fewest.devices == 1 else SMALLEST_WORLD
    draws = scaling.draws(
        world_of(config),
        configuration=name_of(config),
        compute=Compute(seconds=share * own.median, sd=hypot(sd, own.scatter.sd)),
        accumulation=config.accumulation,
        payload=payload or None,
    )
    found = quantiles_of(draws)
    wide = max(log(found.p95 / found.p50), log(found.p50 / found.p05)) / Z95
    return Amount(float(np.median(draws)), Scatter(sd=wide))
