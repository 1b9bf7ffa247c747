"""Rows to a learning curve: one value an epoch, in order, with the training value beside it.

    epoch,step,train_loss,val_loss
    0,49,0.9,                         epoch 1: training 0.8, the mean of its rows, as Keras reports;
    0,99,0.7,                                  validation 0.6
    0,99,,0.6
    1,149,0.5,                        …

Epochs that are numbered from 0 are numbered from 1 here: a check after the first epoch is at 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import inf, isfinite, nan
from statistics import fmean

from epochcast.importers.curves.columns import Columns
from epochcast.importers.curves.rows import Row
from epochcast.records import LearningCurve

MOST_EPOCHS = 1_000_000  # of a run that can be planned; more are steps, or a slip of the pen
Placed = tuple[float, Row]  # epochs done, and what was logged then
Check = tuple[Row, float]  # of the metric


def merged(rows: Sequence[Row], columns: Columns, steps_per_epoch: int | None) -> LearningCurve:
    """The curve in rows of any order.

    Raises:
        ValueError: a cell that is used is no number, two rows disagree about an epoch, steps that
            are not known as epochs, or nothing is left to learn from.
    """
    placed = _placed(rows, columns, steps_per_epoch)
    checks: dict[float, list[Check]] = {}
    for epoch, row in placed:
        if (value := _metric(row, columns)) is not None:
            checks.setdefault(epoch, []).append((row, value))
    values = {epoch: _value(found, columns) for epoch, found in checks.items()}
    epochs = [epoch for epoch, value in values.items() if isfinite(value)]
    broken = next((e for e in values if not epochs or e > epochs[-1]), None)
    _require_enough(len(epochs), broken, columns.metric)
    return LearningCurve(
        epochs=tuple(epochs),
        validation=tuple(values[epoch] for epoch in epochs),
        training=_training(placed, epochs, columns.training),
        non_finite_epoch=broken,
    )


def _placed(rows: Sequence[Row], columns: Columns, steps_per_epoch: int | None) -> Sequence[Placed]:
    """Rows that say when they are of, in the order of time, without those before training."""
    counter = columns.epoch or columns.step
    if counter is None:
        shown = (row for row in rows if row.number(columns.metric) is not None)
        return [(float(n), row) for n, row in enumerate(shown, start=1)]
    steps, from_zero = 1, columns.from_zero
    if columns.epoch is None:
        if steps_per_epoch is None:
            raise ValueError(
                f"it counts steps ({counter!r}) and has no epochs: say how many steps an epoch has "
                "with --steps-per-epoch; 1 if its steps are epochs"
            )
        steps, from_zero = steps_per_epoch, steps_per_epoch == 1
    counted = [(_count(row, counter, columns), row) for row in rows]
    known = [(count / steps, row) for count, row in counted if count is not None]
    for epoch, row in known:
        if epoch > MOST_EPOCHS:
            raise row.wrong(counter, f"expected at most {MOST_EPOCHS:,} epochs, but got {epoch:g}")
    whole = all(epoch == int(epoch) for epoch, _ in known)
    first = 1 if from_zero and whole and any(epoch == 0 for epoch, _ in known) else 0
    moved = [(epoch + first, row) for epoch, row in known if epoch + first > 0]
    return sorted(moved, key=lambda pair: pair[0])


def _count(row: Row, counter: str, columns: Columns) -> float | None:
    """Epochs or steps; None in a row that is not needed."""
    count = row.number(counter)
    if count is None and row.number(columns.metric) is None:
        return None
    if count is None or not (isfinite(count) and count >= 0):
        got = "nothing" if count is None else f"{count:g}"
        raise row.wrong(counter, f"expected a number of at least 0, but got {got}")
    return count


def _metric(row: Row, columns: Columns) -> float | None:
    from epochcast.planning.curves import LARGEST

    value = row.number(columns.metric)
    if value is not None and LARGEST < abs(value) < inf:
        raise row.wrong(columns.metric, f"expected at most {LARGEST:g}, but got {value:g}")
    return value


def _value(checks: Sequence[Check], columns: Columns) -> float:
    """The one value of an epoch, or that of its last check; NaN if none is finite."""
    finite = [check for check in checks if isfinite(check[1])]
    if len({value for _, value in finite}) < 2:
        return finite[0][1] if finite else nan
    by_step = {row.number(columns.step): value for row, value in finite}
    if None not in by_step and len(by_step) == len(finite):
        return by_step[max(step for step in by_step if step is not None)]
    (first, one), (second, other) = finite[0], next(f for f in finite if f[1] != finite[0][1])
    problem = f"{other:g}, but {first.place} has {one:g} for the same epoch"
    raise second.wrong(columns.metric, problem)


def _training(
    placed: Sequence[Placed], epochs: Sequence[float], column: str | None
) -> tuple[float, ...]:
    """The mean over the epoch before each check, or since the last one; empty if one is missing."""
    logged = [
        (epoch, value)
        for epoch, row in placed
        if (value := row.number(column)) is not None and isfinite(value)
    ]
    at = [epoch for epoch, _ in logged]
    means = []
    for before, epoch in zip((0.0, *epochs), epochs, strict=False):
        some = logged[bisect_right(at, max(before, epoch - 1)) : bisect_right(at, epoch)]
        if not some:
            return ()
        means.append(fmean(value for _, value in some))
    return tuple(means)


def _require_enough(finite: int, broken: float | None, metric: str) -> None:
    if broken is None:
        if not finite:
            raise ValueError(f"no value of {metric!r} in it")
        return
    from epochcast.planning.curves import FEWEST_CHECKS

    if finite < FEWEST_CHECKS:
        raise ValueError(
            f"{metric!r} is not finite from epoch {broken:g} on: the run diverged; finite values "
            f"before that: {finite}, needed for a forecast: {FEWEST_CHECKS}"
        )
