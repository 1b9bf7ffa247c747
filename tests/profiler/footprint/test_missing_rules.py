"""Operators that torch cannot trace on fake tensors: results as their kernels return them."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map_only

from epochcast.profiler.footprint.fake_tensors import StandIns, fake_mode
from epochcast.profiler.footprint.missing_rules import MISSING_RULES

aten = torch.ops.aten
SCORES, CLASSES = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
MANY = torch.tensor([[0, 2, -1, -1, -1]] * 6)
LOG_PROBS = torch.randn(12, 3, 5).log_softmax(-1)  # steps, samples, labels
TARGETS = torch.tensor([[1, 2, 3, 4]] * 3)
LENGTHS = torch.tensor([12] * 3), torch.tensor([4] * 3)
PATHS = aten._ctc_loss.Tensor(LOG_PROBS, TARGETS, *LENGTHS)
ENDS = torch.tensor([2, 4, 6], dtype=torch.int32)
CALLS = {
    "ctc": (aten._ctc_loss.Tensor, (LOG_PROBS, TARGETS, *LENGTHS)),
    "ctc, in a row": (aten._ctc_loss.Tensor, (LOG_PROBS, TARGETS.flatten(), *LENGTHS)),
    "ctc, listed": (aten._ctc_loss.default, (LOG_PROBS, TARGETS, [12] * 3, [4] * 3)),
    "ctc, backward": (
        aten._ctc_loss_backward.Tensor,
        (torch.ones(3), LOG_PROBS, TARGETS, *LENGTHS, *PATHS, 0),
    ),
    "margin": (aten.multi_margin_loss.default, (SCORES, CLASSES)),
    "margin, each": (aten.multi_margin_loss.default, (SCORES, CLASSES, 1, 1, None, 0)),
    "margin, backward": (
        aten.multi_margin_loss_backward.default,
        (torch.ones(()), SCORES, CLASSES, 1, 1),
    ),
    "labels": (aten.multilabel_margin_loss_forward.default, (SCORES, MANY, 1)),
    "labels, each": (aten.multilabel_margin_loss_forward.default, (SCORES, MANY, 0)),
    "labels, backward": (
        aten.multilabel_margin_loss_backward.default,
        (torch.ones(()), SCORES, MANY, 1, torch.zeros_like(SCORES)),
    ),
    "groups of rows": (aten._grouped_mm.default, (torch.randn(6, 8), torch.randn(3, 8, 12), ENDS)),
    "groups of columns": (
        aten._grouped_mm.default,
        (torch.randn(8, 24), torch.randn(24, 8), 4 * ENDS),
    ),
    "groups": (aten._grouped_mm.default, (torch.randn(3, 8, 4), torch.randn(3, 4, 8))),
}


def layouts(out):
    return [(t.shape, t.stride(), t.dtype) for t in tree_flatten(out)[0]]


@pytest.mark.parametrize("name", CALLS)
def test_results_lie_as_the_kernels_have_them(name) -> None:
    func, args = CALLS[name]
    assert func in MISSING_RULES
    stand_ins = StandIns(fake_mode())
    fakes = tree_map_only(torch.Tensor, stand_ins.fake, args)
    with stand_ins.on():
        found = func(*fakes)
    assert layouts(found) == layouts(func(*args))


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_fused_cell_of_a_gru_which_cuda_alone_has(has_bias) -> None:
    state = torch.zeros(4, 8)
    gates = torch.zeros(4, 24)
    after, kept = MISSING_RULES[aten._thnn_fused_gru_cell.default](gates, gates, state)
    assert (after.shape, kept.shape) == (state.shape, (4, 40))
    gradients = MISSING_RULES[aten._thnn_fused_gru_cell_backward.default](after, kept, has_bias)
    biases = [(24,), (24,)] if has_bias else [None, None]
    expected = [gates.shape, gates.shape, state.shape, *biases]
    assert [None if g is None else g.shape for g in gradients] == expected


def test_cudnns_ctc_loss_is_for_targets_in_a_row_on_the_cpu() -> None:
    rule = MISSING_RULES[aten._use_cudnn_ctc_loss.Tensor]
    on_device = LOG_PROBS.to("meta")
    row = TARGETS.flatten().to(torch.int32)
    assert rule(on_device, row, *LENGTHS, 0)
    assert not rule(on_device, row, *LENGTHS, 1)
    assert not rule(on_device, TARGETS, *LENGTHS, 0)
    assert not rule(on_device, row.to("meta"), *LENGTHS, 0)
