"""Scenarios in a process of their own, which is ended with all that it started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_parts.catalogue import Part, Scenario
from gpu_parts.results import Ended

BENCHMARKS = Path(__file__).resolve().parents[1]
TOLD = 3000  # characters of what a process wrote to stderr before it ended badly
GRACE_SECONDS = 3.0  # for the child to record what it knows before it is ended from outside


class Launcher:
    """Starts ``child.py`` and reads what it recorded, however it ended.

    Args:
        work: folder for files that scenarios leave for each other.
        device: of torch.
        dry: in miniature.
    """

    def __init__(self, work: Path, *, device: str, dry: bool) -> None:
        self.work = work
        self.device = device
        self.dry = dry
        self._count = 0

    def __call__(self, part: Part, scenarios: Sequence[Scenario], seconds: float) -> Ended:
        self._count += 1
        records = self.work / f"records-{self._count}.jsonl"
        spec = {
            "module": part.module,
            "scenarios": [scenario.name for scenario in scenarios],
            "device": self.device,
            "dry": self.dry,
            "work": str(self.work),
            "records": str(records),
            "seconds": max(0.1, seconds - GRACE_SECONDS),
        }
        environment = {k: v for s in scenarios for k, v in s.environment.items()}
        began = time.monotonic()
        status, message = self._wait(spec, environment, seconds)
        return Ended(
            status=status,
            seconds=time.monotonic() - began,
            message=message,
            records=read_records(records),
        )

    def _wait(
        self, spec: Mapping[str, Any], environment: Mapping[str, str], seconds: float
    ) -> tuple[str, str]:
        log = self.work / f"log-{self._count}.txt"
        command = [sys.executable, "-X", "faulthandler", "-m", "gpu_parts.child", json.dumps(spec)]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=_environment(environment),
                start_new_session=True,
            )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            end_tree(process)
            return "cut off", f"after {seconds:.0f} s: {_tail(log)}"
        except KeyboardInterrupt:
            end_tree(process)
            return "interrupted", ""
        if code == 0:
            return "ok", ""
        return ("failed" if code == 1 else "crashed"), f"exit code {code}: {_tail(log)}"


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and all its descendants, those in other sessions too."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        for descendant in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                descendant.kill()
    process.kill()
    process.wait()


def read_records(path: Path) -> tuple[dict[str, Any], ...]:
    """The whole lines of a file; the last one may have been cut."""
    if not path.exists():
        return ()
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return tuple(json.loads(line) for line in lines)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-TOLD:].strip()
