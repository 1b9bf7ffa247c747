"""From a store to TensorBoard's log folder: summaries, predictions beside measurements, a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

from epochcast.costmodel.model import CostModel, Variant
from epochcast.costmodel.place import Place
from epochcast.costmodel.summary import summarise
from epochcast.errors import FitError
from epochcast.records import Summary
from epochcast.report.tensorboard.writer import BoardPrediction, write_board
from epochcast.report.text.estimate import estimate_markdown
from epochcast.storage.query import Selection, model_of, selections
from epochcast.storage.store import Store

EXAMPLE_EPOCHS = 10  # of the run priced in the text


def publish(store: Store) -> None:
    """Bring TensorBoard's log folder up to date with a store.

    Raises:
        MissingDependency: TensorBoard is not installed.
    """
    found = selections(store.measurements())
    summaries = summarise(chain.from_iterable(s.measurements for s in found))
    models = list(_models(store, found))
    predictions = [p for model in models for p in _predictions(model, summaries)]
    texts = [estimate_markdown(model.predict(epochs=EXAMPLE_EPOCHS)) for model in models]
    write_board(store.log_folder, summaries, predictions, "\n\n".join(texts))


def _models(store: Store, found: Iterable[Selection]) -> Iterator[CostModel]:
    """One model per workload and device, where there is enough to fit one; by their names."""
    for selection in sorted(found, key=lambda s: (s.newest.workload, s.newest.device.key)):
        with suppress(FitError):
            yield model_of(store, selection)


def _predictions(model: CostModel, summaries: Sequence[Summary]) -> Iterator[BoardPrediction]:
    for s in summaries:
        if (s.workload, s.device) != (model.workload, model.device) or s.step_seconds is None:
            continue
        variant = _variant_of(model, s)
        if variant is None:
            continue
        at = Place(variant, s.config)
        yield BoardPrediction(
            config=s.config,
            workload=s.workload,
            measured_step_seconds=s.step_seconds,
            predicted_step_seconds=at.step_scatter().quantiles(at.step()),
            measured_peak_bytes=s.peak_bytes,
            predicted_peak_bytes=at.peak_bytes(),
        )


def _variant_of(model: CostModel, summary: Summary) -> Variant | None:
    return next((v for v in model.variants if summary.config in v.configurations), None)
