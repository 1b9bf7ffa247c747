"""A dry run counts what the real step counts: every field, and every allocation in its order."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from counted_steps import assert_same, counted, real_footprint, workload_of
from hypothesis import given, settings
from random_workloads import Checkpointed, workloads
from torch import nn
from torch.optim import optimizer as optimizer_module

import epochcast
from epochcast.cli import cli
from epochcast.costmodel.memory import envelopes
from epochcast.errors import DryRunError, UsageError, WorkloadError
from epochcast.profiler.footprint.dry_run import dry_runs, simulate
from epochcast.profiler.footprint.tracker import OperatorTracker
from epochcast.profiler.protocol import TrialSpec, WorkloadSpec
from epochcast.profiler.request import with_outer_timelines
from epochcast.profiler.trial import build_afresh
from epochcast.records import make_sizes


def dry_run(spec, **options):
    return dry_runs(spec, [spec.batch_size], **options)[0].footprint


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # a first layer's
@given(drawn=workloads())
@settings(max_examples=60, deadline=None)
def test_random_modules(drawn):
    (counted,) = simulate(drawn.build, timeline=True)
    assert_same(counted.footprint, real_footprint(drawn.build))


BUILT_IN = [
    ("mnist-mlp", {}),
    ("mnist-mlp", {"width": 96, "depth": 3}),
    ("digits-mlp", {}),
    ("digits-mlp", {"width": 48, "depth": 1}),
    ("char-gpt", {"layers": 2, "width": 64, "context": 32}),
    ("char-gpt", {"layers": 1, "width": 32, "context": 128, "heads": 2}),
    ("cifar10-resnet", {}),
    ("cifar10-resnet", {"depth": 8, "width": 4}),
    ("cifar10-cnn", {"image_size": 32}),
    ("cifar10-cnn", {"image_size": 20, "width": 3}),
]


@pytest.mark.parametrize("overrides", [{}, {"precision": "bf16"}, {"accumulation": 3}], ids=str)
@pytest.mark.parametrize(("target", "sizes"), BUILT_IN, ids=str)
def test_built_in_workloads(target, sizes, overrides):
    workload = WorkloadSpec(target=target, overrides=make_sizes(overrides))
    spec = TrialSpec(workload=workload, sizes=make_sizes(sizes), batch_size=8)
    fake = dry_run(spec, timeline=True)
    assert_same(fake, real_footprint(lambda: build_afresh(spec), 8))


# -- what a model may do ------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_activation_written_into_a_view(precision):
    """Autograd replays the view of a fake tensor and strides that of a real one: two operators
    more, of which the first frees what it copies, so that the peak is the same."""

    def build():
        torch.manual_seed(0)
        layers = nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)
        model = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 4), nn.ReLU(inplace=True))
        model.extend([nn.Flatten(), nn.Linear(8, 4), *layers])
        return workload_of(model, precision=precision)

    fake, real = counted(build), real_footprint(build)
    same = ("flops", "activation_bytes", "gradient_bytes", "step_peak_bytes", "update_peak_bytes")
    assert [getattr(fake, name) for name in same] == [getattr(real, name) for name in same]


def test_a_model_in_half_precision_is_cast_and_moved_without_memory():
    def build():
        model = nn.Sequential(nn.Linear(2**20, 2**20), nn.Linear(4, 3)).to(torch.bfloat16).to("cpu")
        return workload_of(model[1], data=torch.zeros(8, 4, dtype=torch.bfloat16))

    assert counted(build).parameter_bytes == 2 * 15


def test_a_compiled_model_is_traced_eagerly():
    spec = WorkloadSpec(target="digits-mlp", overrides=(("compile", True),))
    plain = WorkloadSpec(target="digits-mlp")
    assert dry_run(TrialSpec(workload=spec)) == dry_run(TrialSpec(workload=plain))


def test_the_optimizer_of_a_cuda_device_updates_all_parameters_at_once():
    def build():
        return workload_of(nn.Sequential(*(nn.Linear(4, 4) for _ in range(9)), nn.Linear(4, 3)))

    assert counted(build, as_on_cuda=True).update_operators < counted(build).update_operators / 3


# -- building -----------------------------------------------------------------------------------


def test_several_batch_sizes_of_one_model():
    built = []

    def build():
        built.append(1)
        return workload_of(nn.Linear(4, 3))

    footprints = counted(build, 2, 4, 8)
    assert built == [1]
    assert [f.batch_elements for f in footprints] == [2 * 5, 4 * 5, 8 * 5]
    assert footprints[1] == counted(build)


def test_a_constructor_that_needs_values_is_given_them():
    """A tied, partly frozen model, whose optimizer has its state before the first step."""
    built = []

    def build():
        torch.manual_seed(0)
        classes = int(torch.arange(6).view(2, 3).sum(0).max().item()) - 4
        built.append(classes)
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, classes))
        model[2].weight = model[0].weight
        model[0].bias.requires_grad_(False)
        model.constant = torch.ones(3)
        return workload_of(model, optimizer=torch.optim.Adagrad(model.parameters()))

    fake = counted(build)
    assert built == [3]  # the fake constructor failed before it got there
    assert_same(fake, real_footprint(build))


def test_data_that_are_read_as_values_are_built_for_real():
    def collate(items):
        longest = max(int(length) for _, length in items) + 1
        return torch.stack([x for x, _ in items])[:, :longest], torch.zeros(4, dtype=torch.int64)

    def build():
        return workload_of(nn.Linear(3, 3), collate=collate)

    assert counted(build).batch_elements == 4 * 3 + 4


def test_an_optimizer_of_another_model_is_refused():
    def build():
        other = nn.Linear(4, 3)
        return workload_of(nn.Linear(4, 3), optimizer=torch.optim.SGD(other.parameters()))

    with pytest.raises(WorkloadError, match="none of the parameters of SGD got a gradient"):
        counted(build)


def test_errors_of_the_workload_itself():
    spec = TrialSpec(workload=WorkloadSpec(target="mnist-mlp"), sizes=(("width", 0),))
    with pytest.raises(WorkloadError, match="width must be a whole number"):
        dry_run(spec)
    with pytest.raises(WorkloadError, match="batch size 9 is more than the data set's 8 samples"):
        counted(lambda: workload_of(nn.Linear(4, 3)), 9)

    def broken():
        raise OSError("no such file: train.bin")

    with pytest.raises(WorkloadError, match=r"OSError: no such file: train\.bin"):
        counted(broken)


class Routed(nn.Module):
    """Looks at its values to choose a path, as mixtures of experts may."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        if x.sum() > 0:
            return self.out(x)
        return self.out(-x)


