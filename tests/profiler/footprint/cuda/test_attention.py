"""Which backend of attention is chosen: the table of the source, a row for each reason."""

from __future__ import annotations

import pytest
import torch

from epochcast.profiler.footprint.cuda.attention import Attention, choose_backend
from epochcast.profiler.footprint.cuda.workspaces import TORCH

T4, A100, RTX_3090, H100, BLACKWELL = (7, 5), (8, 0), (8, 6), (9, 0), (12, 0)
BLACKWELL_100 = (10, 0)
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def attention(
    dtype=BF16, head=64, tokens=128, keys=None, head_of_value=None, heads_of_keys=4, **settings
):
    def of(length, size, heads=heads_of_keys):
        return torch.empty(2, heads, length, size, dtype=dtype, device="meta")

    return Attention(
        query=of(tokens, head, 4),
        key=of(keys or tokens, head),
        value=of(keys or tokens, head_of_value or head),
        **settings,
    )


MASK = torch.empty(2, 1, 128, 128, dtype=torch.bool, device="meta")
DENSE_NOWHERE = torch.empty(2, 1, 128, 1, dtype=torch.bool, device="meta").expand(2, 1, 128, 128)


@pytest.mark.parametrize(
    ("capability", "call", "backend"),
    [
        (A100, attention(), "flash"),
        (A100, attention(FP16, dropout=0.1), "flash"),
        (A100, attention(FP32), "efficient"),
        (A100, attention(mask=MASK), "efficient"),
        (A100, attention(heads_of_keys=2), "flash"),
        (A100, attention(FP32, heads_of_keys=2), "math"),  # efficient attention shares no heads
        (A100, attention(mask=DENSE_NOWHERE), "math"),
        (A100, attention(head=320), "efficient"),
        (A100, attention(head=60), "flash"),  # padded to 64
        (A100, attention(head=60, mask=MASK), "math"),  # not aligned to 8
        (A100, attention(head_of_value=32), "efficient"),
        (A100, attention(keys=64, is_causal=True), "efficient"),
        (A100, attention(torch.float64), "math"),
        (RTX_3090, attention(head=200), "efficient"),
        (RTX_3090, attention(head=200, needs_gradient=False), "flash"),
        (RTX_3090, attention(head=256), "flash"),
        (RTX_3090, attention(head=256, dropout=0.1), "efficient"),
        (T4, attention(), "math"),  # no bfloat16 there
        (T4, attention(FP16), "efficient"),
        (T4, attention(FP16, head=60), "math"),
        (T4, attention(FP32, head=63), "efficient"),
        (H100, attention(), "cudnn"),
        (H100, attention(dropout=0.1), "flash" if TORCH >= (2, 12) else "cudnn"),  # not of 1/16
        (H100, attention(dropout=0.125), "cudnn"),
        (H100, attention(FP32), "efficient"),
        (H100, attention(head=192), "cudnn"),
        (BLACKWELL_100, attention(head=192), "flash"),
        (BLACKWELL_100, attention(head=192, head_of_value=128), "cudnn"),
        (H100, attention(head=192, head_of_value=128), "cudnn"),
        (BLACKWELL, attention(), "flash"),
    ],
)
def test_backend(capability, call, backend):
    assert choose_backend(call, capability) == backend


def test_three_axes_are_left_to_mathematics():
    flat = torch.empty(2, 128, 64, dtype=BF16, device="meta")
    assert choose_backend(Attention(query=flat, key=flat, value=flat), A100) == "math"


def test_what_the_user_disabled_is_not_taken():
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert choose_backend(attention(), A100) == "math"
