"""A device that does not exist but behaves like one: a roofline for every operator of a network.

A convolutional network of ``depth`` blocks and ``width`` channels on 16 × 16 images. Every operator
takes what the slowest of three things takes, and the host must hand out every operator in time:

    t_op   = max( t_min,  (FLOPs + F½) / F∞,  bytes / bw(working set) )
    t_step = smooth max( Σ t_op,  operators · t_dispatch ) + per-sample cost of the loader

* roofline: Williams, Waterman & Patterson 2009, "Roofline", CACM 52(4); F and bw are those of an
  A100 (NVIDIA A100 data sheet: 19.5 TFLOP/s fp32, 1,555 GB/s, 40 MB L2).
* F∞ and F½: small operators do not fill the device; half of its speed is reached at F½ FLOPs
  (Hockney & Jesshope 1981, "Parallel Computers", section 1.3.2).
* bw: what fits into the last-level cache is moved 1.5 times as fast, a soft step in between.
* t_dispatch: about 5 µs of host time an operator, the launch-bound floor.
* kink: from 384 channels on another algorithm is chosen, which is 5 % faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np

from epochcast.records import Device, Footprint, Measurement, RunConfig, make_sizes

DEPTHS = (2, 4, 8, 16)
WIDTHS = (16, 32, 64, 128, 256, 384, 512)
BATCH_SIZES = (16, 32, 64, 128, 256)
GRID = tuple((d, w, b) for d in DEPTHS for w in WIDTHS for b in BATCH_SIZES)  # 140 of them
GPU = Device(kind="cuda", name="Simulated", memory_bytes=80 * 2**30, torch="2.13.0", threads=8)
SAMPLES = 50_000
PIXELS = 16 * 16

FLOPS_PER_SECOND, BYTES_PER_SECOND, CACHE_BYTES = 19.5e12, 1.555e12, 40e6
HALF_SPEED_FLOPS = 1e8
SHORTEST, DISPATCH = 3e-6, 5e-6
CACHE_SPEEDUP, FASTER_ALGORITHM, FROM_CHANNELS = 1.5, 1.05, 384
LOADER_PER_SAMPLE = 1.5e-6


@dataclass(frozen=True)
class Operator:
    """FLOPs (0 where there is no matrix work) and bytes moved."""

    flops: float
    moved: float


def operators(depth: int, width: int, batch: int) -> list[Operator]:
    """Forward and backward of the network: each block a convolution, a norm, a ReLU."""
    found, channels = [], 3
    for _ in range(depth):
        rows, inner = batch * PIXELS, 9 * channels
        flops = 2.0 * rows * inner * width
        into, out = 4.0 * rows * channels, 4.0 * rows * width
        weights = 4.0 * inner * width
        found += [Operator(flops, into + out + weights)] * 3  # forward, by input, by weight
        found += [Operator(0, 2 * out)] * 6  # norm and ReLU, forward and backward
        channels = width
    found += [Operator(6.0 * batch * width * 10, 4.0 * batch * width)] * 3  # pooling and head
    return found


def seconds_of(operator: Operator, channels: int) -> float:
    """One operator on the idle device."""
    hit = 1 / (1 + (operator.moved / CACHE_BYTES) ** 2)
    bandwidth = BYTES_PER_SECOND * (1 + (CACHE_SPEEDUP - 1) * hit)
    speed = FLOPS_PER_SECOND * (FASTER_ALGORITHM if channels >= FROM_CHANNELS else 1.0)
    arithmetic = (operator.flops + HALF_SPEED_FLOPS) / speed if operator.flops else 0.0
    return max(SHORTEST, arithmetic, operator.moved / bandwidth)


def micro_seconds(depth: int, width: int, batch: int) -> float:
    """The truth of one micro-step, the update apart."""
    found = operators(depth, width, batch)
    device = sum(seconds_of(o, width) for o in found)
    host = DISPATCH * 2 * len(found)
    return (device**4 + host**4) ** 0.25 + LOADER_PER_SAMPLE * batch


def update_seconds(depth: int, width: int) -> float:
    """The truth of one optimizer update (a fused Adam)."""
    return 30e-6 + 7 * 4 * parameters(depth, width) / BYTES_PER_SECOND


def parameters(depth: int, width: int) -> int:
    """Weights and norms of all blocks, and the head."""
    return 27 * width + (depth - 1) * 9 * width * width + 2 * depth * width + 10 * width + 10


def footprint(depth: int, width: int, batch: int) -> Footprint:
    """What a dry run would count."""
    found = operators(depth, width, batch)
    flops = int(sum(o.flops for o in found))
    static = 12 * parameters(depth, width)
    activations = 4 * batch * PIXELS * (3 + 3 * depth * width)
    return Footprint(
        flops=flops,
        flops_by_class=(("convolution", flops),),
        bytes_moved=int(sum(o.moved for o in found)),
        operators=2 * len(found),
        update_operators=12,
        parameters=parameters(depth, width),
        trainable_parameters=parameters(depth, width),
        parameter_bytes=4 * parameters(depth, width),
        optimizer_bytes=8 * parameters(depth, width),
        gradient_bytes=4 * parameters(depth, width),
        activation_bytes=activations,
        static_bytes=static,
        step_peak_bytes=static + activations + 4 * parameters(depth, width),
        update_peak_bytes=static + 4 * parameters(depth, width),
        batch_elements=batch * (3 * PIXELS + 1),
    )


def measure(
    depth: int, width: int, batch: int, *, round_: int = 0, factor: float = 1.0, trial: int = 0
) -> Measurement:
    """One trial of a configuration; ``factor`` slows all of it down alike."""
    update = update_seconds(depth, width) * factor
    step = micro_seconds(depth, width, batch) * factor + update
    return Measurement(
        workload="simulated",
        config=RunConfig(batch_size=batch, sizes=make_sizes({"depth": depth, "width": width})),
        device=GPU,
        round=round_,
        trial=trial,
        samples=SAMPLES,
        data="synthetic",
        import_seconds=3.0,
        build_seconds=0.2,
        step_seconds=(step,) * 50,
        update_seconds=(update,) * 50,
        data_wait_seconds=(LOADER_PER_SAMPLE * batch * factor,) * 50,
        footprint=footprint(depth, width, batch),
        probe_seconds=5.0,
        created_at=f"2026-01-01T00:00:{round_:02d}.{trial:06d}+00:00",
    )


def sweep(
    configurations: list[tuple[int, int, int]],
    *,
    rounds: int = 3,
    run_sd: float = 0.0,
    own_sd: float = 0.005,
    seed: int = 0,
) -> list[Measurement]:
    """Every configuration in every round, with noise of known size on the log scale."""
    random = np.random.default_rng(seed)
    found = []
    for round_ in range(rounds):
        shared = random.normal(0, run_sd) if run_sd else 0.0
        for trial, (d, w, b) in enumerate(configurations):
            factor = exp(shared + random.normal(0, own_sd))
            found.append(measure(d, w, b, round_=round_, factor=factor, trial=trial))
    return found
