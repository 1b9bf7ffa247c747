"""A process that follows every step a test module asks about: a device is claimed for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from epochcast.records import DeviceSequence, from_json

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
EVIDENCE = next(
    (p / "shared" / "gpu" for p in HERE.parents if (p / "shared" / "gpu").is_dir()), HERE
)


@pytest.fixture(scope="module")
def followed(request):
    """Sequences by the names of ``followed_on_cards.py``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "followed_on_cards.py"), request.module.__name__],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr[-2000:]
    made = {line["name"]: line for line in lines}

    def of(name):
        assert name in made, done.stderr[-2000:]
        assert "sequence" in made[name], made[name]["error"]
        return from_json(json.dumps(made[name]["sequence"]), DeviceSequence)

    return of


@pytest.fixture(scope="session")
def evidence():
    """The folder of recordings, which are not ours to copy."""
    if EVIDENCE == HERE:
        pytest.skip("the recordings of GPUs are not at hand")
    return EVIDENCE
