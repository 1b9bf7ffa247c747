"""Runs that were timed elsewhere, e.g. in the logs of a team's real runs, to measurements of ours.

    batch  epoch  seconds
       64      1     12.0 ┐
       64      2      1.0 ├ repeat 0, its first epoch a start
       64      3      1.1 ┘
       64      1     11.8 ┐ the epoch does not go up: another run of the same configuration,
       64      2      1.1 ┘ repeat 1

Rows with the same name of a run and the same configuration are one run, in the file's order.
Without either column every row is a run. Times that only rise are those since the start of a run:
``elapsed`` makes epochs of them.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import msgspec

from epochcast.costmodel.epoch import evaluation_of
from epochcast.errors import StoreError
from epochcast.importers.cells import is_gap, says_its_unit
from epochcast.importers.columns import (
    KNOB,
    LEFT_OUT,
    SECONDS,
    Column,
    ImportOptions,
    is_of_micro_batch,
    understand,
)
from epochcast.importers.elapsed import RunTimes, epochs_of, is_clear, is_since_start
from epochcast.importers.entries import CONFIG, Entry, RowReader
from epochcast.importers.knobs import (
    require_counts_of_steps,
    require_known_before,
    require_names_of_devices,
    require_no_count_of_devices,
    require_same_knobs_everywhere,
    require_same_knobs_within_runs,
)
from epochcast.importers.names import PHASES, RESULT
from epochcast.importers.roles import spelled
from epochcast.importers.rows import Malformed, Row, as_typed, is_empty, one_line
from epochcast.importers.table import Table, decoded, read_text
from epochcast.records import Footprint, Measurement, RunConfig, Warning_

Count = Callable[[RunConfig], Footprint | None]
Run = list[Entry]
SHOWN = 40  # characters of a first value
SHARED = ("accumulation", "world_size", "nodes")
STATES = "fail timeout cancel out_of_me oom node_fail boot_fail preempt deadline running pending"
MORE_STATES = "crash kill error abort suspend stopped requeue"
FAILED = (*STATES.split(), *MORE_STATES.split())  # how that of a run without an end begins


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadColumn:
    """A column, and the first value in it as the file writes it; ``""`` where it is empty.

    Attributes:
        is_mixed: whether some values have a unit of their own and others that of the column.
    """

    column: Column
    first: str
    is_mixed: bool = False

    @property
    def says_its_unit(self) -> bool:
        """Whether the value has a unit of its own, which goes before that of the column."""
        return bool(self.first) and says_its_unit(self.first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was read from a file, as which columns, and what to say about it."""

    measurements: tuple[Measurement, ...]
    columns: tuple[ReadColumn, ...]
    warnings: tuple[Warning_, ...] = ()


def text_of(content: bytes) -> str:
    """All of a file.

    Raises:
        StoreError: it is not text.
    """
    try:
        return decoded(content)
    except ValueError as error:
        raise StoreError(f"{error}; nothing was imported") from error


