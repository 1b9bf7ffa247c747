"""Settings of torch's CUDA caching allocator, from the text of an environment variable.

    PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True,roundup_power2_divisions:[256:1,>:4]"

The names, defaults and limits are those of torch 2.13 (c10/core/AllocatorConfig.h and .cpp,
c10/cuda/CUDAAllocatorConfig.h). Settings that change neither sizes nor their order are known and
have no effect here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from epochcast.errors import UsageError

MIB = 2**20
VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
INTERVALS = 16  # of sizes from 1 MiB on, each twice the one before (kRoundUpPowerOfTwoIntervals)
LEAST_SPLIT_MIB = 20  # max_split_size_mb must be at least this (kLargeBuffer)
WITHOUT_EFFECT = (
    "graph_capture_record_stream_reuse",
    "pinned_max_cached_size_mb",
    "pinned_max_round_threshold_mb",
    "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb",
    "pinned_use_background_threads",
    "pinned_use_cuda_host_register",
    "pinned_use_hip_host_register",
    "release_lock_on_cudamalloc",
    "release_lock_on_hipmalloc",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorSettings:
    """What users may set of the allocator; by default nothing.

    Attributes:
        max_split_size: blocks of this size and above are never split; None splits all.
        max_non_split_rounding: such a block may be larger than asked for by less than this.
        garbage_collection_threshold: share of the allowed memory above which old cached blocks
            are released; 0 never does.
        expandable_segments: segments grow, and are not split into fixed ones.
        large_segment_size: of a segment for requests between 1 and 10 MiB.
        memory_fraction: share of the device that may be used.
        divisions: steps between two powers of two to which sizes are rounded up, for sizes from
            1, 2, 4 … MiB on; 0 rounds to 512 bytes, and so does an empty tuple, all sizes.
    """

    max_split_size: int | None = None
    max_non_split_rounding: int = 20 * MIB
    garbage_collection_threshold: float = 0.0
    expandable_segments: bool = False
    large_segment_size: int = 20 * MIB
    memory_fraction: float = 1.0
    divisions: tuple[int, ...] = ()


def from_environment(environment: Mapping[str, str]) -> AllocatorSettings:
    """Of a process: torch reads the first of ``VARIABLES`` that is set.

    Raises:
        UsageError: torch would refuse the text.
    """
    text = next((environment[name] for name in VARIABLES if environment.get(name)), "")
    return parse_settings(text)


def parse_settings(text: str) -> AllocatorSettings:
    """``"max_split_size_mb:128,expandable_segments:True"``, as torch reads it.

    Raises:
        UsageError: an unknown setting, or a value that torch refuses.
    """
    settings = AllocatorSettings()
    for part in filter(None, (p.strip() for p in re.split(r",(?![^\[]*\])", text))):
        name, colon, value = (piece.strip() for piece in part.partition(":"))
        if not colon or not value:
            raise UsageError(f"an allocator setting is NAME:VALUE, but got {part!r}")
        if name in WITHOUT_EFFECT:
            continue
        if name not in _READERS:
            known = ", ".join(sorted(_READERS))
            raise UsageError(f"allocator settings are {known}, but got {name!r}")
        settings = replace(settings, **_READERS[name](name, value))
    return settings


def _refuse(name: str, value: str, allowed: str) -> UsageError:
    return UsageError(f"the allocator's {name} must be {allowed}, but got {value!r}")


def _megabytes(field: str, least: int) -> Callable[[str, str], dict[str, Any]]:
    def read(name: str, value: str) -> dict[str, Any]:
        if not value.isdigit() or int(value) < least:
            raise _refuse(name, value, f"a whole number of MiB from {least} on")
        return {field: int(value) * MIB}

    return read


def _share(field: str) -> Callable[[str, str], dict[str, Any]]:
    def read(name: str, value: str) -> dict[str, Any]:
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not 0.0 < share <= 1.0:
            raise _refuse(name, value, "a number above 0 and at most 1")
        return {field: share}

    return read


def _flag(name: str, value: str) -> dict[str, Any]:
    if value not in ("True", "False"):
        raise _refuse(name, value, "True or False")
    return {"expandable_segments": value == "True"}


def _backend(name: str, value: str) -> dict[str, Any]:
    if value != "native":
        raise _refuse(name, value, "native: cudaMallocAsync is the driver's, with rules of its own")
    return {}


def _divisions(name: str, value: str) -> dict[str, Any]:
    """One number for all sizes, or ``[256:1,512:2,>:4]`` by MiB.

    c10/core/AllocatorConfig.cpp, ``parseRoundUpPower2Divisions``: the first key holds for all
    smaller sizes, too, and ``>`` for all larger ones than the last.
    """
    if not value.startswith("["):
        return {"divisions": (_power(name, value),) * INTERVALS}
    found = [0] * INTERVALS
    last = -1
    for entry in filter(None, value.strip("[]").split(",")):
        key, _, number = (piece.strip() for piece in entry.partition(":"))
        steps = _power(name, number)
        if key == ">":
            found[last + 1 :] = [steps] * (INTERVALS - last - 1)
            continue
        position = min(_power(name, key, least=1).bit_length() - 1, INTERVALS - 1)
        first = 0 if last < 0 else position
        found[first : position + 1] = [steps] * (position + 1 - first)
        last = position
    return {"divisions": tuple(found)}


def _power(name: str, value: str, least: int = 0) -> int:
    number = int(value) if value.isdigit() else -1
    if number < least or number & (number - 1):
        raise _refuse(name, value, f"powers of two{'' if least else ', or 0'}")
    return number


_READERS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "backend": _backend,
    "expandable_segments": _flag,
    "garbage_collection_threshold": _share("garbage_collection_threshold"),
    "large_segment_size_mb": _megabytes("large_segment_size", LEAST_SPLIT_MIB),
    "max_non_split_rounding_mb": _megabytes("max_non_split_rounding", LEAST_SPLIT_MIB),
    "max_split_size_mb": _megabytes("max_split_size", LEAST_SPLIT_MIB),
    "per_process_memory_fraction": _share("memory_fraction"),
    "roundup_power2_divisions": _divisions,
}
