"""A run that was timed elsewhere: from what its log knows to what a trial of a probe knows.

    epochs      12.0   1.00   1.02   0.99   …      seconds, as logged
                  │      └──────┴──────┴─────▶ step_seconds      each divided by N/B
                  └─ beyond their median ────▶ warmup_seconds    start of the run, paid once

An epoch of N samples at batch size B is worth N/B full batches: the work of the last, smaller
batch is r/B of a full one, r = N mod B. Where the time of a step does not depend on its batch at
all, that overstates a step by less than B/N. With ``drop_last`` it is ⌊N/B⌋ exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from epochcast.records.configuration import Device, DeviceKind, RunConfig, Sizes, make_sizes
from epochcast.records.validation import plain, require, shown, whole

UNKNOWN = "unknown"  # the version of torch, where nobody wrote it down
ONE_TIME_ONLY = "one time is known; a slow start that is in it cannot be told apart"

_SAID: dict[str, DeviceKind] = {"cpu": "cpu", "cuda": "cuda", "gpu": "cuda", "mps": "mps"}
_MAKERS: dict[DeviceKind, str] = {
    "cpu": r"xeon|epyc|ryzen|threadripper|opteron|intel|graviton\d*|i[3579]",
    "cuda": r"nvidia|geforce|quadro|tesla|titan|[rg]tx|radeon|instinct|"
    r"[rg]tx\d+|a\d{2,4}g?|[bh]\d{3}|g[bh]\d{3}|k80|l4|l40s?|p\d{1,3}|t4|v100|mi\d{2,3}x?",
    "mps": r"apple",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The fields of a measurement that say how long steps took."""

    warmup_seconds: tuple[float, ...]
    step_seconds: tuple[float, ...]
    steps_per_sample: int
    message: str = ""


def steps_of_epochs(
    epoch_seconds: Sequence[float], samples: int, config: RunConfig, *, includes_first: bool = True
) -> Steps:
    """Epochs as steps: the first one's surcharge apart, each of the others as one sample.

    Args:
        epoch_seconds: in the order run, training alone.
        samples: per epoch.
        config: that ran.
        includes_first: whether the series begins with the first epoch of its run, which is not a
            steady one: in public logs it took 12 times as long.

    Raises:
        ValueError: there are no times, one is not positive, or no batch fits.
    """
    _require_times("epoch_seconds", epoch_seconds)
    steps = _steps_per_epoch(samples, config)
    start, steady = _split(epoch_seconds, includes_first)
    usual = median(steady)
    late = start is not None and start > usual
    return Steps(
        warmup_seconds=((start or 0.0) - usual + usual / steps,) if late else (),
        step_seconds=tuple(seconds / steps for seconds in steady),
        steps_per_sample=math.ceil(steps),
        message=_note(epoch_seconds, includes_first),
    )


def steps_of_steps(step_seconds: Sequence[float], *, includes_first: bool = True) -> Steps:
    """Single steps: the first one is warm-up, the others are samples.

    Raises:
        ValueError: there are no times, or one is not positive.
    """
    _require_times("step_seconds", step_seconds)
    start, steady = _split(step_seconds, includes_first)
    return Steps(
        warmup_seconds=() if start is None else (start,),
        step_seconds=tuple(steady),
        steps_per_sample=1,
        message=_note(step_seconds, includes_first),
    )


def knobs(sizes: Mapping[str, Any]) -> Sizes:
    """Model-size knobs in their canonical form.

    Raises:
        ValueError: one is neither number nor text nor a truth value.
    """
    found = {str(name): plain(value) for name, value in sizes.items()}
    for name, value in found.items():
        is_value = isinstance(value, int | float | str)  # a bool is an int
        require(is_value, f"a knob must be a number or a text, but got {name}={shown(value)}")
    return make_sizes(found)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a ``RunConfig`` beside batch size and knobs.

    Raises:
        ValueError: a number of things is not whole.
    """
    counts = ("accumulation", "workers", "world_size")
    return {k: whole(k, v) if k in counts else plain(v) for k, v in config.items()}


def _require_times(name: str, seconds: Sequence[float]) -> None:
    require(len(seconds) > 0, f"{name} must not be empty")
    for value in seconds:
        require(math.isfinite(value) and value > 0, f"{name} must be positive, but got {value}")


def _steps_per_epoch(samples: int, config: RunConfig) -> float:
    """How many full batches' worth of work an epoch is."""
    require(samples > 0, f"samples must be positive, but got {samples}")
    each = math.ceil(samples / config.world_size)  # as a distributed sampler pads
    if not config.drop_last:
        return each / config.batch_size
    full = each // config.batch_size
    require(
        full > 0,
        f"with drop_last, a batch size of {config.batch_size} leaves no batch in {samples} samples",
    )
    return float(full)


def _split(seconds: Sequence[float], includes_first: bool) -> tuple[float | None, Sequence[float]]:
    """The time of the start, if it is one of several; and the steady ones."""
    if includes_first and len(seconds) > 1:
        return seconds[0], seconds[1:]
    return None, seconds


def _note(seconds: Sequence[float], includes_first: bool) -> str:
    return ONE_TIME_ONLY if includes_first and len(seconds) == 1 else ""


def device_named(name: str, kind: DeviceKind | None = None) -> Device:
    """A device of which only the name is known; its memory is 0, which means unknown.

    Args:
        name: as its maker or its owner calls it, e.g. ``"NVIDIA A100"``.
        kind: guessed from the name if not given.

    Raises:
        ValueError: the name does not say of which kind the device is.
    """
    kind = kind or _kind_of(name)
    return Device(kind=kind, name=name, memory_bytes=0, torch=UNKNOWN, threads=0)


def _kind_of(name: str) -> DeviceKind:
    words = re.findall(r"[a-z0-9]+", name.lower())
    said = {_SAID[word] for word in words if word in _SAID}
    made = {k for k, p in _MAKERS.items() if any(re.fullmatch(p, word) for word in words)}
    for kinds in (said, made):
        if len(kinds) == 1:
            return kinds.pop()
    raise ValueError(f"the kind of device is not clear from {name!r}; give it: cpu, cuda or mps")
