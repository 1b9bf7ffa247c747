"""What convolutions take on a device beside their results: copies, and cuDNN's workspace.

    forward     input, weight ─▶ output │ workspace
    backward    gradient of the input │ workspace │ gradient of the weight │ workspace

Tensor cores want channels last. Of tensors that lie otherwise cuDNN makes copies in its workspace,
and where several blocks share a sum, each has a tile of partial ones there. On an H200 (cuDNN 9.19,
inputs of float32 that TF32 may round) 38 convolutions of a residual net had, forward and backward
in both gradients, copies of the input and the weight at least, in 33 of 38 of all three operands,
and up to 9 MiB of partial sums; the first one, of three channels, had no workspace at all. Where
channels are few (16, 32) backward passes on an H100 had up to 17.5 times the input: what their
products are made of, each place once for each element of the kernel.

Sources: aten/src/ATen/native/Convolution.cpp (``ConvParams::use_cudnn_depthwise``,
``_select_conv_backend``), ATen/native/cudnn/ConvShared.cpp (``cudnn_convolution``: operands are
made contiguous in the format of the backend), ATen/native/ConvUtils.h
(``cudnn_conv_suggest_memory_format``), cudnn/Conv_v8.cpp (``run_conv_plan``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from epochcast.profiler.footprint.cuda.rule import Call, Kernel, Rule

aten = torch.ops.aten

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_ALIGNED = 16  # bytes of channels, as tensor cores load them
_FEW_CHANNELS = 32  # as long a row as tensor cores multiply at a time
_TILE = 128 * 256 * 4  # bytes of sums in float32 that a block has, in CUTLASS' largest tile
_REASON = (
    "cuDNN chooses the algorithm of a convolution, and with it its workspace, on the device: "
    "nothing or, for tensor cores, copies of its operands, partial sums of each multiprocessor "
    "and, going back through few channels, unrolled operands"
)


def forward(kernel: Kernel, call: Call) -> Any:
    """``convolution``: the output, then the workspace."""
    inputs, weight = call.args[:2]
    copies = _copied(kernel, (inputs, weight), call)
    out = kernel.watch(call.run(), call.func)
    operands = (inputs, weight, out)
    copied = _copied_at_least(operands, call.args[3])
    _workspace(kernel, call, operands, call.argument(8, "groups"), least=copied)
    _give(kernel, copies)
    return out


def backward(kernel: Kernel, call: Call) -> Any:
    """``convolution_backward``: a workspace for each gradient, once there is room for it.

    That of the weight sums over samples and places, which only many blocks do in time: its partial
    sums come on top of all copies.
    """
    gradient, inputs, weight = call.args[:3]
    operands, groups = (inputs, weight, gradient), call.argument(9, "groups")
    copies = _copied(kernel, operands, call)
    out = call.run()
    least = (_copied_at_least(operands, call.args[4]), (*operands, weight))
    for made, copied in zip(out, least, strict=False):
        if made is not None:
            kernel.watch(made, call.func)
            _workspace(kernel, call, operands, groups, least=copied, unrolled=True)
    _give(kernel, copies)
    return kernel.watch(out, call.func)


def _copied_at_least(operands: Sequence[Tensor], stride: Sequence[int]) -> Sequence[Tensor]:
    """Input and weight; and the output, which is written in its place where places are skipped."""
    return operands[:2] if max(stride) > 1 else operands


def _copied(kernel: Kernel, operands: Sequence[Tensor], call: Call) -> list[int]:
    """Those that do not lie as the backend works, which are copied first."""
    if not kernel.holds(operands):
        return []
    wanted = _format(operands[0], operands[1])
    others = [t for t in operands if not t.is_contiguous(memory_format=wanted)]
    sizes = [t.numel() * t.element_size() for t in others]
    return [kernel.blocks.take(size, call.operator) for size in sizes if size]


def _give(kernel: Kernel, blocks: Sequence[int]) -> None:
    for block in reversed(blocks):
        kernel.blocks.give(block)


def _workspace(
    kernel: Kernel,
    call: Call,
    operands: Sequence[Tensor],
    groups: int,
    least: Sequence[Tensor],
    unrolled: bool = False,
) -> None:
    """An interval for one call of cuDNN.

    Args:
        kernel: is told.
        call: of the operator.
        operands: that may be copied, input and weight first.
        groups: into which channels are divided.
        least: of the operands, what tensor cores have copies of.
        unrolled: whether input and output may be, where channels are few.
    """
    inputs, weight = operands[:2]
    if not kernel.holds(operands) or _is_native_depthwise(inputs, weight):
        return
    on_tensor_cores = _on_tensor_cores(inputs.dtype, kernel.device.capability)
    low, high = 0, kernel.device.multiprocessors * _TILE if on_tensor_cores else 0
    if _format(inputs, weight) == torch.contiguous_format:
        high += _bytes(operands)
        if on_tensor_cores and groups == 1 and _fills_them(inputs, weight):
            low = min(_bytes(least), high)
            if unrolled and min(weight.shape[:2]) <= _FEW_CHANNELS:
                high += (weight[0, 0].numel() - 1) * _bytes((inputs, operands[2]))
    kernel.blocks.unsure(low, high, call.operator, _REASON)


def _fills_them(inputs: Tensor, weight: Tensor) -> bool:
    """Whether channels are as many as tensor cores load, and it is no product of matrices, which a
    convolution with single elements is."""
    aligned = all(size * inputs.element_size() % _ALIGNED == 0 for size in weight.shape[:2])
    return aligned and weight[0, 0].numel() > 1


def _on_tensor_cores(dtype: torch.dtype, capability: tuple[int, int]) -> bool:
    if dtype == torch.float32:
        return capability >= (8, 0) and _rounds_to_tf32()
    since = {torch.float16: (7, 0), torch.bfloat16: (8, 0)}.get(dtype)
    return since is not None and capability >= since


def _rounds_to_tf32() -> bool:
    """By default, unlike products of matrices; newer torch has a setting for convolutions alone."""
    cudnn: Any = torch.backends.cudnn
    of_its_own = getattr(cudnn, "conv", None)
    return bool(cudnn.allow_tf32) if of_its_own is None else of_its_own.fp32_precision == "tf32"


def _format(inputs: Tensor, weight: Tensor) -> torch.memory_format:
    """``cudnn_conv_suggest_memory_format``: channels last, where either operand has them so."""
    last = _LAST.get(inputs.dim())
    if last is None or not any(_lies(tensor, last) for tensor in (inputs, weight)):
        return torch.contiguous_format
    return last


def _lies(tensor: Tensor, last: torch.memory_format) -> bool:
    """Whether channels are last, and not also first, as of a single one."""
    return tensor.is_contiguous(memory_format=last) and not tensor.is_contiguous()


def _is_native_depthwise(inputs: Tensor, weight: Tensor) -> bool:
    """Torch has kernels of its own where each channel is convolved alone; cuDNN's are taken for
    channels last, and for some of float16."""
    alone = inputs.dim() >= 4 and weight.shape[1] == 1 and inputs.shape[1] > 1
    in_order = _format(inputs, weight) == torch.contiguous_format
    return alone and in_order and inputs.dtype != torch.float16


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


CONVOLUTIONS: dict[Any, Rule] = {
    aten.convolution: forward,
    aten.convolution_backward: backward,
}
