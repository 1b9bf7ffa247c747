"""A step of the workload's own, counted: a real one and one of fake tensors are the same."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from counted_steps import workload_of
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from epochcast.errors import DryRunError
from epochcast.profiler.device import HostTimer
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.footprint.tracker import measure_footprint
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.updates import around_updates
from epochcast.profiler.workload import Workload


def loop_of(workload):
    return TrainingLoop(workload, config_of(workload, None, ()), torch.device("cpu"))


def really(workload, steps=2):
    loop = loop_of(workload)
    batches = itertools.chain.from_iterable(itertools.repeat(loop.train_loader()))
    for batch in itertools.islice(batches, steps):
        loop.micro_step(batch, HostTimer())
    return measure_footprint(loop)


def fake(build):
    (found,) = simulate(build)
    return found.footprint


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def by_itself(model, optimizer, every=1):
    calls = itertools.count(1)

    def differentiate(batch):
        loss = functional.cross_entropy(model(batch[0]), batch[1])
        loss = loss / every if every > 1 else loss
        loss.backward()

    def train_step(batch):
        differentiate(batch)
        if next(calls) % every == 0:
            optimizer.step()
            optimizer.zero_grad()

    return workload_of(model, optimizer=optimizer, loss=None, train_step=train_step)


# -- the law: who steps makes no difference --------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_a_step_of_ones_own_is_counted_like_the_same_one_made_here(every):
    optimizer = torch.optim.Adam

    def own():
        model = layers()
        return by_itself(model, optimizer(model.parameters(), lr=0.1), every)

    def plain():
        model = layers()
        made = optimizer(model.parameters(), lr=0.1)
        return workload_of(model, optimizer=made, accumulation=every)

    found, ours = fake(own), fake(plain)
    assert found == really(own(), steps=2 * every)
    same = [
        "flops", "bytes_moved", "operators", "parameters", "parameter_bytes", "gradient_bytes",
        "optimizer_bytes", "static_bytes", "step_peak_bytes", "batch_elements",
    ]  # fmt: skip
    assert [getattr(found, n) for n in same] == [getattr(ours, n) for n in same]
    assert found.update_operators == ours.update_operators // every  # of a call, in the mean
    # the gradient of the loss is made before autograd is at work
    assert 0 <= found.activation_bytes - ours.activation_bytes <= 4
    assert 0 <= found.update_peak_bytes - ours.update_peak_bytes <= 4


def networks():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
    return generator, nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))


def adversarial(together=True, every=1, read=lambda loss: loss.item()):
    """The generator is updated in every so many calls, the critic in each."""
    generator, critic = networks()
    of_generator = torch.optim.Adam(generator.parameters())
    of_critic = torch.optim.RMSprop(critic.parameters())
    calls, losses = itertools.count(1), []

    def train_step(batch):
        made = generator(torch.randn_like(batch[0]))
        of_critic.zero_grad()
        loss = critic(made.detach()).mean() - critic(batch[0]).mean()
        loss.backward()
        of_critic.step()
        if next(calls) % every == 0:
            of_generator.zero_grad()
            (-critic(made).mean()).backward()
            of_generator.step()
        losses.append(read(loss))
        assert f"{losses[-1]:.3f} {sum(losses) / len(losses)}"

    return Workload(
        model=nn.ModuleList([generator, critic]) if together else generator,
        train_data=TensorDataset(torch.randn(32, 3)),
        optimizer=[of_generator, of_critic],
        train_step=train_step,
        batch_size=8,
    )


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("together", [True, False])
def test_two_networks_with_an_optimizer_each(together, every):
    """Whether the model holds both or not, what the optimizers hold is counted."""
    found = fake(lambda: adversarial(together, every))
    assert found == really(adversarial(together, every), steps=4)
    parameters = sum(p.numel() for network in networks() for p in network.parameters())
    assert (found.parameters, found.gradient_bytes) == (parameters, 4 * parameters)


def test_a_call_counts_in_the_mean_over_those_between_two_updates_of_each():
    """The generator's backward pass goes through both networks; a third of it comes on a call."""
    always, rarely = fake(adversarial), fake(lambda: adversarial(every=3))
    never = fake(lambda: replace_optimizers(adversarial(every=10**9)))
    mean = (always.flops + 2 * never.flops) // 3
    assert rarely.flops == mean
    assert rarely.step_peak_bytes == always.step_peak_bytes


def replace_optimizers(workload):
    workload.optimizer = workload.optimizers[1]
    return workload


def test_updates_are_timed_one_by_one():
    loop = loop_of(adversarial())
    batch = next(iter(loop.train_loader()))
    assert len(loop.micro_step(batch, HostTimer())) == 2
    assert loop.splits_update


def with_closure(evaluated=True, optimizer=torch.optim.Adam):
    """The optimizer evaluates the loss at the beginning of its step."""
    model = layers()
    optimizer = optimizer(model.parameters(), lr=0.1)

    def train_step(batch):
        def closure():
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            return loss

        loss = None if evaluated else closure()
        optimizer.step(closure=closure) if evaluated else optimizer.step()
        return loss

    return workload_of(model, optimizer=optimizer, loss=None, train_step=train_step)


