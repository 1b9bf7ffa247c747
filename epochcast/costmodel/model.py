"""The cost model as plain numbers, and its questions. Needs neither torch nor scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from epochcast.costmodel.calibration import Calibrations
from epochcast.costmodel.loading import Loading
from epochcast.costmodel.memory import Envelope, Layer
from epochcast.costmodel.scatter import Scatter
from epochcast.costmodel.surface import Surface
from epochcast.records import (
    SCHEMA,
    Capacity,
    Device,
    Estimate,
    Footprint,
    Precision,
    RunConfig,
    Sizes,
    SizeValue,
    read_document,
    write_document,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A quantity that no configuration changes, e.g. importing torch; seconds and their scatter."""

    seconds: float = 0.0
    scatter: Scatter = field(default_factory=lambda: Scatter(sd=0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way of running that is not a matter of more or less; has surfaces of its own.

    Attributes:
        categories: knobs that are not numbers, with their values.
        typical: the most recently probed configuration: what a question leaves open.
        samples, eval_samples: of an epoch and of an evaluation; knobs may change them.
        counted: what was counted in single configurations, by measuring or in a dry run.
        counts: the same as functions of batch size and numeric knobs, for all others.
        envelopes: peaks of live tensors at every batch size, of model sizes with timelines.
        micro_step: seconds of a micro-step without the optimizer's update.
        loading: the same from computing and loading apart; None where they were not measured.
        update: seconds of one optimizer update; None where it cannot be told apart.
        evaluation: seconds of one evaluation batch; None without evaluation data.
        allocated: the allocator's peak; all that is known where no tensors were tracked.
        reserved: what the allocator took from the device.
        device_bytes: what the device gave away for a peak of so many live bytes, context included.
        save_seconds, save_bytes: of one checkpoint.
        build: seconds to build model, data and optimizer; ``build_scatter`` from process to
            process.
        epoch_turn: seconds between two passes over the loader beyond an ordinary wait for data.
        eval_turn: seconds until the first evaluation batch.
        first_steps: what the first steps take beyond steady ones.
        run: run-level scatter of step times; shared by all epochs of a run.
        step_sd: noise of one micro-step as a long series of them feels it, relative.
        trials: successful ones.
        single_times: those of them that are known by one time, a slow start perhaps included.
    """

    precision: Precision
    compiled: bool
    workers: int
    world_size: int
    drop_last: bool
    accumulation: int
    categories: Sizes
    typical: RunConfig
    samples: Surface
    eval_samples: Surface | None
    counted: tuple[tuple[RunConfig, tuple[tuple[str, float], ...]], ...]
    counts: tuple[tuple[str, Surface], ...]
    envelopes: tuple[Envelope, ...]
    micro_step: Surface
    loading: Loading | None
    update: Surface | None
    evaluation: Surface | None
    allocated: Layer | None
    reserved: Layer | None
    device_bytes: Layer | None
    save_seconds: Surface | None
    save_bytes: Surface | None
    build: Surface | None
    build_scatter: Scatter
    epoch_turn: Constant
    eval_turn: Constant
    first_steps: Constant
    run: Scatter
    step_sd: float
    configurations: tuple[RunConfig, ...]
    rounds: int
    trials: int = 0
    single_times: int = 0

    @property
    def work(self) -> str:
        """Which count of FLOPs times were learned from: imported ones may know only one."""
        return "aligned_flops" if "aligned_flops" in dict(self.counts) else "flops"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Seconds and bytes of one workload on one device, learned from measurements.

    Attributes:
        samples: training samples per epoch, as probed last.
        eval_samples: evaluation samples, likewise.
        imports: process start until the user's code is loaded.
        variants: most recently probed first.
        probing_seconds: wall-clock time of all the measurements behind the model.
        measured_at: the newest of them, ISO 8601 in UTC.
        calibration: what outcomes of followed runs say; all else is of probes alone.
    """

    schema: int = SCHEMA
    workload: str
    source: str
    device: Device
    data: str
    samples: int
    eval_samples: int
    imports: Constant
    variants: tuple[Variant, ...]
    probing_seconds: float
    measured_at: str
    calibration: Calibrations = field(default_factory=Calibrations)

    def predict(
        self,
        epochs: float | None = None,
        batch_size: int | None = None,
        *,
        steps: int | None = None,
        samples: int | None = None,
        accumulation: int | None = None,
        workers: int | None = None,
        footprint: Footprint | None = None,
        eval_every: float = 1.0,
        save_every: float = 1.0,
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
            footprint: of this configuration, from ``ec.dry_run``; then its counts are exact.
            eval_every: epochs between evaluations; 0 never evaluates.
            save_every: epochs between checkpoints; 0 saves none.
            price_per_hour: of the device; without one the estimate has no cost.
            **sizes: model-size knobs; those left out are as probed last.

        Raises:
            PredictionError: this model cannot answer that, e.g. an unknown knob.
        """
        from epochcast.costmodel.prediction import Question, predict

        question = Question(
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            samples=samples,
            accumulation=accumulation,
            workers=workers,
            footprint=footprint,
            eval_every=eval_every,
            save_every=save_every,
            price_per_hour=price_per_hour,
            sizes=sizes,
        )
        return predict(self, question)

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
        from epochcast.costmodel.capacity import largest_batch
        from epochcast.costmodel.prediction import Question

        return largest_batch(self, Question(epochs=1, sizes=sizes), memory_bytes, confidence)

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
            error = f"{variant.loading.error:.2%}"
            found[0] = ("micro-step", f"computing and loading data apart (error {error})")
        return found
