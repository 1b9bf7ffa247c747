"""From a store to TensorBoard's log folder: what was probed, and predictions beside it.

    <log folder>/
      epochcast.json                         the index, for our own tab           (index.py)
      epochcast/                             HParams columns, the text            run "epochcast"
      mnist-mlp/                             figures of a workload                run "mnist-mlp"
      mnist-mlp/width=512/                   curves over the batch size           (contents.py)
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from epochcast.costmodel.model import CostModel
from epochcast.costmodel.summary import summarise
from epochcast.errors import FitError, StoreError
from epochcast.records import RunOutcome, Summary
from epochcast.report import require_packages
from epochcast.report.plots.probed import ProbedPrediction, predictions_of
from epochcast.report.tensorboard.index import BoardIndex, write_index
from epochcast.report.text.estimate import estimate_markdown
from epochcast.report.text.plan import plan_markdown
from epochcast.storage.asked import answers, asked_about, example
from epochcast.storage.query import Selection, model_of, selections
from epochcast.storage.store import Store

_OURS = re.compile(r"events\.out\.tfevents\.(\d{10}\.\d{9})\.\d+\.epochcast")
_EMPTY_SECONDS = 600  # by then TensorBoard has advanced: it reloads every 5 s by default


def publish(store: Store) -> None:
    """Bring TensorBoard's log folder up to date with a store.

    Raises:
        MissingDependency: TensorBoard is not installed.
    """
    found = selections(store.measurements())
    summaries = summarise(chain.from_iterable(s.measurements for s in found))
    models = list(_models(store, found))
    predictions = [p for model in models for p in predictions_of(model, summaries)]
    texts = [_answer(store, model) for model in models]
    outcomes = store.outcomes()
    write_board(store.log_folder, summaries, predictions, "\n\n".join(texts), outcomes)


def _answer(store: Store, model: CostModel) -> str:
    """What was asked last, or what a run would cost, in Markdown."""
    asked = asked_about(store, model)
    if asked is not None and asked.plan is not None:
        return plan_markdown(asked.plan)
    answered = answers(model, asked.questions) if asked else ()
    return "\n\n".join(map(estimate_markdown, answered or [example(model)]))


def _models(store: Store, found: Iterable[Selection]) -> Iterator[CostModel]:
    """One model per workload and device, where there is enough to fit one; by their names."""
    for selection in sorted(found, key=lambda s: (s.newest.workload, s.newest.device.key)):
        with suppress(FitError):
            yield model_of(store, selection)


def write_board(
    folder: Path,
    summaries: Sequence[Summary],
    predictions: Sequence[ProbedPrediction] = (),
    text: str = "",
    outcomes: Sequence[RunOutcome] = (),
) -> None:
    """Replace what TensorBoard shows of a store; traces stay as they are.

    Args:
        folder: TensorBoard's log folder; created if it does not exist.
        summaries: every probed configuration, the failed ones too.
        predictions: beside their measurements, for the figures.
        text: the prediction for people, in Markdown.
        outcomes: of followed runs, for our tab.

    Raises:
        MissingDependency: the ``tensorboard`` extra is not installed; the index is written.
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index = BoardIndex(
            configurations=tuple(summaries),
            predictions=tuple(predictions),
            outcomes=tuple(outcomes),
        )
        write_index(folder, index)
        require_packages("tensorboard", "matplotlib")
        from epochcast.report.tensorboard.contents import run_files

        _replace_event_files(folder, run_files(summaries, predictions, text))
    except OSError as error:
        raise StoreError(
            f"cannot write TensorBoard's log folder {folder}: {error.strerror}; "
            "next: make room there or correct its permissions, and run the same command again"
        ) from error


def _replace_event_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write one event file per run, then retire those of earlier calls."""
    from epochcast.report.tensorboard.events import new_stamp

    stamp = new_stamp()
    for run, content in files.items():
        inside = folder / run
        inside.mkdir(parents=True, exist_ok=True)
        (inside / f"events.out.tfevents.{stamp}.{os.getpid()}.epochcast").write_bytes(content)
    replaced = {folder / run for run in files}
    for path in _own_event_files(folder, before=stamp):
        with suppress(FileNotFoundError):  # another process was faster
            _retire(path, path.parent in replaced)
        _remove_empty(path.parent, folder)


def _retire(path: Path, replaced: bool) -> None:
    status = path.stat()
    if replaced and status.st_size:
        os.truncate(path, 0)
    elif not replaced or time.time() - status.st_mtime > _EMPTY_SECONDS:
        path.unlink()


def _own_event_files(folder: Path, before: str) -> Iterator[Path]:
    for found, _, names in os.walk(folder, topdown=False):
        for name in names:
            match = _OURS.fullmatch(name)
            if match and match[1] < before:
                yield Path(found, name)


def _remove_empty(inner: Path, folder: Path) -> None:
    """Remove a run's folder if nothing is in it: TensorBoard then forgets the run."""
    with suppress(OSError):  # not empty
        while inner != folder:
            inner.rmdir()
            inner = inner.parent
