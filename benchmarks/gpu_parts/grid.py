"""The accuracy benchmark on a small grid, as far as time goes; see ``accuracy.py``."""

from __future__ import annotations

from typing import Any

from comparison import evaluation, scoreboard
from comparison.grids import Grid
from comparison.splits import BATCH_SIZES, SPLITS

import epochcast as ec
from epochcast.records.documents import to_builtins
from gpu_parts.child import Situation
from gpu_parts.probes import as_documents

ROUNDS = 3  # two to fit on, one to be compared with
SECONDS, DRY_SECONDS = 0.2, 0.02  # timed in each visit
MEASURING_SHARE = 0.8  # of the time
GRID = Grid(  # computing decides there, where images of an MLP would measure their loader
    target="char-gpt",
    batch_sizes=(8, 16, 32, 64, 128),
    knob="width",
    values=(192, 384, 768),
    fixed={"layers": 6, "heads": 6, "context": 256},
)
DRY_GRID = Grid(target="digits-mlp", batch_sizes=(16, 32, 64), knob="width", values=(16,))


def run(here: Situation) -> None:
    """Play the only scenario."""
    grid = DRY_GRID if here.dry else GRID
    measurements = ec.probe(
        grid.target,
        batch_sizes=grid.batch_sizes,
        sizes=grid.sizes,
        device=here.device,
        rounds=ROUNDS,
        seconds=DRY_SECONDS if here.dry else SECONDS,
        max_seconds=MEASURING_SHARE * here.seconds_left,
        traces=False,
        store=str(here.work / "store-accuracy" / "store.sqlite"),
    )
    here.emit("measurements", measurements=as_documents(measurements))
    names = (BATCH_SIZES,) if here.dry else SPLITS
    cases = evaluation.all_cases(measurements, names=names)
    here.emit("tables", rows=[plain(to_builtins(score)) for score in scoreboard.all_scores(cases)])


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with numbers of six digits."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
