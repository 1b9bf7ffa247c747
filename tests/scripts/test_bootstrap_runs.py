"""The bootstrap in whole scripts: one run of each style, looked at by several tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from epochcast.scripts.events import (
    BOOTSTRAP,
    VARIABLE,
    Began,
    Ended,
    Ending,
    Event,
    Failed,
    Loader,
    Mode,
    NoGrad,
    Optimizer,
    PassEnded,
    Save,
    Settings,
    Sources,
    Steps,
    TorchLoaded,
    read_events,
    write_settings,
)

PLAIN = """
import torch, sys
from torch.utils.data import DataLoader, TensorDataset
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

Kind = TypeVar("Kind")


@dataclass
class Run:
    """A script that ran under the bootstrap, and what it reported."""

    code: int
    output: str
    errors: str
    folder: Path
    events: tuple[Event, ...]

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]


def run(folder: Path, script: str, settings: dict[str, object], *arguments: str) -> Run:
    """Run a script in a folder, which also holds what is reported."""
    reports = folder / "reports"
    reports.mkdir()
    write_settings(Settings(folder=str(reports), **settings), folder / "settings.json")  # type: ignore[arg-type]
    work = folder / "work"
    work.mkdir()
    (work / "train.py").write_text(script)
    changed = {VARIABLE: str(folder / "settings.json"), "PYTHONPATH": str(BOOTSTRAP)}
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=work,
        env=os.environ | changed | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    events = [event for told in read_events(reports).values() for event in told]
    return Run(done.returncode, done.stdout, done.stderr, work, tuple(events))


SHORT = {"epochs": 2, "pass_seconds": 0.2, "evaluation_seconds": 0.1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("plain"), PLAIN, SHORT)


def test_a_plain_loop_ends_in_silence_after_the_wanted_epochs(plain: Run) -> None:
    assert (plain.code, plain.errors) == (0, "")
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
    assert training.site == f"{plain.folder / 'train.py'}:11"
    assert training.sampler.endswith("RandomSampler")


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
