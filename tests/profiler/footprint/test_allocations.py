"""The book of storages: live bytes, their peak by phase, and what was made and freed in order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from epochcast.profiler.footprint.allocations import Allocations, ModuleScopes, dense_parts

FLOAT = 4  # bytes


def test_live_bytes_rise_with_storages_and_fall_with_the_last_reference():
    book = Allocations("cpu")
    first, second = torch.ones(10), torch.ones(5)
    book.watch([first, first.view(2, 5), second], "activation")
    assert book.live_bytes == 15 * FLOAT
    view = first[3:]
    del first
    assert book.live_bytes == 15 * FLOAT  # a view keeps its storage
    del view
    assert book.live_bytes == 5 * FLOAT
    assert book.events == [1, 2, -1]
    assert second.numel() == 5


def test_each_phase_has_its_own_peak_that_begins_with_what_is_alive():
    book = Allocations("cpu")
    kept, gone = torch.ones(4), torch.ones(6)
    book.watch([kept, gone], "activation")
    del gone
    book.enter("update")
    assert book.peak_bytes == {"forward": 10 * FLOAT, "update": 4 * FLOAT}
    assert kept.numel() == 4


def test_a_storage_that_grows_is_two_blocks_for_a_moment():
    book, tensor = Allocations("cpu"), torch.ones(4)
    book.watch([tensor], "other", "aten::ones", "layer")
    tensor.resize_(10)
    book.refresh([tensor])
    book.refresh([tensor])
    assert book.events == [1, 2, -1]
    assert book.live_bytes == 10 * FLOAT
    assert book.peak_bytes["forward"] == 14 * FLOAT
    assert book.timeline(1, 2).block_operators == (0, 0)


def test_what_a_block_was_for_may_turn_out_later():
    book, made = Allocations("cpu"), torch.ones(3)
    book.watch([made], "other")
    assert book.relabel([made, made[:1]], "gradient") == 3 * FLOAT
    assert book.timeline(0, 0).block_kinds == ("gradient",)


def test_another_device_is_another_book():
    book = Allocations("cuda")
    book.watch([torch.ones(3)], "other")
    assert (book.live_bytes, book.events) == (0, [])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # torch's, once
@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        (torch.strided, [3 * 3 * 4]),
        (torch.sparse_coo, [2 * 3 * 8, 3 * 4]),
        (torch.sparse_csr, [4 * 8, 3 * 8, 3 * 4]),
        (torch.sparse_csc, [4 * 8, 3 * 8, 3 * 4]),
    ],
    ids=["dense", "coo", "csr", "csc"],
)
def test_a_sparse_tensor_is_its_indices_and_values(layout, parts):
    dense = torch.eye(3)
    tensor = dense if layout is torch.strided else dense.to_sparse(layout=layout)
    assert [p.numel() * p.element_size() for p in dense_parts(tensor)] == parts


def test_operators_belong_to_the_innermost_module_in_both_directions():
    seen = []

    class Note(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(scopes.current())
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            seen.append(scopes.current())
            return gradient

    class Noting(nn.Module):
        def forward(self, x):
            return Note.apply(x)

    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(Noting()), nn.Tanh())
    scopes = ModuleScopes(model)
    with scopes.on():
        assert scopes.current() == ""
        loss = Note.apply(model(torch.ones(1, 2))).sum()
        loss.backward()
    assert seen == ["1.0", "", "", "1.0"]
