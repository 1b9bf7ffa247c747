"""Times since the start of a run to the times of its epochs.

    epoch   1      2      3            60.1, 118.9, 178.2 only rise, and begin near their first
    time   60.1  118.9  178.2          difference: the epochs took 60.1, 58.8 and 59.3 seconds

That a column holds them is said by its name or by ``--map``, or seen. Epochs take about as long as
each other, the first one longer: where every run's times rise from each epoch to the next, they are
since the start if the first is within three of the usual differences, or if they go on rising over
six epochs by half. Where they rise by less it could be either, and is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from epochcast.importers.rows import Row, as_typed

NEAR = 3.0  # differences; the first epoch holds what the start costs
FEWEST, LONG = 3, 6  # epochs that show a pattern; that show one although the first took long
CLOCK, LATEST = 1e9, 1e10  # seconds since 1970 in 2001; no run takes 30 years; and in 2286
RISE, DOUBT = 1.5, 1.1  # of the last over the first: of no series of epochs; of one by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """The times of one run, in order.

    Attributes:
        row, column: where they are written.
        is_said: whether the user says what they are.
        epochs: the number of each; None where the file does not say.
    """

    row: Row
    column: str
    is_said: bool
    epochs: tuple[float | None, ...]
    seconds: tuple[float, ...]

    @property
    def steps(self) -> list[float]:
        """From each to the next."""
        return [after - before for before, after in pairwise(self.seconds)]

    @property
    def rise(self) -> float:
        """Of the last over the first."""
        return self.seconds[-1] / self.seconds[0]


def is_since_start(found: Sequence[RunTimes]) -> bool:
    """Whether times that may be of epochs are all times since the start.

    Raises:
        Malformed: they may be either.
    """
    several = [series for series in found if len(series.seconds) > 1]
    shown = [series for series in several if len(series.seconds) >= FEWEST]
    clear = [series for series in shown if is_clear(series)]
    if shown and len(clear) == len(shown) and all(min(s.steps) > 0 for s in several):
        return True
    rising = [s for s in several if min(s.steps) > 0]
    doubtful = [s for s in rising if _is_doubtful(s)] if len(rising) == len(several) else []
    asked = next((s for s in (*clear, *doubtful) if not s.is_said), None)
    if asked is None:
        _require_no_resume(shown)
        return False
    first, *_, last = asked.seconds
    raise asked.row.wrong(
        f"it rises with every epoch, from {first:g} to {last:g} seconds: say whether these are the "
        f"times of the epochs, {as_typed('--map', 'epoch_seconds', asked.column)}, or since the "
        f"start, {as_typed('--map', 'elapsed_seconds', asked.column)}",
        asked.column,
    )


def _require_no_resume(found: Sequence[RunTimes]) -> None:
    """Refuse times that rise as those since the start do, and begin again as after a resume."""
    for series in found:
        again = next((i for i, step in enumerate(series.steps, 1) if step <= 0), 0)
        before = replace(series, seconds=series.seconds[:again])
        if again and not series.is_said and is_clear(before):
            epoch = series.epochs[again] or again + 1
            raise series.row.wrong(
                f"they rise as times since the start do, and from epoch {epoch:g} on they begin "
                "again, as after a resume: name a column run that tells the parts apart, or say "
                "that these are the times of the epochs, "
                f"{as_typed('--map', 'epoch_seconds', series.column)}",
                series.column,
            )


def is_clear(series: RunTimes) -> bool:
    """Whether times that rise by about as much as the first can only be since the start."""
    if len(series.seconds) < FEWEST or min(series.steps) <= 0:
        return False
    usual = median(series.steps)
    is_long = len(series.seconds) >= LONG and series.rise >= RISE
    return usual / NEAR <= series.seconds[0] <= usual * NEAR or is_long


def _is_doubtful(series: RunTimes) -> bool:
    few = len(series.seconds) < FEWEST
    return series.rise >= (RISE if few else DOUBT)


def epochs_of(series: RunTimes) -> tuple[tuple[float, ...], bool]:
    """The time of each epoch, and whether the first is the first of the run.

    Where epochs are left out, each of those between takes as much. A time of 0 is the start. Of a
    clock's times (seconds since 1970, as in TensorBoard's ``Wall time``) nobody knows it.

    Raises:
        Malformed: times fall, or the epochs that they are of are not known.
    """
    numbers = _numbered(series)
    is_clock = series.seconds[0] >= CLOCK
    if series.seconds[0] >= LATEST or (is_clock and len(series.seconds) == 1):
        raise series.row.wrong(
            f"{series.seconds[0]:g} seconds are no time since the start of a run; of a clock's "
            "times a run needs two, and --unit ms if they are in milliseconds",
            series.column,
        )
    for step, (before, after) in zip(series.steps, pairwise(series.seconds), strict=True):
        if step <= 0:
            raise series.row.wrong(
                f"a time since the start must rise, but {after:g} comes after {before:g}",
                series.column,
            )
    epochs = [b - a for a, b in pairwise(numbers)]
    each = [step / count for step, count in zip(series.steps, epochs, strict=True)]
    if series.seconds[0] == 0 and each:  # the start itself
        return tuple(each), numbers[0] <= 1
    if not is_clock and (numbers[0] <= 1 or not each):
        return (series.seconds[0] / (numbers[0] or 1), *each), numbers[0] <= 1
    return tuple(each), False


def _numbered(series: RunTimes) -> list[float]:
    """How many epochs are done at each time."""
    known = [epoch for epoch in series.epochs if epoch is not None]
    if len(known) == len(series.seconds) and len(set(known)) < len(known):
        raise series.row.wrong(
            "there are several times of one epoch: name a column step that tells them apart",
            series.column,
        )
    if len(known) < len(series.seconds):
        if len(series.seconds) == 1:
            raise series.row.wrong(
                "a time since the start needs the epoch of its row: name a column epoch, or say "
                "which has how many epochs it took, --map epoch=COLUMN",
                series.column,
            )
        return list(range(1, len(series.seconds) + 1))
    from_zero = 1 if known[0] == 0 and all(epoch == int(epoch) for epoch in known) else 0
    return [epoch + from_zero for epoch in known]