class Selected(Routed):
    def forward(self, x):
        return self.out(x[x.sum(1) > -1])


@pytest.mark.parametrize(
    ("model", "operator"), [(Routed, "_local_scalar_dense"), (Selected, "nonzero")]
)
def test_what_depends_on_values_cannot_be_traced(model, operator):
    message = rf"cannot be traced.*test_dry_run\.py, line \d+: .*aten\.{operator}"
    with pytest.raises(DryRunError, match=message):
        counted(lambda: workload_of(model()))


# -- the timeline -------------------------------------------------------------------------------


def test_blocks_are_named_by_kind_and_module():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    timeline = counted(lambda: workload_of(model)).timeline
    found = {
        (kind, timeline.modules[module], timeline.operators[operator], size)
        for kind, module, operator, size in zip(
            timeline.block_kinds,
            timeline.block_modules,
            timeline.block_operators,
            timeline.block_bytes,
            strict=True,
        )
        if module >= 0
    }
    assert ("activation", "1", "aten.tanh.default", 4 * 6 * 4) in found
    assert ("other", "1", "aten.tanh_backward.default", 4 * 6 * 4) in found
    assert ("gradient", "0", "aten.mm.default", 4 * 6 * 4) in found
    assert ("gradient", "2", "aten.mm.default", 6 * 3 * 4) in found
    before = [k for k, m in zip(timeline.block_kinds, timeline.block_modules, strict=True) if m < 0]
    assert before == ["parameter"] * 4 + ["optimizer"] * 12 + ["input"] * 2


def test_checkpointing_trades_activations_for_operators():
    def build(wrapped):
        torch.manual_seed(0)
        inner = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(8)))
        body = Checkpointed(inner, False) if wrapped else inner
        return workload_of(nn.Sequential(nn.Linear(4, 4), body, nn.Linear(4, 3)))

    plain, saved = counted(lambda: build(False)), counted(lambda: build(True))
    assert saved.activation_bytes < plain.activation_bytes / 3
    assert saved.flops > plain.flops
    assert saved.parameter_bytes == plain.parameter_bytes


def test_no_hook_is_left_behind():
    model = nn.Sequential(nn.Linear(4, 3))
    before = dict(optimizer_module._global_optimizer_pre_hooks)
    counted(lambda: workload_of(model))
    assert not model._forward_hooks
    assert not model[0]._forward_pre_hooks
    assert optimizer_module._global_optimizer_pre_hooks == before


def test_a_resized_storage_is_two_blocks_for_a_moment():
    tracker = OperatorTracker("cpu")
    with tracker:
        a = torch.ones(10)
        a.resize_(1000)
    assert tracker.memory.events == [1, 2, -1]
    assert tracker.memory.live_bytes == 4000
    assert tracker.memory.peak_bytes == {"forward": 4040}


# -- GPT-2 --------------------------------------------------------------------------------------

