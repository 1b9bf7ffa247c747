"""One configuration seen through what a cost model has learned.

    Parameters ──▶ Variant: surfaces of one way of running ──▶ ConfigurationCost ──▶ Prices

``ConfigurationCost`` looks up what was counted or measured in exactly its configuration, asks the
surfaces for all else, and applies what followed runs say. Prediction and planning are functions of
these; nothing here is fitted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from math import exp, log, log2, sqrt
from statistics import fmean

import numpy as np

from epochcast.costmodel import features as f
from epochcast.costmodel.epoch import Division, evaluation_of
from epochcast.costmodel.kernels import check_against
from epochcast.costmodel.learned import Parameters, Variant
from epochcast.costmodel.loading import IDEAL_SCALING, doublings, worker_scaling
from epochcast.costmodel.memory import PEAKS, RESERVE, Layer, hinge
from epochcast.costmodel.phases import evaluation_config, largest
from epochcast.costmodel.prices import EPOCH_NOISE_CAP, Prices
from epochcast.costmodel.scatter import NO_COST, NOTHING, Amount, Scatter
from epochcast.costmodel.surface import Surface
from epochcast.costmodel.worlds import family, grown, world_of
from epochcast.records import Footprint, Quantiles, RunConfig

ONE_RATIO_APART = 0.1  # reserve over peak: where one was simulated, others may be so far off


class ConfigurationCost:
    """One configuration seen through a variant's surfaces.

    Args:
        parameters: of the cost model.
        variant: one of the model's.
        config: may differ from the variant in its number of workers.
        footprint: of this configuration, from a dry run, if there is one; it is left out where it
            counted other kernels than the device ran (``other_kernels``).
    """

    def __init__(
        self,
        parameters: Parameters,
        variant: Variant,
        config: RunConfig,
        footprint: Footprint | None = None,
    ) -> None:
        self.parameters = parameters
        self.variant = variant
        self.config = config
        self.other_kernels = footprint is not None and not self._ran(footprint)
        self.footprint = None if self.other_kernels else footprint
        self.calibration = parameters.calibration
        self._known: dict[int, dict[str, float]] = {}
        self.variables = self._variables_at(config.batch_size)

    def _ran(self, footprint: Footprint) -> bool:
        """Whether a dry run counted the kernels that the device runs; see kernels.py."""
        if self.parameters.device.kind == "cpu":
            return True
        measured = set(self.variant.configurations)
        ran = {
            config: dict(counts) for config, counts in self.variant.counted if config in measured
        }
        return check_against(ran)(self.config, f.counts(footprint))

    @cached_property
    def scaling(self) -> float:
        """How loading scales with workers, as variants say that differ in nothing else."""
        if self.config.workers == self.variant.workers:
            return IDEAL_SCALING
        alike = [
            v.loading for v in self.parameters.variants if v.loading and v.way == self.variant.way
        ]
        return worker_scaling(alike, self.variables) if alike else IDEAL_SCALING

    def _variables_at(self, batch_size: int) -> dict[str, float]:
        if batch_size not in self._known:
            self._known[batch_size] = self._find_variables(batch_size)
        return self._known[batch_size]

    def _find_variables(self, batch_size: int) -> dict[str, float]:
        known_size = {**f.batch_variables(batch_size), **f.knob_variables(self.config.sizes)}
        known = self._counted(batch_size) or {}
        known = {n: value for n, (value, _) in self._peaks(batch_size).items()} | known
        missing = ((n, s) for n, s in self.variant.counts if n not in known)
        return known_size | {n: s.value(known_size) for n, s in missing} | known

    def _counted(self, batch_size: int) -> dict[str, float] | None:
        """What was counted in exactly this configuration."""
        if self.footprint is not None and batch_size == self.config.batch_size:
            return self._with_all_classes(f.counts(self.footprint))
        for config, counts in self.variant.counted:
            if config.batch_size == batch_size and self._is_alike(config):
                return self._with_all_classes(dict(counts))
        return None

    def _with_all_classes(self, counts: dict[str, float]) -> dict[str, float]:
        """Of a class of operators that others have, one whose classes are known has none."""
        if not f.work_classes(counts):
            return counts
        return dict.fromkeys(f.work_classes(dict(self.variant.counts)), 0.0) | counts

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
        known = self.variables if batch_size is None else self._variables_at(batch_size)
        loading, factor = self.variant.loading, self.calibration.epoch.factor
        if loading is not None and self._apart:
            return factor * loading.micro_step_seconds(known, self.config.workers, self.scaling)
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
        loading, factor = self.variant.loading, self.calibration.epoch.factor
        return None if loading is None else factor * loading.compute.value(self.variables)

    def loader(self) -> float | None:
        """Seconds in which the loader alone delivers a batch."""
        loading, factor = self.variant.loading, self.calibration.epoch.factor
        if loading is None:
            return None
        return factor * loading.loader_seconds(self.variables, self.config.workers, self.scaling)

    def update(self) -> float:
        """Seconds of one optimizer update, with what other devices than the variant's add."""
        factor = self.calibration.epoch.factor
        if self.grown is None:
            return factor * self.own_update()
        return factor * self.grown.median - self.config.accumulation * self.micro_step()

    def own_update(self) -> float:
        """The same on the variant's devices, as probes alone say it."""
        surface = self.variant.update
        return surface.value(self.variables) if surface else 0.0

    @cached_property
    def grown(self) -> Amount | None:
        """An optimizer step on the devices asked for, uncalibrated; None on those of the variant,
        or where others were not measured."""
        scaling, kind = self.variant.scaling, family(self.variant.typical)
        if scaling is None or world_of(self.config) == self.variant.world:
            return None
        alike = [v for v in self.parameters.variants if family(v.typical) == kind]
        fewest = min(alike, key=lambda variant: variant.world)
        config = replace(self.config, world_size=fewest.world_size, nodes=fewest.nodes)
        at = ConfigurationCost(self.parameters, fewest, config, self.footprint)
        own = Amount(at.step() / self.calibration.epoch.factor, at.probed_step_scatter())
        parameters = self.variables.get("parameters", 0.0)
        return grown(scaling, self.config, own, fewest.world, payload=parameters)

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

    # -- parts of a run -----------------------------------------------------------------------

    def startup(self) -> tuple[Amount, Amount]:
        """Until the user's code is loaded, and building what it makes."""
        surface, runs = self.variant.build, self.calibration.startup
        seconds = surface.value(self.variables) if surface else 0.0
        return runs.of(self.parameters.imports), runs.of(Amount(seconds, self.build_scatter()))

    def evaluation(self, samples: int | None = None) -> Amount:
        """One evaluation, a last, smaller batch at its own size.

        Args:
            samples: that are evaluated; default: as probed.
        """
        surface, variant = self.variant.evaluation, self.variant
        samples = self.eval_samples() if samples is None else samples
        if surface is None or not samples:
            return NO_COST
        division = evaluation_of(samples, self.config)
        whole = self._variables_at(self.config.evaluated_at_once)
        seconds = division.full_seconds(surface.value(whole), 0.0)
        rest = surface.value(self._variables_at(max(1, division.partial)))
        seconds += division.partial_seconds(rest) + variant.eval_restart.median
        scatter = variant.run + surface.scatter(whole) + self.count_scatter(variant.work)
        return self.calibration.evaluation.of(Amount(seconds, scatter))

    def save(self) -> Amount:
        """One checkpoint."""
        surface = self.variant.save_seconds
        if surface is None:
            return NO_COST
        seconds = surface.value(self.variables)
        return self.calibration.save.of(Amount(seconds, self.run_scatter(surface)))

    def prices(
        self,
        division: Division[int],
        *,
        reduce_seconds: float = 0.0,
        eval_samples: int | None = None,
    ) -> Prices:
        """What each part of a run costs.

        Args:
            division: of an epoch.
            reduce_seconds: of averaging gradients after each update, where probes had none.
            eval_samples: that are evaluated at once; default: as probed.
        """
        variant, runs = self.variant, self.calibration.epoch
        imports, build = self.startup()
        noise = variant.step_sd / sqrt(max(1, division.micro_batches))
        mean_error = Scatter(sd=variant.step_sd / sqrt(variant.steps), dof=variant.step_dof)
        update = self.update() + runs.factor * reduce_seconds
        partial = division.partial_seconds(self.micro_step(max(1, division.partial)))
        training = division.full_seconds(self.micro_step(), update) + partial
        memory, save_bytes = self.device_memory() or self.run_peak(), variant.save_bytes
        return Prices(
            startup=imports,
            build=build,
            first=variant.first_steps,
            training=Amount(training, self.step_scatter().or_wider(mean_error)),
            partial_seconds=partial,
            update_seconds=update,
            loader_restart=runs.of(variant.loader_restart),
            fixed=runs.of(variant.fixed),
            finish=variant.finish,
            evaluation=self.evaluation(eval_samples),
            save=self.save(),
            epoch_noise=min(EPOCH_NOISE_CAP, noise),
            noise_dof=variant.step_dof,
            mean_error=mean_error,
            save_bytes=None if save_bytes is None else save_bytes.value(self.variables),
            device_bytes=memory,
        )

    # -- scatter ------------------------------------------------------------------------------

    def step_seconds(self) -> Quantiles:
        """A full micro-step with its share of an update, in a later run."""
        return self.step_scatter().quantiles(self.step())

    def step_scatter(self) -> Scatter:
        """Run-level scatter of a micro-step: what probes say, and what runs say about that."""
        return self.calibration.epoch.scatter(self.probed_step_scatter())

    def probed_step_scatter(self) -> Scatter:
        """Run-level scatter of a micro-step: rounds, choice of model, counts never seen."""
        loading = self.variant.loading
        if self.grown is not None:
            return self.variant.run + self.grown.scatter
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

    def peak(self) -> Amount | None:
        """Bytes of live tensors at the peak: the larger of forward–backward and update."""
        known = {n: self.variables[n] for n in PEAKS if self.variables.get(n, 0.0) > 0}
        if known:
            highest = max(known, key=lambda name: known[name])
            return Amount(
                known[highest] + self._accumulated_gradients(), self.count_scatter(highest)
            )
        layer = self.variant.allocated
        if layer is None:
            return None
        scatter = layer.scatter(self.variables, 0.0, NOTHING)
        return Amount(layer.value(self.variables, 0.0), scatter)

    def _accumulated_gradients(self) -> float:
        """Gradients that live through all forward passes, where the variant's did not.

        An upper bound: at the peak of a step without accumulation, some were there already.
        """
        if self.config.accumulation == 1 or self.variant.accumulation > 1:
            return 0.0
        return 0.0 if self.is_counted else self.variables.get("gradient_bytes", 0.0)

    @cached_property
    def _evaluated(self) -> RunConfig:
        return evaluation_config(self.config, self.eval_samples())

    def evaluation_peak(self) -> Amount | None:
        """Bytes of live tensors at the peak of an evaluation, by its own batch size."""
        if self.footprint is not None and self.footprint.eval_peak_bytes:
            return Amount(float(self.footprint.eval_peak_bytes))
        surface, at_once = self.variant.evaluation_peak, self._evaluated.batch_size
        counted = self._counted_evaluations()
        if at_once in counted:
            return Amount(counted[at_once])
        found = hinge(counted, at_once)
        if found is not None:
            return Amount(*found)
        if surface is None:
            return None
        at = {**f.batch_variables(at_once), **f.numeric_knobs(self.config.sizes)}
        return Amount(surface.value(at), surface.scatter(at))

    def _counted_evaluations(self) -> dict[float, float]:
        """Peaks of this model size by the batch size of the evaluation."""
        of = self.eval_samples()
        return {
            float(evaluation_config(config, of).batch_size): peak
            for config, counts in self.variant.counted
            if config.sizes == self.config.sizes
            if (peak := dict(counts).get("eval_peak_bytes"))
        }

    def run_peak(self) -> Amount | None:
        """Bytes of live tensors at the peak of a run, training or evaluation."""
        return largest((self.peak(), self.evaluation_peak()))

    def device_memory(self) -> Amount | None:
        """Bytes that the device must have, caches, context and libraries included.

        The most that training, evaluation and saving need, which come one after another.
        """
        return largest(self.phases().values())

    def phases(self, layer: str = "device_bytes") -> dict[str, Amount | None]:
        """What each phase of a run needs of a layer: of the device, or of its allocator."""
        evaluating, saving = self.variant.evaluating, self.variant.saving
        return {
            "training": self.memory(getattr(self.variant, layer)),
            "evaluation": self._evaluation_memory(getattr(evaluating, layer)),
            "saving": self._saving_memory(getattr(saving, layer)),
        }

    def _evaluation_memory(self, layer: Layer | None) -> Amount | None:
        if layer is None:
            return None
        peak, at = self.evaluation_peak() or NO_COST, self._evaluated
        variables = self._variables_at(at.batch_size)
        of = self.eval_samples()
        measured = any(evaluation_config(c, of) == at for c in self.variant.configurations)
        scatter = layer.scatter(variables, peak.median, peak.scatter, measured=measured)
        return Amount(layer.value(variables, peak.median), scatter)

    def _saving_memory(self, layer: Layer | None) -> Amount | None:
        if layer is None:
            return None
        static, scatter = self.variables.get("static_bytes", 0.0), NOTHING
        if static:
            scatter = self.count_scatter("static_bytes")
        found = layer.scatter(self.variables, static, scatter, measured=self._was_measured)
        return Amount(layer.value(self.variables, static), found)

    def memory(self, layer: Layer | None) -> Amount | None:
        """What a layer of the memory system needs so that the peak fits.

        Between batches that were measured fragmentation takes hardly more than in the larger one,
        because no batch needs more than a larger one does.
        """
        if layer is None:
            return None
        found = self._needed(layer)
        larger = [b for b in self._measured() if b > self.config.batch_size]
        if larger and layer.fragmentation.sd and not self._was_measured:
            above = replace(self.config, batch_size=min(larger))
            most = ConfigurationCost(self.parameters, self.variant, above)._needed(layer)
            narrowed = found.scatter.narrowed(found.median, most.quantile(0.95))
            return replace(found, scatter=narrowed)
        return found

    def _needed(self, layer: Layer) -> Amount:
        """The same of this batch alone."""
        base = (self.reserve() if layer.base == RESERVE else self.peak()) or NO_COST
        scatter = layer.scatter(
            self.variables, base.median, base.scatter, measured=self._was_measured
        )
        return Amount(layer.value(self.variables, base.median), scatter)

    def reserve(self) -> Amount | None:
        """What the allocator holds, simulated: between counted batches in proportion to the peak.

        The proportion is that of the batches beside, and as uncertain as they differ.
        """
        peak = self.peak()
        ratios = self._reserve_ratios()
        if peak is None or not ratios:
            return peak
        counted = self._counted(self.config.batch_size) or {}
        if counted.get(RESERVE):
            return Amount(counted[RESERVE] + self._accumulated_gradients(), peak.scatter)
        batches = sorted(ratios)
        logs = [log(ratios[b]) for b in batches]
        middle = float(np.interp(log2(self.config.batch_size), [log2(b) for b in batches], logs))
        apart = max(logs) - min(logs) if len(logs) > 1 else ONE_RATIO_APART
        return Amount(peak.median * exp(middle), peak.scatter + Scatter(sd=apart / 2))

    def _reserve_ratios(self) -> dict[int, float]:
        """Reserve over peak by batch size: of this model size, or of all where it has none."""
        found: dict[bool, dict[int, list[float]]] = {True: {}, False: {}}
        for config, pairs in self.variant.counted:
            counts = dict(pairs)
            if counts.get(RESERVE) and counts.get("peak_bytes"):
                same = self._is_alike(config)
                ratio = counts[RESERVE] / counts["peak_bytes"]
                found[same].setdefault(config.batch_size, []).append(ratio)
        return {b: fmean(ratios) for b, ratios in (found[True] or found[False]).items()}

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

    @property
    def is_counted(self) -> bool:
        """Whether this very configuration was counted."""
        return self._counted(self.config.batch_size) is not None

    def never_varied(self) -> list[str]:
        """Knobs that are asked for at another value than the only one ever measured or counted."""
        asked = dict(self.config.sizes)
        values = {name: {dict(c.sizes).get(name) for c in self.variant.known} for name in asked}
        return [n for n, seen in values.items() if len(seen) == 1 and asked[n] not in seen]

    # -- range --------------------------------------------------------------------------------

    def extrapolated(self) -> list[tuple[str, float]]:
        """What lies outside the probed range, and by how many doublings."""
        named = self.variant.micro_step.outside(self.variables)
        found = [(name.removeprefix(f.KNOB_PREFIX), distance) for name, distance in named]
        if self.config.workers != self.variant.workers:
            found.append(("workers", doublings(self.config.workers, self.variant.workers)))
        scaling = self.variant.scaling
        if scaling and (far := scaling.doublings(world_of(self.config))):
            found.append(("devices", far))
        return found
