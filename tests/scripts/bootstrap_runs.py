"""Runs scripts under the bootstrap, for tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, TypeVar

from epochcast.scripts.border import (
    BOOTSTRAP,
    VARIABLE,
    BootstrapSettings,
    read_events,
    write_settings,
)
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


def bare_python(folder: Path) -> str:
    """The Python of a virtual environment that has torch, what torch needs, and nothing of ours."""
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    wanted, found = ["torch"], set[str]()
    while wanted:
        name = wanted.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:  # of another system
            continue
        found.add(name)
        needed = [line for line in package.requires or () if "extra ==" not in line]
        names = [re.split(r"[^\w.-]", line)[0] for line in needed]
        wanted += [name for name in names if name not in found]
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(str(package.locate_file(top)))
    return str(folder / "bin" / "python")


def start(
    folder: Path,
    script: str,
    settings: dict[str, Any],
    environment: dict[str, str] | None = None,
    python: str = sys.executable,
) -> subprocess.Popen[str]:
    """Start ``train.py`` in ``folder/work``; it reports to ``folder/reports``."""
    reports, work = folder / "reports", folder / "work"
    reports.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    write_settings(BootstrapSettings(folder=str(reports), **settings), folder / "settings.json")
    (work / "train.py").write_text(script)
    ours = {VARIABLE: str(folder / "settings.json"), "PYTHONPATH": str(BOOTSTRAP)}
    return subprocess.Popen(
        [python, "train.py"],
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
