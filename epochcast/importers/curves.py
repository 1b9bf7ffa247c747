"""Learning curves from files, as loggers write them: one value an epoch, in order.

    epoch,step,train_loss,val_loss
    0,49,0.9,                         epoch 1: training 0.8, the mean of its rows, as Keras reports;
    0,99,0.7,                                  validation 0.6
    0,99,,0.6
    1,149,0.5,                        …

Epochs that are numbered from 0 are numbered from 1 here: a check after the first epoch is at 1.
Which column is which, whatever its logger calls it:

    metric     as asked for, in upper or lower case; for val_loss also eval/loss, Loss/valid, …
    training   what the metric is called without val, with train: train_loss, train/loss, loss
    epoch      epoch, Epoch, train/epoch
    step       step, global_step, trainer/global_step, iteration

Names are compared as sets of their words in lower case, without the ``epoch`` that Lightning and
Keras add to means of an epoch: ``train_loss_epoch``, ``epoch_loss``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite, isinf, nan
from pathlib import Path
from statistics import fmean, median

from epochcast.errors import UsageError
from epochcast.importers.cells import parse_number
from epochcast.importers.documents import HALF_A_ROUNDING
from epochcast.importers.rows import Row, listed
from epochcast.importers.table import Table, read_file
from epochcast.planning.request import LONGEST_STEPS
from epochcast.records import CountUnit, LearningCurve

DEFAULT_METRIC = "val_loss"
VALIDATION = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev"})
TRAINING = (("train",), ("training",), ("train", "step"), ())  # the first that is there
EPOCH, PASSED = ("epoch", "epochs"), ("train epoch", "training epoch")  # PASSED: never from 0
STEP = ("step", "steps", "global step", "trainer global step", "iteration", "iterations", "iter")
MAX_EPOCHS = 1_000_000  # of a run that can be planned; more are steps, or a slip of the pen

Check = tuple[Row, float]  # of the metric
Placed = tuple[float, Row]  # epochs done, and what was logged then


def read_curve(
    path: str | Path,
    metric: str = DEFAULT_METRIC,
    steps_per_epoch: int | None = None,
    unit: CountUnit = "epoch",
) -> LearningCurve:
    """The learning curve in a file: CSV, JSON, JSON Lines or TensorBoard's events.

    Args:
        path: of the file.
        metric: a column's or tag's name, in upper or lower case; other names of the validation
            loss are known too.
        steps_per_epoch: of a file that counts steps and has no epochs; 1 if its steps are epochs.
            With ``unit="step"`` of one that has epochs and no steps.
        unit: what the curve is to count, for a plan of epochs or of optimizer steps.

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
        table = _without_summary(read_file(file))
        columns = _columns_of(table, metric)
        if unit == "step":
            columns = _of_steps(columns, steps_per_epoch)
        return _merged(table, columns, steps_per_epoch)
    except (ValueError, OSError) as error:
        raise UsageError(f"cannot use {path} as a learning curve: {error}") from error


def counts_steps(path: str | Path, metric: str = DEFAULT_METRIC) -> bool:
    """Whether a file that ``read_curve`` reads has steps and no epochs."""
    columns = _columns_of(read_file(Path(path)), metric)
    return columns.epoch is None and columns.step is not None


# Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names in the file; None where there is none.

    Attributes:
        from_zero: whether ``epoch`` may number epochs from 0, and not say how many have passed.
        unit: what the curve is to count.
    """

    metric: str
    training: str | None
    epoch: str | None
    step: str | None
    from_zero: bool = True
    unit: CountUnit = "epoch"

    @property
    def counter(self) -> str | None:
        """What says when a check was."""
        return self.epoch or self.step


def _without_summary(table: Table) -> Table:
    """Without what the Hugging Face Trainer says of the whole training, and is of no epoch."""
    rows = tuple(row for row in table.rows if "train_runtime" not in row.cells)
    if len(rows) == len(table.rows):
        return table
    return Table(tuple(n for n in table.names if any(n in row.cells for row in rows)), rows)


def _of_steps(columns: Columns, steps_per_epoch: int | None) -> Columns:
    """For a curve that counts optimizer steps: by the steps where there are any."""
    if columns.step is not None and steps_per_epoch is None:
        return replace(columns, epoch=None, unit="step")
    if columns.step is not None:
        raise ValueError(
            f"it counts steps itself ({columns.step!r}): leave --steps-per-epoch out; where these "
            "are epochs, name the column epoch"
        )
    if columns.epoch is not None and steps_per_epoch is not None:
        return replace(columns, unit="step")
    raise ValueError(
        "it counts no steps, as a plan of steps does: say how many an epoch has with "
        "--steps-per-epoch, or plan epochs"
        if columns.epoch is not None
        else "it counts neither steps nor epochs: give it a column step"
    )


def _columns_of(table: Table, metric: str) -> Columns:
    """What is used of a table; an epoch that is in no row of the metric says nothing of it.

    Nor does one that is the same in all checks, at several steps: of less than an epoch, rounded.
    """
    found = find_columns(table.names, metric)
    rows = [row for row in table.rows if row.get(found.metric, parse_number) is not None]
    epochs = {row.get(found.epoch, parse_number) for row in rows} - {None}
    steps = {row.get(found.step, parse_number) for row in rows} - {None}
    by_step = (len(steps) > 1 and len(epochs) == 1) or (bool(steps) and not epochs)
    return replace(found, epoch=None) if by_step else found


def find_columns(names: Sequence[str], metric: str) -> Columns:
    """What is used of the columns with these names.

    Raises:
        ValueError: the metric is not among them, or two have one meaning.
    """
    found = _metric_name(names, metric)
    epoch, passed = _named(names, EPOCH), _named(names, PASSED)
    return Columns(
        metric=found,
        training=_training_name(names, found),
        epoch=epoch or passed,
        step=_named(names, STEP),
        from_zero=epoch is not None,
    )


def _metric_name(names: Sequence[str], metric: str) -> str:
    alike = [
        [name for name in names if name == metric],
        [name for name in names if name.casefold() == metric.casefold()],
    ]
    alike.append([name for name in names if name.rpartition(" - ")[2] == metric])  # W&B: run first
    if metric == DEFAULT_METRIC:
        losses = [{"loss", word} for word in VALIDATION]
        alike.append([name for name in names if _words(name) in losses])
    found = next(filter(None, alike), [])
    if not found:
        raise ValueError(f"no metric {metric!r}; it has: {listed(names)} (--metric)")
    return _only(found, f"{metric!r}: name one with --metric")


def _training_name(names: Sequence[str], metric: str) -> str | None:
    rest = _words(metric) - VALIDATION
    for words in TRAINING if rest != _words(metric) else TRAINING[:-1]:
        for name in names:
            if name != metric and _words(name) == rest | set(words):
                return name
    return None


def _named(names: Sequence[str], known: Iterable[str]) -> str | None:
    for one in known:
        found = [name for name in names if " ".join(_split(name)) == one]
        if found:
            return _only(found, f"the {one}: leave one out")
    return None


def _only(found: Sequence[str], what: str) -> str:
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} may each be {what}")
    return found[0]


def _words(name: str) -> frozenset[str]:
    return frozenset(_split(name)) - {"epoch"}


def _split(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


# Rows to a curve


def _merged(table: Table, columns: Columns, steps_per_epoch: int | None) -> LearningCurve:
    placed = _placed(_latest(table.rows, columns), columns, steps_per_epoch)
    checks: dict[float, list[Check]] = {}
    for epoch, row in placed:
        if (value := _metric(row, columns)) is not None:
            checks.setdefault(epoch, []).append((row, value))
    last = max(checks, default=None)
    values = {
        epoch: _value(_without_reloaded(found, columns) if epoch == last else found, columns)
        for epoch, found in checks.items()
    }
    values = _without_gaps(values)
    epochs = [epoch for epoch, value in values.items() if isfinite(value)]
    failed = next((e for e in values if not epochs or e > epochs[-1]), None)
    _require_enough(len(epochs), failed, columns.metric)
    return LearningCurve(
        epochs=tuple(epochs),
        validation=tuple(values[epoch] for epoch in epochs),
        training=_training(
            placed, epochs, columns.training, 1.0 if columns.unit == "epoch" else inf
        ),
        non_finite_epoch=next((e for e, value in values.items() if not isfinite(value)), None),
    )


def _latest(rows: Sequence[Row], columns: Columns) -> Sequence[Row]:
    """Without what a run did again after a resume, which begins another part of the file."""
    counter = columns.counter
    if counter is None or not rows or not rows[-1].part:
        return rows
    begins: dict[int, float] = {}
    for row in rows:
        count = row.get(counter, parse_number)
        if count is not None:
            begins.setdefault(row.part, count)
    return [row for row in rows if _is_kept(row, counter, begins)]


def _is_kept(row: Row, counter: str, begins: Mapping[int, float]) -> bool:
    later = [begin for part, begin in begins.items() if part > row.part]
    count = row.get(counter, parse_number)
    return count is None or not later or count < min(later)


def _without_reloaded(checks: Sequence[Check], columns: Columns) -> Sequence[Check]:
    """The last epoch's checks without a final one at the same step: of the best, reloaded."""
    if len(checks) < 2 or columns.step is None:
        return checks
    steps = [row.get(columns.step, parse_number) for row, _ in checks]
    return checks[:-1] if steps[-1] is not None and steps[-1] == steps[-2] else checks


