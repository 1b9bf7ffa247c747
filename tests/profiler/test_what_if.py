"""Changes that make a training need less: other optimizers, checkpointed blocks."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from epochcast.errors import UsageError, WorkloadError
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.request import SweepRequest
from epochcast.profiler.what_if import OPTIMIZERS, changed, checkpoint_blocks
from epochcast.profiler.workload import Workload

WIDTH, DEPTH, BATCH = 128, 4, 64


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.b(functional.relu(self.a(x)))


def workload(**changes):
    blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
    made = Workload(
        model=nn.Sequential(nn.Linear(8, WIDTH), blocks, nn.Linear(WIDTH, 1)),
        train_data=TensorDataset(torch.zeros(256, 8), torch.zeros(256, 1)),
        optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))]),
        loss=functional.mse_loss,
        batch_size=BATCH,
    )
    made.optimizer = torch.optim.SGD(made.model.parameters(), lr=0.1)
    return changed(made, changes)


def footprint(**changes):
    return simulate(lambda: workload(**changes))[0].footprint


@pytest.mark.parametrize(
    ("name", "states"), [("sgd", 0), ("sgd-momentum", 4), ("adam", 8), ("adamw", 8), ("rmsprop", 4)]
)
def test_optimizers_hold_their_states(name, states) -> None:
    """Bytes a parameter; Adam also counts steps, on the CPU."""
    found = footprint(optimizer=name)
    count = len(list(workload().model.parameters()))
    assert 0 <= found.optimizer_bytes - states * found.parameters <= 4 * count


def test_8_bit_states_are_a_byte_and_a_scale() -> None:
    """Two states; a float32 for 256 values of each; small tensors in float32."""
    found = footprint(optimizer="adam8bit")
    sizes = [p.numel() for p in workload().model.parameters()]
    expected = sum(2 * n + 2 * 4 * -(-n // 256) if n >= 4096 else 8 * n for n in sizes)
    assert found.optimizer_bytes == expected
    assert "adamw8bit" in OPTIMIZERS


def test_the_rate_of_the_first_optimizer_is_kept() -> None:
    assert workload(optimizer="adam").optimizers[0].param_groups[0]["lr"] == 0.1


def test_checkpointed_blocks_keep_their_inputs_and_are_computed_again() -> None:
    """As far as backward needs: not the second product (torch.utils.checkpoint stops early)."""
    plain, kept = footprint(), footprint(checkpointing="on")
    assert kept.activation_bytes < 0.5 * plain.activation_bytes
    first_products = 2 * BATCH * DEPTH * WIDTH * 4 * WIDTH
    assert kept.flops - plain.flops == first_products


def test_checkpointing_computes_the_same() -> None:
    torch.manual_seed(0)
    made = workload()
    inputs = torch.randn(4, 8, requires_grad=True)
    expected = made.model(inputs)
    assert checkpoint_blocks(made.model) == DEPTH
    assert torch.equal(made.model(inputs), expected)
    made.model.eval()
    with torch.no_grad():
        assert torch.equal(made.model(inputs), expected)


def test_a_model_of_transformers_does_it_itself() -> None:
    called = []
    model = nn.Linear(1, 1)
    model.gradient_checkpointing_enable = called.append
    assert checkpoint_blocks(model) == 1
    assert called == [{"use_reentrant": False, "preserve_rng_state": False}]


def test_refused() -> None:
    with pytest.raises(WorkloadError, match="repeated blocks"):
        checkpoint_blocks(nn.Linear(1, 1))
    with pytest.raises(WorkloadError, match=r"one of sgd, .* but got 'lion'"):
        workload(optimizer="lion")
    with pytest.raises(UsageError, match="what-ifs are checkpointing, optimizer, but got width"):
        SweepRequest(target="mnist-mlp", what_if={"width": 3})


def test_checkpointing_is_on_or_off() -> None:
    with pytest.raises(WorkloadError, match="checkpointing must be on or off, but got 'maybe'"):
        workload(checkpointing="maybe")
    assert footprint(checkpointing="off") == footprint()
