"""A workload of fake tensors: shapes, types and storages without memory, operators without work.

    operator ──▶ OperatorTracker ──▶ StandIns ──▶ FakeTensorMode ──▶ an empty result
                 counts              answers where values are asked for

What torch's own optimizers and gradient scaler ask of values has one answer in a steady run: many
steps were made, and no gradient is infinite; and distributions, which check their arguments, are
told that those are valid. ``tensor.item()`` has an answer to calculate with and to print, as people
do with a loss or the share of a mixture, which refuses to decide anything. Any other question is
the workload's own, and the fake tensors refuse it.

Sparse gradients have entries, of which torch's own rules for fake tensors give them none:

    gradient of an embedding   indices (1, tokens)   values (tokens, width)
    coalesced                  the same: how many tokens repeat is not known, so none are taken to
    sum of two                 the entries of both

The largest gradient that is possible, and the exact one where no token repeats.

A mask that comes with the batch, such as that of the nodes of a graph which train, is known: it
picks as many as the real one would.

Where torch's rules for fake tensors say something else than its CPU kernels return, ``AFTER`` has
what the kernel would. The sizes are those of torch 2.13; the tests compare them with the kernels of
the torch that is installed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
)
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._foreach_utils import _foreach_supported_types
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from epochcast.profiler.batches import mapped
from epochcast.profiler.footprint.allocations import operands
from epochcast.profiler.footprint.deep_copies import cloning
from epochcast.profiler.footprint.missing_rules import MISSING_RULES
from epochcast.profiler.updates import hooks_around
from epochcast.profiler.workload import Workload

aten = torch.ops.aten

STEADY_STEP = 1000.0  # beyond the warm-up of every optimizer: RAdam's rectification begins at 6
_PAGE = 4096  # bytes to which oneDNN aligns every part of a workspace
_LIFTED = (aten.lift_fresh.default, aten.lift_fresh_copy.default)  # the fake mode makes them fake


def fake_mode() -> FakeTensorMode:
    """A mode in which constants made elsewhere, e.g. from numpy arrays, may take part."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def remembered(mode: FakeTensorMode) -> tuple[Any, ...]:
    """What a fake mode remembers of tensors it has converted, weakly; to be cleared."""
    converter = mode.fake_tensor_converter.meta_converter
    describer = getattr(converter, "describer", None)
    return converter.tensor_memo, *([describer.lookup_tensor] if describer else [])


