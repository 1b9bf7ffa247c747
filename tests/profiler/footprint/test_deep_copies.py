"""Fake tensors can be copied deeply, as real ones can: averages of weights are made so."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from counted_steps import counted, workload_of
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from epochcast.profiler.footprint.deep_copies import cloning
from epochcast.profiler.footprint.fake_tensors import fake_mode


def fakes():
    with fake_mode():
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).requires_grad_(True)


def test_a_copy_has_parameters_and_buffers_of_its_own():
    with cloning():
        model = fakes()
        model[0].weight.requires_grad_(False)
        model[0].twin = model[0].bias
        copy = deepcopy(model)
    assert [(n, p.shape, p.requires_grad) for n, p in copy.named_parameters()] == [
        (n, p.shape, p.requires_grad) for n, p in model.named_parameters()
    ]
    tensors = [*copy.parameters(), *copy.buffers()]
    assert all(isinstance(tensor, FakeTensor) for tensor in tensors)
    storages = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    assert not storages & {t.untyped_storage()._cdata for t in tensors}
    assert copy[0].twin is copy[0].bias


def test_what_has_a_history_is_no_more_copied_than_a_real_one():
    with cloning(), fake_mode():
        result = nn.Linear(2, 2)(torch.zeros(1, 2))
        with pytest.raises(RuntimeError, match="graph leaves"):
            deepcopy(result)


def test_without_it_nothing_of_torch_is_changed():
    with cloning():
        assert "__deepcopy__" in FakeTensor.__dict__
    assert "__deepcopy__" not in FakeTensor.__dict__


@pytest.mark.parametrize("at_once", [True, False])
def test_a_step_that_averages_its_weights_is_counted(at_once):
    def build():
        model = nn.Linear(4, 3)
        averages = [deepcopy(model)] if at_once else []

        def average(model):
            if not averages:
                averages.append(deepcopy(model))
            for mine, theirs in zip(averages[0].parameters(), model.parameters(), strict=True):
                mine.data.lerp_(theirs.detach(), 0.01)

        return workload_of(model, after_update=average)

    assert counted(build).parameters == 15
