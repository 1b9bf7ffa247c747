"""The cost model: what people ask questions of. Needs neither torch nor scikit-learn.

The numbers are a record (``cost.Parameters``), the answers functions of it (``prediction.py``);
this class has both, and can be written and read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from epochcast.costmodel import prediction
from epochcast.costmodel.learned import Parameters
from epochcast.costmodel.question import Question
from epochcast.records import (
    Capacity,
    Estimate,
    Footprint,
    SizeValue,
    read_document,
    write_document,
)
from epochcast.units import format_percent


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel(Parameters):
    """Seconds and bytes of one workload on one device, learned from measurements by ``fit``."""

    def predict(
        self,
        epochs: float | None = None,
        batch_size: int | None = None,
        *,
        steps: int | None = None,
        samples: int | None = None,
        accumulation: int | None = None,
        workers: int | None = None,
        world_size: int | None = None,
        devices_per_node: int | None = None,
        eval_batch_size: int | None = None,
        footprint: Footprint | None = None,
        eval_every: float | None = None,
        save_every: float | None = None,
        price_per_hour: float | None = None,
        **sizes: SizeValue,
    ) -> Estimate:
        """What a run costs, as quantiles.

        Args:
            epochs: passes over the training data.
            batch_size: micro-batch of one device; default: the one probed last.
            steps: optimizer steps, instead of epochs.
            samples: training samples per epoch, if not as probed.
            accumulation: micro-batches per optimizer step, if not as probed.
            workers: data-loader processes, if not as probed.
            world_size: devices that share the work, if not as probed.
            devices_per_node: of one machine; by default as many as any that was measured has, or
                all are in one where no two machines were measured.
            eval_batch_size: samples of an evaluation batch, if not as probed.
            footprint: of this configuration, from ``ec.dry_run``; then its counts are exact.
            eval_every: epochs between evaluations; 0 never evaluates. By default 1, or as a script
                was seen to.
            save_every: epochs between checkpoints; 0 saves none. By default likewise.
            price_per_hour: of one device; without one the estimate has no cost.
            **sizes: model-size knobs; those left out are as probed last.

        Raises:
            PredictionError: this model cannot answer that, e.g. an unknown knob.
        """
        question = Question(
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            samples=samples,
            accumulation=accumulation,
            workers=workers,
            world_size=world_size,
            devices_per_node=devices_per_node,
            eval_batch_size=eval_batch_size,
            footprint=footprint,
            eval_every=eval_every,
            save_every=save_every,
            price_per_hour=price_per_hour,
            sizes=sizes,
        )
        return prediction.predict(self, question)

    def largest_batch(
        self, memory_bytes: int, confidence: float = 0.95, **sizes: SizeValue
    ) -> Capacity:
        """The largest micro-batch that fits a memory with this probability.

        Args:
            memory_bytes: what the device has for this process.
            confidence: between 0 and 1.
            **sizes: model-size knobs; those left out are as probed last.

        Raises:
            PredictionError: memory was not measured, or not even one sample fits.
        """
        question = Question(epochs=1, sizes=sizes)
        return prediction.largest_batch(self, question, memory_bytes, confidence)

    def save(self, path: str | Path) -> None:
        """Write the model as JSON.

        Raises:
            UsageError: the file cannot be written.
        """
        write_document(self, path, "cost model")

    @classmethod
    def load(cls, path: str | Path) -> CostModel:
        """Read a model written by ``save``.

        Raises:
            StoreError: there is no such file, or it is not a cost model that this version reads.
        """
        return read_document(path, cls, "a cost model")

    def explain(self) -> Sequence[tuple[str, str]]:
        """For each learned quantity, which form was chosen and why."""
        variant = self.variants[0]
        counts = dict(variant.counts)
        named = (
            ("micro-step", variant.micro_step),
            ("optimizer update", variant.update),
            ("evaluation batch", variant.evaluation),
            ("FLOPs", counts.get(variant.work)),
            ("forward and backward peak", counts.get("step_peak_bytes")),
            ("update peak", counts.get("update_peak_bytes")),
            ("device memory", variant.device_bytes.surface if variant.device_bytes else None),
        )
        found = [(name, surface.chosen) for name, surface in named if surface is not None]
        if variant.loading is not None and variant.loading.better:
            error = format_percent(variant.loading.error, 2)
            found[0] = ("micro-step", f"computing and loading data apart (error {error})")
        return found