class Building(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it and a fake mode, modules can be built, cast and moved.

    ``Module.to`` swaps fake parameters, which torch refuses while anything refers to them weakly;
    the fake mode remembers in that way what it has made. (torch 2.13, ``torch.utils.swap_tensors``)
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._remembered = remembered(mode)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        for memo in self._remembered:
            memo.clear()
        return out


class StandIns(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stands between operators and a fake mode for what the mode cannot do.

    Real tensors become fake ones that live as long as this; sparse gradients keep their entries;
    an optimizer that asks for its step number, and a scaler that asks for infinities, get answers.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mode = mode
        self._fakes: dict[int, tuple[Tensor, Tensor]] = {}
        self._infinities: set[int] = set()
        self._updating = False
        self._reading = self._read_unknown = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Run operators on fake tensors."""
        with ExitStack() as stack:
            begins, ends = hooks_around(self._set_updating(True), self._set_updating(False))
            stack.callback(register_optimizer_step_pre_hook(begins).remove)
            stack.callback(register_optimizer_step_post_hook(ends).remove)
            stack.callback(_foreach_supported_types.remove, FakeTensor)
            _foreach_supported_types.append(FakeTensor)  # clipping goes by lists of real tensors
            stack.enter_context(self._reading_items())
            stack.enter_context(cloning())
            stack.enter_context(self._mode)
            stack.enter_context(self)
            yield

    @contextmanager
    def _reading_items(self) -> Iterator[None]:
        """Within it, ``tensor.item()`` of what is not known is an ``UnknownNumber``."""
        original = Tensor.item

        def item(tensor: Tensor) -> Any:
            self._reading, self._read_unknown = True, False
            try:
                found = original(tensor)
            finally:
                self._reading = False
            return UnknownNumber(found) if self._read_unknown else found

        Tensor.item = item  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            del Tensor.item

    def _set_updating(self, updating: bool) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._updating = updating

        return hook

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if func not in _LIFTED and not _all_fake((args, *kwargs.values())):
            args, kwargs = tree_map_only(Tensor, self.fake, (args, kwargs))
        if func is aten._amp_foreach_non_finite_check_and_unscale_.default:
            self._infinities.add(args[1].untyped_storage()._cdata)
        if func is aten._local_scalar_dense.default:
            return self._scalar(args[0])
        if func in INDEXING:
            args = (args[0], _with_known_masks(args[1]), *args[2:])
        if is_sparse_call(func, args):
            return SPARSE_RULES[func](*args, **kwargs)
        if func in MISSING_RULES:
            return MISSING_RULES[func](*args, **kwargs)
        out = func(*args, **kwargs)
        if func is aten._to_copy.default and hasattr(args[0], "picks"):
            out.picks = args[0].picks  # moved to the device
        if func is aten._is_all_true.default:
            out.holds = True
        return AFTER[func](out, *args, **kwargs) if func in AFTER else out

    def fake(self, tensor: Tensor) -> Tensor:
        """A fake of a real tensor, always the same one."""
        if isinstance(tensor, FakeTensor):
            return tensor
        if id(tensor) not in self._fakes:
            self._fakes[id(tensor)] = tensor, self._mode.from_tensor(tensor)
        return self._fakes[id(tensor)][1]

    def fresh(self, batch: Any) -> Any:
        """A fake batch of its own, whose tensors share storages as those of ``batch`` do."""
        storages: dict[int, Tensor] = {}

        def copy(tensor: Tensor) -> Tensor:
            if tensor.layout != torch.strided:
                return self.fake(tensor)
            storage = tensor.untyped_storage()
            if storage._cdata not in storages:
                storages[storage._cdata] = torch.empty(storage.nbytes(), dtype=torch.uint8)
            flat = storages[storage._cdata]
            whole = flat[: flat.numel() // tensor.element_size() * tensor.element_size()]
            layout = tensor.shape, tensor.stride(), tensor.storage_offset()
            made = whole.view(tensor.dtype).as_strided(*layout)
            if tensor.dtype == torch.bool:
                made.picks = _picks(tensor)  # type: ignore[attr-defined]
            return made.requires_grad_(tensor.requires_grad)

        with self._mode:
            return mapped(batch, copy)

    def _scalar(self, tensor: Tensor) -> Any:
        if hasattr(tensor, "holds"):
            return True
        if tensor.untyped_storage()._cdata in self._infinities:
            return 0.0
        if self._updating:
            return STEADY_STEP
        try:
            return aten._local_scalar_dense.default(tensor)
        except DataDependentOutputException:
            if not self._reading:
                raise
            self._read_unknown = True
            return 0.0 if tensor.is_floating_point() else 0


def _calculation(operation: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A method of an unknown number that calculates with it.

    Args:
        operation: of the number and the other operand.
    """

    def method(number: UnknownNumber, other: object) -> Any:
        if isinstance(other, Tensor):
            return operation(number.like, other)
        if isinstance(other, UnknownNumber):
            return UnknownNumber(operation(number.like, other.like))
        if not isinstance(other, int | float):
            return NotImplemented
        return UnknownNumber(operation(number.like, type(other)(1)))

    return method


class UnknownNumber:
    """What ``item()`` gives of a tensor without values: to calculate with, alone and with tensors,
    and for print, but not for decisions.

    It is no float, so that a function of numbers refuses it.

    Args:
        like: a number of its type, in its place where it meets a tensor: what is computed there
            does not depend on which one it is.
    """

    def __init__(self, like: float) -> None:
        self.like = type(like)(3)

    __add__ = __radd__ = _calculation(operator.add)
    __mul__ = __rmul__ = _calculation(operator.mul)
    __sub__ = _calculation(operator.sub)
    __rsub__ = _calculation(lambda number, other: other - number)
    __truediv__ = _calculation(operator.truediv)
    __rtruediv__ = _calculation(lambda number, other: other / number)
    __pow__ = _calculation(operator.pow)
    __rpow__ = _calculation(lambda number, other: other**number)

    def _refuse(self, *_: object) -> Any:
        raise TypeError("a number read by item() is not known here, and the code decides by it")

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __bool__ = _refuse
    __float__ = __int__ = __index__ = _refuse
    __hash__ = object.__hash__

    def __neg__(self) -> UnknownNumber:
        return self

    def __abs__(self) -> UnknownNumber:
        return self

    def __round__(self, digits: int | None = None) -> UnknownNumber:
        return UnknownNumber(round(self.like, digits))

    def __repr__(self) -> str:
        return "?"

    def __format__(self, _: str) -> str:
        return "?"


def _all_fake(arguments: Any) -> bool:
    return all(isinstance(tensor, FakeTensor) for tensor in operands(arguments))


def make_fake(workload: Workload, fake: Callable[[Tensor], Tensor]) -> None:
    """Replace the tensors of a workload's model and optimizers, tied ones by the same fake."""
    for module in workload.model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)  # type: ignore[assignment]
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                vars(module)[name] = fake(value)
    for optimizer in workload.optimizers:
        for group in optimizer.param_groups:
            group["params"] = [fake(parameter) for parameter in group["params"]]
        state = {fake(key): value for key, value in optimizer.state.items()}
        optimizer.state.clear()
        optimizer.state.update(tree_map_only(Tensor, fake, state))


# -- masks of the batch ---------------------------------------------------------------------------

INDEXING = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index_put.default,
)


