"""One configuration seen through a variant of the cost model: its counts, seconds and bytes."""

from __future__ import annotations

from dataclasses import replace

from epochcast.costmodel import features as f
from epochcast.costmodel.calibration import Calibration, Calibrations
from epochcast.costmodel.epoch import divide
from epochcast.costmodel.loading import IDEAL_SCALING, doublings
from epochcast.costmodel.memory import PEAKS, Layer, hinge
from epochcast.costmodel.model import Constant, Variant
from epochcast.costmodel.scatter import NOTHING, Scatter
from epochcast.costmodel.surface import Surface
from epochcast.records import Footprint, Quantiles, RunConfig


def calibrated(constant: Constant, runs: Calibration) -> Constant:
    """A quantity that no configuration changes, after what runs say about its part."""
    return Constant(seconds=runs.factor * constant.seconds, scatter=runs.scatter(constant.scatter))


class Place:
    """One configuration seen through a variant's surfaces.

    Args:
        variant: of the cost model.
        config: may differ from the variant in its number of workers.
        footprint: of this configuration, from a dry run, if there is one.
        scaling: how loading scales with workers; see loading.py.
        calibrations: what runs say beyond probes; none changes nothing.
    """

    def __init__(
        self,
        variant: Variant,
        config: RunConfig,
        footprint: Footprint | None = None,
        scaling: float = IDEAL_SCALING,
        calibrations: Calibrations | None = None,
    ) -> None:
        self.variant = variant
        self.config = config
        self.scaling = scaling
        self.footprint = footprint
        self.calibrations = calibrations or Calibrations()
        self.variables = self._variables(config.batch_size)

    def _variables(self, batch_size: int) -> dict[str, float]:
        place = {**f.batch_variables(batch_size), **f.numeric_knobs(self.config.sizes)}
        known = self._counted(batch_size) or {}
        known = {n: value for n, (value, _) in self._peaks(batch_size).items()} | known
        missing = ((n, s) for n, s in self.variant.counts if n not in known)
        return place | {n: s.value(place) for n, s in missing} | known

    def _counted(self, batch_size: int) -> dict[str, float] | None:
        """What was counted in exactly this configuration."""
        if self.footprint is not None and batch_size == self.config.batch_size:
            return f.counts(self.footprint)
        for config, counts in self.variant.counted:
            if config.batch_size == batch_size and self._is_alike(config):
                return dict(counts)
        return None

    def _peaks(self, batch_size: int) -> dict[str, tuple[float, Scatter]]:
        """Peaks of live tensors at other batch sizes of a model size that was counted."""
        sizes = self.config.sizes
        for envelope in self.variant.envelopes:
            if envelope.sizes == sizes:
                return {n: (peak, NOTHING) for n, peak in envelope.peaks(batch_size).items()}
        same = {float(c.batch_size): dict(x) for c, x in self.variant.counted if c.sizes == sizes}
        known = {n: {b: x[n] for b, x in same.items() if x.get(n)} for n in PEAKS}
        return {n: peak for n, of_it in known.items() if (peak := hinge(of_it, batch_size))}

    # -- seconds ------------------------------------------------------------------------------

    def micro_step(self, batch_size: int | None = None) -> float:
        """Seconds of a micro-step without update, at this or another batch size."""
        known = self.variables if batch_size is None else self._variables(batch_size)
        loading, factor = self.variant.loading, self.calibrations.epoch.factor
        if loading is not None and self._apart:
            return factor * loading.step_seconds(known, self.config.workers, self.scaling)
        return factor * self.variant.micro_step.value(known)

    @property
    def _apart(self) -> bool:
        """Whether computing and loading are priced each by itself."""
        loading = self.variant.loading
        return loading is not None and (
            loading.better or self.config.workers != self.variant.workers
        )

    def compute(self) -> float | None:
        """Seconds of a micro-step without update and without waiting for data."""
        loading, factor = self.variant.loading, self.calibrations.epoch.factor
        return None if loading is None else factor * loading.compute.value(self.variables)

    def loader(self) -> float | None:
        """Seconds in which the loader alone delivers a batch."""
        loading, factor = self.variant.loading, self.calibrations.epoch.factor
        if loading is None:
            return None
        return factor * loading.loader_seconds(self.variables, self.config.workers, self.scaling)

    def update(self) -> float:
        """Seconds of one optimizer update."""
        surface, factor = self.variant.update, self.calibrations.epoch.factor
        return factor * surface.value(self.variables) if surface else 0.0

    def step(self) -> float:
        """Seconds of a full micro-step with its share of an update."""
        return self.micro_step() + self.update() / self.config.accumulation

    def samples(self) -> int:
        """Training samples of an epoch."""
        return round(self.variant.samples.value(self.variables))

    def eval_samples(self) -> int:
        """Samples of an evaluation."""
        surface = self.variant.eval_samples
        return round(surface.value(self.variables)) if surface else 0

    def epoch_turn(self) -> Constant:
        """From one epoch to the next."""
        return calibrated(self.variant.epoch_turn, self.calibrations.epoch)

    def evaluation(self) -> float:
        """Seconds of all batches of an evaluation, a last partial one at its own size.

        Of probes alone, as surfaces are.
        """
        surface = self.variant.evaluation
        if surface is None:
            return 0.0
        division = divide(self.eval_samples(), self.config.batch_size, 1, 1)
        rest = self._variables(max(1, division.partial))
        full: float = division.full_seconds(surface.value(self.variables), 0.0)
        return full + float(division.partial_seconds(surface.value(rest)))

    def step_scatter(self) -> Scatter:
        """Run-level scatter of a micro-step: what probes say, and what runs say about that."""
        return self.calibrations.epoch.scatter(self.probed_step_scatter())

    def probed_step_scatter(self) -> Scatter:
        """Run-level scatter of a micro-step: rounds, choice of model, counts never seen."""
        loading = self.variant.loading
        if loading is None or not self._apart:
            return self.run_scatter(self.variant.micro_step)
        sd = loading.sd_log(self.variables, self.config.workers)
        own = Scatter(sd=sd, dof=loading.compute.dof)
        return self.variant.run + own + self.count_scatter(self.variant.work)

    def run_scatter(self, surface: Surface) -> Scatter:
        """Run-level scatter of any time that was learned as a surface."""
        return (
            self.variant.run
            + surface.scatter(self.variables)
            + self.count_scatter(self.variant.work)
        )

    def build_scatter(self) -> Scatter:
        """Scatter of building: from process to process, and of a size that was never built."""
        surface = self.variant.build
        if surface is None:
            return self.variant.build_scatter
        return self.variant.build_scatter + surface.scatter(self.variables)

    def count_scatter(self, name: str) -> Scatter:
        """How well a count is known here: exactly, where it was counted."""
        batch_size = self.config.batch_size
        if name in (self._counted(batch_size) or {}):
            return NOTHING
        peaks = self._peaks(batch_size)
        if name in peaks:
            return peaks[name][1]
        surface = dict(self.variant.counts).get(name)
        if surface is None:
            return NOTHING
        return surface.scatter(self.variables)

    # -- bytes --------------------------------------------------------------------------------

    def peak(self) -> tuple[float, Scatter] | None:
        """Bytes of live tensors at the peak: the larger of forward–backward and update."""
        known = {n: self.variables[n] for n in PEAKS if self.variables.get(n, 0.0) > 0}
        if known:
            highest = max(known, key=lambda name: known[name])
            return known[highest] + self._accumulated_gradients(), self.count_scatter(highest)
        layer = self.variant.allocated
        if layer is None:
            return None
        return layer.value(self.variables, 0.0), layer.scatter(self.variables, 0.0, NOTHING)

    def _accumulated_gradients(self) -> float:
        """Gradients that live through all forward passes, where the variant's did not.

        An upper bound: at the peak of a step without accumulation, some were there already.
        """
        if self.config.accumulation == 1 or self.variant.accumulation > 1:
            return 0.0
        if self._counted(self.config.batch_size) is not None:
            return 0.0
        return self.variables.get("gradient_bytes", 0.0)

    def device_memory(self) -> tuple[float, Scatter] | None:
        """Bytes that the device must have, caches, context and libraries included."""
        return self._for_peak(self.variant.device_bytes)

    def _for_peak(self, layer: Layer | None) -> tuple[float, Scatter] | None:
        """What a layer of the memory system needs so that the peak fits.

        Between batches that were measured fragmentation takes hardly more than in the larger one,
        because no batch needs more than a larger one does.
        """
        if layer is None:
            return None
        value, scatter = self._needed(layer)
        larger = [b for b in self._measured() if b > self.config.batch_size]
        if larger and layer.fragmentation.sd and not self._was_measured:
            above = Place(self.variant, replace(self.config, batch_size=min(larger)))
            most, its = above._needed(layer)
            scatter = scatter.narrowed(value, its.quantile(most, 0.95))
        return value, scatter

    def _needed(self, layer: Layer) -> tuple[float, Scatter]:
        """The same of this batch alone."""
        peak, of_peak = self.peak() or (0.0, NOTHING)
        scatter = layer.scatter(self.variables, peak, of_peak, measured=self._was_measured)
        return layer.value(self.variables, peak), scatter

    def _measured(self) -> list[int]:
        """Batch sizes at which this model size was measured."""
        return [c.batch_size for c in self.variant.configurations if self._is_alike(c)]

    @property
    def _was_measured(self) -> bool:
        return self.config.batch_size in self._measured()

    def _is_alike(self, other: RunConfig) -> bool:
        """Whether another configuration allocates in the same order, whatever its batch size."""
        accumulates = self.config.accumulation > 1
        return self.config.sizes == other.sizes and accumulates == (other.accumulation > 1)

    def allocator_bytes(self, layer: Layer | None) -> Quantiles | None:
        """Quantiles of what the allocator hands out, or takes."""
        found = self._for_peak(layer)
        return found[1].quantiles(found[0]) if found else None

    def peak_bytes(self) -> Quantiles | None:
        """Quantiles of ``peak``."""
        found = self.peak()
        return found[1].quantiles(found[0]) if found else None

    def device_bytes(self) -> Quantiles | None:
        """Quantiles of ``device_memory``."""
        found = self.device_memory()
        return found[1].quantiles(found[0]) if found else None

    @property
    def is_counted(self) -> bool:
        """Whether this very configuration was counted."""
        return self._counted(self.config.batch_size) is not None

    def never_varied(self) -> list[str]:
        """Knobs that are asked for at another value than the only one ever measured or counted."""
        known = [*self.variant.configurations, *(config for config, _ in self.variant.counted)]
        asked = dict(self.config.sizes)
        values = {name: {dict(c.sizes).get(name) for c in known} for name in asked}
        return [n for n, seen in values.items() if len(seen) == 1 and asked[n] not in seen]

    # -- range --------------------------------------------------------------------------------

    def extrapolated(self) -> list[tuple[str, float]]:
        """What lies outside the probed range, and by how many doublings."""
        named = self.variant.micro_step.outside(self.variables)
        found = [(name.removeprefix(f.KNOB_PREFIX), distance) for name, distance in named]
        if self.config.workers != self.variant.workers:
            found.append(("workers", doublings(self.config.workers, self.variant.workers)))
        return found
