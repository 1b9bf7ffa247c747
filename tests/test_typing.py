"""A user's own file is checked by mypy --strict: what is right passes, a wrong name does not."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """\
from pathlib import Path

import epochcast as ec


def price(path: Path) -> float:
    measurements = ec.probe("mnist-mlp", batch_sizes=(32, 64), sizes={"width": (64, 128)})
    model: ec.CostModel = ec.fit(measurements)
    estimate = model.predict(epochs=90, batch_size=48, width=100)
    model.predict(epochs=90, batch_size="48")  # wrong: a number
    try:
        plan = ec.plan(
            model,
            ec.Budget(deadline=3600.0, confidence=0.9),
            epochs=90,
            batch_sizes=(32, 64),
            rules=(ec.Patience(checks=5),),
            objective=ec.Cheapest(),
        )
        ec.plan(model, ec.Budget(dead_line=3600.0), epochs=90)  # wrong: deadline
        ec.plan(model, ec.Budget(deadline=3600.0), epoch=90)  # wrong: epochs
    except ec.EpochcastError as error:
        raise SystemExit(str(error)) from error
    plan.save(path)
    epochs: int | float = plan.chosen.epochs
    plan.chosen.epoch  # wrong: epochs
    with ec.follow(plan, state={}, folder="runs/a") as run:
        for _ in run.epochs():
            run.report(val_loss=1.0 / epochs)
            run.due("sleep")  # wrong: evaluate or save
    return estimate.total_seconds.p50


def what_went_wrong(error: Exception) -> int:
    if isinstance(error, (ec.UsageError, ec.FitError, ec.PredictionError, ec.StoreError)):
        return error.exit_code
    return 1
"""


def test_a_users_program_is_checked(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {int(line) for line in re.findall(r"program\.py:(\d+): error", done.stdout)}
    lines = enumerate(PROGRAM.splitlines(), 1)
    assert found == {number for number, line in lines if "# wrong" in line}, done.stdout