def _with_known_masks(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Positions in place of masks whose values are known, as many as they would pick."""
    found: list[Tensor | None] = []
    for index in indices:
        picks = getattr(index, "picks", None)
        if index is None or picks is None:
            found.append(index)
        else:
            found += [torch.empty(picks, dtype=torch.int64) for _ in range(index.dim())]
    return found


def _picks(mask: Tensor) -> int | None:
    """How many a mask picks; None where it has no values."""
    with _disable_current_modes():
        return None if isinstance(mask, FakeTensor) else int(mask.sum())


# -- sparse gradients -----------------------------------------------------------------------------


def is_sparse_call(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operator has a rule here, and a sparse argument."""
    return func in SPARSE_RULES and any(
        isinstance(arg, Tensor) and arg.layout == torch.sparse_coo for arg in args
    )


def _like(tensor: Tensor, indices: Tensor, values: Tensor, coalesced: bool | None = None) -> Tensor:
    made: Tensor = aten._sparse_coo_tensor_with_dims_and_tensors.default(
        tensor.sparse_dim(),
        tensor.dense_dim(),
        list(tensor.shape),
        indices,
        values,
        dtype=values.dtype,
        layout=torch.sparse_coo,
        device=values.device,
        is_coalesced=coalesced,
    )
    return made


def _clone(tensor: Tensor, **_: Any) -> Tensor:
    indices, values = tensor._indices().clone(), tensor._values().clone()
    return _like(tensor, indices, values, tensor.is_coalesced())


def _coalesce(tensor: Tensor) -> Tensor:
    return _like(tensor, tensor._indices().clone(), tensor._values().clone(), True)


def _sparse_mask(dense: Tensor, mask: Tensor) -> Tensor:
    values = torch.empty_like(mask._values(), dtype=dense.dtype)
    return _like(mask, mask._indices().clone(), values, mask.is_coalesced())


def _add(tensor: Tensor, other: Tensor, **_: Any) -> Tensor:
    if tensor.layout != other.layout:
        return torch.empty_like(tensor if tensor.layout == torch.strided else other)
    indices = torch.cat([tensor._indices(), other._indices()], 1)
    values = torch.cat([tensor._values(), other._values()])
    return _like(tensor, indices, values, False)


def _add_in_place(tensor: Tensor, other: Tensor, **_: Any) -> Tensor:
    if tensor.layout == torch.sparse_coo:
        tensor.data = _add(tensor, other)
    return tensor


def _in_place(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor


SPARSE_RULES: dict[Any, Callable[..., Any]] = {
    aten.clone.default: _clone,
    aten._coalesce.default: _coalesce,
    aten.sparse_mask.default: _sparse_mask,
    aten.add.Tensor: _add,
    aten.add_.Tensor: _add_in_place,
    aten.mul_.Tensor: _in_place,
}


# -- what CPU kernels return ----------------------------------------------------------------------
#
# Each function takes what the fake operator returned and its arguments.


def _batch_norm(out: Any, inputs: Tensor, *parameters: Any, **_: Any) -> Any:
    """Dense whatever the inputs' strides; statistics in the precision of the parameters."""
    weight, _bias, running_mean = parameters[:3]
    return _dense_like(inputs), *_as_precise_as((weight, running_mean), out[1:])


def _batch_norm_backward(out: Any, gradient: Tensor, inputs: Tensor, *rest: Any, **_: Any) -> Any:
    """Dense like the outputs; no gradient of the inputs where none is asked for."""
    for_inputs = rest[7][0]
    return _dense_like(inputs) if for_inputs else None, *out[1:]


def _layer_norm(out: Any, inputs: Tensor, shape: Any, weight: Tensor | None, *_: Any) -> Any:
    return out[0], *_as_precise_as((weight,), out[1:])


def _group_norm(out: Any, inputs: Tensor, weight: Tensor | None, *_: Any) -> Any:
    return out[0], *_as_precise_as((weight,), out[1:])


def _layer_norm_backward(out: Any, gradient: Tensor, inputs: Tensor, *_: Any) -> Any:
    contiguous = torch.empty_like(inputs, memory_format=torch.contiguous_format)
    return None if out[0] is None else contiguous, *out[1:]


def _group_norm_backward(out: Any, gradient: Tensor, inputs: Tensor, *_: Any) -> Any:
    """In the precision of the inputs, whatever that of the outputs' gradient."""
    return None if out[0] is None else _dense_like(inputs), *out[1:]


def _as_precise_as(
    parameters: Sequence[Tensor | None], statistics: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Statistics of bfloat16 inputs are float32 where the parameters are."""
    kept = next((p.dtype for p in parameters if p is not None), statistics[0].dtype)
    return [statistic.to(kept) for statistic in statistics]


def _dense_like(inputs: Tensor) -> Tensor:
    return torch.empty_like(inputs, memory_format=suggest_memory_format(inputs))


def _lstm_layer(out: Any, inputs: Tensor, weight: Tensor, *arguments: Any, **_: Any) -> Any:
    """One direction of one layer; its workspace, for training, is oneDNN's.

    oneDNN, src/cpu/rnn/rnn_utils.cpp, ``set_workspace_offsets``: T steps, B sequences, states of
    two layers (the input is one) before and after each step.
    """
    output, hidden, cell, workspace = out
    hidden_size = arguments[8]
    if not torch.is_grad_enabled():
        return output, hidden, cell, None
    steps, sequences, features = inputs.shape
    states = 2 * (steps + 1) * sequences
    wide, size = max(features, hidden_size), inputs.element_size()
    parts = (
        steps * sequences * _row_bytes(4 * hidden_size, size),  # gates
        steps * sequences * _row_bytes(hidden_size, size),  # projections
        states * _row_bytes(wide, size),
        states * _row_bytes(wide, 4),  # gradients are float32, of the states
        states * _row_bytes(wide, 4),  # and of the layer's inputs
        states * hidden_size * 4,
        states * hidden_size * size,  # cell states
    )
    total = sum(-(-part // _PAGE) * _PAGE for part in parts)
    return output, hidden, cell, workspace.new_empty(total)


def _row_bytes(columns: int, size: int) -> int:
    """oneDNN, ``get_good_ld``: whole cache lines of 64 bytes, but no multiple of 256 elements."""
    line = 64 // size
    rounded = -(-columns // line) * line
    return size * (rounded + line if rounded % 256 == 0 else rounded)


def _embedding_bag(out: Any, weight: Tensor, indices: Tensor, *_: Any, **__: Any) -> Any:
    """The kernel makes the map from tokens to bags one longer than it leaves it.

    aten/src/ATen/native/EmbeddingBag.cpp, ``make_offset2bag_out``.
    """
    output, to_bags, *rest = out
    if to_bags.numel():
        to_bags = to_bags.new_empty(to_bags.numel() + 1)[:-1]
    return output, to_bags, *rest


def _embedding_bag_backward(
    out: Any, gradient: Tensor, indices: Tensor, offsets: Tensor, to_bags: Tensor, *rest: Any
) -> Any:
    """A sum needs no map in the forward pass; the kernel makes it for the backward pass.

    ``_embedding_bag_backward`` in the same file.
    """
    if out.layout != torch.sparse_coo or to_bags.numel():
        return out
    made = indices.new_empty(indices.numel())
    return aten._embedding_bag_backward.default(gradient, indices, offsets, made, *rest)


def _reduced_loss(out: Tensor, inputs: Tensor, targets: Tensor, *_: Any, **__: Any) -> Tensor:
    """A mean or a sum is written into the block that was made for the losses of all elements.

    aten/src/ATen/native/BinaryOps.cpp and Loss.cpp, ``mse_loss`` and ``smooth_l1_loss``, whose
    meta functions allocate it so, ``binary_cross_entropy`` and ``soft_margin_loss``, which resize
    it. The same on CPU and CUDA.
    """
    if out.dim():
        return out
    losses = torch.broadcast_shapes(inputs.shape, targets.shape)  # type: ignore[no-untyped-call]
    return inputs.new_empty(losses, dtype=out.dtype).resize_(())


AFTER: dict[Any, Callable[..., Any]] = {
    aten.mse_loss.default: _reduced_loss,
    aten.smooth_l1_loss.default: _reduced_loss,
    aten.binary_cross_entropy.default: _reduced_loss,
    aten.soft_margin_loss.default: _reduced_loss,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.native_group_norm.default: _group_norm,
    aten.native_group_norm_backward.default: _group_norm_backward,
    aten.mkldnn_rnn_layer.default: _lstm_layer,
    aten._embedding_bag.default: _embedding_bag,
    aten._embedding_bag_backward.default: _embedding_bag_backward,
}
