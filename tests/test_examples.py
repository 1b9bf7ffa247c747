"""Scripts that a user would copy do what their first lines say."""

import subprocess
import sys
from pathlib import Path

from epochcast.curve_files import read_curve

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_pilot_writes_a_curve_that_a_plan_reads(tmp_path: Path) -> None:
    file = tmp_path / "pilot.csv"
    command = [sys.executable, str(EXAMPLES / "pilot.py"), "3", str(file)]
    subprocess.run(command, check=True, cwd=EXAMPLES.parent)
    curve = read_curve(file)
    assert curve.epochs == (1, 2, 3)
    assert curve.validation[0] > curve.validation[-1] > 0
    assert len(curve.training) == 3
