"""Ordinary training scripts on the device: probed as they are, then run; and one under a deadline.

real run │ epochcast probe -- the same │ epochcast predict │ real run
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from scripts import EPOCHCAST, STYLES, Style, environment, fresh, log_of, measured

from gpu_parts.child import Situation
from gpu_parts.probes import stored

AMP = Style(
    name="mixed precision", arguments="amp.py --epochs {epochs}", epochs=6, probe=("--rounds", "2")
)
SCENARIOS: Mapping[str, Style] = {
    "amp": AMP,
    "trainer": Style(
        name="Trainer",
        arguments="hf_trainer.py --use_cpu False --samples 8000 --num_train_epochs {epochs}",
        epochs=3,
    ),
    "lightning": STYLES["lightning"],
}
DRY = Style(
    name="mixed precision",
    arguments="amp.py --samples 64 --batch-size 8 --width 4 --workers 0 --epochs {epochs}",
    epochs=1,
    probe=("--rounds", "1", "--seconds", "0.2"),
)
LIMIT, DRY_LIMIT = 25.0, 9.0  # seconds of a run; its epochs take far longer
ENDLESS = 10**4  # epochs
TOLD = 3000  # characters of what a command printed, the last ones


def run(here: Situation) -> None:
    """Play a scenario."""
    if here.scenario == "deadline":
        here.emit("watched", **under_deadline(here))
        return
    style = DRY if here.dry else SCENARIOS[here.scenario]
    folder = fresh(here.work / f"script-{here.scenario}")
    try:
        here.emit("style", **measured(style, folder, repeats=1))
    finally:  # also of a probe that was cut off
        log = log_of(folder / "probe")
        here.emit("log", text=log.read_text()[-TOLD:] if log.exists() else "")
        store = folder / "store.sqlite"
        here.emit("measurements", measurements=stored(str(store)) if store.exists() else [])
        for trial in sorted(folder.glob("store.files/logs/**/*.log")):
            here.emit("trial", name=trial.name, text=trial.read_text(errors="replace")[-TOLD:])


def under_deadline(here: Situation) -> dict[str, Any]:
    """``epochcast run`` of a script that would go on for hours: when it ended, what it saved."""
    seconds = DRY_LIMIT if here.dry else LIMIT
    folder = fresh(here.work / "script-deadline")
    script = (DRY if here.dry else AMP).command(ENDLESS)
    began = time.monotonic()
    done = subprocess.run(
        [*EPOCHCAST, "run", "--deadline", f"{seconds}s", "--no-store", "--", *script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    return {
        "deadline": seconds,
        "seconds": time.monotonic() - began,
        "exit_code": done.returncode,
        "whole": whole(folder / "checkpoint.pt"),
        "stdout": done.stdout[-TOLD:],
        "stderr": done.stderr[-TOLD:],
        "python": sys.version.split()[0],
    }


def whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is there and can be read."""
    try:
        return "model" in torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError):
        return False
