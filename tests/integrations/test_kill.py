"""Killed at any moment, a run loses what it did since its last save, and nothing else."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from killed import BATCH, SAMPLES, STEP_SECONDS, train
from rehearsal import make_plan

from epochcast.guard.checkpoints import CONTENT, CheckpointStore
from epochcast.guard.run_folder import read_ledger
from epochcast.records import Position, StopReason

SCRIPT = Path(__file__).parent / "killed.py"
STEPS = SAMPLES // BATCH
GRACE = 2.0  # seconds between SIGTERM and SIGKILL
WAIT = 120  # seconds after which a process that hangs fails the test


@dataclass
class Process:
    """One process of a run, led from moment to moment."""

    folder: Path
    plan: Path
    trained: int = 0
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        command = [sys.executable, str(SCRIPT), str(self.folder), str(self.plan)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def reaches(self, kind: str, times: int) -> bool:
        """Whether it comes so often to such a moment, where it waits; or ends before."""
        while times:
            line = self.process.stdout.readline()
            if not line:
                return False
            moment, steps = line.split()
            self.seen.append(moment)
            self.trained = int(steps)
            times -= moment == kind
            if times:
                self.go_on()
        return True

    def go_on(self) -> None:
        self.process.stdin.write("\n")

    def end(self) -> int:
        """To its own end."""
        self.process.communicate("\n" * 10_000, timeout=WAIT)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=WAIT)

    def terminate(self) -> int:
        """As a scheduler does it; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate("\n" * 10_000, timeout=GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
        return self.process.returncode


def newest(folder: Path) -> tuple[dict, Position]:
    """What the newest checkpoint holds, which must be whole."""
    place, state = CheckpointStore(folder / "checkpoints", keep=2).last()
    return torch.load(place / CONTENT, weights_only=True), state.position


def position(folder: Path) -> Position:
    return (
        newest(folder)[1] if CheckpointStore(folder / "checkpoints", keep=2).last() else Position()
    )


def test_killed_five_times_it_ends_as_if_nothing_had_happened_and_inside_its_budget(tmp_path):
    folder, plan = tmp_path / "run", tmp_path / "plan.json"
    deadline = 63 * STEP_SECONDS
    limits = {"deadline": deadline, "counted_from": "total"}
    make_plan(epochs=20, steps=STEPS, save_every=1, **limits).save(plan)
    chance = random.Random(5)
    kinds = ["step", "save", "fsync", "replace", "unlink"]
    chance.shuffle(kinds)
    worked = 0
    spent = [0.0]
    for kind in kinds:
        before = position(folder).steps
        process = Process(folder, plan)
        assert process.reaches(kind, chance.randint(1, 12 if kind in ("step", "replace") else 3))
        process.kill()
        worked += process.trained
        after = position(folder).steps
        done = before + process.trained
        assert after <= done
        assert done - after <= STEPS, "more was lost than since the last planned save"
        ledger = read_ledger(folder)
        spent.append(ledger.spent_seconds if ledger else 0.0)
        assert spent[-1] >= spent[-2]
        assert spent[-1] >= (worked - len(spent) + 1) * STEP_SECONDS  # a kill forgets one beat
    last = Process(folder, plan)
    assert last.end() == 0
    states, at = newest(folder)
    ledger = read_ledger(folder)
    assert ledger.reason is StopReason.BUDGET
    assert at.steps > 25
    worked += at.steps - after
    assert worked * STEP_SECONDS <= deadline + len(kinds) * STEP_SECONDS

    weights: dict[int, dict] = {}

    def keep(steps: int, model: torch.nn.Module) -> None:
        weights[steps] = {name: value.clone() for name, value in model.state_dict().items()}

    uninterrupted = make_plan(epochs=-(-at.steps // STEPS), steps=STEPS, deadline=None)
    train(tmp_path / "uninterrupted", uninterrupted, lambda kind: None, keep)
    for name, value in states["objects"]["model"].items():
        assert torch.equal(value, weights[at.steps][name])


@pytest.mark.parametrize(
    ("kind", "times", "steps"),
    [
        ("begin", 1, 1),  # before the first step: after it
        ("step", 7, 7),
        ("evaluate", 2, 20),
        ("save", 2, 10),  # at an epoch's end
    ],
)
def test_asked_to_leave_it_has_a_whole_checkpoint_of_that_moment(tmp_path, kind, times, steps):
    folder, plan = tmp_path / "run", tmp_path / "plan.json"
    make_plan(epochs=20, steps=STEPS, deadline=None, save_every=1).save(plan)
    process = Process(folder, plan)
    assert process.reaches(kind, times)
    assert process.terminate() in (128 + signal.SIGTERM, -signal.SIGKILL)
    states, at = newest(folder)
    assert at.steps == steps
    assert states["objects"].keys() == {"model", "optimizer"}
    assert not list((folder / "checkpoints").glob(".writing*"))
