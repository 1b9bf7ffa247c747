"""What a rule is: how one operator behaves on a CUDA device, where its results do not tell.

rule(kernel, func, args, kwargs) ──▶ what the operator returns
     └ device, scratch, intervals, and operators counted one by one
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from epochcast.profiler.footprint.cuda.blocks import DeviceBlocks
from epochcast.records import DeviceSpec


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def operator(self) -> str:
        """Its name."""
        return str(self.func)

    def run(self) -> Any:
        """What the operator returns."""
        return self.func(*self.args, **self.kwargs)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """One of the arguments, given by position or by name.

        Args:
            position: among all.
            name: of it.
            default: where it is not given.
        """
        given = self.args[position : position + 1]
        return given[0] if given else self.kwargs.get(name, default)


class Kernel(Protocol):
    """What a rule may do; ``CudaWatcher`` does it."""

    device: DeviceSpec
    blocks: DeviceBlocks

    @property
    def in_backward(self) -> bool:
        """Whether autograd is at work."""
        ...

    def holds(self, args: Any) -> bool:
        """Whether any of an operator's arguments is on the device."""
        ...

    def watch(self, out: Any, func: Any) -> Any:
        """Count an operator's results from now on; the same again."""
        ...


Rule = Callable[[Kernel, Call], Any]
