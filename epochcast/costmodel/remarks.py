"""What people are told of any figure about a configuration: warnings, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from epochcast.costmodel import features as f
from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.learned import Parameters, Variant
from epochcast.costmodel.lines import DOUBTFUL_LEFT
from epochcast.costmodel.worlds import world_of
from epochcast.records import Sizes, SizeValue, Warning_
from epochcast.records.estimate import ENDLESS
from epochcast.records.measurement import IMPORTED
from epochcast.units import format_half_width, format_percent

LEVELS_OF_A_POWER = 4  # a constant and a power go through any three that rise
UNFORETOLD_SD = 0.15  # for each doubling: three times what is assumed
FAR_DOUBLINGS = 1.0  # outside the probed range by more than this: said in words
TOLERATED = 0.2  # half the 90 % interval of a later run: beyond, a deadline loses a fifth to it
MEMORY_TIGHT = 0.95  # of the device: fragmentation takes a few per cent (pytorch allocator notes)
IMPORT_MORE = {  # instead of advice to probe, of imported runs, which nobody can
    "one-round": "one-round-imported",
    "rounds-differ": "rounds-differ-imported",
    "few-configurations": "few-configurations-imported",
    "far-extrapolation": "far-extrapolation-imported",
    "far-extrapolation-from-zero": "far-extrapolation-from-zero-imported",
    "line-ends": "line-ends-imported",
    "borrowed": "borrowed-imported",
    "few-levels": "few-levels-imported",
    "levels-unforetold": "levels-unforetold-imported",
}


def cut_batch(asked: int, made: int) -> list[Warning_]:
    """That a loader makes one batch of all the samples there are."""
    cut = Warning_.of("cut-batch", asked=f"{asked:,}", made=f"{made:,}")
    return [cut] if made < asked else []


def left_open(
    variant: Variant, batch_size: int | None, sizes: Mapping[str, SizeValue]
) -> list[Warning_]:
    """What was taken of the batch size and knobs that nobody asked for, where several were probed.

    Args:
        variant: whose typical configuration it is taken from.
        batch_size: that was asked for.
        sizes: knobs that were asked for.
    """
    typical, asked = variant.typical, {"batch_size": batch_size, **sizes}
    values: dict[str, set[object]] = {"batch_size": {c.batch_size for c in variant.configurations}}
    values |= {k: {dict(c.sizes)[k] for c in variant.configurations} for k, _ in typical.sizes}
    taken = {"batch_size": typical.batch_size, **dict(typical.sizes)}
    names = [k for k, v in values.items() if len(v) > 1 and asked.get(k) is None]
    told = " ".join(f"{name}={taken[name]}" for name in names)
    return [Warning_.of("left-open", taken=told)] if told else []


def endless_epoch(at: ConfigurationCost, asked: int | None) -> list[Warning_]:
    """That the length probed is rather that of a sampler without an end; ``asked`` overrides it."""
    if asked is not None or at.samples() < ENDLESS:
        return []
    return [Warning_.of("endless-epoch", samples=f"{at.samples():,}")]


def never_evaluates(parameters: Parameters, variant: Variant) -> list[Warning_]:
    """That a workload has nothing to evaluate; of scripts and logs others say what is known."""
    if variant.evaluation is not None or variant.is_of_script or is_imported(parameters):
        return []
    return [Warning_(code="never-evaluates")]


def configuration_warnings(parameters: Parameters, at: ConfigurationCost) -> list[Warning_]:
    """What people are told of any figure about a configuration, in an estimate and in a plan."""
    found = [
        *([Warning_(code="other-kernels")] if at.other_kernels else ()),
        *_extrapolation_warnings(at),
        *_borrowed_warnings(at),
        *_world_warnings(at),
        *_core_warnings(parameters, at),
        *at.variant.doubts,
        *_sparse_data_warnings(at.variant),
        *_memory_warnings(parameters, at),
        *_unknown_parts(parameters, at.variant),
        *parameters.calibration.notes(at.probed_step_scatter()),
        *_transfer_warnings(parameters),
    ]
    if not is_imported(parameters):
        return found
    return [replace(w, code=IMPORT_MORE.get(w.code, w.code)) for w in found]


def _transfer_warnings(parameters: Parameters) -> list[Warning_]:
    measured = parameters.measured_on
    if measured is None:
        return []
    return [Warning_.of("transferred", measured=measured.name, device=parameters.device.name)]


def is_imported(parameters: Parameters) -> bool:
    """Whether the measurements were made elsewhere, so that nobody can probe the workload here."""
    return parameters.data == IMPORTED


def _extrapolation_warnings(at: ConfigurationCost) -> list[Warning_]:
    found = []
    for name, doublings in at.extrapolated():
        far = "far-" if doublings > FAR_DOUBLINGS else ""
        ends = at.variant.micro_step.ends_from_zero(f.KNOB_PREFIX + name)
        if ends is None:
            times = f"{2**doublings:.2g}"
            found.append(Warning_.of(far + "extrapolation", name=name, factor=times))
        else:
            low, high = (f"{value:g}" for value in ends)
            code = far + "extrapolation-from-zero"
            found.append(Warning_.of(code, name=name, low=low, high=high))
        found += _trend_warnings(at, name)
    return found


def _trend_warnings(at: ConfigurationCost, name: str) -> list[Warning_]:
    """Where a knob is asked beyond its range, and its measured values alone tell its power."""
    surface, axis = at.variant.micro_step, f.KNOB_PREFIX + name
    if axis not in surface.axes or surface.is_counted:
        return []
    left = surface.left_of_lines(at.variables)
    if left < DOUBTFUL_LEFT and dict(surface.outside(at.variables)).get(axis):
        return [Warning_.of("line-ends", name=name, left=format_percent(left, 0))]
    levels, sd = surface.trend(axis)
    if levels < LEVELS_OF_A_POWER:
        return [Warning_.of("few-levels", name=name, count=str(levels))]
    if sd > UNFORETOLD_SD:
        return [Warning_.of("levels-unforetold", name=name, sd=format_percent(sd, 0))]
    return []


def _world_warnings(at: ConfigurationCost) -> list[Warning_]:
    """Where devices average over links that were never measured, or none were averaged at all."""
    scaling, world = at.variant.scaling, world_of(at.config)
    if scaling is None or world == at.variant.world:
        return []
    if scaling.is_unseen(world):
        code = "unprobed-nodes" if world.nodes > 1 else "unprobed-node"
        return [Warning_.of(code, devices=world.label)]
    if world in scaling.probed:
        return []
    known = ", ".join(w.label for w in scaling.probed)
    return [Warning_.of("unprobed-world", devices=world.label, probed=known)]


def _core_warnings(parameters: Parameters, at: ConfigurationCost) -> list[Warning_]:
    """That more ranks than were measured on a CPU may have to share its cores."""
    scaling, world, device = at.variant.scaling, world_of(at.config), parameters.device
    if scaling is None or device.kind != "cpu" or not device.threads or world.nodes > 1:
        return []
    if world.devices <= max(w.devices for w in scaling.probed):
        return []
    ranks, threads = world.devices, device.threads
    cores = str(ranks * threads)
    return [Warning_.of("cores-of-ranks", ranks=str(ranks), threads=str(threads), cores=cores)]


def _borrowed_warnings(at: ConfigurationCost) -> list[Warning_]:
    """Where only variants were measured that differ in words alone."""
    axes = at.variant.micro_step.borrowed(at.variables)
    if not axes:
        return []
    names = ", ".join(axis.removeprefix(f.KNOB_PREFIX) for axis in axes)
    there = " or ".join(words(sizes) for sizes in at.variant.lenders)
    here = words(at.variant.categories)
    return [Warning_.of("borrowed", names=names, here=here, there=there)]


def words(sizes: Sizes) -> str:
    """As ``name=value name=value``."""
    return " ".join(f"{name}={value}" for name, value in sizes)


def _sparse_data_warnings(variant: Variant) -> list[Warning_]:
    found = []
    if variant.rounds == 1:
        found.append(Warning_(code="one-round"))
    elif (width := variant.run.quantile(1.0, 0.95) - 1.0) > TOLERATED:
        rounds = str(variant.rounds)
        found.append(Warning_.of("rounds-differ", rounds=rounds, width=format_half_width(width)))
    if len(variant.configurations) < 3:
        count = str(len(variant.configurations))
        found.append(Warning_.of("few-configurations", count=count))
    if variant.single_times:
        count, runs = str(variant.single_times), str(variant.trials)
        found.append(Warning_.of("fitted-one-time", count=count, runs=runs))
    return found


def _memory_warnings(parameters: Parameters, at: ConfigurationCost) -> list[Warning_]:
    needed = at.device_memory()
    if not parameters.device.memory_bytes:  # not known where measurements were made elsewhere
        return []
    if needed is None or needed.quantile(0.9) <= MEMORY_TIGHT * parameters.device.memory_bytes:
        return []
    share = format_percent(needed.quantile(0.9) / parameters.device.memory_bytes)
    return [Warning_.of("memory-tight", share=share)]


def _unknown_parts(parameters: Parameters, variant: Variant) -> list[Warning_]:
    """What logs of real runs do not tell apart from epochs; probes always measure a start-up."""
    if parameters.imports.median:
        return []
    parts = {"evaluation": variant.evaluation, "checkpoints": variant.save_seconds}
    names = ", ".join(["start-up", *(name for name, surface in parts.items() if surface is None)])
    return [Warning_.of("not-measured", parts=names)]
