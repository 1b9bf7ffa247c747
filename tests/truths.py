"""Measurements of a device that does not exist, whose truth is therefore known.

    compute(B, w) = launch + B·(784w + 10w)·6·c_flop + traffic      one micro-step without update
    update(w)     = u₀ + u₁·parameters(w)

multiplied by exp(u_r + ε), one u for each round and one ε for each trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from epochcast.records import (
    Device,
    Footprint,
    Measurement,
    MemoryPeaks,
    RunConfig,
    make_sizes,
)

DEVICE = Device(kind="cpu", name="Imaginary", memory_bytes=2**34, torch="2.13.0", threads=2)
SAMPLES, EVAL_SAMPLES = 60_000, 10_000
STEPS = 60
LAUNCH, PER_FLOP, PER_BYTE, PER_SAMPLE = 300e-6, 2e-11, 5e-11, 4e-6
UPDATE, UPDATE_PER_PARAMETER = 80e-6, 1.5e-9


def parameters(width: int) -> int:
    """Of a perceptron 784 → width → 10, biases included."""
    return 784 * width + width + 10 * width + 10


def footprint(batch_size: int, width: int) -> Footprint:
    """Counts of a training step of that perceptron; 6 FLOPs per weight and sample."""
    weights = 784 * width + 10 * width
    static = 4 * 3 * parameters(width)
    return Footprint(
        flops=6 * batch_size * weights,
        bytes_moved=4 * (3 * weights + 5 * batch_size * (784 + width + 10)),
        operators=20,
        update_operators=12,
        parameters=parameters(width),
        trainable_parameters=parameters(width),
        static_bytes=static,
        step_peak_bytes=static + 4 * batch_size * (784 + 3 * width + 20),
        update_peak_bytes=static + 8 * parameters(width),
    )


def compute_seconds(batch_size: float, width: int) -> float:
    """The truth of a micro-step without update."""
    weights = 784 * width + 10 * width
    moved = 4 * (3 * weights + 5 * batch_size * (784 + width + 10))
    work = PER_FLOP * 6 * batch_size * weights + PER_BYTE * moved
    return LAUNCH + work + PER_SAMPLE * batch_size


def update_seconds(width: int) -> float:
    """The truth of one optimizer update."""
    return UPDATE + UPDATE_PER_PARAMETER * parameters(width)


def measure(
    batch_size: int,
    width: int,
    *,
    round_: int = 0,
    factor: float = 1.0,
    trial: int = 0,
    **changes: object,
) -> Measurement:
    """One trial; ``factor`` slows everything down alike."""
    compute, update = compute_seconds(batch_size, width) * factor, update_seconds(width) * factor
    counted = footprint(batch_size, width)
    fields: dict[str, object] = {
        "workload": "imaginary",
        "source": "",  # as of measurements that come with no code
        "config": RunConfig(batch_size=batch_size, sizes=make_sizes({"depth": 1, "width": width})),
        "device": DEVICE,
        "round": round_,
        "trial": trial,
        "samples": SAMPLES,
        "eval_samples": EVAL_SAMPLES,
        "data": "synthetic",
        "import_seconds": 2.0 * factor,
        "build_seconds": 0.1 * factor,
        "warmup_seconds": (0.5 * factor, compute + update),
        "step_seconds": (compute + update,) * STEPS,
        "data_wait_seconds": (0.0001 * factor,) * STEPS,
        "update_seconds": (update,) * STEPS,
        "loader_restart_seconds": (0.0101 * factor,) * 3,
        "eval_batch_seconds": (compute / 3,) * 5,
        "eval_restart_seconds": (0.02 * factor,),
        "save_seconds": (0.05 * factor,) * 3,
        "save_bytes": counted.static_bytes,
        "probe_seconds": 3.0,
        "memory": MemoryPeaks(device_bytes=300_000_000 + counted.peak_bytes),
        "footprint": counted,
        "created_at": f"2026-01-01T00:00:{round_:02d}.{trial:06d}+00:00",
    }
    return Measurement(**{**fields, **changes})  # type: ignore[arg-type]


def sweep(
    batch_sizes: Sequence[int] = (32, 64, 128, 256),
    widths: Sequence[int] = (256, 512, 1024),
    *,
    rounds: int = 3,
    round_sd: float = 0.0,
    trial_sd: float = 0.0,
    seed: int = 0,
) -> list[Measurement]:
    """Every configuration in every round, with noise of known size."""
    random = np.random.default_rng(seed)
    found = []
    for round_ in range(rounds):
        shared = random.normal(0, round_sd) if round_sd else 0.0
        configs = [(b, w) for w in widths for b in batch_sizes]
        for trial, (b, w) in enumerate(configs):
            own = random.normal(0, trial_sd) if trial_sd else 0.0
            factor = float(np.exp(shared + own))
            found.append(measure(b, w, round_=round_, factor=factor, trial=trial))
    return found


def true_seconds(epochs: int) -> float:
    """Seconds that the imaginary device takes for MNIST, batch size 128, width 1024."""
    compute, update = compute_seconds(128, 1024), update_seconds(1024)
    partial = compute_seconds(60_000 % 128, 1024)
    epoch = 468 * compute + 469 * update + partial + 0.01
    evaluation = math.ceil(10_000 / 128) * compute / 3 + 0.02
    return 2.1 + 0.5 + epochs * (epoch + evaluation + 0.05)
