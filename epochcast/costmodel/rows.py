"""The trials of one variant as rows: the variables of each configuration, and any quantity in it.

What a variant was not measured at is borrowed from its ``lenders``: variants that differ in words
alone, as activation=a and activation=b (pooling.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import sqrt
from statistics import fmean, geometric_mean, median

from epochcast.costmodel import features as f
from epochcast.costmodel import phases, summary
from epochcast.costmodel.averaging import fit_surface
from epochcast.costmodel.memory import (
    PEAK,
    RESERVE,
    Layer,
    Layers,
    can_identify_share,
    fragmentation,
)
from epochcast.costmodel.phases import Footprints
from epochcast.costmodel.pooling import Known, pooled_surface, shows_more
from epochcast.costmodel.scatter import NOTHING, RoundScatter, Scatter, round_scatter
from epochcast.costmodel.summary import Value
from epochcast.costmodel.surface import (
    BYTES_SD_PER_DOUBLING,
    TIME_SD_BETWEEN,
    TIME_SD_PER_DOUBLING,
    Surface,
)
from epochcast.records import DeviceKind, Footprint, Measurement, RunConfig, Sizes

CountedPairs = tuple[tuple[RunConfig, Footprint], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The trials of a variant by configuration, what was counted, and how to fit to them.

    Without trials every surface is None.

    Attributes:
        kind: of the device measured.
        axes: what may place a configuration: the batch size and the numeric knobs.
        once: what single trials of one round scatter by; nothing where rounds tell it.
        lenders: variants that differ in words alone, and in which more was varied.
    """

    groups: Mapping[RunConfig, Sequence[Measurement]]
    counted: Footprints
    run: RoundScatter
    pace: Mapping[int, float]
    kind: DeviceKind
    axes: Sequence[str]
    once: Scatter = NOTHING
    lenders: tuple[Rows, ...] = ()

    @property
    def trials(self) -> list[Measurement]:
        """Of all configurations."""
        return [m for group in self.groups.values() for m in group]

    @property
    def all_trials(self) -> list[Measurement]:
        """Of the lenders, too."""
        return [m for rows in (self, *self.lenders) for m in rows.trials]

    @property
    def has_counts(self) -> bool:
        """Whether the work of all configurations was counted."""
        return all(
            config in self.counted and self.counted[config].count("flops") is not None
            for config in self.groups
        )

    def lacks(self, other: Rows) -> bool:
        """Whether another variant shows more of any axis, and as much of what was counted."""
        if self.has_counts and not other.has_counts:
            return False
        theirs = other.levels
        return any(shows_more(theirs[axis], own) for axis, own in self.levels.items())

    def without_counts(self) -> Rows:
        """What was measured alone."""
        return replace(self, counted={})

    @property
    def pairs(self) -> CountedPairs:
        """The configurations that were counted, and what."""
        return tuple(self.counted.items())

    @property
    def lent_pairs(self) -> tuple[CountedPairs, ...]:
        """The same of each lender."""
        return tuple(lender.pairs for lender in self.lenders)

    @property
    def words(self) -> Sizes:
        """The knobs that are no numbers."""
        return f.categories(next(iter(self.groups)).sizes)

    @property
    def lent(self) -> tuple[RunConfig, ...]:
        """The configurations of the lenders, as this variant's."""
        own = dict(self.words)
        some = (config for lender in self.lenders for config in lender.groups)
        return tuple(
            dict.fromkeys(
                replace(c, sizes=tuple((k, own.get(k, v)) for k, v in c.sizes)) for c in some
            )
        )

    @property
    def levels(self) -> dict[str, set[float]]:
        """The values of each axis that were measured."""
        rows = [f.variables(config, None) for config in self.groups]
        return {axis: {row[axis] for row in rows} for axis in self.axes}

    @property
    def varied_knobs(self) -> list[str]:
        """Those that differ anywhere, measured or counted; one that does not explains nothing."""
        levels: dict[str, set[float]] = {}
        parts = [(x.groups, x.counted) for x in (self, *self.lenders)]
        for config in chain.from_iterable(chain(*part) for part in parts):
            for name, value in f.numeric_knobs(config.sizes).items():
                levels.setdefault(name, set()).add(value)
        return [name for name, values in levels.items() if len(values) > 1]

    def surface(
        self,
        value: Value,
        candidates: Sequence[f.Form],
        *,
        drop: Sequence[str] = (),
        paced: bool = False,
        sd_per_doubling: float = TIME_SD_PER_DOUBLING,
        told: Callable[[Scatter], Scatter] | None = None,
    ) -> Surface | None:
        """The surface of a measured quantity over the configurations in which it is known.

        Args:
            value: the quantity, of a trial.
            candidates: forms that it may have.
            drop: axes on which it does not depend.
            paced: whether it is time of steps, as slow or fast as its round; see ``round_pace``.
            sd_per_doubling: see ``Surface``.
            told: what trials of a single round scatter by, from what a fit to them leaves.
        """
        axes = [axis for axis in self.axes if axis not in drop]
        own, repeats = self._known(value, axes, paced)
        if not own.rows:
            return None
        known = set(own.rows[0]).intersection(*own.rows[1:])
        noise = self.once if paced and self.once.sd else self.scatter(value).own

        def noise_of(residual: Scatter) -> float:
            own = told(residual) if told and residual.sd else noise
            return own.sd / sqrt(repeats)

        def fitted(one: Known) -> Surface:
            return fit_surface(
                one.rows,
                one.y,
                f.only_known(candidates, known),
                axes,
                noise_sd=noise.sd / sqrt(repeats),
                noise_of=noise_of if told else None,
                sd_per_doubling=sd_per_doubling,
                sd_between=TIME_SD_BETWEEN if paced else 0.0,
            )

        lenders = [lender for lender in self.lenders if self._asks(lender)]
        others = (lender._known(value, axes, paced)[0] for lender in lenders)
        return pooled_surface(own, [other for other in others if other.rows], axes, fitted)

    def _asks(self, lender: Rows) -> bool:
        """Whether a lender's times are needed: from two sizes on, counts say how others differ."""
        theirs = lender.levels
        once = (len(theirs[axis]) > 1 == len(own) for axis, own in self.levels.items())
        return not self.has_counts or any(once)

    def _known(self, value: Value, axes: Sequence[str], paced: bool) -> tuple[Known, float]:
        """Where a quantity is known and what it is there; and how often it was measured.

        Args:
            value: the quantity, of a trial.
            axes: on which it may depend.
            paced: see ``surface``.
        """
        distinct: dict[tuple[float, ...], tuple[dict[str, float], list[float]]] = {}
        for config, trials in self.groups.items():
            pairs = ((value(m), self.pace[m.round] if paced else 1.0) for m in trials)
            values = [v / pace for v, pace in pairs if v is not None and v > 0]
            row = f.variables(config, self.counted.get(config))
            if values:
                point = tuple(row[axis] for axis in axes)  # what differs in nothing else is one
                distinct.setdefault(point, (row, []))[1].extend(values)
        rows = [row for row, _ in distinct.values()]
        found = Known(rows, [geometric_mean(values) for _, values in distinct.values()])
        return found, median([len(values) for _, values in distinct.values()] or [1])

    def scatter(self, value: Value) -> RoundScatter:
        """Of a quantity from round to round; nothing where it was not repeated."""
        logs = summary.round_logs(self.groups, value)
        return round_scatter(logs) or RoundScatter(shared=NOTHING, own=NOTHING, rounds=1)

    def layer(
        self, value: Value, candidates: Sequence[f.Form], *, fragments: bool = False
    ) -> Layer | None:
        """What a layer of the memory system needs, beyond the peak where that is known.

        Args:
            value: bytes, of a trial.
            candidates: forms that all of it may have, where no tensors were tracked.
            fragments: whether it is handed out in segments that are cut up.
        """
        base = RESERVE if fragments and self._simulated(value) else PEAK
        beyond = summary.beyond_peak(value, base)
        tensors, rest = self._tensors_and_rest(value, base)
        broken = fragmentation(tensors, rest) if fragments else NOTHING
        tracked = self.surface(
            beyond,
            f.beyond_peak_forms(self.kind, shared=can_identify_share(tensors, rest)),
            sd_per_doubling=BYTES_SD_PER_DOUBLING,
        )
        if tracked is not None:
            run = self.scatter(beyond).of_a_later_run()
            return Layer(
                surface=tracked, beyond_peak=True, run=run, fragmentation=broken, base=base
            )
        whole = self.surface(value, candidates)
        if whole is None:
            return None
        run = self.scatter(value).of_a_later_run()
        return Layer(surface=whole, beyond_peak=False, run=run, fragmentation=broken)

    def _simulated(self, value: Value) -> bool:
        """Whether the allocator was simulated wherever this was measured."""
        known = [m.footprint for m in self.trials if value(m)]
        return bool(known) and all(x is not None and x.reserve_bytes for x in known)

    def _tensors_and_rest(self, value: Value, base: str) -> tuple[list[float], list[float]]:
        """Bytes of tensors and what was needed beyond them, in every configuration that tells."""
        counted = summary.reserve_bytes if base == RESERVE else summary.tensor_bytes
        tensors, rest = [], []
        for trials in self.groups.values():
            known = [(t, v) for m in trials if (t := counted(m)) and (v := value(m))]
            if known:
                tensors.append(fmean(t for t, _ in known))
                rest.append(fmean(max(1.0, v - t) for t, v in known))
        return tensors, rest

    def layers(self, candidates: Sequence[f.Form], *, fragments: bool = False) -> Layers:
        """All layers, as ``layer``."""
        return Layers(
            allocated=self.layer(summary.allocated_bytes, candidates),
            reserved=self.layer(summary.reserved_bytes, candidates, fragments=fragments),
            device_bytes=self.layer(summary.device_bytes, candidates, fragments=fragments),
        )

    def of_evaluation(self, counts: phases.CountSurfaces, eval_samples: int) -> Rows:
        """Rows of evaluation, at its batch sizes.

        Args:
            counts: what was counted, as functions.
            eval_samples: of an evaluation.
        """
        counted = phases.evaluation_footprints(self.counted, counts, eval_samples)
        trials = phases.evaluations(self.trials, counted)
        lenders = tuple(lender.of_evaluation(counts, eval_samples) for lender in self.lenders)
        groups = summary.group_by_config(trials)
        return replace(self, groups=groups, counted=counted, lenders=lenders)

    def of_saving(self) -> Rows:
        """Rows of saving."""
        trials = phases.savings(self.trials)
        counted = {m.config: m.footprint for m in trials if m.footprint is not None}
        lenders = tuple(lender.of_saving() for lender in self.lenders)
        groups = summary.group_by_config(trials)
        return replace(self, groups=groups, counted=counted, lenders=lenders)
