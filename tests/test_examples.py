"""Scripts that a user would copy do what their first lines say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from frameworks import needed
from guard.rehearsal import about, make_plan

from epochcast.importers.curves import read_curve

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_pilot_writes_a_curve_that_a_plan_reads(tmp_path: Path) -> None:
    file = tmp_path / "pilot.csv"
    command = [sys.executable, str(EXAMPLES / "pilot.py"), "3", str(file)]
    subprocess.run(command, check=True, cwd=EXAMPLES.parent)
    curve = read_curve(file)
    assert curve.epochs == (1, 2, 3)
    assert curve.validation[0] > curve.validation[-1] > 0
    assert len(curve.training) == 3


@pytest.mark.parametrize("framework", ["plain", "lightning", "transformers", "keras"])
def test_a_plan_is_followed_in(framework: str, tmp_path: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    needed("torch" if framework == "plain" else framework)
    plan = make_plan(epochs=3, steps=144, epoch=about(1.0, 0.1), workload="digits-mlp")
    plan.save(tmp_path / "plan.json")
    command = [sys.executable, str(EXAMPLES / f"follow_{framework}.py"), "plan.json"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        command, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "all planned epochs are done" in done.stdout
    losses = re.findall(r"loss\W+([\d.]+)", done.stdout)
    assert float(losses[-1]) < 1.5  # of 2.3 untrained
