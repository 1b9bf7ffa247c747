"""``probe -- COMMAND``, then predict and plan: one script, probed once, left as it was found."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from epochcast.cli import cli
from epochcast.records import to_builtins
from epochcast.storage.store import Store

SCRIPT = """
import sys, time
import torch
from torch.utils.data import DataLoader, TensorDataset

batch_size, width, epochs = (int(x) for x in sys.argv[1:])
data = TensorDataset(torch.randn(6400, 8), torch.randn(6400, 1))
loader = DataLoader(data, batch_size=batch_size, shuffle=True)
held_out = DataLoader(TensorDataset(*data[:640]), batch_size=64)
model = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
optimizer = torch.optim.AdamW(model.parameters())
for epoch in range(epochs):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        total = sum(float((model(x) - y).abs().sum()) for x, y in held_out)
    torch.save(model.state_dict(), "last.pt")
    print("epoch", epoch, total, file=open("log.txt", "a"), flush=True)
"""


def tree(folder: Path) -> dict[str, Any]:
    """Every file and folder: permissions, time of change, contents."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (stat.S_IMODE(status.st_mode), status.st_mtime_ns, content)
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


class Probed:
    """A folder with a script, and what a probe of it answered."""

    def __init__(self, root: Path) -> None:
        self.folder, self.store = root / "project", str(root / "store.sqlite")
        self.folder.mkdir()
        (self.folder / "train.py").write_text(SCRIPT)
        (self.folder / "log.txt").write_text("of an earlier run\n")
        os.utime(self.folder / "log.txt", ns=(10**18, 10**18))
        os.chdir(self.folder)
        self.before = tree(self.folder)
        command = [sys.executable, "train.py", "{batch_size}", "{width}", "1000"]
        options = ["--store", self.store, "--rounds", "1", "--seconds", "0.3", "--epochs", "2"]
        options += ["--set", "batch_size=64", "--set", "width=032"]
        self.result = run("probe", *options, "--isolation", "journal", "--", *command)
        self.after = tree(self.folder)

    def answer(self, command: str, *arguments: str) -> Any:
        result = run(command, "--store", self.store, "--json", *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    here = Path.cwd()
    try:
        yield Probed(tmp_path_factory.mktemp("scripts"))
    finally:
        os.chdir(here)


def test_it_is_measured_and_what_was_seen_is_told(probed: Probed) -> None:
    assert probed.result.exit_code == 0, probed.result.stderr
    shown = probed.result.stdout
    assert shown.startswith("train.py  width=32\n")
    passes = re.search(r"(\d+) passes over the training data", shown)
    assert passes, shown
    assert 2 <= int(passes[1]) <= 2 * 5  # epochs that are short go on for a while
    assert "an evaluation after each epoch" in shown
    assert "a checkpoint after each epoch" in shown


def test_every_file_is_as_it_was_its_times_included(probed: Probed) -> None:
    assert probed.after == probed.before


def test_a_measurement_has_the_template_the_files_and_the_cadences(probed: Probed) -> None:
    with Store.open(probed.store) as store:
        (m,) = (to_builtins(one) for one in store.measurements())
    script = m["script"]
    assert script["arguments"][1:] == ("train.py", "{batch_size}", "{width}", "1000")
    assert script["files"] == ("train.py",)
    assert script["saves"] == script["evaluations"] == {"per_epoch": 1.0, "per_step": 0.0}
    assert (m["samples"], m["eval_samples"]) == (6400, 640)
    assert m["config"]["batch_size"] == 64


def test_predict_prices_what_the_script_does(probed: Probed) -> None:
    estimate = probed.answer("predict", "--epochs", "50")["estimates"][0]
    counts = {term["name"]: term["count"] for term in estimate["terms"]}
    assert counts["training steps"] == 5000
    assert counts["evaluation"] == counts["checkpoints"] == counts["rest of epochs"] == 50
    assert counts["after the last epoch"] == 1


def test_plan_evaluates_and_saves_as_the_script_does(probed: Probed) -> None:
    plan = probed.answer("plan", "--epochs", "4")
    assert plan["evaluations"] == plan["saves"] == [{"first": 1, "last": 4, "every": 1}]
    assert len(plan["options"]) == 1  # a script accumulates as it does


def test_a_knob_that_was_not_varied_asks_for_another_probe_of_the_script(probed: Probed) -> None:
    result = run("predict", "--store", probed.store, "--epochs", "5", "--set", "width=64")
    assert result.exit_code == 2
    assert "epochcast probe --set width=… -- COMMAND" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("probe", "--"), "no command was given"),
        (("probe",), "give a workload to measure"),
        (("probe", "mnist-mlp", "--", "python"), "'mnist-mlp' comes before --"),
        (("probe", "mnist-mlp", "--env", "A=1"), "--env is of a command, which comes after --"),
        (("probe", "--batch-sizes", "2", "--", "python"), "write --set batch_size=16,32"),
        (("probe", "--device", "cpu", "--", "python"), "--device is of a workload"),
        (("probe", "--env", "A", "--", "python"), "expected NAME=VALUE"),
        (("probe", "--set", "a=1", "--", "python"), "--set a is used nowhere"),
        (("probe", "--", "no-such-program"), "there is no program 'no-such-program'"),
        (("probe", "--set", "a=1", "--set", "a=2", "--", "x"), "--set a is given twice"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