def test_an_update_begins_when_the_closure_of_its_step_has_been_evaluated():
    found = fake(with_closure)
    assert found == really(with_closure()) == fake(lambda: with_closure(evaluated=False))
    loop = loop_of(with_closure())
    timer = itertools.count()
    moments = SimpleNamespace(mark=lambda: next(timer))
    assert loop.micro_step(next(iter(loop.train_loader())), moments) == [(0, 1)]


@pytest.mark.parametrize("asks", [0, 1, 3])
def test_an_optimizer_of_ones_own_may_evaluate_as_it_likes(asks):
    class Own(torch.optim.SGD):
        def step(self, closure=None):
            for _ in range(asks):
                closure()

    optimizer, seen = Own(layers().parameters(), lr=0.1), []
    with around_updates(
        [optimizer], lambda _: seen.append("begins"), lambda _: seen.append("ends")
    ):
        optimizer.step(lambda: seen.append("evaluates"))
    assert seen == (["evaluates", "begins", "ends"] * asks or ["begins", "ends"])


class SharpnessAware(torch.optim.SGD):
    """Foret et al. (2021): evaluates again where the loss is larger."""

    def step(self, closure=None):
        loss = closure()
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.add_(p.grad, alpha=0.01)
        closure()
        super().step()
        return loss


def test_each_evaluation_of_a_step_is_a_pass():
    torch.optim.SGD(layers().parameters(), lr=0.1)  # from then on its step has hooks, too
    twice = fake(lambda: with_closure(optimizer=SharpnessAware))
    assert twice == really(with_closure(optimizer=SharpnessAware))
    once = fake(lambda: with_closure(optimizer=torch.optim.SGD))
    assert (twice.flops, twice.operators) == (2 * once.flops, 2 * once.operators)
    loop, timer = loop_of(with_closure(optimizer=SharpnessAware)), itertools.count()
    moments = SimpleNamespace(mark=lambda: next(timer))
    assert loop.micro_step(next(iter(loop.train_loader())), moments) == [(0, 1), (2, 3)]


def test_a_step_without_any_optimizer():
    def build():
        model = layers()

        def train_step(batch):
            functional.cross_entropy(model(batch[0]), batch[1]).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None

        workload = workload_of(model, loss=None, train_step=train_step)
        workload.optimizer = None
        return workload

    found = fake(build)
    assert found == really(build())
    assert found.flops > 0
    assert found.update_operators == 0


# -- what cannot be said ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        float,
        lambda loss: loss.item() > 0,
        lambda loss: loss.item() if loss.item() else 0,
        lambda loss: [1, 2, 3][loss.item()],
        lambda loss: max(0.0, loss.item()),
        lambda loss: int(loss.item()),
        lambda loss: loss.detach().mul_(loss.item()),
        lambda loss: loss.detach().numpy(),
        lambda loss: 1 if loss > 0 else 2,
    ],
)
def test_a_number_that_is_read_decides_nothing(read):
    with pytest.raises(DryRunError, match=r"without values: test_own_steps\.py, line \d+"):
        fake(lambda: adversarial(read=read))


def mixed(x, y, outputs):
    share = torch.distributions.Beta(0.2, 0.2).sample().item()
    loss = functional.cross_entropy(outputs(share * x + (1 - share) * x.flip(0)), y)
    return loss * share / (1 + share) + share


def averaged(x, y, outputs):
    count = (y > 0).sum().item()
    weights = y * count  # stay whole numbers
    assert weights.dtype == torch.int64
    return (functional.cross_entropy(outputs(x), y, reduction="none") * weights).sum() / count


def sampled(x, y, outputs):
    chosen = torch.distributions.Categorical(logits=outputs(x))
    return -(chosen.log_prob(chosen.sample()) * y).mean() + (chosen.entropy() - 2).abs().mean()


@pytest.mark.parametrize("loss", [mixed, averaged, sampled])
def test_numbers_that_are_read_meet_tensors_and_distributions_take_their_arguments(loss):
    def build():
        return workload_of(layers(), loss=None, forward=lambda m, batch: loss(*batch, m))

    loop = loop_of(build())
    for batch in [next(iter(loop.train_loader()))] * 2:
        loop.micro_step(batch, HostTimer())
    assert fake(build) == measure_footprint(loop)


def test_an_item_that_is_known_is_itself():
    def forward(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1]) * torch.tensor(2.0).item()

    assert fake(lambda: workload_of(layers(), loss=None, forward=forward)).flops > 0
    assert torch.tensor(1.5).item() == 1.5


def test_an_optimizer_that_is_never_stepped():
    def build():
        model = layers()
        workload = by_itself(model, torch.optim.SGD(model.parameters(), lr=0.1))
        workload.optimizer = torch.optim.Adam(model.parameters())
        return workload

    with pytest.raises(DryRunError, match="64 calls or two minutes train_step did not"):
        fake(build)
    assert really(build()) is None
