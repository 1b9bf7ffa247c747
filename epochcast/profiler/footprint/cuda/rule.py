"""What a rule is: how one operator behaves on a CUDA device, where its results do not tell.

rule(kernel, func, args, kwargs) ──▶ what the operator returns
     └ device, scratch, intervals, and operators counted one by one
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from epochcast.profiler.footprint.cuda.blocks import DeviceBlocks
from epochcast.records import DeviceSpec


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

    def call(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """One of the operators that a kernel is made of, with its results counted."""
        ...


Rule = Callable[[Kernel, Any, tuple[Any, ...], dict[str, Any]], Any]
