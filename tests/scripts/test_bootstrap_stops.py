"""Scripts that are asked to leave in their own way: a followed plan's guard, and Keras."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from bootstrap_runs import Run, run
from rehearsal import make_plan

from epochcast.scripts.border import BOOTSTRAP
from epochcast.scripts.events import Ending, Failed, Feature

SCRIPT = """
import os, torch, keras
import epochcast as ec
from torch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.randn(4_000, 4))
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), 1e-6)
run = ec.follow("plan.json", state={"model": model}, store=False, watchers=[])
with run:
    for _ in run.epochs():
        for batch, in run.batches(DataLoader(data, 4)):
            model(batch).mean().backward()
            optimizer.step()
        run.report(val_loss=1.0)
saved = os.listdir("epochcast-run/checkpoints") != []
print(run.reason.value, 0 < run.position.steps < 1e5, saved)

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(optimizer="sgd", loss="mse")
x = data.tensors[0].numpy()
held_out = (x, x[:, :1])
found = model.fit(*held_out, batch_size=4, epochs=10**6, validation_data=held_out, verbose=0)
print(len(found.history["val_loss"]))
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    if not find_spec("keras"):
        pytest.skip("needs Keras")
    folder = tmp_path_factory.mktemp("asked")
    (folder / "work").mkdir()
    make_plan(epochs=10**4, deadline=None, steps=1000).save(folder / "work" / "plan.json")
    (folder / "stop").touch()
    settings = {"mode": "watch", "stop_file": str(folder / "stop")}
    path = f"{BOOTSTRAP}{os.pathsep}{Path(__file__).parents[2]}"
    return run(folder, SCRIPT, settings, {"KERAS_BACKEND": "torch", "PYTHONPATH": path})


def test_each_stops_in_its_own_way_and_the_script_goes_on(asked: Run) -> None:
    assert asked.code == 0, asked.errors
    assert asked.output.splitlines() == ["signal True True", "1"]
    assert not asked.of(Failed)


def test_who_follows_a_plan_is_told_apart(asked: Run) -> None:
    names = [event.name for event in asked.of(Feature)]
    assert names[:1] == ["epochcast"]
    assert "keras" in names
    assert [event.why for event in asked.of(Ending)] == ["asked"]