GPT2 = """
import resource, torch
from torch.nn import functional
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.builtin import CharGpt
from epochcast.profiler.workload import Workload

class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return torch.zeros(1024, dtype=torch.int64), torch.zeros(1024, dtype=torch.int64)

def build():
    model = CharGpt(
        vocabulary=50257, context=1024, layers=12, width=768, heads=12, dropout=0.0
    )
    return Workload(
        model=model, train_data=Tokens(), optimizer=torch.optim.AdamW(model.parameters()),
        loss=lambda y, t: functional.cross_entropy(y.flatten(0, 1), t.flatten()), batch_size=8,
    )

(counted,) = simulate(build, timeline=True)
print(counted.footprint.parameters, counted.footprint.flops, counted.footprint.peak_bytes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_gpt2_takes_no_memory():
    """FLOPs: 6 per parameter of a matrix and token, and 2 + 5 products of attention per layer."""
    done = subprocess.run(
        [sys.executable, "-c", GPT2], capture_output=True, text=True, check=True
    ).stdout.split()
    parameters, flops, peak, rss = map(int, done)
    assert parameters == 124_439_808
    matrices = 12 * 12 * 768**2 + 50257 * 768
    attention = 12 * 7 * 2 * 8 * 1024**2 * 768
    assert flops == 6 * matrices * 8 * 1024 + attention
    assert peak > 10 * 2**30
    assert rss < 2**30


# -- in a worker process ------------------------------------------------------------------------


def test_the_library_asks_a_worker_process():
    footprint = epochcast.dry_run("digits-mlp", 16, width=32, timeline=True)
    spec = TrialSpec(
        workload=WorkloadSpec(target="digits-mlp"), sizes=(("width", 32),), batch_size=16
    )
    assert footprint == dry_run(spec, timeline=True)
    with pytest.raises(UsageError, match="no knob 'height'"):
        epochcast.dry_run("digits-mlp", height=3)


UNTRACEABLE = """
import torch
from epochcast import Workload

def workload(width: int = 4):
    model = torch.nn.Linear(4, width)
    return Workload(
        model=model,
        train_data=torch.utils.data.TensorDataset(torch.ones(8, 4)),
        optimizer=torch.optim.SGD(model.parameters()),
        forward=lambda model, batch: model(batch[0]).sum() / float(batch[0].sum()),
    )
"""


@pytest.mark.parametrize("name", ["digits-mlp", "char-gpt", "cifar10-resnet"])
def test_timelines_of_two_batch_sizes_give_the_peak_of_all(name):
    spec = TrialSpec(workload=WorkloadSpec(target=name))
    known = dry_runs(spec, [4, 16], timeline=True)
    (lines,) = envelopes({c.config: c.footprint for c in known})
    for other in dry_runs(spec, [2, 7, 96]):  # one sample may take other kernels
        peaks = lines.peaks(other.config.batch_size)
        for count, peak in peaks.items():
            assert peak == pytest.approx(getattr(other.footprint, count), abs=0.5)


def test_of_each_model_the_timelines_of_two_batch_sizes_are_kept():
    spec = TrialSpec(workload=WorkloadSpec(target="digits-mlp"))
    counted = {c.config: c.footprint for c in dry_runs(spec, [4, 8, 16], timeline=True)}
    kept = with_outer_timelines(counted)
    assert {c.batch_size for c, x in kept.items() if x.timeline} == {4, 16}
    assert all(
        replace(x, timeline=None) == replace(kept[c], timeline=None) for c, x in counted.items()
    )


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    one = run(cli, ["dry-run", "digits-mlp", "--batch-size", "16", "--timeline"])
    assert one.exit_code == 0, one.output
    for part in (
        "26,122",
        "matmul",
        "7 forward",
        "The peak is",
        "alive, by kind",
        "addmm.default  0",
    ):
        assert part in one.stdout
    store = ["--store", "new.sqlite"]  # made for the counts, since it was named
    asked = ["dry-run", "digits-mlp", "--batch-size", "8,16", "--set", "width=32,64"]
    two = run(cli, [*asked, *store])
    assert (tmp_path / "new.sqlite").is_file()
    assert not (tmp_path / ".epochcast").exists()
    assert "depth=2" in two.stdout.splitlines()[0]  # a knob of one value
    assert [line.split()[:2] for line in two.stdout.splitlines()[2:]] == [
        ["8", "32"],
        ["16", "32"],
        ["8", "64"],
        ["16", "64"],
    ]
    document = json.loads(run(cli, ["dry-run", "digits-mlp", "--json"]).stdout)
    assert document["counted"][0]["footprint"]["timeline"] is None
    assert document["counted"][0]["config"]["batch_size"] == 32


def test_the_command_line_says_why_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(UNTRACEABLE)
    failed = CliRunner().invoke(cli, ["dry-run", "train.py:workload", "--batch-size", "4"])
    assert failed.exit_code == 1
    assert failed.stderr.startswith("epochcast: cannot be traced without values: train.py, line 11")
    assert len(failed.stderr.splitlines()) == 1
