"""What a DataLoader was made of, so that loaders of other batch sizes can be made like it.

sampler         random or in order: ``shuffle``; any other is kept
batch sampler   of torch's own kind: one of each batch size; any other makes the batches itself
no batch size   the data set makes the batches itself
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from epochcast.errors import WorkloadError

_OF_WORKERS = (
    "num_workers",
    "worker_init_fn",
    "prefetch_factor",
    "persistent_workers",
    "timeout",
    "multiprocessing_context",
)


def made_of(loader: object, name: str, batch_size: int | None = None) -> dict[str, Any]:
    """The attributes of a Workload that a training loader was made of.

    Args:
        loader: its batches train.
        name: of what returned it, for messages.
        batch_size: of batches that the data makes, where the loader does not know.

    Raises:
        WorkloadError: it is none of torch's, or nobody knows how large its batches are.
    """
    if not isinstance(loader, DataLoader):
        raise WorkloadError(
            f"{name} must be one torch DataLoader, but got {type(loader).__name__}: write the "
            "Workload by hand, with what one batch needs as train_data="
        )
    options = _options(loader)
    found: dict[str, Any] = {"train_data": loader.dataset, "collate": loader.collate_fn}
    batches: Any = loader.batch_sampler
    sampler: Any
    if loader.batch_size is not None:
        sampler = loader.sampler
        found |= {"batch_size": loader.batch_size, "drop_last": bool(loader.drop_last)}
    elif type(batches) is BatchSampler:
        sampler = batches.sampler
        found |= {"batch_size": batches.batch_size, "drop_last": batches.drop_last}
    else:
        size = batch_size or getattr(batches, "batch_size", None)
        if not isinstance(size, int):
            raise WorkloadError(
                f"{name} makes its batches itself and does not say how large they are: write the "
                "Workload by hand, with batch_from_data=True and batch_size="
            )
        found |= {"batch_size": size, "batch_from_data": True}
        sampler = loader.sampler if batches is None else None
        options |= {} if batches is None else {"batch_sampler": batches}
    return found | _order(sampler) | {"loader_options": {**options, **_kept(sampler)}}


def evaluation_of(loader: object, name: str) -> dict[str, Any]:
    """Likewise of the loader of an evaluation.

    Args:
        loader: its batches are evaluated.
        name: of what returned it, for messages.

    Raises:
        WorkloadError: it is none of torch's, or makes its batches by itself.
    """
    found = made_of(loader, name)
    if found.get("batch_from_data"):
        raise WorkloadError(
            f"{name} makes its batches itself: write the Workload by hand, with "
            "batch_from_data=True"
        )
    return {"eval_data": found["train_data"], "eval_batch_size": found["batch_size"]}


def _options(loader: DataLoader[Any]) -> dict[str, Any]:
    names = ("pin_memory", *(_OF_WORKERS if loader.num_workers else ()))
    found = {name: getattr(loader, name) for name in names}
    return {name: value for name, value in found.items() if value not in (None, False, 0)}


def _order(sampler: object) -> dict[str, Any]:
    return {"shuffle": False} if isinstance(sampler, SequentialSampler) else {}


def _kept(sampler: object) -> dict[str, Any]:
    """The sampler, unless a loader that shuffles, or does not, makes the same one."""
    if sampler is None or isinstance(sampler, SequentialSampler) or _is_endless(sampler):
        return {}
    shuffles = type(sampler) is RandomSampler and not sampler.replacement
    if shuffles and sampler.num_samples == len(sampler.data_source):  # type: ignore[attr-defined]
        return {}
    return {"sampler": sampler}


def _is_endless(sampler: object) -> bool:
    """What torch's loader has of data that can only be iterated."""
    return isinstance(sampler, torch.utils.data.dataloader._InfiniteConstantSampler)


def overridden(thing: object, name: str, *packages: str) -> bool:
    """Whether a method is another than that of the framework.

    Args:
        thing: of a class that derives from one of the framework's.
        name: of the method.
        packages: the framework's.
    """
    method = getattr(type(thing), name, None)
    where = getattr(method, "__module__", "") or ""
    return method is not None and where.split(".")[0] not in packages
