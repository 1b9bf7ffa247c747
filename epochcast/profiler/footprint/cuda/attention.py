"""Scaled dot-product attention as a CUDA build decides and computes it.

    query, key, value, mask ──▶ backend: cuDNN │ flash │ efficient │ math ──▶ its operators

Sources: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (``select_sdp_backend``, the checks
of each backend), attention.cpp (``scaled_dot_product_attention``, ``preprocess_mask``,
``_scaled_dot_product_attention_math``, ``_safe_softmax``), cuda/flash_attn/flash_api.cpp
(``mha_bwd``), cuda/attention_backward.cu (``_efficient_attention_backward``),
cuda/mem_eff_attention/kernel_backward.h (``GradQTempStorage``).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from epochcast.profiler.footprint.cuda import fake_device
from epochcast.profiler.footprint.cuda.rule import Call, Kernel, Rule
from epochcast.profiler.footprint.cuda.workspaces import TORCH

aten = torch.ops.aten

Backend = Literal["cudnn", "flash", "efficient", "math"]

_HALF = (torch.float16, torch.bfloat16)
_MASK_ALIGNMENT = 16  # elements, of efficient attention's bias
_FLASH_ALIGNMENT = 8  # elements, to which flash attention pads heads
# num_splits_heuristic: tiles of a head's queries and keys, and a device with two blocks each busy
_QUERIES, _KEYS, _MOST_SPLITS, _BUSY = 64, 64, 128, 0.8 * 2
_PLAN = 256  # bytes that a plan of cuDNN works in besides
_LOCK = 64  # bytes of GradQTempStorage before its sums
_libraries: dict[str, torch.library.Library] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One call of attention, as far as the choice of a backend depends on it.

    Attributes:
        dropout: probability.
        is_causal: without a mask of its own.
        needs_gradient: of any of query, key and value.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    dropout: float = 0.0
    is_causal: bool = False
    needs_gradient: bool = True

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value."""
        return self.query, self.key, self.value

    @property
    def heads(self) -> tuple[int, int, int]:
        """Elements of a head of each."""
        return self.query.shape[-1], self.key.shape[-1], self.value.shape[-1]


def choose_backend(attention: Attention, capability: tuple[int, int]) -> Backend:
    """What torch takes by default, or is told to by ``torch.backends.cuda``."""
    cuda: Any = torch.backends.cuda
    prefers_cudnn = capability[0] in (9, 10) and capability[1] in (0, 3)
    deprioritized = os.environ.get("TORCH_CUDNN_SDPA_DEPRIORITIZED") == "1"
    cudnn = cuda.cudnn_sdp_enabled() and _can_use_cudnn(attention, capability)
    if cudnn and prefers_cudnn and not deprioritized:
        return "cudnn"
    if cuda.flash_sdp_enabled() and _can_use_flash(attention, capability):
        return "flash"
    if cuda.mem_efficient_sdp_enabled() and _can_use_efficient(attention, capability):
        return "efficient"
    return "math" if cuda.math_sdp_enabled() or not cudnn else "cudnn"


def _usual(attention: Attention) -> bool:
    """Four axes, none empty, the last one dense; mask likewise."""
    last = [t for t in (*attention.tensors, attention.mask) if t is not None]
    return all(t.dim() == 4 and t.numel() > 0 for t in attention.tensors) and all(
        t.stride(-1) == 1 or t.shape[-1] == 1 for t in last
    )


def _can_use_cudnn(attention: Attention, capability: tuple[int, int]) -> bool:
    """``can_use_cudnn_attention``, with the cuDNN that torch's own wheels bring."""
    head, _, head_of_value = attention.heads
    limit = 256 if capability == (9, 0) and TORCH >= (2, 9) else 128
    if capability[0] == 10 and (head, head_of_value) == (192, 128):
        limit = 192
    queries, keys = attention.query.shape[-2], attention.key.shape[-2]
    return (
        _usual(attention)
        and capability >= (8, 0)
        and all(t.dtype in _HALF for t in attention.tensors)
        # since torch 2.12; an H200 took cuDNN with 0.1 in torch 2.11
        and (TORCH < (2, 12) or float(attention.dropout * 16).is_integer())
        and head <= limit
        and head_of_value <= limit
        and head % 8 == head_of_value % 8 == 0
        and keys != 1
        and not (attention.dropout and queries == 1)
    )


