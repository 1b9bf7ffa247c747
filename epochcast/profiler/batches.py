"""Batches: where their tensors are, how they reach a device, where a pass over them ends, and which
stand for an epoch.

A batch is a tensor, or holds some: in tuples, lists and mappings, in the fields of a dataclass, in
the attributes of an object that can be moved ``to`` a device, as those of other libraries can.

Where batches differ in size (padded text, images of many sizes), ``draw_batches`` finds two that
stand for an epoch:

    elements of each batch drawn     ▂▅▃▆▄▃▇▄▅ …      padding included, for it is computed too
    typical                          the one nearest to their mean: what a step costs
    largest                          what the memory must hold
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy, deepcopy
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain, cycle, islice
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, default_collate

from epochcast.errors import WorkloadError

DRAWN = 32  # batches whose sizes are compared; their mean is then known to a fifth of its scatter
ALIKE = 64  # samples in batches of one size, after which all are taken to be of that size


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch."""
    if isinstance(batch, Tensor):
        yield batch
        return
    if isinstance(batch, tuple | list):
        parts: Any = batch
    elif isinstance(batch, Mapping):
        parts = batch.values()
    else:
        parts = _attributes(batch).values()
    yield from chain.from_iterable(map(tensors_in, parts))


def elements(batch: Any) -> int:
    """Elements of all tensors of a batch, padding included."""
    return sum(tensor.numel() for tensor in tensors_in(batch))


def mapped(
    batch: Any, function: Callable[[Any], Any], stops: Callable[[Any], bool] | None = None
) -> Any:
    """A batch like this one, of which everything that holds tensors is a copy.

    Args:
        batch: may hold anything else too, which stays as it is.
        function: makes what takes the place of a tensor.
        stops: whether the function is given a part as it is; by default tensors alone.
    """

    def inner(part: Any) -> Any:
        return mapped(part, function, stops)

    if isinstance(batch, Tensor) or (stops is not None and stops(batch)):
        return function(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(inner, batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map(inner, batch))
    if isinstance(batch, Mapping):
        made = {key: inner(value) for key, value in batch.items()}
        if type(batch) is dict or not isinstance(batch, MutableMapping):
            return made
        of_its_kind = copy(batch)
        of_its_kind.update(made)
        return of_its_kind
    attributes = _attributes(batch)
    alike = copy(batch) if attributes else batch
    for name, value in attributes.items():
        object.__setattr__(alike, name, inner(value))  # frozen dataclasses, too
    return alike


def copied(batch: Any) -> Any:
    """The same in memory of its own; tensors that share a storage share one in the copy, too."""
    known: dict[int, Any] = {}
    return mapped(batch, lambda tensor: deepcopy(tensor.detach(), known))


def _attributes(batch: Any) -> dict[str, Any]:
    """What an object holds that may hold tensors; of most things nothing."""
    if is_dataclass(batch) and not isinstance(batch, type):
        return {f.name: getattr(batch, f.name) for f in fields(batch) if hasattr(batch, f.name)}
    return getattr(batch, "__dict__", {}) if hasattr(type(batch), "to") else {}


def move(batch: Any, device: torch.device, non_blocking: bool = False) -> Any:
    """A batch with every tensor on the device.

    Args:
        batch: may hold anything else too, which stays as it is.
        device: where the tensors go.
        non_blocking: do not wait for the copies; for batches in pinned memory.
    """

    def to_device(part: Any) -> Any:
        if not non_blocking:
            return part.to(device)
        try:
            return part.to(device, non_blocking=True)
        except TypeError:  # an object of the user's, whose method takes a device alone
            return part.to(device)

    return mapped(batch, to_device, stops=lambda part: hasattr(type(part), "to"))


# -- batches of one pass over the data -------------------------------------------------------------


class Passes:
    """A loader that ends after an epoch's batches, whether its data has an end or not.

    Args:
        loader: makes the batches.
        samples: of a pass.
        batches: of a pass.
    """

    def __init__(self, loader: DataLoader[Any], samples: int, batches: int) -> None:
        self.samples, self._loader, self._batches = samples, loader, batches
        self.num_workers: int = loader.num_workers
        self.prefetch_factor: int | None = loader.prefetch_factor

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Any]:
        """One pass.

        Raises:
            WorkloadError: there are fewer batches than was said.
        """
        drawn = 0
        for batch in islice(self._loader, self._batches):
            drawn += 1
            yield batch
        if drawn < self._batches - self.num_workers:  # each may drop a partial batch of its share
            raise WorkloadError(
                f"the data ended after {drawn:,} batches, but its epoch was said to have "
                f"{self.samples:,} samples, which are {self._batches:,}: set samples= or "
                "steps_per_epoch= right"
            )

    def filled(self) -> Any | None:
        """A large batch of few samples over and over, for those who look at sizes alone.

        torch's own collation refuses samples of several sizes, so that all batches are of one;
        None where another is used, or where batches may be put together by size.
        """
        loader = self._loader
        size = min(loader.batch_size or 0, self.samples)
        plain = type(loader.sampler) in (RandomSampler, SequentialSampler)
        if size <= ALIKE or not plain or loader.collate_fn is not default_collate:
            return None
        few = DataLoader(loader.dataset, ALIKE, sampler=loader.sampler, collate_fn=list)
        return default_collate(list(islice(cycle(next(iter(few))), size)))


# -- batches that stand for an epoch ---------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """Batches that stand for all; both are the same where all are of one size.

    Attributes:
        mean_elements: of all batches drawn.
    """

    typical: Any
    largest: Any
    mean_elements: float

    @property
    def varies(self) -> bool:
        """Whether batches differ in size."""
        return self.typical is not self.largest


def draw_batches(batches: Iterator[Any], batch_size: int) -> Drawn:
    """Draw until it is clear whether batches differ, and more where they do.

    Small batches vary most, and many of them are drawn as fast as two large ones.

    Args:
        batches: at least one.
        batch_size: samples in each.
    """
    enough = min(DRAWN, max(2, -(-ALIKE // batch_size)))
    drawn, sizes = [], []
    for batch in islice(batches, DRAWN):
        drawn.append(batch)
        sizes.append(elements(batch))
        if len(drawn) == enough and len(set(sizes)) == 1:
            break
    mean = fmean(sizes)
    typical = min(range(len(drawn)), key=lambda i: abs(sizes[i] - mean))
    largest = max(range(len(drawn)), key=lambda i: sizes[i])
    return Drawn(drawn[typical], drawn[largest], mean)