def is_export(text: str) -> bool:
    """Whether a text is what ``epochcast probes export`` writes."""
    lines = (line.strip() for line in io.StringIO(text.removeprefix("\ufeff")))
    first = next((line for line in lines if line), "")
    try:
        found = msgspec.json.decode(first, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return isinstance(found.get("config"), dict) and "step_seconds" in found


def read(
    text: str, options: ImportOptions, *, count: Count | None = None, at: datetime | None = None
) -> Imported:
    """The measurements in a CSV, in JSON or in JSON Lines.

    Args:
        text: of the file.
        options: what the user says about the file.
        count: the footprint of a configuration, where the file has none; called once for each.
        at: when they count as made; default: now.

    Raises:
        UsageError: the columns are not clear.
        StoreError: a row makes no sense; the message has its line and column.
    """
    try:
        table = read_text(text, strict=True)
        if not table.rows:
            only = "a header" if table.names else "an empty file"
            raise Malformed(
                f"there are no measurements in it, only {only}; a row needs at least batch_size "
                "and epoch_seconds or step_seconds"
            )
        columns = _without_empty(understand(table.names, options), table)
        rows = _of_training(table, columns)
        ended = _that_ended(rows, columns)
        require_names_of_devices(rows, columns, options.device)
        require_no_count_of_devices(rows, columns)
        require_known_before(rows, columns)
        entries = [RowReader(row, columns, options).entry() for row in ended]
        require_counts_of_steps(entries, columns)
        require_same_knobs_everywhere(entries, columns)
        require_same_knobs_within_runs(entries, columns)
        runs, elapsed = _with_epochs(_runs(_counted(entries, count) if count else entries))
        found = _measurements(runs, at or datetime.now(timezone.utc))
    except Malformed as error:
        raise StoreError(f"{error}; nothing was imported") from error
    used = _without_unused(columns, entries)
    return Imported(
        measurements=found,
        columns=tuple(_first_value(column, table) for column in used),
        warnings=(
            *_left_out(table, rows),
            *_not_ended(rows, ended),
            *elapsed,
            *_notes(found, used),
        ),
    )


def _of_training(table: Table, columns: Sequence[Column]) -> list[Row]:
    """Without rows of another kind, such as evaluations between the lines of the training.

    They say so (``mode``: val), or have no time, or other results than the first row that has one,
    and none of its own. A row without a time in a table of runs is a mistake, and stays.
    """
    times = {c.name for c in columns if c.role in SECONDS}
    steps = _steps_of_jobs(table)
    results = {c.name for c in columns if c.why == RESULT}
    is_log = any(c.role in ("epoch", "step") for c in columns)
    timed = [
        row
        for row in _in_training(table)
        if any(not (is_log and is_empty(row.cells.get(name))) for name in times & set(row.cells))
        and id(row) not in steps
    ]
    timed = timed or list(table.rows)
    usual = results.intersection(timed[0].cells)
    of_others = [results.intersection(row.cells) for row in timed]
    return [
        row
        for row, mine in zip(timed, of_others, strict=True)
        if not (usual and mine and usual.isdisjoint(mine))
    ]


def _in_training(table: Table) -> Sequence[Row]:
    """Rows whose mode, split or phase is training; all, where no row says so."""
    for name in table.names:
        if spelled(name)[-1:] and spelled(name)[-1] in PHASES:
            said = [str(row.cells.get(name, "")).strip().lower() for row in table.rows]
            if any(text.startswith("train") for text in said):
                pairs = zip(table.rows, said, strict=True)
                return [row for row, text in pairs if not text or text.startswith("train")]
    return table.rows


def _that_ended(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """Without runs that failed and have no time, or where only that of the whole run is known.

    Raises:
        Malformed: none is left.
    """
    states = [c.name for c in columns if spelled(c.name) in (["state"], ["status"])]
    parts = [c.name for c in columns if c.role in ("epoch_seconds", "step_seconds")]
    has_runs = any(c.role == "run" for c in columns)
    kept = [
        row
        for row in rows
        if not any(_has_failed(row.cells.get(name)) for name in states)
        or any(not is_empty(row.cells.get(name)) for name in parts)
        or (has_runs and not parts)
    ]
    if rows and not kept:
        raise rows[0].wrong("no run has come to its end, or has a time", states[0])
    return kept


def _has_failed(cell: object) -> bool:
    return str(cell).strip().lower().startswith(FAILED)


def _not_ended(rows: Sequence[Row], ended: Sequence[Row]) -> list[Warning_]:
    kept = {id(row) for row in ended}
    others = [row.location for row in rows if id(row) not in kept]
    return [Warning_.of("failed-rows", count=str(len(others)), first=others[0])] if others else []


def _steps_of_jobs(table: Table) -> set[int]:
    """Rows of ``sacct`` that are of a step of a job (123.batch, 123.0) which has a row itself."""
    names = [name for name in table.names if "".join(spelled(name)) in ("jobid", "jobidraw")]
    ids = {id(row): str(row.cells.get(name, "")).strip() for name in names for row in table.rows}
    jobs = {job for job in ids.values() if "." not in job}
    return {row for row, job in ids.items() if "." in job and job.partition(".")[0] in jobs}


def _counted(entries: Sequence[Entry], count: Count) -> list[Entry]:
    configs = dict.fromkeys(entry.config for entry in entries if entry.footprint is None)
    known = {config: count(config) for config in configs}
    return [replace(e, footprint=e.footprint or known[e.config]) for e in entries]


# What is said of it


def _without_empty(columns: Sequence[Column], table: Table) -> list[Column]:
    """A column that nobody filled is no knob, whatever its name."""
    filled = {
        name
        for row in table.rows
        for name, cell in row.cells.items()
        if not is_empty(cell) and str(cell).strip().lower() != "nan"
    }
    return [
        replace(c, role=LEFT_OUT, why="empty") if c.role == KNOB and c.name not in filled else c
        for c in columns
    ]


def _without_unused(columns: Sequence[Column], entries: Sequence[Entry]) -> list[Column]:
    """Of several times of the training one was used."""
    used = {entry.timed.name for entry in entries}
    why = f"the times are those of {', '.join(sorted(used))}"
    is_other = {c.name for c in columns if c.role in SECONDS and not c.order} - used
    return [replace(c, role=LEFT_OUT, why=why) if c.name in is_other else c for c in columns]


def _first_value(column: Column, table: Table) -> ReadColumn:
    cells = [c for row in table.rows if not is_empty(c := row.cells.get(column.name))]
    shown = one_line(str(cells[0])[:SHOWN]) if cells else ""
    ways = {says_its_unit(cell) for cell in cells if not is_gap(cell)} if column.unit else set()
    return ReadColumn(column=column, first=shown, is_mixed=len(ways) > 1)


def _left_out(table: Table, rows: Sequence[Row]) -> list[Warning_]:
    kept = {id(row) for row in rows}
    others = [row.location for row in table.rows if id(row) not in kept]
    return [Warning_.of("other-rows", count=str(len(others)), first=others[0])] if others else []


def _notes(found: Sequence[Measurement], columns: Sequence[Column]) -> tuple[Warning_, ...]:
    notes = []
    if single := sum(bool(m.message) for m in found):
        notes.append(Warning_.of("one-time", count=str(single), runs=str(len(found))))
    batch = next((c.name for c in columns if c.role == "batch_size"), None)
    if batch and any(m.config.world_size > 1 for m in found) and not is_of_micro_batch(batch):
        advice = as_typed("--map", "global_batch", batch)
        notes.append(Warning_.of("batch-of-one-device", column=batch, advice=advice))
    step = next((c for c in columns if c.role == "step_seconds"), None)
    if step and any(m.config.accumulation > 1 for m in found) and not is_of_micro_batch(step.name):
        advice = as_typed("--map", "update_seconds", step.name)
        notes.append(Warning_.of("step-of-micro-batch", column=step.name, advice=advice))
    knobs = sorted({name for m in found for name, _ in m.config.sizes})
    sizes = {(m.workload, m.config.sizes) for m in found}
    if len(sizes) > len({m.workload for m in found}) and all(m.footprint is None for m in found):
        notes.append(Warning_.of("no-counts", knobs=", ".join(knobs)))
    return tuple(notes)


# Entries to runs, and runs to measurements


def _measurements(runs: Sequence[Run], at: datetime) -> tuple[Measurement, ...]:
    """A measurement per run, in the order they begin; each made a microsecond after the other."""
    moments = ((at + timedelta(microseconds=i)).isoformat(timespec="microseconds") for i in count())
    return numbered([_measurement(run, at) for run, at in zip(runs, moments, strict=False)])


def _runs(entries: Iterable[Entry]) -> list[Run]:
    runs: list[Run] = []
    open_: dict[object, Run] = {}
    for entry in entries:
        key = (entry.run, entry.workload, entry.device, entry.config, entry.samples)
        run = open_.get(key)
        if run is None or not _continues(run, entry):
            run = open_[key] = []
            runs.append(run)
        run.append(entry)
    return runs


def _continues(run: Run, entry: Entry) -> bool:
    last = run[-1]
    if entry.place is None or last.place is None:
        return entry.run is not None
    if entry.run is not None and entry.place <= last.place:
        at = "epoch" if entry.epoch is not None else "step"
        before, here = getattr(last, at), getattr(entry, at)
        problem = f"run {entry.run} is at {at} {before} already, but this is {here}"
        raise entry.row.wrong(problem)
    return entry.place > last.place


def _with_epochs(runs: Sequence[Run]) -> tuple[list[Run], tuple[Warning_, ...]]:
    """Runs whose times are those of their epochs, where the file has times since the start.

    Raises:
        Malformed: times since the start fall, or nobody knows of what these are.
    """
    _require_no_run_in_pieces(runs)
    said = [run for run in runs if run[0].elapsed_seconds]
    whole = [run for run in runs if run[0].epoch_seconds and not run[0].first_epoch_seconds]
    rising = [_series(run) for run in whole]
    if not said and not is_since_start(rising):
        return list(runs), ()
    changed = {id(run) for run in (said or whole)}
    found = [_differenced(run) if id(run) in changed else run for run in runs]
    example = next(run for run in found if run[0].epoch_seconds or run[0].step_seconds)
    entry = example[0]
    shown = ", ".join(f"{s:.4g}" for s in (entry.epoch_seconds or entry.step_seconds)[:3])
    code = "since-start" if entry.epoch_seconds else "since-start-steps"
    return found, (Warning_.of(code, column=entry.timed.name, epochs=shown),)


def _require_no_run_in_pieces(runs: Sequence[Run]) -> None:
    """Rows without an epoch are runs each, unless their times are of one run that goes on.

    Raises:
        Malformed: those of a configuration only rise, by about as much each.
    """
    loose: dict[object, Run] = {}
    before: dict[object, Entry] = {}
    for run in runs:
        entry = run[0]
        key = (entry.workload, entry.device, entry.config)
        _require_new_run(before.get(key), entry)
        before[key] = run[-1]
        if entry.run is None and entry.place is None and len(entry.epoch_seconds) == 1:
            loose.setdefault((entry.workload, entry.device, entry.config), []).append(entry)
    for series in map(_series, loose.values()):
        if is_clear(series):
            raise series.row.wrong(
                "from row to row it only rises, as the time since the start of one run does: name "
                "a column epoch, or run where each row is a run",
                series.column,
            )


def _require_new_run(before: Entry | None, entry: Entry) -> None:
    """Refuse times since the start that go on rising although an epoch comes again."""
    if before is None or entry.run is not None or not (before.elapsed_seconds):
        return
    if entry.elapsed_seconds and entry.elapsed_seconds[0] > before.elapsed_seconds[-1]:
        raise entry.row.wrong(
            "the time since the start goes on from the row before, but its epoch does not: name a "
            "column step that tells rows of one epoch apart, or run where this is another one",
            entry.timed.name,
        )


def _series(run: Run) -> RunTimes:
    pairs = [(e, s) for e in run for s in (e.epoch_seconds or e.elapsed_seconds)]
    return RunTimes(
        row=run[0].row,
        column=run[0].timed.name,
        is_said=run[0].timed.said or run[0].timed.role == "elapsed_seconds",
        epochs=tuple(e.epoch for e, _ in pairs),
        seconds=tuple(seconds for _, seconds in pairs),
    )


def _differenced(run: Run) -> Run:
    if _counts_steps(run):
        return _stepped(run)
    seconds, includes_first = epochs_of(_series(run))
    first = replace(run[0], epoch_seconds=seconds, elapsed_seconds=())
    if not includes_first:
        first = replace(first, epoch=max(2, first.epoch or 0))
    rest = [replace(entry, epoch_seconds=(), elapsed_seconds=()) for entry in run[1:]]
    return [first, *rest]


def _counts_steps(run: Run) -> bool:
    """Whether rows are of steps: several in an epoch, or without epochs at all."""
    epochs = {entry.epoch for entry in run}
    return all(e.step is not None for e in run) and (None in epochs or len(epochs) < len(run))


def _stepped(run: Run) -> Run:
    """Times since the start by steps: micro-steps, as many in each update as are accumulated."""
    series = replace(_series(run), epochs=tuple(entry.step for entry in run))
    seconds, includes_first = epochs_of(series)
    each = tuple(s / run[0].config.accumulation for s in seconds)
    first = replace(run[0], step_seconds=each, epoch_seconds=(), elapsed_seconds=())
    first = replace(first, epoch=1 if includes_first else 2)
    rest = [replace(entry, epoch_seconds=(), elapsed_seconds=()) for entry in run[1:]]
    return [first, *rest]


def _measurement(run: Run, created_at: str) -> Measurement:
    first, config = run[0], run[0].config
    evaluated = [e.eval_seconds for e in run if e.eval_seconds is not None]
    batches = evaluation_of(first.eval_samples, config).micro_batches
    try:
        return Measurement.from_epochs(
            first.workload,
            config.batch_size,
            [s for e in run for s in (*e.first_epoch_seconds, *e.epoch_seconds)],
            step_seconds=[seconds for e in run for seconds in e.step_seconds],
            samples=first.samples,
            device=first.device,
            sizes=dict(config.sizes),
            config={name: getattr(config, name) for name in (*CONFIG, *SHARED)},
            includes_first=(first.epoch or 0) <= 1 or _is_of_all_epochs(run),
            peak_bytes=max((e.peak_bytes for e in run if e.peak_bytes), default=None),
            device_bytes=max((e.device_bytes for e in run if e.device_bytes), default=None),
            created_at=created_at,
            footprint=next((e.footprint for e in run if e.footprint), None),
            eval_samples=first.eval_samples,
            eval_batch_seconds=tuple(seconds / batches for seconds in evaluated),
            save_seconds=tuple(e.save_seconds for e in run if e.save_seconds),
            import_seconds=next((e.startup_seconds for e in run if e.startup_seconds), 0.0),
        )
    except ValueError as error:
        raise first.row.wrong(str(error)) from error


def _is_of_all_epochs(run: Run) -> bool:
    """Whether the one time of a run is of all its epochs together, however many they were."""
    return len(run) == 1 and run[0].timed.role != "epoch_seconds"


def numbered(
    found: Iterable[Measurement], stored: Iterable[Measurement] = ()
) -> tuple[Measurement, ...]:
    """The measurements found, with a number of its own for every run of a configuration.

    Args:
        found: to be numbered.
        stored: measurements beside which they will stand. A run that is among them already keeps
            its number, so that importing a file twice changes nothing.
    """
    numbers: dict[object, dict[object, int]] = {}
    for m, key, identity in _identified(stored):
        numbers.setdefault(key, {})[identity] = m.round
    result = []
    for m, key, identity in _identified(found):
        taken = numbers.setdefault(key, {})
        free = 1 + max(taken.values(), default=-1)
        result.append(replace(m, round=taken.setdefault(identity, free)))
    return tuple(result)


def _identified(
    measurements: Iterable[Measurement],
) -> Iterator[tuple[Measurement, object, object]]:
    """Each with what it measured, and which it is among equal ones of that."""
    seen: Counter[object] = Counter()
    for m in measurements:
        key = (m.workload, m.source, m.data, m.device.key, m.config)
        times = (m.warmup_seconds, m.step_seconds)
        yield m, key, (times, seen[key, times])
        seen[key, times] += 1
