"""Batches: where their tensors are, how they reach a device, where a pass over them ends, and which
stand for an epoch.

A batch is a tensor, or holds some: in tuples, lists and mappings, in the fields of a dataclass, in
the attributes of an object that can be moved ``to`` a device, as those of other libraries can. A
model that is in it is no part of it.

Where batches differ in size (padded text, images of many sizes), ``draw_batches`` finds two that
stand for an epoch:

    elements of each batch drawn     ▂▅▃▆▄▃▇▄▅ …      padding included, for it is computed too
    typical                          the one nearest to their mean: what a step costs
    largest                          what the memory must hold
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain, cycle, islice
from statistics import fmean
from types import MemberDescriptorType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, default_collate

from epochcast.errors import WorkloadError

DRAWN = 32  # batches whose sizes are compared; their mean is then known to a fifth of its scatter
ALIKE = 64  # samples in batches of one size, after which all are taken to be of that size


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch."""
    waiting, met = [batch], dict[int, Any]()
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor):
            yield part
        elif id(part) not in met:
            met[id(part)] = part  # kept, so that nothing else gets its id
            waiting.extend(reversed(_parts(part)))


def _parts(batch: Any) -> list[Any]:
    if isinstance(batch, tuple | list):
        return list(batch)
    return list((batch if isinstance(batch, Mapping) else _attributes(batch)).values())


def elements(batch: Any) -> int:
    """Elements of all tensors of a batch, padding included."""
    return sum(tensor.numel() for tensor in tensors_in(batch))


def mapped(
    batch: Any,
    function: Callable[[Any], Any],
    stops: Callable[[Any], bool] | None = None,
    made: dict[int, tuple[Any, Any]] | None = None,
) -> Any:
    """A batch like this one, of which everything that holds tensors is a copy.

    Args:
        batch: may hold anything else too, which stays as it is, and itself.
        function: makes what takes the place of a tensor.
        stops: whether the function is given a part as it is; by default tensors alone.
        made: parts by their ids, which nothing else gets while they are kept, and their copies.
    """
    known = {} if made is None else made

    def inner(part: Any) -> Any:
        return mapped(part, function, stops, known)

    if isinstance(batch, Tensor) or (stops is not None and stops(batch)):
        return function(batch)
    if id(batch) in known:
        return known[id(batch)][1]
    if isinstance(batch, tuple):
        return _tuple_like(batch, [inner(item) for item in batch])
    alike = _empty_like(batch)
    known[id(batch)] = batch, alike
    _fill(alike, batch, inner)
    return alike


def _tuple_like(batch: tuple[Any, ...], items: Sequence[Any]) -> Any:
    if all(new is old for new, old in zip(items, batch, strict=True)):
        return batch
    try:
        return tuple.__new__(type(batch), items)
    except TypeError:  # a structure of C, as torch.max returns
        return type(batch)(items)


def _empty_like(batch: Any) -> Any:
    """What will hold the copies of a batch's parts, which may hold it in turn."""
    if isinstance(batch, Mapping) and not isinstance(batch, MutableMapping):
        return {}
    return copy(batch) if _parts(batch) else batch


def _fill(alike: Any, batch: Any, inner: Callable[[Any], Any]) -> None:
    if isinstance(batch, list):
        alike[:] = map(inner, batch)
    elif isinstance(batch, Mapping):
        alike.update({key: inner(value) for key, value in batch.items()})
    else:
        for name, value in _attributes(batch).items():
            object.__setattr__(alike, name, inner(value))  # frozen dataclasses, too


def copied(batch: Any) -> Any:
    """The same in memory of its own; tensors that share a storage share one in the copy, too."""
    known: dict[int, Any] = {}

    def copy_of(tensor: Tensor) -> Tensor:
        shares = tensor.layout in (torch.strided, torch.jagged)
        detached = tensor.detach()
        made = deepcopy(detached, known) if shares else detached.clone()
        return made.requires_grad_(tensor.requires_grad)

    return mapped(batch, copy_of)


def _attributes(batch: Any) -> dict[str, Any]:
    """What an object holds that may hold tensors; of most things, and of a model, nothing."""
    if isinstance(batch, nn.Module):
        return {}
    if is_dataclass(batch) and not isinstance(batch, type):
        return {f.name: getattr(batch, f.name) for f in fields(batch) if hasattr(batch, f.name)}
    if not hasattr(type(batch), "to"):
        return {}
    members = chain.from_iterable(vars(kind).items() for kind in type(batch).__mro__)
    slots = [name for name, member in members if isinstance(member, MemberDescriptorType)]
    held = {name: getattr(batch, name) for name in slots if hasattr(batch, name)}
    return held | getattr(batch, "__dict__", {})


def move(batch: Any, device: torch.device, non_blocking: bool = False) -> Any:
    """A batch with every tensor on the device.

    Args:
        batch: may hold anything else too, which stays as it is.
        device: where the tensors go.
        non_blocking: do not wait for the copies; for batches in pinned memory.
    """

    def to_device(part: Any) -> Any:
        moved = _moved(part, device, non_blocking)
        return part if moved is None else moved  # an object of the user's, moved in place

    return mapped(batch, to_device, stops=lambda part: hasattr(type(part), "to"))


def _moved(part: Any, device: torch.device, non_blocking: bool) -> Any:
    if not non_blocking:
        return part.to(device)
    try:
        return part.to(device, non_blocking=True)
    except TypeError:  # an object of the user's, whose method takes a device alone
        return part.to(device)


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
