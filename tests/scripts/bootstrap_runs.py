"""Runs scripts under the bootstrap, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from epochcast.scripts.border import BOOTSTRAP, VARIABLE, Settings, read_events, write_settings
from epochcast.scripts.events import Event, Step, Steps

Kind = TypeVar("Kind")
LONG = 120  # seconds; a run takes 3 to 8


@dataclass
class Run:
    """A script that ran under the bootstrap, and what it reported."""

    code: int
    output: str
    errors: str
    folder: Path
    processes: dict[int, tuple[Event, ...]]

    @property
    def events(self) -> tuple[Event, ...]:
        return tuple(event for told in self.processes.values() for event in told)

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    def steps(self, loader: int | None) -> list[Step]:
        blocks = [block for block in self.of(Steps) if block.loader == loader]
        return [step for block in blocks for step in block.steps]


def start(
    folder: Path, script: str, settings: dict[str, Any], environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start ``train.py`` in ``folder/work``; it reports to ``folder/reports``."""
    reports, work = folder / "reports", folder / "work"
    reports.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    write_settings(Settings(folder=str(reports), **settings), folder / "settings.json")
    (work / "train.py").write_text(script)
    ours = {VARIABLE: str(folder / "settings.json"), "PYTHONPATH": str(BOOTSTRAP)}
    return subprocess.Popen(
        [sys.executable, "train.py"],
        cwd=work,
        env=os.environ | ours | {"OMP_NUM_THREADS": "1"} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder: Path, process: subprocess.Popen[str]) -> Run:
    """Wait for it, and read what it reported."""
    output, errors = process.communicate(timeout=LONG)
    processes = read_events(folder / "reports")
    return Run(process.returncode, output, errors, folder / "work", processes)


def run(
    folder: Path, script: str, settings: dict[str, Any], environment: dict[str, str] | None = None
) -> Run:
    """Run a script to its end."""
    return finish(folder, start(folder, script, settings, environment))
