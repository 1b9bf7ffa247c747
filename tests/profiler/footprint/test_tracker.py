"""What the tracker counts: closed forms written out, and torch.profiler's own memory events."""

from __future__ import annotations

from itertools import pairwise, repeat

import pytest
import torch
from counted_steps import footprint_of, largest_sum, loop_of, memory_events
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from epochcast.profiler.footprint.tracker import OperatorTracker, measure_footprint

FLOAT = 4  # bytes
COUNTER = 4  # bytes of an optimizer's step counter, a float32 tensor
SCALARS = 64  # bytes: numbers that torch wraps as tensors inside an operator


def nbytes(model):
    return sum(p.numel() * p.element_size() for p in model.parameters())


# -- operators, bytes, parameters ---------------------------------------------------------------


def test_operators_and_bytes_of_one_addition():
    a = torch.randn(10)
    tracker = OperatorTracker("cpu")
    with tracker:
        a + a
        a.view(2, 5)
    assert tracker.operators == {"forward": 1}  # views are free
    assert tracker.bytes_moved["forward"] == 3 * 10 * FLOAT  # two read, one written


def test_everything_is_positive_and_a_view_is_free():
    footprint = footprint_of(nn.Linear(6, 3), torch.randn(4, 6), torch.randn(4, 3))
    assert footprint.operators > 0
    assert footprint.update_operators > 0
    assert footprint.bytes_moved > nbytes(nn.Linear(6, 3))


def test_tied_weights_are_counted_once():
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Tanh(), nn.Linear(5, 5, bias=False))
    model[2].weight = model[0].weight
    footprint = footprint_of(model, torch.randn(4, 5), torch.randn(4, 5))
    assert footprint.parameters == footprint.trainable_parameters == 25
    assert footprint.static_bytes == 25 * FLOAT


def test_a_frozen_part_has_no_gradient():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    footprint = footprint_of(
        model,
        torch.randn(4, 6),
        torch.randn(4, 3),
        optimizer=torch.optim.SGD(model[1].parameters(), lr=0.1),
    )
    forward = 2 * 4 * 6 * 5 + 2 * 4 * 5 * 3
    assert footprint.parameters == 6 * 5 + 5 + 5 * 3 + 3
    assert footprint.trainable_parameters == 5 * 3 + 3
    assert footprint.flops == forward + 2 * 4 * 5 * 3


def test_an_operator_of_ones_own_is_named_not_zeroed():
    @torch.library.custom_op("epochcast_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    twice.register_autograd(lambda context, gradient: gradient * 2)

    def loss(outputs, targets):
        return functional.mse_loss(twice(outputs), targets)

    footprint = footprint_of(nn.Linear(6, 3), torch.randn(4, 6), torch.randn(4, 3), loss=loss)
    assert footprint.uncounted_operators == (("epochcast_test.twice.default", 1),)


@pytest.mark.parametrize(
    ("operation", "names"),
    [
        (lambda a: a @ a[0], {"aten.mv.default"}),
        (lambda a: a[0] @ a[0], {"aten.dot.default"}),
        (torch.fft.fft, {"aten._fft_r2c.default"}),
        (lambda a: functional.normalize(a).lgamma().cummax(0), set()),
        (lambda a: (a @ a).exp().sum().sqrt(), set()),
    ],
)
def test_matrix_work_without_a_formula_is_named(operation, names):
    tracker = OperatorTracker("cpu")
    with tracker:
        operation(torch.eye(3))
    assert set(tracker.uncounted) == names


def test_what_an_unfinished_accumulation_left_changes_nothing():
    inputs, targets = torch.randn(4, 6), torch.randn(4, 3)
    loop = loop_of(nn.Linear(6, 3), inputs, targets, accumulation=2)
    clean = measure_footprint(loop, repeat((inputs, targets)))
    loop.backward((inputs, targets))
    assert measure_footprint(loop, repeat((inputs, targets))) == clean


# -- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "copies", "counters"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 1, 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 2, 0),
        (lambda p: torch.optim.RMSprop(p), 2, 1),
        (lambda p: torch.optim.Adam(p), 3, 1),
        (lambda p: torch.optim.Adam(p, amsgrad=True), 4, 1),
    ],
    ids=["sgd", "momentum", "rmsprop", "adam", "amsgrad"],
)
def test_static_bytes(optimizer, copies, counters):
    """Parameters, as many copies as the optimizer keeps moments, and a counter per parameter."""
    model = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    footprint = footprint_of(
        model, torch.randn(4, 7), torch.randn(4, 3), optimizer=optimizer(model.parameters())
    )
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    expected = copies * nbytes(model) + 6 * counters * COUNTER + buffers
    assert footprint.static_bytes == expected


