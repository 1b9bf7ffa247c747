"""What TensorBoard shows of a store, written to its log folder.

    <log folder>/
      epochcast.json                         the index, for our own tab           (index.py)
      epochcast/                             HParams columns, the text            run "epochcast"
      mnist-mlp/                             figures of a workload                run "mnist-mlp"
      mnist-mlp/width=512/                   curves over the batch size           (runs.py)
      mnist-mlp/width=512/batch_size=64/     one row of the HParams table
      mnist-mlp/…/trace.json.gz              torch.profiler traces: not ours, never touched

Writing again replaces everything: first come new event files, then those with an older stamp in
their name are retired. Killed in between, both are there, and the newer wins (events.py). Two
processes that write at once leave the files of the one that began later.

    new file written ──▶ older file emptied ──▶ … a while … ──▶ removed by a later call
                         or removed with its folder, if its run is no more

Emptied, not removed at once: a running TensorBoard that finds the file gone which it reads at the
time never advances to the next one (``DirectoryWatcher.Load`` swallows the error, tensorboard
2.21); at the end of an empty file it does.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from epochcast.errors import StoreError
from epochcast.records import Quantiles, RunConfig, Summary
from epochcast.report.tensorboard.index import make_index, write_index
from epochcast.report.tensorboard.optional import require

_OURS = re.compile(r"events\.out\.tfevents\.(\d{10}\.\d{9})\.\d+\.epochcast")
_EMPTY_SECONDS = 600  # by then TensorBoard has advanced: it reloads every 5 s by default


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardPrediction:
    """What a cost model says about a configuration that was measured.

    Attributes:
        measured_step_seconds: one steady micro-step.
        predicted_step_seconds: the same, as predicted.
        measured_peak_bytes: largest sum of live tensors; None where it was not tracked.
        predicted_peak_bytes: the same, as predicted.
    """

    config: RunConfig
    workload: str
    measured_step_seconds: float
    predicted_step_seconds: Quantiles
    measured_peak_bytes: int | None = None
    predicted_peak_bytes: Quantiles | None = None


def write_board(
    folder: Path,
    summaries: Sequence[Summary],
    predictions: Sequence[BoardPrediction] = (),
    text: str = "",
) -> None:
    """Replace what TensorBoard shows of a store; traces stay as they are.

    Args:
        folder: TensorBoard's log folder; created if it does not exist.
        summaries: every probed configuration, the failed ones too.
        predictions: beside their measurements, for the figures.
        text: the prediction for people, in Markdown.

    Raises:
        MissingDependency: the ``tensorboard`` extra is not installed; the index is written.
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_index(folder, make_index(summaries))
        require("tensorboard", "matplotlib")
        from epochcast.report.tensorboard.contents import run_files

        _replace_event_files(folder, run_files(summaries, predictions, text))
    except OSError as error:
        raise StoreError(
            f"cannot write TensorBoard's log folder {folder}: {error.strerror}; "
            "next: make room there or correct its permissions, and run the same command again"
        ) from error


def _replace_event_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write one event file per run, then retire those of earlier calls."""
    stamp = new_stamp()
    for run, content in files.items():
        place = folder / run
        place.mkdir(parents=True, exist_ok=True)
        (place / f"events.out.tfevents.{stamp}.{os.getpid()}.epochcast").write_bytes(content)
    replaced = {folder / run for run in files}
    for path in _own_event_files(folder, before=stamp):
        with suppress(FileNotFoundError):  # another process was faster
            _retire(path, path.parent in replaced)
        _remove_empty(path.parent, folder)


def new_stamp() -> str:
    """The time in an event file's name: TensorBoard reads the files of a run in its order."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{seconds:010d}.{nanoseconds:09d}"


def _retire(path: Path, replaced: bool) -> None:
    status = path.stat()
    if replaced and status.st_size:
        os.truncate(path, 0)
    elif not replaced or time.time() - status.st_mtime > _EMPTY_SECONDS:
        path.unlink()


def _own_event_files(folder: Path, before: str) -> Iterator[Path]:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            match = _OURS.fullmatch(name)
            if match and match[1] < before:
                yield Path(place, name)


def _remove_empty(place: Path, folder: Path) -> None:
    """Remove a run's folder if nothing is in it: TensorBoard then forgets the run."""
    with suppress(OSError):  # not empty
        while place != folder:
            place.rmdir()
            place = place.parent
