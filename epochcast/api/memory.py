"""Whether a training fits on a device that is not here, how large it may be, what would help.

question_of   from text to a device, its allocator and a confidence
answers       following.py: each configuration; largest.py: the largest that fits
what-ifs      a dry run each, side by side
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from epochcast.api.following import MemoryQuestion, follow, kept_workers
from epochcast.api.largest import Search, largest_batch
from epochcast.devices.allocator_settings import from_environment, parse_settings
from epochcast.devices.cards import find_device
from epochcast.errors import EpochcastError, UsageError
from epochcast.profiler.process import Workers
from epochcast.profiler.protocol import WHAT_IFS
from epochcast.profiler.request import OVERRIDES, SweepRequest
from epochcast.profiler.target import target_of
from epochcast.records import Alternative, DeviceNeed, LargestValue, RunConfig, SizeValue


def device_needs(request: SweepRequest, question: MemoryQuestion) -> tuple[DeviceNeed, ...]:
    """What each configuration of a request needs on a device.

    Raises:
        UsageError: no such knob.
        WorkloadError: the workload cannot be built, or not traced.
    """
    with kept_workers() as workers:
        return tuple(map(question.need, follow(request, question.device, workers)))


# -- what would help ------------------------------------------------------------------------------


def alternatives(
    request: SweepRequest,
    question: MemoryQuestion,
    what_ifs: Sequence[tuple[str, Sequence[SizeValue]]],
) -> tuple[Alternative, ...]:
    """What is, and each what-if beside it, with the largest batch of each by interpolation.

    Args:
        request: of one configuration.
        question: of a device.
        what_ifs: a name and its values; see ``changed``.

    Raises:
        UsageError: nothing is called that.
        WorkloadError: what is cannot be built.
    """
    with kept_workers() as workers:
        own = request.batch_sizes or [
            follow(request, question.device, workers)[0].config.batch_size
        ]
        base = replace(request, batch_sizes=(next(iter(own)),))
        found = [_alternative(base, question, workers, ())]
        assert found[0].need is not None, "what is has an answer, or there was an error"
        config = found[0].need.config
        for name, value in [(name, value) for name, values in what_ifs for value in values]:
            changes = ((name, str(value)),)
            if _is_so(config, name, value):
                found.append(replace(found[0], changes=changes))
                continue
            try:
                other = changed(base, config, name, value)
                found.append(_alternative(other, question, workers, changes))
            except EpochcastError as error:
                found.append(Alternative(changes=changes, problem=str(error)))
    return tuple(found)


def _alternative(
    request: SweepRequest,
    question: MemoryQuestion,
    workers: Workers,
    changes: tuple[tuple[str, str], ...],
) -> Alternative:
    search = Search(request, question, workers)
    need, batch_size = search.estimate()
    return Alternative(changes=changes, need=need, largest_batch=batch_size)


def changed(request: SweepRequest, config: RunConfig, name: str, value: SizeValue) -> SweepRequest:
    """The request with one thing changed.

    Args:
        request: of one configuration.
        config: that it is.
        name: an override, a what-if, ``batch_size`` or a knob. Another accumulation keeps the
            global batch, so the micro-batch is another one, too.
        value: of it.

    Raises:
        UsageError: the global batch cannot be divided so, or the value is no whole number.
    """
    if name == "batch_size":
        return replace(request, batch_sizes=(_whole(name, value),))
    if name in WHAT_IFS:
        return replace(request, what_if={**request.what_if, name: value})
    if name not in OVERRIDES:
        return replace(request, sizes={**request.sizes, name: (value,)})
    other = replace(request, overrides={**request.overrides, name: value})
    if name != "accumulation":
        return other
    batch = config.batch_size * config.accumulation
    parts = _whole(name, value)
    if batch % parts:
        raise UsageError(f"a global batch of {batch} cannot be divided into {value} micro-batches")
    return replace(other, batch_sizes=(batch // parts,))


def _is_so(config: RunConfig, name: str, value: SizeValue) -> bool:
    """Whether a change would be none."""
    own = {**dict(config.sizes), "accumulation": config.accumulation, "precision": config.precision}
    return name in own and type(value) is type(own[name]) and value == own[name]


def _whole(name: str, value: SizeValue) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"{name} is a whole number of at least 1, but got {value!r}")
    return value


# -- the library's own ----------------------------------------------------------------------------


def dry_run_on(
    workload: str | Callable[..., Any],
    device: str,
    batch_size: int | None = None,
    *,
    confidence: float = 0.95,
    used_bytes: int = 0,
    allocator: str | None = None,
    overrides: Mapping[str, SizeValue] | None = None,
    data: str | None = None,
    sizes: Mapping[str, SizeValue] | None = None,
) -> DeviceNeed:
    """What a training step needs on a device that need not be here.

    Args:
        workload: as for ``probe``.
        device: a card of the catalogue, e.g. ``"a100-40gb"``, or its memory, ``"24GiB"``.
        batch_size: the workload's own if not given.
        confidence: with which it shall fit.
        used_bytes: of the device, by other processes.
        allocator: as ``PYTORCH_CUDA_ALLOC_CONF``; that of this process if not given.
        overrides: of the workload, as for ``dry_run``.
        data: folder of local data for workloads that take it.
        sizes: values of model-size knobs; the others keep their defaults.

    Raises:
        UsageError: no such workload, knob, device or setting.
        WorkloadError: the workload cannot be built, or not traced without values.
    """
    request = _request(workload, batch_size, overrides, data, sizes)
    return device_needs(request, question_of(device, confidence, used_bytes, allocator))[0]


def fit_batch(
    workload: str | Callable[..., Any],
    device: str,
    *,
    confidence: float = 0.95,
    used_bytes: int = 0,
    allocator: str | None = None,
    overrides: Mapping[str, SizeValue] | None = None,
    data: str | None = None,
    sizes: Mapping[str, SizeValue] | None = None,
) -> LargestValue:
    """The largest micro-batch that fits on a device.

    Args:
        workload: as for ``probe``.
        device: as for ``dry_run_on``, like the next three.
        confidence: with which it shall fit.
        used_bytes: of the device, by other processes.
        allocator: settings of torch's allocator, as in ``PYTORCH_CUDA_ALLOC_CONF``.
        overrides: of the workload, as for ``dry_run``.
        data: folder of local data for workloads that take it.
        sizes: values of model-size knobs; the others keep their defaults.

    Raises:
        UsageError: no such workload, knob, device or setting.
        WorkloadError: the workload cannot be built, or not traced without values.
    """
    request = _request(workload, None, overrides, data, sizes)
    return largest_batch(request, question_of(device, confidence, used_bytes, allocator))


def question_of(
    device: str, confidence: float, used_bytes: int, allocator: str | None
) -> MemoryQuestion:
    """From text to a question.

    Args:
        device: a card, or a size.
        confidence: with which it shall fit.
        used_bytes: by other processes.
        allocator: settings; None takes those of this process.

    Raises:
        UsageError: no such device or setting.
    """
    given = from_environment(os.environ) if allocator is None else parse_settings(allocator)
    return MemoryQuestion(
        device=find_device(device),
        confidence=confidence,
        used_bytes=used_bytes,
        settings=given,
        eager=os.environ.get("CUDA_MODULE_LOADING") == "EAGER",
    )


def _request(
    workload: str | Callable[..., Any],
    batch_size: int | None,
    overrides: Mapping[str, SizeValue] | None,
    data: str | None,
    sizes: Mapping[str, SizeValue] | None,
) -> SweepRequest:
    return SweepRequest(
        target=target_of(workload),
        batch_sizes=None if batch_size is None else (batch_size,),
        sizes={name: (value,) for name, value in (sizes or {}).items()},
        overrides=dict(overrides or {}),
        device="cpu",
        data=data,
    )
