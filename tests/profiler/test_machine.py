"""The age of a process: from its start ticks, and where there are none, from the system."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from epochcast.profiler import machine as module
from epochcast.profiler.machine import process_age

AGE = "from epochcast.profiler.machine import process_age; print(process_age())"
linux = pytest.mark.skipif(not module.STAT.exists(), reason="there are no ticks to read")


@linux
def test_it_lies_between_what_others_can_see_of_the_process() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", AGE], capture_output=True, text=True, check=True)
    whole = time.monotonic() - began
    assert 0 < float(done.stdout) <= whole + 0.011  # ticks of a hundredth of a second


@linux
def test_ticks_are_counted_from_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = " ".join(["0"] * 18 + ["12345", "0"])
    stat = tmp_path / "stat"
    stat.write_text(f"7 (a) name) S {fields}")
    monkeypatch.setattr(module, "STAT", stat)
    monkeypatch.setattr(module.time, "clock_gettime", lambda _: 200.0)
    monkeypatch.setattr(module.os, "sysconf", lambda _: 100)
    assert process_age() == pytest.approx(200.0 - 123.45)


def test_without_ticks_it_is_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STAT", tmp_path / "none")
    expected = time.time() - psutil.Process().create_time()
    assert process_age() == pytest.approx(expected, abs=0.5)
