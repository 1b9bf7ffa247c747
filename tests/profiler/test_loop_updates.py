"""What people do around an optimizer's step: clipping, a schedule, a moving average."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from counted_steps import assert_same, real_footprint
from torch import nn
from torch.nn import functional
from torch.optim import SGD, swa_utils
from torch.utils.data import DataLoader, TensorDataset

from epochcast.errors import WorkloadError
from epochcast.profiler.device import HostTimer
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.loop import TrainingLoop, config_of
from epochcast.profiler.workload import Workload

DATA = TensorDataset(torch.randn(8, 6), torch.randn(8, 3) * 100)  # gradients that need clipping


def workload_of(schedule=None, ema=False, optimizer=torch.optim.Adam, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    built = optimizer(model.parameters(), lr=0.01)
    if ema:
        options["after_update"] = torch.optim.swa_utils.AveragedModel(model).update_parameters
    return Workload(
        **{
            "model": model,
            "train_data": DATA,
            "optimizer": built,
            "loss": functional.mse_loss,
            "scheduler": schedule and schedule(built),
            "batch_size": 4,
            **options,
        }
    )


def loop_of(workload):
    return TrainingLoop(workload, config_of(workload, None, ()), torch.device("cpu"))


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=5)


def warm_up(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 7))


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.5}, {"clip_value": 0.01}], ids=str)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_is_that_of_a_careful_plain_loop(clip, accumulation):
    loop = loop_of(workload_of(warm_up, accumulation=accumulation, **clip))
    plain = workload_of(warm_up)
    batches = [(DATA.tensors[0][i : i + 4], DATA.tensors[1][i : i + 4]) for i in (0, 4)] * 4
    for number, (inputs, targets) in enumerate(batches, start=1):
        loop.micro_step((inputs, targets), HostTimer())
        (functional.mse_loss(plain.model(inputs), targets) / accumulation).backward()
        if number % accumulation:
            continue
        if "clip_norm" in clip:
            nn.utils.clip_grad_norm_(plain.model.parameters(), clip["clip_norm"])
        if "clip_value" in clip:
            nn.utils.clip_grad_value_(plain.model.parameters(), clip["clip_value"])
        plain.optimizer.step()
        plain.scheduler.step()
        plain.optimizer.zero_grad()
    assert loop.workload.scheduler.last_epoch == len(batches) // accumulation
    for ours, theirs in zip(
        loop.workload.model.parameters(), plain.model.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_clipping_sees_gradients_without_the_scale_of_fp16():
    # SGD moves by lr × gradient: a norm clipped to 0.5 is a step of 0.005, whatever the scale.
    workload = workload_of(optimizer=torch.optim.SGD, clip_norm=0.5, precision="fp16")
    loop = loop_of(workload)
    before = [p.detach().clone() for p in workload.model.parameters()]
    batch = next(iter(loop.train_loader()))
    norm = torch.zeros(())
    while not norm:  # the scaler skips updates until its scale is low enough
        loop.micro_step(batch, HostTimer())
        moved = [b - p.detach() for b, p in zip(before, workload.model.parameters(), strict=True)]
        norm = torch.cat([m.flatten() for m in moved]).norm()
    assert norm == pytest.approx(0.005, rel=1e-3)


def test_what_comes_after_an_update_comes_once_an_update():
    seen = []
    loop = loop_of(workload_of(after_update=seen.append, accumulation=3))
    for _ in range(7):
        loop.micro_step(next(iter(loop.train_loader())), HostTimer())
    assert seen == [loop.workload.model] * 2


def test_a_schedule_that_is_over_begins_again():
    loop = loop_of(workload_of(one_cycle))
    rates = []
    for _ in range(14):
        loop.micro_step(next(iter(loop.train_loader())), HostTimer())
        rates.append(loop.optimizers[0].param_groups[0]["lr"])
    assert rates[:5] == rates[5:10]
    assert rates[10:] == rates[:4]


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by deepcopy
@pytest.mark.parametrize(
    "options",
    [{"clip_norm": 1.0}, {"clip_value": 1.0}, {"schedule": one_cycle}, {"ema": True}],
    ids=lambda options: next(iter(options)),
)
def test_a_dry_run_counts_it_as_the_real_step_does(options):
    def build():
        return workload_of(**options)

    (found,) = simulate(build, timeline=True)
    real = real_footprint(build)
    if "ema" in options:  # the average's own tensors outlive the real step, not the counted one
        assert replace(found.footprint, timeline=None) == replace(real, timeline=None)
    else:
        assert_same(found.footprint, real)
    (plain,) = simulate(workload_of, timeline=True)
    more = found.footprint.update_operators - plain.footprint.update_operators
    assert (more > 0) == ("schedule" not in options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm must be above 0, but got 0.0"),
        ({"clip_value": -1.0}, "clip_value must be above 0"),
        ({"clip_norm": float("nan")}, "clip_norm must be above 0"),
        (
            {"loss": None, "train_step": print, "clip_norm": 1.0},
            "clip_norm=1.0 would not be applied: train_step does the whole step by itself",
        ),
        (
            {"loss": None, "train_step": print, "schedule": one_cycle},
            "scheduler=… would not be applied",
        ),
        (
            {"train_data": DataLoader(DATA, batch_size=4)},
            "train_data must be a data set, but got a DataLoader.*train_data=loader.dataset",
        ),
        (
            {"eval_data": DataLoader(DATA, batch_size=4)},
            "eval_data must be a data set, but got a DataLoader",
        ),
        ({"optimizer": lambda *_, **__: [1, 2]}, "must be a torch.optim.Optimizer, .* but got int"),
        ({"optimizer": lambda *_, **__: {"g": 1}}, "or a list of them, but got dict"),
        ({"optimizer": lambda *_, **__: None}, "needs an optimizer= over the model's parameters"),
        (
            {"schedule": torch.optim.lr_scheduler.ReduceLROnPlateau},
            "ReduceLROnPlateau is stepped with a metric after an evaluation",
        ),
        (
            {"schedule": lambda _: print},
            "scheduler must be of torch.optim.lr_scheduler",
        ),
        ({"optimizer": lambda *_, **__: SGD}, "or a list of them, but got the class SGD"),
        ({"loss": nn.MSELoss}, r"loss must be a function, but got the class MSELoss: write MSE"),
        ({"model": [nn.Linear(2, 2)]}, "several in an nn.ModuleList, but got list"),
        ({"batch_size": "32"}, "batch_size must be a whole number, but got '32'"),
        ({"collate": 3}, "collate must be a function, but got int"),
        ({"after_update": swa_utils.AveragedModel(nn.Linear(2, 2))}, "average.update_parameters"),
        ({"train_data": None}, "train_data must be a data set, but got None"),
        ({"train_data": "train.csv"}, "train_data must be a data set, .* but got str"),
        (
            {"eval_data": {"test": DATA, "x": DATA}},
            r"dict of test, x: .*eval_data=data\['test",
        ),
        ({"optimizer": lambda *_, **__: "adam"}, "must be a torch.optim.Optimizer, .* but got str"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_refusals(options, message):
    with pytest.raises(WorkloadError, match=message):
        workload_of(**options)


def test_an_optimizer_that_evaluates_the_loss_itself_is_not_clipped():
    workload = workload_of(optimizer=torch.optim.LBFGS, clip_norm=1.0)
    with pytest.raises(WorkloadError, match="LBFGS evaluates the loss itself"):
        loop_of(workload)
