"""The bootstrap in whole scripts: one run of each style, looked at by several tests."""

from __future__ import annotations

import gzip
import json
import socket
from pathlib import Path

import pytest
from bootstrap_runs import Run, bare_python, finish, run, start

from epochcast.scripts.events import (
    Began,
    Ended,
    Ending,
    Failed,
    Feature,
    Loader,
    Memory,
    Mode,
    NoGrad,
    Optimizer,
    PassEnded,
    ProcessGroup,
    Save,
    SaveRenamed,
    Sources,
    Steps,
    TorchLoaded,
    Traced,
    Wrote,
)
from epochcast.scripts.side_effects import put_back

PLAIN = """
import importlib.util, torch
from torch.utils.data import DataLoader, TensorDataset
assert not any(map(importlib.util.find_spec, ("epochcast", "msgspec", "psutil", "rich")))
inputs = torch.randn(40_000, 4)
data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
training, held_out = DataLoader(data, batch_size=4, shuffle=True), DataLoader(data, batch_size=8)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.01)
for epoch in range(9):
    model.train()
    for batch, (x, y) in enumerate(training):
        (torch.nn.functional.mse_loss(model(x), y) / 2).backward()
        if (batch + 1) % 2 == 0 or batch + 1 == len(training):
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        for x, y in held_out:
            model(x)
    torch.save(model.state_dict(), "model.pt")
    print("epoch", epoch, len(training), flush=True)
"""