def _without_gaps(values: dict[float, float]) -> dict[float, float]:
    """Without NaN in epochs that had no check: the same number after every check, or fewer last.

    As a row of each epoch has it where every second or fifth is checked (Keras's
    ``validation_freq``). A run that diverged has NaN from some epoch on instead.
    """
    known = list(values.values())
    checked = [i for i, value in enumerate(known) if isfinite(value)]
    every = {after - before for before, after in pairwise(checked)}
    if len(every) != 1 or any(isinf(value) for value in known):
        return values
    step = every.pop()
    if step < 2 or checked[0] >= step:
        return values
    due = checked[-1] + step  # what is not finite then, or later, is a value of a check
    return {e: v for i, (e, v) in enumerate(values.items()) if isfinite(v) or i >= due}


def _placed(rows: Sequence[Row], columns: Columns, steps_per_epoch: int | None) -> Sequence[Placed]:
    """Rows that say when they are of, in the order of time, without those before training."""
    counter = columns.counter
    if counter is None:
        shown = (row for row in rows if row.get(columns.metric, parse_number) is not None)
        return [(float(n), row) for n, row in enumerate(shown, start=1)]
    steps, from_zero = 1, columns.from_zero
    if columns.epoch is None and columns.unit == "step":
        from_zero = False
    elif columns.epoch is None:
        if steps_per_epoch is None:
            raise ValueError(
                f"it counts steps ({counter!r}) and has no epochs: say how many steps an epoch has "
                "with --steps-per-epoch; 1 if its steps are epochs"
            )
        steps, from_zero = steps_per_epoch, steps_per_epoch == 1
    counted = [(_count(row, counter, columns), row) for row in rows]
    known = [(count / steps, row) for count, row in counted if count is not None]
    if columns.epoch is not None:
        known = _unrounded(known, columns)
    most = MAX_EPOCHS if columns.unit == "epoch" else LONGEST_STEPS
    for epoch, row in known:
        if epoch > most:
            raise row.wrong(
                f"expected at most {most:,} {columns.unit}s, but got {epoch:g}", counter
            )
    whole = all(epoch == int(epoch) for epoch, _ in known)
    first = 1 if from_zero and whole and any(epoch == 0 for epoch, _ in known) else 0
    each = steps_per_epoch or 1 if columns.unit == "step" and columns.epoch else 1
    moved = [((epoch + first) * each, row) for epoch, row in known if epoch + first > 0]
    if columns.epoch is not None and columns.unit == "epoch" and from_zero:
        moved = _within_epochs(moved, columns)
    return sorted(moved, key=lambda pair: pair[0])


def _within_epochs(placed: Sequence[Placed], columns: Columns) -> list[Placed]:
    """Rows at parts of epochs where an epoch has checks at several steps; else as they are.

        epoch   0    0    0     1    1    1      Lightning logs the number of the epoch with each of
        step   49   99  149   199  249  299      three checks: they are at 0.33, 0.67, 1, 1.33, …

    The last check of an epoch is at its end: the steps from one to the next are those of an epoch,
    and those of the last epoch, which a run may have left early, are measured by the others.
    """
    known = [(epoch, row.get(columns.step, parse_number), row) for epoch, row in placed]
    checks = [
        (epoch, at)
        for epoch, at, row in known
        if at is not None and row.get(columns.metric, parse_number) is not None
    ]
    ends: dict[float, float] = {}
    for epoch, at in sorted(set(checks)):
        ends[epoch] = max(at, ends.get(epoch, at))
    whole = all(epoch == int(epoch) for epoch, _ in placed)
    rises = all(a < b for a, b in pairwise(ends.values())) and all(map(isfinite, ends.values()))
    if len(ends) < 2 or len(set(checks)) == len(ends) or not (whole and rises):
        return list(placed)
    each = _steps_of_an_epoch(ends)
    return [(e if at is None else _place(e, at, ends, each), row) for e, at, row in known]