def _can_use_flash(attention: Attention, capability: tuple[int, int]) -> bool:
    """``can_use_flash_attention``."""
    head = attention.query.shape[-1]
    ada = (8, 6) <= capability <= (8, 9) or (12, 0) <= capability <= (12, 1)
    backward_lacks = 192 < head <= 224 or (head > 224 and attention.dropout > 0)
    return (
        _usual(attention)
        and attention.mask is None
        and (8, 0) <= capability <= (12, 1)
        and all(t.dtype in _HALF for t in attention.tensors)
        and len(set(attention.heads)) == 1
        and head <= 256
        and not (ada and attention.needs_gradient and backward_lacks)
        and not (attention.is_causal and attention.query.shape[-2] != attention.key.shape[-2])
    )


def _can_use_efficient(attention: Attention, capability: tuple[int, int]) -> bool:
    """``can_use_mem_efficient_attention``."""
    head, head_of_key, head_of_value = attention.heads
    half = attention.query.dtype in _HALF
    types = (*_HALF, torch.float32) if capability >= (8, 0) else (torch.float16, torch.float32)
    alignment = 4 if capability >= (8, 0) else 1  # minimum_gemm_alignment
    if capability >= (8, 0) or (capability >= (7, 0) and half):
        alignment = max(alignment, 8 if half else 4)
    aligned = capability < (8, 0) or all(
        t.storage_offset() % alignment == 0 for t in attention.tensors
    )
    last = [t for t in (*attention.tensors, attention.mask) if t is not None]
    return (
        _usual(attention)
        and all(t.stride(-1) == 1 for t in last)
        and (5, 0) <= capability <= (12, 1)
        and all(t.dtype in types for t in attention.tensors)
        and len({t.shape[-3] for t in attention.tensors}) == 1  # heads: none are shared
        and head == head_of_key
        and head % alignment == head_of_value % alignment == 0
        and aligned
    )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention`` of a CUDA build, in operators that autograd knows.

    Args:
        query, key, value: of shape (…, heads, tokens, head).
        attn_mask: True where there is attention, or added to the scores.
        dropout_p: probability, of weights.
        is_causal: tokens attend to those before them.
        scale: of scores; by default the inverse root of a head's size.
        enable_gqa: fewer heads of keys and values than of queries.
    """
    needs_gradient = any(t.requires_grad for t in (query, key, value))
    attention = Attention(
        query=query,
        key=key,
        value=value,
        mask=attn_mask,
        dropout=dropout_p,
        is_causal=is_causal,
        needs_gradient=needs_gradient,
    )
    backend = choose_backend(attention, fake_device.current[0].capability)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = _as_scores(attn_mask, query)
    keeps = torch.is_grad_enabled() and needs_gradient  # should_compute_logsumexp
    rest: tuple[Any, ...] = (dropout_p, is_causal)
    if backend == "flash":
        return _flash(query, key, value, rest, scale)
    if backend == "cudnn":
        kernel = aten._scaled_dot_product_cudnn_attention
        out = kernel(query, key, value, attn_mask, keeps, *rest, False, scale=scale)
    elif backend == "efficient":
        mask = None if attn_mask is None else _prepared(attn_mask, query, key)
        kernel = aten._scaled_dot_product_efficient_attention
        out = kernel(query, key, value, mask, keeps, *rest, scale=scale)
    else:
        return _math(attention, attn_mask, scale, enable_gqa)
    result: Tensor = out[0]
    return result


def _as_scores(mask: Tensor, like: Tensor) -> Tensor:
    """``convert_boolean_attn_mask``."""

    def scalar(value: float) -> Tensor:
        return torch.scalar_tensor(value, dtype=like.dtype, device=like.device)

    return torch.where(mask, scalar(0.0), scalar(-math.inf))


def _prepared(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """``preprocess_mask``: rows padded until they are aligned, expanded to all heads."""
    strides, last = mask.stride()[:-1], mask.shape[-1]
    if mask.stride(-1) != 1 or any(stride % _MASK_ALIGNMENT for stride in strides):
        missing = _MASK_ALIGNMENT - last % _MASK_ALIGNMENT
        mask = torch.nn.functional.pad(mask, [0, missing])[..., :last]
    return mask.expand(*query.shape[:3], key.shape[2])


def _flash(
    query: Tensor, key: Tensor, value: Tensor, rest: tuple[Any, ...], scale: float | None
) -> Tensor:
    head = query.shape[-1]
    scale = 1 / math.sqrt(head) if scale is None else scale
    missing = -head % _FLASH_ALIGNMENT
    if missing:
        query, key, value = (torch.nn.functional.pad(t, [0, missing]) for t in (query, key, value))
    kernel = aten._scaled_dot_product_flash_attention
    out: Tensor = kernel(query, key, value, *rest, False, scale=scale)[0]
    return out[..., :head] if missing else out


def _math(
    attention: Attention, mask: Tensor | None, scale: float | None, enable_gqa: bool
) -> Tensor:
    """``_scaled_dot_product_attention_math``, half precision in float32 as is the default.

    What C++ holds until it returns is held here, too, and let go in its order.
    """
    given = attention.query.dtype
    cuda: Any = torch.backends.cuda
    wide = given in _HALF and not cuda.fp16_bf16_reduction_math_sdp_allowed()
    query_, key, value = (t.float() if wide else t for t in attention.tensors)
    head = query_.shape[-1]
    scaling = math.sqrt(1 / math.sqrt(head) if scale is None else abs(scale))
    query = query_ * scaling
    if attention.is_causal:
        shape = query.shape[-2], key.shape[-2]
        allowed = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
        mask = _as_scores(allowed, query)
        del allowed
    groups = query.shape[-3] // key.shape[-3] if enable_gqa else 1
    all_keys = key.repeat_interleave(groups, -3) if groups > 1 else key
    all_values = value.repeat_interleave(groups, -3) if groups > 1 else value
    weights = torch.matmul(query, all_keys.transpose(-2, -1) * scaling)
    if mask is not None:
        weights = weights.add_(mask)
    weights = aten._safe_softmax(weights, -1)
    if attention.dropout > 0:
        weights = torch.dropout(weights, attention.dropout, True)
    dropped = weights.to(given)  # the second result, which compilers make first
    out = torch.matmul(weights, all_values).to(given)
    del weights, all_values, all_keys, query, mask, value, key, query_, dropped
    return out


def install(key: str) -> None:
    """Let attention be computed as above.

    Args:
        key: of the dispatcher, for tensors of which it is.
    """
    if key not in _libraries:
        library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
        library.impl("scaled_dot_product_attention", attend, key)  # type: ignore[no-untyped-call]
        _libraries[key] = library


# -- what its kernels take besides -----------------------------------------------------------------


def safe_softmax(kernel: Kernel, call: Call) -> Any:
    """``_safe_softmax``: a softmax whose rows without attention are zero, in five operators."""
    inputs, dim = call.args[:2]
    dtype = call.argument(2, "dtype")
    cast = inputs if dtype is None else inputs.to(dtype)
    out = kernel.watch(aten._softmax(cast, dim, False), aten._softmax)
    masked = kernel.watch(aten.eq(inputs, -math.inf), aten.eq)
    rows = kernel.watch(aten.all(masked, dim, True), aten.all)
    zero = aten.scalar_tensor(0.0, dtype=out.dtype, device=out.device)
    return kernel.watch(aten.where(rows, kernel.watch(zero, aten.scalar_tensor), out), aten.where)


def flash_forward(kernel: Kernel, call: Call) -> Any:
    """``mha_fwd``: few queries without dropout are shared by blocks that divide the keys."""
    out = kernel.watch(call.run(), call.func)
    _shared_by_blocks(kernel, call, call.argument(3, "dropout_p", 0.0))
    return out


def _shared_by_blocks(kernel: Kernel, call: Call, dropout: float) -> None:
    """Blocks that divide the keys have an output each in float32 (``set_params_splitkv``,
    ``num_splits_heuristic``)."""
    query, key = call.args[:2]
    batch, heads, queries, head = query.shape
    tiles = batch * heads * -(-queries // _QUERIES)
    if dropout == 0 and tiles < _BUSY * kernel.device.multiprocessors:
        splits = min(-(-key.shape[2] // _KEYS), kernel.device.multiprocessors, _MOST_SPLITS)
        sums = 4 * splits * batch * heads * queries * (_rounded_head(head) + 1)
        kernel.blocks.unsure(0, sums, call.operator, "how many blocks share the keys of attention")


def flash_backward(kernel: Kernel, call: Call) -> Any:
    """``mha_bwd``: after the gradients, the sums of softmax and dQ in float32; with grouped
    queries also dK and dV of every head."""
    out = kernel.watch(call.run(), call.func)
    query, key = call.args[1:3]
    batch, heads, queries, head = query.shape
    rounded, wide = -(-queries // 128) * 128, _rounded_head(head)
    sums = 4 * batch * heads * rounded
    sizes = [sums, sums * wide]
    if key.shape[1] != heads:
        sizes += 2 * [batch * key.shape[2] * heads * head * query.element_size()]
    kernel.blocks.scratch(sizes, call.operator)
    return out


def _rounded_head(head: int) -> int:
    return -(-head // 32) * 32 if head <= 192 else 256


def efficient_backward(kernel: Kernel, call: Call) -> Any:
    """``_efficient_attention_backward``: delta, and sums in float32 where gradients are not.

    In float32 delta is the sum of a product, copied into another order, and the gradient of the
    query is added up in a workspace with a lock for each head: on an H200 to the byte.
    """
    out = kernel.watch(call.run(), call.func)
    gradient, query, key, value = call.args[:4]
    batch, heads, queries, _ = query.shape
    blocks, operator = kernel.blocks, call.operator
    if query.dtype in _HALF:
        delta = 4 * batch * heads * (-(-queries // 32) * 32)
        blocks.scratch([delta], operator)
        sums = 4 * (query.numel() + key.numel() + value.numel())
        reason = "the fused kernel adds gradients up in float32 or in place"
        blocks.unsure(0, delta + sums, operator, reason)
        return out
    rows = 4 * batch * heads * queries
    product, sums, delta = (
        blocks.take(size, operator) for size in (4 * gradient.numel(), rows, rows)
    )
    blocks.give(sums)
    blocks.give(product)
    blocks.scratch([4 * query.numel() + _LOCK * batch * heads], operator)
    blocks.give(delta)
    return out


def cudnn_forward(kernel: Kernel, call: Call) -> Any:
    """256 bytes on an H200 (cuDNN 9.19); with few queries as flash attention."""
    out = kernel.watch(call.run(), call.func)
    kernel.blocks.scratch([_PLAN], call.operator)
    _shared_by_blocks(kernel, call, call.argument(5, "dropout_p", 0.0))
    return out


def cudnn_backward(kernel: Kernel, call: Call) -> Any:
    """The sums of softmax and dQ in float32, on an H200 (cuDNN 9.19) to the byte; other plans may
    add up dK and dV likewise."""
    out = kernel.watch(call.run(), call.func)
    query, key, value = call.args[1:4]
    low = 4 * (query.numel() + query.numel() // query.shape[-1]) + _PLAN
    high = low + 4 * (key.numel() + value.numel())
    kernel.blocks.unsure(low, high, call.operator, "cuDNN's plan is made on the device")
    return out


ATTENTION: dict[Any, Rule] = {
    aten._safe_softmax: safe_softmax,
    aten._scaled_dot_product_flash_attention: flash_forward,
    aten._scaled_dot_product_flash_attention_backward: flash_backward,
    aten._scaled_dot_product_efficient_attention_backward: efficient_backward,
    aten._scaled_dot_product_cudnn_attention: cudnn_forward,
    aten._scaled_dot_product_cudnn_attention_backward: cudnn_backward,
}
