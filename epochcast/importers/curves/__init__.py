"""Learning curves from files, as loggers write them.

    file ──rows──▶ Row per line or step ──columns──▶ which is the metric, the epoch, the training
                            └──────────merging──────────▶ LearningCurve

    runs/pilot.csv       epoch,train_loss,val_loss      one row a check, or as Lightning's CSVLogger
    runs/pilot.jsonl     {"epoch": 3, "val_loss": 0.41}, a line each, or in an array
    history.json         {"loss": [0.9, 0.7], "val_loss": [0.8, 0.7]}, as Keras keeps it
    trainer_state.json   of the Hugging Face Trainer
    events.out.tfevents… scalars by tag

What a file is, is read off its contents, except that an event file has ``tfevents`` in its name.
"""

from __future__ import annotations

import csv
from pathlib import Path

from epochcast.errors import UsageError
from epochcast.importers.curves.columns import DEFAULT_METRIC, find_columns
from epochcast.importers.curves.merging import merged
from epochcast.importers.curves.rows import read_rows
from epochcast.records import LearningCurve

__all__ = ["counts_steps", "read_curve"]


def read_curve(
    path: str | Path, metric: str = DEFAULT_METRIC, steps_per_epoch: int | None = None
) -> LearningCurve:
    """The learning curve in a file.

    Args:
        metric: a column's or tag's name, in upper or lower case; other names of the validation
            loss are known too.
        steps_per_epoch: of a file that counts steps and has no epochs; 1 if its steps are epochs.

    Raises:
        UsageError: no such file, not a curve, or one that cannot be used; says where and why.
        MissingDependency: an event file, without TensorBoard installed.
    """
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise UsageError(f"steps_per_epoch must be at least 1, but got {steps_per_epoch}")
    file = Path(path)
    if not file.is_file():
        what = f"the file in {path}, which is a folder" if file.is_dir() else "another path"
        raise UsageError(f"there is no learning curve at {path}: give {what}")
    try:
        names, rows = read_rows(file)
        return merged(rows, find_columns(names, metric), steps_per_epoch)
    except (ValueError, OSError, csv.Error, RecursionError) as error:
        raise UsageError(f"cannot use {path} as a learning curve: {error}") from error


def counts_steps(path: str | Path, metric: str = DEFAULT_METRIC) -> bool:
    """Whether a file that ``read_curve`` reads has steps and no epochs."""
    columns = find_columns(read_rows(Path(path))[0], metric)
    return columns.epoch is None and columns.step is not None