def _steps_of_an_epoch(ends: dict[float, float]) -> float:
    spans = [(b - a) / (f - e) for (e, a), (f, b) in pairwise(ends.items())]
    if len(spans) > 1:
        return median(spans[:-1])
    epoch, end = next(iter(ends.items()))
    return max(spans[0], end / epoch)  # of two epochs: the second may have been left early


def _place(epoch: float, at: float, ends: dict[float, float], each: float) -> float:
    """Epochs done at a step of an epoch, the end of the one before known or not."""
    before, end = ends.get(epoch - 1), ends.get(epoch)
    if before is not None:
        done = epoch - 1 + (at - before) / each
    else:
        done = epoch - ((end if end is not None else at) - at) / each
    return round(min(max(done, epoch - 1), epoch), 9)


def _unrounded(placed: Sequence[Placed], columns: Columns) -> list[Placed]:
    """Parts of epochs by the steps, where rounding has made several steps one (0.01, 0.01, 0.02).

    As the Hugging Face Trainer logs them: to two decimals.
    """
    by_step = [(epoch, row.get(columns.step, parse_number), row) for epoch, row in placed]
    checks = {(e, s) for e, s, row in by_step if row.get(columns.metric, parse_number) is not None}
    is_part = any(epoch != int(epoch) for epoch, _ in placed)
    if not is_part or len({e for e, _ in checks}) == len(checks):
        return list(placed)
    if any(step is None or not isfinite(step) or step <= 0 for _, step, _ in by_step):
        return list(placed)
    epochs, steps = max((e, s) for e, s, _ in by_step if s is not None)
    exact = [(round(s * epochs / steps, 9), e, row) for e, s, row in by_step if s is not None]
    return [(at if abs(at - e) <= HALF_A_ROUNDING else e, row) for at, e, row in exact]


def _count(row: Row, counter: str, columns: Columns) -> float | None:
    """Epochs or steps; None in a row that is not needed."""
    count = row.get(counter, parse_number)
    if count is None and row.get(columns.metric, parse_number) is None:
        return None
    if count is None or not (isfinite(count) and count >= 0):
        got = "nothing" if count is None else f"{count:g}"
        raise row.wrong(f"expected a number of at least 0, but got {got}", counter)
    return count


def _metric(row: Row, columns: Columns) -> float | None:
    from epochcast.planning.curves import LARGEST

    value = row.get(columns.metric, parse_number)
    if value is not None and LARGEST < abs(value) < inf:
        raise row.wrong(f"expected at most {LARGEST:g}, but got {value:g}", columns.metric)
    return value


def _value(checks: Sequence[Check], columns: Columns) -> float:
    """The one value of an epoch, or that of its last check; NaN if none is finite."""
    finite = [check for check in checks if isfinite(check[1])]
    if len({value for _, value in finite}) < 2:
        return finite[0][1] if finite else nan
    by_step = {row.get(columns.step, parse_number): value for row, value in finite}
    if None not in by_step and len(by_step) == len(finite):
        return by_step[max(step for step in by_step if step is not None)]
    (first, one), (second, other) = finite[0], next(f for f in finite if f[1] != finite[0][1])
    problem = (
        f"{other:g}, but {first.location} has {one:g} for the same epoch; where these are several "
        "runs, give a file of each"
    )
    raise second.wrong(problem, columns.metric)


def _training(
    placed: Sequence[Placed], epochs: Sequence[float], column: str | None, longest: float
) -> tuple[float, ...]:
    """The mean over the epoch before each check, or since the last one; empty if one is missing.

    Args:
        placed: rows, by when they are of.
        epochs: of the checks.
        column: of the training metric, if there is any.
        longest: how far before a check a mean reaches at most.
    """
    logged = [
        (epoch, value)
        for epoch, row in placed
        if (value := row.get(column, parse_number)) is not None and isfinite(value)
    ]
    at = [epoch for epoch, _ in logged]
    means = []
    for before, epoch in zip((0.0, *epochs), epochs, strict=False):
        some = logged[bisect_right(at, max(before, epoch - longest)) : bisect_right(at, epoch)]
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
