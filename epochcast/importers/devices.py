"""How many devices share the samples of a run, from whatever a table says of them.

    world_size = devices that share the samples = copies of the model
               = nodes × devices of a node, where no copy is divided over several devices

    num_gpus 8                 8       nodes 2, gpus_per_node 4     8
    dp 4                       4       gpus_per_node 4              asked: of how many nodes?
    devices 4, nodes 2         asked: 4 of each node (Lightning), or of both?
    num_gpus 8, tp_size 2      refused: four copies, each on two devices

What two columns say must agree. A model that is divided over devices (tensor or pipeline parallel)
is no data parallelism: its devices do not share the samples, and are paid all the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from epochcast.importers.columns import KNOB, LEFT_OUT, Column
from epochcast.importers.names import ALLOCATED, MAY_COUNT
from epochcast.importers.roles import spelled
from epochcast.importers.rows import as_typed

DEVICE_ROLES = ("world_size", "data_parallel", "nodes", "devices_per_node", "model_parallel")
LISTS_DEVICES = ALLOCATED | MAY_COUNT
ALL_DEVICES = {"world", "total", "all", "processes"}  # words of a count that is of all nodes


_COUNTED = re.compile(  # 8x A100; A100 x8, (×8); gres/gpu=8, gpu:a100:8
    r"(?P<a>\d{1,4})\s*[x×*]\s*\D.*|.*[\s(][x×*]\s?(?P<b>\d{1,4})\)?"
    r"|(?:.*[,/\s])?gpu(?::[a-z]\w*)?[:=](?P<c>\d{1,4})(?:,.*)?",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(?:cuda:)?\d{1,3}(?:[,;\s]+(?:cuda:)?\d{1,3})+")


def counted_in(text: str) -> int | None:
    """How many devices a cell that names or lists them is of; None if it does not say."""
    if _NUMBERED.fullmatch(text.strip("[]() ")):
        return len(re.split(r"[,;\s]+", text.strip("[]() ")))
    found = _COUNTED.fullmatch(text)
    return int(found["a"] or found["b"] or found["c"]) if found else None


def may_list_devices(column: Column) -> bool:
    """Whether a column that is not read, or a knob, may say which devices a run had."""
    is_free = column.role in (KNOB, LEFT_OUT) and not column.said
    return is_free and not LISTS_DEVICES.isdisjoint(spelled(column.name))


@dataclass(frozen=True, slots=True)
class Said:
    """A count that a column gives."""

    column: Column
    count: int

    def __str__(self) -> str:
        return f"{self.column.name} {self.count}"


def world_size(found: Mapping[str, Sequence[Said]]) -> int | None:
    """Devices that share the samples, as a row says it; None if it says nothing.

    Args:
        found: by role.

    Raises:
        ValueError: it is not clear how many they are, or its columns disagree.
    """
    _require_whole_models(found.get("model_parallel", ()))
    counts = {role: columns[0] for role in DEVICE_ROLES[:-1] if (columns := found.get(role))}
    nodes, each = counts.get("nodes"), counts.get("devices_per_node")
    both = [said for said in (nodes, each) if said is not None]
    known = [said for role in DEVICE_ROLES[:2] for said in found.get(role, ())]
    if len(both) == 2:
        return _agreed([*known], prod(said.count for said in both), both)
    if nodes is not None and known and nodes.count > 1 and not any(map(_is_of_all, known)):
        name = known[0].column.name
        raise ValueError(
            f"is {known[0]} of each of the {nodes.count} nodes, or of all of them together? say "
            f"{as_typed('--map', 'devices_per_node', name)} or "
            f"{as_typed('--map', 'world_size', name)}"
        )
    if known:
        return _agreed(known[1:], known[0].count, known[:1])
    if both:
        (said,) = both
        other = "devices a node has" if said is nodes else "nodes there were"
        raise ValueError(
            f"{said} does not say how many {other}: name a column of it, or say how many devices "
            "there were with --devices, or "
            f"{as_typed('--map', 'world_size', said.column.name)} where it is all"
        )
    return None


def _require_whole_models(found: Sequence[Said]) -> None:
    divided = [said for said in found if said.count > 1]
    if divided:
        raise ValueError(
            f"{', '.join(map(str, divided))}: one copy of the model on several devices is not "
            "known here, only copies that share the samples; take those devices for one with "
            f"{as_typed('--ignore', divided[0].column.name)} and the copies as --map "
            "world_size=COLUMN, or leave these rows out"
        )


def _is_of_all(said: Said) -> bool:
    own = said.column
    return own.said or own.role == "data_parallel" or not ALL_DEVICES.isdisjoint(spelled(own.name))


def _agreed(others: Sequence[Said], count: int, by: Sequence[Said]) -> int:
    odd = next((said for said in others if said.count != count), None)
    if odd is not None:
        raise ValueError(
            f"{' × '.join(map(str, by))} are {count} devices, but {odd} says otherwise"
        )
    return count
