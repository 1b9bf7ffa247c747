"""An error in a forward pass names the layer it happened in; any other passes unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from epochcast.errors import DryRunError, WorkloadError
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.trial import is_out_of_memory, naming_layer
from epochcast.profiler.workload import Workload


class Raising(nn.Module):
    """Raises what it was given."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, inputs):
        raise self.error


def hooks_of(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def step_with_a_broken_loss(model):
    with naming_layer(model):
        model(torch.zeros(1, 2))
        raise ValueError("mine")


def failing(model, *inputs):
    with pytest.raises(WorkloadError) as caught, naming_layer(model):
        model(*inputs)
    assert hooks_of(model) == 0
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_innermost_layer_is_named_with_the_shape():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(8, 4), nn.Linear(5, 2)))
    message = failing(model, torch.randn(3, 2, 4))
    assert message.startswith("layer '1.1', Linear(in_features=5, out_features=2, bias=True),")
    assert "input of shape (3, 4)" in message
    assert "mat1 and mat2 shapes cannot be multiplied (3x4 and 5x2)" in message


def test_layers_that_were_left_are_not_blamed():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)

        def forward(self, inputs):
            return self.first(inputs) + torch.zeros(7)

    assert failing(Model(), torch.randn(2, 4)).startswith("the model's own forward (")


def test_inputs_given_by_name_are_shown():
    class Model(nn.Module):
        def forward(self, *, tokens):
            return tokens @ torch.zeros(9, 9)

    with pytest.raises(WorkloadError, match=r"input of shape \(2, 4\)"), naming_layer(m := Model()):
        m(tokens=torch.zeros(2, 4))


def test_every_input_is_shown_and_a_large_layer_by_its_class():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(5)), Raising(ValueError("no")))
    message = failing(model, torch.randn(2, 3))
    assert "Raising() failed" in message or "Raising()," in message
    big = nn.Sequential(nn.Identity(), *(nn.Identity() for _ in range(30)))
    big.forward = lambda a, b: torch.cat((a, b), dim=9)  # type: ignore[assignment]
    message = failing(big, torch.randn(2, 3), torch.randn(4))
    assert message.startswith("the model's own forward (Sequential) failed")
    assert "(2, 3), (4,)" in message


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, TypeError, IndexError])
def test_a_message_is_the_first_line(kind):
    assert failing(nn.Sequential(Raising(kind("one\ntwo"))), torch.zeros(1)).endswith(": one")
    assert failing(nn.Sequential(Raising(kind())), torch.zeros(1)).endswith(f": {kind.__name__}")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        KeyError("mine"),
        KeyboardInterrupt(),
    ],
)
def test_these_pass_unchanged(error):
    model = nn.Sequential(Raising(error))
    with pytest.raises(type(error)) as caught, naming_layer(model):
        model(torch.zeros(1))
    assert caught.value is error
    assert hooks_of(model) == 0


def test_an_error_outside_of_a_forward_passes_unchanged():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"^mine$"):
        step_with_a_broken_loss(model)
    assert hooks_of(model) == 0


def test_after_a_caught_error_the_next_one_is_not_blamed_on_that_layer():
    """A model that tries one branch, catches its error and goes on."""

    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.risky, self.safe = nn.Linear(9, 9), nn.Linear(2, 2)

        def forward(self, inputs):
            try:
                return self.risky(inputs)
            except RuntimeError:
                return self.safe(inputs)

    model = Careful()
    with naming_layer(model):
        model(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"^mine$"):
        step_with_a_broken_loss(model)


def test_hooks_go_after_success_too():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[0].register_forward_hook(lambda *_: None)
    with naming_layer(model):
        assert hooks_of(model) == 1 + 2 * 3
        model(torch.zeros(1, 2))
    assert hooks_of(model) == 1  # the user's own stays


def test_a_real_allocation_that_is_too_large_is_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [ValueError("out of memory"), RuntimeError("shape"), OSError()])
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("returns", "got"),
    [
        (lambda loss: {"loss": loss.sum()}, "returned dict"),
        (lambda loss: loss.sum().item(), "returned a number"),
        (lambda loss: loss, r"returned a tensor of shape \(2, 1\)"),
    ],
)
def test_what_is_no_loss_is_named(returns, got):
    model = nn.Linear(3, 1)
    workload = Workload(
        model=model,
        train_data=TensorDataset(torch.ones(4, 3)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        forward=lambda m, batch: returns(m(batch[0])),
        batch_size=2,
    )
    loop = TrainingLoop(workload, config_of(workload, None, ()), torch.device("cpu"))
    with pytest.raises(WorkloadError, match=f"forward must return the loss.*{got}"):
        loop.backward([torch.ones(2, 3)])


# -- what a step returns, and a dry run of one that is wrong --------------------------------------


def returning(result):
    """A workload whose forward returns something of a vector of losses."""
    model = nn.Linear(3, 2)

    def forward(model, batch):
        return result(model(batch[0]).square().sum(1))

    return Workload(
        model=model,
        train_data=TensorDataset(torch.ones(8, 3)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        forward=forward,
        batch_size=4,
    )


@pytest.mark.parametrize(
    ("result", "advice"),
    [
        (lambda x: x, r"a tensor of shape \(4,\); take its \.mean\(\)$"),
        (lambda x: {"loss": x.mean()}, r"dict; return its \['loss'\]$"),
        (lambda x: (x.mean(), 1), "tuple; return the loss alone$"),
        (lambda x: {"total": x.mean()}, "dict; return the loss alone$"),
        (lambda x: x.mean().item(), r"returned a number; leave out \.item\(\) or float\(\)$"),
    ],
)
def test_what_is_no_loss_is_told_from_one(result, advice):
    work = returning(result)
    loop = TrainingLoop(work, config_of(work, None, ()), torch.device("cpu"))
    with pytest.raises(WorkloadError, match=f"^forward must return the loss .* {advice}"):
        loop.backward(next(iter(loop.train_loader())))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: x @ torch.ones(5), r"^the step fails: test_failures\.py, line \d+: Runtime"),
        (lambda x: x[x > 0].sum(), "^cannot be traced without values: .*; a mask picks as many"),
        (lambda x: x.sum() if x[0] > 0 else x, "^cannot be .* a number decides what is done"),
    ],
)
def test_a_dry_run_tells_a_step_that_is_wrong_from_one_that_asks_for_values(result, message):
    with pytest.raises(DryRunError, match=message):
        simulate(lambda: returning(result))