@given(batch=st.integers(1, 30), inputs=st.integers(1, 20), outputs=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_peaks_of_a_linear_layer_with_sgd(batch, inputs, outputs):
    """Written out operator by operator: y = x·Wᵀ, loss = Σy, plain SGD.

    Forward: y, then the loss, after which nothing needs y. Backward: the loss's gradient 1, which
    Σ's gradient only expands; Wᵀ's gradient is made transposed in its final place.
    Update: W -= lr·g allocates nothing, so parameter and gradient are all that is alive.
    """
    footprint = footprint_of(
        nn.Linear(inputs, outputs, bias=False),
        torch.randn(batch, inputs),
        torch.randn(batch, outputs),
        loss=lambda y, _: y.sum(),
    )
    weight = inputs * outputs * FLOAT
    data = batch * (inputs + outputs) * FLOAT
    y, scalar = batch * outputs * FLOAT, FLOAT
    forward = y + scalar
    backward = 2 * scalar + weight  # the loss, its gradient, the weight's gradient
    assert footprint.static_bytes == weight
    assert footprint.step_peak_bytes == weight + data + max(forward, backward)
    assert footprint.update_peak_bytes == 2 * weight + data


def test_peaks_of_an_adam_update():
    """Adam on a CPU: √v, then that divided by a number, both alive at once; then the update."""
    model = nn.Linear(10, 10, bias=False)
    footprint = footprint_of(
        model,
        torch.randn(2, 10),
        torch.randn(2, 10),
        optimizer=torch.optim.Adam(model.parameters(), foreach=False),
    )
    weight = 100 * FLOAT
    assert footprint.static_bytes == 3 * weight + COUNTER
    kept = footprint.static_bytes + weight  # and the gradient
    data = 2 * 2 * 10 * FLOAT
    assert footprint.update_peak_bytes == kept + 2 * weight + data
    assert footprint.peak_bytes == footprint.update_peak_bytes > footprint.step_peak_bytes


def test_a_tensor_counts_until_it_dies():
    tracker = OperatorTracker("cpu")
    a = torch.ones(1000)
    with tracker:
        b = a + 1
        assert tracker.memory.live_bytes == 1000 * FLOAT
        view = b[10:]
        del b
        assert tracker.memory.live_bytes == 1000 * FLOAT  # the view keeps its storage
        del view
        assert tracker.memory.live_bytes == 0
        c = a * 2
    assert tracker.memory.peak_bytes == {"forward": 1000 * FLOAT}
    del c
    assert tracker.memory.live_bytes == 0


def test_tensors_of_another_device_are_not_counted():
    tracker = OperatorTracker("cuda")
    with tracker:
        torch.ones(3) + 1
    assert tracker.memory.live_bytes == 0
    assert tracker.operators["forward"] > 0


def test_accumulation_keeps_gradients_through_the_next_micro_step():
    """With two micro-steps the first one's gradients are alive during the whole second one.

    Here the last layer's gradients are what a step's peak has not seen yet: they are made after it.
    """
    inputs, targets = torch.randn(500, 20), torch.randn(500, 20)

    def footprint(accumulation):
        model = nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 20))
        return footprint_of(
            model, inputs, targets, loss=functional.cross_entropy, accumulation=accumulation
        )

    one, two, three = (footprint(k).step_peak_bytes for k in (1, 2, 3))
    gradients = 2 * (20 * 20 + 20) * FLOAT
    assert 0 < two - one <= gradients + SCALARS
    assert three == two


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p),
    "adam": lambda p: torch.optim.Adam(p),
}
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid)


@st.composite
def mlps(draw):
    widths = draw(st.lists(st.integers(1, 60), min_size=2, max_size=4))
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), draw(st.sampled_from(ACTIVATIONS))()]
    return nn.Sequential(*layers[:-1]), widths[0], widths[-1]


@given(
    mlp=mlps(),
    batch=st.integers(1, 200),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    accumulation=st.integers(1, 3),
)
@settings(max_examples=20, deadline=None)
def test_peaks_equal_those_of_the_profilers_memory_events(mlp, batch, optimizer, accumulation):
    """The loss is one whose kernels allocate nothing inside; mse_loss for one does, unseen."""
    model, inputs, outputs = mlp
    x, y = torch.randn(batch, inputs), torch.randn(batch, outputs)
    loop = loop_of(
        model,
        x,
        y,
        loss=functional.cross_entropy,
        optimizer=OPTIMIZERS[optimizer](model.parameters()),
        accumulation=accumulation,
    )
    footprint = measure_footprint(loop, repeat((x, y)))

    def step():
        for _ in range(accumulation):
            loop.backward((x, y))
        loop.update()

    baseline = footprint.static_bytes + FLOAT * batch * (inputs + outputs)
    real = baseline + largest_sum(memory_events(step))
    assert abs(footprint.peak_bytes - real) <= SCALARS


def test_a_normalised_and_pooled_step_against_the_profilers_memory_events():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    tracked, real = tracked_and_real(model, torch.randn(8, 3, 16, 16))
    assert abs(tracked - real) <= SCALARS


def test_a_convolution_against_the_profilers_memory_events():
    """Its kernel's workspace, which depends on the processor, is all that is not seen."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    tracked, real = tracked_and_real(model, torch.randn(8, 3, 16, 16))
    assert 0.4 * real <= tracked <= real + SCALARS


def tracked_and_real(model, x):
    """Peak bytes of a step, as the tracker and as the profiler's memory events have it."""
    y = torch.randn(len(x), model(x).shape[1])
    loop = loop_of(model, x, y, loss=functional.cross_entropy)
    footprint = measure_footprint(loop, repeat((x, y)))
    events = memory_events(lambda: (loop.backward((x, y)), loop.update()))
    real = footprint.static_bytes + FLOAT * (x.numel() + y.numel()) + largest_sum(events)
    return footprint.peak_bytes, real