SHORT = {"epochs": 2, "pass_seconds": 0.2, "evaluation_seconds": 0.1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of another Python than ours, which has torch alone."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "work").mkdir()
    (folder / "work" / "model.pt").write_text("the best one so far")
    trace = {"trace": str(folder / "trace.json.gz"), "journal": True}
    return finish(folder, start(folder, PLAIN, SHORT | trace, python=bare_python(folder / "venv")))


def test_a_plain_loop_ends_in_silence_after_the_wanted_epochs(plain: Run) -> None:
    assert plain.code == 0
    assert plain.output.splitlines() == ["epoch 0 10000", "epoch 1 10000"]
    assert [event.why for event in plain.of(Ending)] == ["epochs"]
    assert [event.why for event in plain.of(Ended)] == ["ending"]
    assert not plain.of(Failed)


def test_a_plain_loop_says_what_it_runs_on(plain: Run) -> None:
    (began,), (torch,) = plain.of(Began), plain.of(TorchLoaded)
    assert began.started is None or began.started <= began.at <= torch.began <= torch.at
    assert torch.main == str(plain.folder / "train.py")
    assert {file for event in plain.of(Sources) for file in event.files} == {torch.main}
    (optimizer,) = plain.of(Optimizer)
    assert (optimizer.name, optimizer.parameters) == ("torch.optim.sgd.SGD", 5)


def test_loaders_are_described_once_though_they_are_iterated_each_epoch(plain: Run) -> None:
    training, held_out = plain.of(Loader)
    assert (training.samples, training.batches, training.batch_size) == (40_000, 10_000, 4)
    assert (held_out.batches, held_out.batch_size) == (5_000, 8)
    assert training.site == f"{plain.folder / 'train.py'}:12"


def test_passes_are_cut_on_the_boundary_of_a_step(plain: Run) -> None:
    passes = [event for event in plain.of(PassEnded) if event.loader == 0]
    assert [event.outcome for event in passes] == ["cut", "cut"]
    for event in passes:
        assert event.batches == 2 * event.steps == event.backwards
    assert all(event.steps == 0 for event in plain.of(PassEnded) if event.loader == 1)


def test_every_step_is_stamped_in_order_with_its_pass(plain: Run) -> None:
    blocks = plain.of(Steps)
    stamps = [step.at for block in blocks for step in block.steps]
    assert stamps == sorted(stamps)
    assert {block.loader for block in blocks} == {0}
    assert len(stamps) == sum(event.steps for event in plain.of(PassEnded))
    assert [step.backwards for block in blocks for step in block.steps] == [
        2 * count for count in range(1, len(stamps) + 1)
    ]


def test_evaluations_and_saves_are_seen(plain: Run) -> None:
    saves = plain.of(Save)
    assert [event.path for event in saves] == [str(plain.folder / "model.pt")] * 2
    assert saves[0].bytes == (plain.folder / "model.pt").stat().st_size
    assert [event.training for event in plain.of(Mode)] == [False, True, False, True]
    assert len(plain.of(NoGrad)) == 2


def test_a_few_steps_of_the_second_pass_are_traced(plain: Run) -> None:
    (traced,) = plain.of(Traced)
    first, second = (event for event in plain.of(PassEnded) if event.loader == 0)
    assert first.at < traced.began < traced.at < second.at
    assert traced.steps == 5
    with gzip.open(traced.path) as file:
        assert json.load(file)["traceEvents"]


def test_memory_is_looked_at_after_passes_and_saves(plain: Run) -> None:
    assert {event.phase for event in plain.of(Memory)} == {"training", "evaluation", "save", "end"}
    assert all(0 < event.resident <= event.resident_peak for event in plain.of(Memory))


def test_what_torch_writes_itself_is_kept_and_put_back(plain: Run) -> None:
    wrote = [event for event in plain.of(Wrote) if event.path.startswith(str(plain.folder))]
    assert [(event.kind, event.path) for event in wrote] == [
        ("changed", str(plain.folder / "model.pt"))
    ]
    assert put_back(plain.events).left == ()
    assert (plain.folder / "model.pt").read_text() == "the best one so far"


TRAPS = """
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
inputs = torch.randn(4_000, 4)
data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
model = torch.nn.Linear(4, 1)
def loss(batch):
    return torch.nn.functional.mse_loss(model(batch[0]), batch[1]) + torch.rand(())
def plain(batch, optimizer=torch.optim.SGD(model.parameters(), 1e-6)):
    optimizer.zero_grad()
    loss(batch).backward()
    optimizer.step()

for batch in DataLoader(data, 4):  # 0: of no optimizer
    grads = torch.autograd.grad(loss(batch), list(model.parameters()))

bounded = torch.optim.LBFGS(model.parameters(), lr=1e-6, max_iter=4)
def closure():
    bounded.zero_grad()
    found = loss(batch)
    found.backward()
    return found
for batch in DataLoader(data, 5):  # 1: steps once, goes back up to five times
    bounded.step(closure)

one, two = (torch.optim.SGD(model.parameters(), 1e-6) for _ in range(2))
for batch in DataLoader(data, 6):  # 2: two steps and three backward calls a batch
    loss(batch).backward(); loss(batch).backward(); one.step()
    loss(batch).backward(); two.step()

loader = DataLoader(data, 20)
batches = iter(loader)  # 3: must not end early here
for _ in range(len(loader)):
    plain(next(batches))

def generated(batches=iter(DataLoader(data, 21))):  # 4: nor here
    for _ in range(191):
        yield next(batches)
for batch in generated():
    plain(batch)

batches = iter(DataLoader(data, 8))  # 5: but here
while True:
    try:
        batch = next(batches)
    except StopIteration:
        break
    plain(batch)

class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield inputs[0], inputs[0, :1]
for batch in DataLoader(Endless(), 9, num_workers=1):  # 6: in a worker, of no length
    plain(batch)

scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
for batch in DataLoader(data, 10):  # 7: steps left out by the scaler
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(batch) * 1e6
    scaler.scale(found).backward(); scaler.step(one); scaler.update(1e38); one.zero_grad()

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
net, sgd, loader = accelerator.prepare(model, two, DataLoader(data, 11))
for batch in loader:  # 8: read one batch ahead
    with accelerator.accumulate(net):
        accelerator.backward(loss(batch)); sgd.step(); sgd.zero_grad()

for batch in DataLoader(data, 12):  # 9: the evaluation inside counts for itself
    plain(batch)
    for other in DataLoader(data, 200):  # 10
        with torch.no_grad():
            model(other[0])

for _ in range(6):  # 11: a batch at a time
    plain(next(iter(DataLoader(data, 13))))

import os
torch.save(model.state_dict(), "best.pt.tmp")
os.replace("best.pt.tmp", "best.pt")
print("whole")
"""


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One process; the epochs that would end it are never reached."""
    settings = {"epochs": 99, "pass_seconds": 0.05, "evaluation_seconds": 0.05}
    return run(tmp_path_factory.mktemp("traps"), TRAPS, settings)


def passes_of(traps: Run, loader: int) -> list[PassEnded]:
    return [event for event in traps.of(PassEnded) if event.loader == loader]


def test_no_trap_breaks_the_script(traps: Run) -> None:
    assert (traps.code, traps.output, traps.errors) == (0, "whole\n", "")
    assert not traps.of(Failed)
    assert [event.why for event in traps.of(Ended)] == ["exit"]


def test_a_pass_without_an_optimizer_is_known_by_its_backward_calls(traps: Run) -> None:
    (event,) = passes_of(traps, 0)
    assert (event.outcome, event.steps) == ("cut", 0)
    assert event.backwards == event.batches


def test_steps_are_no_backward_calls_and_no_batches(traps: Run) -> None:
    (bounded,), (both,) = passes_of(traps, 1), passes_of(traps, 2)
    assert bounded.steps == bounded.batches < bounded.backwards
    assert (both.steps, both.backwards) == (2 * both.batches, 3 * both.batches)
    assert {step.optimizer for step in traps.steps(2)} == {1, 2}


@pytest.mark.parametrize(("loader", "batches"), [(3, 200), (4, 191)])
def test_a_loop_that_would_break_is_not_cut(traps: Run, loader: int, batches: int) -> None:
    (event,) = passes_of(traps, loader)
    assert event.batches == batches
    assert event.outcome != "cut"
    assert any(f.name == "endless-next" for f in traps.of(Feature))


@pytest.mark.parametrize("loader", [5, 6, 7, 8, 9])
def test_others_are(traps: Run, loader: int) -> None:
    (event,) = passes_of(traps, loader)
    assert event.outcome == "cut"


def test_steps_that_a_scaler_leaves_out_are_steps(traps: Run) -> None:
    (event,) = passes_of(traps, 7)
    assert event.steps == event.batches
    assert max(block.skipped for block in traps.of(Steps)) > 0
    assert {"grad-scaler", "autocast", "accelerate"} <= {f.name for f in traps.of(Feature)}


def test_a_loader_that_is_read_ahead_is_cut_on_the_boundary_of_its_steps(traps: Run) -> None:
    (event,) = passes_of(traps, 8)
    assert event.batches % 3 == 0
    assert len(traps.steps(8)) == event.batches // 3  # the last one comes after the pass


def test_an_evaluation_inside_a_pass_leaves_its_time_alone(traps: Run) -> None:
    (outer,) = passes_of(traps, 9)
    inner = passes_of(traps, 10)
    assert len(inner) == outer.batches == outer.steps
    assert all(event.steps == 0 for event in inner)


def test_a_loader_of_which_single_batches_are_taken_is_told_once(traps: Run) -> None:
    assert [f.detail for f in traps.of(Feature) if f.name == "fetched"] == ["11"]
    assert [event.batches for event in passes_of(traps, 11)] == [1, 1, 1]


def test_what_is_saved_under_another_name_is_known_by_its_last(traps: Run) -> None:
    assert [event.path for event in traps.of(SaveRenamed)] == [str(traps.folder / "best.pt")]


LOOP = """
import torch
weight = torch.zeros(3, requires_grad=True)
optimizer = torch.optim.SGD([weight], 0.1)
model = torch.nn.Linear(1, 1)
for attempt in range(5):
    try:
        for step in range(10**9):
            if step % 10 == 0:
                model.eval(); model.train()
            (weight - 1).square().sum().backward()
            optimizer.step()
    except BaseException as error:
        print(type(error).__name__, error.code, flush=True)
"""


def test_a_loop_without_a_loader_is_ended_whatever_it_swallows(tmp_path: Path) -> None:
    loop = run(tmp_path, LOOP, {"loop_seconds": 0.2, "loop_steps": 30})
    assert loop.code == 0
    assert loop.output.splitlines() == ["EarlyExit 0"] * 3
    assert [(event.why, event.attempt) for event in loop.of(Ending)] == [
        ("steps", attempt) for attempt in (1, 2, 3, 4)
    ]
    assert [event.why for event in loop.of(Ended)] == ["killed-itself"]
    assert len(loop.steps(None)) >= 30
    assert len(loop.of(Mode)) > 2


TOGETHER = """
import torch, time, os
import torch.distributed as dist
from torch.utils.data import DataLoader
dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for epoch in range(9):
    for batch in DataLoader(torch.randn(40_000, 1), 4):
        model(batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(0.001 * int(os.environ["RANK"]))
    if dist.get_rank() == 0:
        for batch in DataLoader(torch.randn(40_000, 1), 8):
            model.module(batch)
"""


def test_processes_that_train_together_end_after_the_same_batches(tmp_path: Path) -> None:
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [start(tmp_path, TOGETHER, SHORT, together | {"RANK": str(r)}) for r in (0, 1)]
    first, second = (finish(tmp_path, process) for process in started)
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert sorted(event.rank for event in second.of(ProcessGroup)) == [0, 1]
    counts = [
        [e.batches for e in told if isinstance(e, PassEnded) and e.steps]
        for told in second.processes.values()
    ]
    assert counts[0] == counts[1]
    assert len(counts[0]) == 2
    assert 8 <= min(counts[0]) < 10_000


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


BROKEN = """
import torch
from epochcast_bootstrap import loaders, steps, watch
from torch.utils.data import DataLoader
for owner, names in (
    (loaders.Loaders, ("opened", "before", "after", "_ended", "stepping")),
    (watch.ProcessWatch, ("_is_loop", "memory", "tell_sources", "is_compiling", "synchronize")),
    (steps.Steps, ("_put", "_stepped")),
):
    for name in names:
        setattr(owner, name, lambda *args, **kwargs: 1 / 0)
weight = torch.zeros(1, requires_grad=True)
optimizer = torch.optim.SGD([weight], 0.1)
for batch in DataLoader(torch.ones(9), 3):
    (weight * batch).sum().backward()
    optimizer.step()
torch.save(weight, "weight.pt")
print(weight.item(), flush=True)
"""


def test_errors_of_ours_are_events_and_the_script_goes_on(tmp_path: Path) -> None:
    broken = run(tmp_path, BROKEN, SHORT)
    assert (broken.code, broken.errors) == (0, "")
    assert float(broken.output) == pytest.approx(-0.1 * (3 + 6 + 9))  # gradients add up
    assert {"iter(loader)", "step", "save", "loop"} <= {event.where for event in broken.of(Failed)}


THREADED = """
import threading, torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.randn(400, 4)), 4)
def train():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for epoch in range(9):
        for (x,) in loader:
            model(x).sum().backward()
            optimizer.step()
thread = threading.Thread(target=train)
thread.start()
thread.join()
print("joined")
"""


def test_a_thread_that_trains_ends_before_the_first_batch_of_one_epoch_more(tmp_path: Path) -> None:
    run_ = run(tmp_path, THREADED, {"epochs": 2, "pass_seconds": 0.01})
    assert (run_.code, run_.output, run_.errors) == (0, "joined\n", "")
    assert min(event.steps for event in run_.of(PassEnded)) > 1
