"""What candidates cost: medians for many at once, then scatter for the few that matter.

    symbol   meaning                                                 shape
    n        candidates: micro-batch, accumulation, devices          (n,) each
    N, D     samples of an epoch, devices: each sees ⌈N/D⌉            as a distributed sampler pads
    b, k     micro-batch, accumulation                               an update sees b·k·D samples

The equation is that of ``costmodel.epoch``: asked with the values of surfaces for all candidates
at once, and for the few that matter of a ``ConfigurationCost``, which knows what was counted in
exactly that configuration.
Where several numbers of devices were measured, others are priced by what these say of the growth of
a step (``costmodel.scaling``). Where one was, others are taken to be as fast; averaging gradients
over D of them is priced as a ring (Patarasuk & Yuan 2009): t_reduce = 2·(D − 1)/D · 4 bytes ·
parameters / bandwidth, or nothing where the bandwidth is not given. Evaluation and saves are done
by one device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel import features as f
from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.epoch import Division, Whole, divide, division_of
from epochcast.costmodel.features import Array, VariableTable
from epochcast.costmodel.learned import Variant
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.prices import Prices
from epochcast.costmodel.remarks import MEMORY_TIGHT
from epochcast.costmodel.scatter import Amount
from epochcast.costmodel.surface import Surface, join
from epochcast.costmodel.worlds import nodes_of
from epochcast.errors import UsageError
from epochcast.planning.batch import efficiency
from epochcast.planning.limits import Meter, at_power
from epochcast.planning.request import PlanRequest
from epochcast.records import Budget, Frequency, Power, RunConfig

LOOKED_UP = 6  # batch sizes at which the growth with the devices is computed
GRADIENT_BYTES = 4  # of one parameter, averaged in fp32 as DistributedDataParallel does


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ways to divide a step: micro-batch, accumulation and devices, each of shape (n,)."""

    batch_size: Whole
    accumulation: Whole
    devices: Whole

    @property
    def global_batch(self) -> Whole:
        """Samples of one optimizer step."""
        return self.batch_size * self.accumulation * self.devices

    def pick(self, chosen: Whole | NDArray[np.bool_]) -> Candidates:
        """Some of them."""
        return Candidates(self.batch_size[chosen], self.accumulation[chosen], self.devices[chosen])


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """What is trained, whatever the batch: the same for all candidates.

    Attributes:
        own_evaluations, own_saves: whether they come as often as the script was seen to do them:
            several in an epoch are priced as one at its end.
    """

    model: CostModel
    variant: Variant
    config: RunConfig
    samples: int
    eval_samples: int
    bandwidth: float | None = None
    devices_per_node: int | None = None
    own_evaluations: bool = False
    own_saves: bool = False

    def nodes(self, devices: int) -> int:
        """The machines that so many devices are on."""
        scaling, own = self.variant.scaling, self.variant.world
        if devices == own.devices and self.devices_per_node is None:
            return own.nodes
        return nodes_of(devices, self.devices_per_node, scaling.probed if scaling else (own,))

    @property
    def apart(self) -> bool:
        """Whether computing and loading are priced each by itself; see ``costmodel.cost``."""
        loading, workers = self.variant.loading, self.config.workers
        return loading is not None and (loading.better or workers != self.variant.workers)


@dataclass(frozen=True, slots=True)
class PriceList:
    """Medians for all candidates, shape (n,) each; bytes are NaN where unknown."""

    setup: TrainingSetup
    candidates: Candidates
    division: Division[Whole]
    startup: Array
    training: Array
    evaluation: Array
    device_bytes: Array
    doublings_outside: Array

    def config(self, i: int) -> RunConfig:
        """One candidate as a configuration."""
        return replace(
            self.setup.config,
            batch_size=int(self.candidates.batch_size[i]),
            accumulation=int(self.candidates.accumulation[i]),
            world_size=(devices := int(self.candidates.devices[i])),
            nodes=self.setup.nodes(devices),
        )

    def cost(self, i: int) -> ConfigurationCost:
        """One candidate seen through the cost model."""
        return ConfigurationCost(self.setup.model, self.setup.variant, self.config(i))

    def prices(self, at: ConfigurationCost) -> Prices:
        """One candidate's prices, exactly and with their scatter."""
        setup, division = self.setup, division_of(self.setup.samples, at.config)
        prices = at.prices(
            division,
            reduce_seconds=_reduce_seconds(setup, at.config.world_size, at.variables),
            eval_samples=setup.eval_samples,
        )
        if setup.own_evaluations:
            evaluation = _at_once(prices.evaluation, setup.variant.evaluations, division)
            prices = replace(prices, evaluation=evaluation)
        if setup.own_saves:
            prices = replace(prices, save=_at_once(prices.save, setup.variant.saves, division))
        return prices


def _at_once(amount: Amount, often: Frequency | None, division: Division[int]) -> Amount:
    """All that an epoch has of something, where it has several."""
    times = often.times(division.updates) if often else 1.0
    return replace(amount, median=amount.median * max(1.0, times))


def _reduce_seconds(setup: TrainingSetup, devices: int, variables: Mapping[str, float]) -> float:
    """Averaging gradients in a ring after a step, where that was not measured with it."""
    if setup.bandwidth is None or devices == setup.variant.world_size or setup.variant.scaling:
        return 0.0
    sent = 2 * (devices - 1) / devices * GRADIENT_BYTES * variables.get("parameters", 0.0)
    return sent / setup.bandwidth


# -- all candidates at once ---------------------------------------------------------------------


def price(setup: TrainingSetup, candidates: Candidates) -> PriceList:
    """Price candidates by the medians of the cost model's surfaces.

    Surfaces see the micro-batch alone, and a hundred thousand candidates share a few hundred of
    those: each is looked up once.
    """
    variant, runs = setup.variant, setup.model.calibration
    division = divide(
        setup.samples,
        candidates.batch_size,
        candidates.accumulation,
        candidates.devices,
        drop_last=setup.config.drop_last,
    )
    sizes, of = np.unique(candidates.batch_size, return_inverse=True)
    table = _table(setup, sizes)
    partial_sizes, of_partial = np.unique(np.maximum(division.partial, 1), return_inverse=True)
    partial = _micro_step(setup, _table(setup, partial_sizes))[of_partial]
    update = _values(variant.update, table)[of] + _all_reduce_seconds(setup, candidates, table)
    update = update + _growth(setup, candidates)
    training = division.full_seconds(_micro_step(setup, table)[of], update)
    training = training + division.partial_seconds(partial)
    at_once = setup.config.eval_batch_size or sizes
    evaluated = _table(setup, np.broadcast_to(at_once, sizes.shape))
    evaluation = setup.eval_samples / at_once * _values(variant.evaluation, evaluated)
    starting = setup.model.imports.median + _values(variant.build, table)
    distances = np.maximum(variant.micro_step.distances(table), 0.0)
    return PriceList(
        setup=setup,
        candidates=candidates,
        division=division,
        startup=runs.startup.factor * starting[of],
        training=runs.epoch.factor * training,
        evaluation=runs.evaluation.factor * evaluation[of],
        device_bytes=np.fmax(_device_bytes(variant, table), _beside_training(setup, table))[of],
        doublings_outside=distances.max(axis=1, initial=0.0)[of],
    )


def _table(setup: TrainingSetup, batch_size: Whole) -> dict[str, Array]:
    """Every variable of every candidate; see ``costmodel.features``."""
    n = len(batch_size)
    table: dict[str, Array] = f.batch_table(batch_size.astype(float))
    for name, value in f.knob_variables(setup.config.sizes).items():
        table[name] = np.full(n, value)
    return table | {name: surface.values(table) for name, surface in setup.variant.counts}


def _micro_step(setup: TrainingSetup, table: VariableTable) -> Array:
    """Seconds of a micro-step without update; see ``costmodel.surface``."""
    loading, workers = setup.variant.loading, setup.config.workers
    if loading is None or not setup.apart:
        return setup.variant.micro_step.values(table)
    scaling = ConfigurationCost(setup.model, setup.variant, setup.config).scaling
    factor = (max(1, loading.workers) / max(1, workers)) ** scaling
    parts = np.stack([loading.compute.values(table), factor * loading.loader.values(table)])
    overlap = inf if loading.overlap is None else loading.overlap
    return join(parts, 1.0 if workers == 0 else overlap)


def _values(surface: Surface | None, table: VariableTable, unknown: float = 0.0) -> Array:
    if surface is None:
        return np.full(len(table["batch_size"]), unknown)
    return surface.values(table)


def _growth(setup: TrainingSetup, candidates: Candidates) -> Array:
    """What an update takes more on other devices than the variant's, where several were measured.

    Looked up at a few batch sizes: it changes slowly between them.
    """
    found = np.zeros(len(candidates.batch_size))
    if setup.variant.scaling is None:
        return found
    lowest, highest = candidates.batch_size.min(), candidates.batch_size.max()
    sizes = np.unique(np.geomspace(lowest, highest, LOOKED_UP).round().astype(np.int64))
    for devices in np.unique(candidates.devices):
        of = candidates.devices == devices
        config = replace(
            setup.config,
            accumulation=1,
            world_size=int(devices),
            nodes=setup.nodes(int(devices)),
        )
        costs = [
            ConfigurationCost(setup.model, setup.variant, replace(config, batch_size=int(size)))
            for size in sizes
        ]
        factor = setup.model.calibration.epoch.factor
        more = [cost.update() / factor - cost.own_update() for cost in costs]
        found[of] = np.interp(np.log(candidates.batch_size[of]), np.log(sizes), more)
    return found


def _all_reduce_seconds(
    setup: TrainingSetup, candidates: Candidates, table: VariableTable
) -> Array:
    parameters = table.get("parameters", np.zeros(1))[0]
    kinds, positions = np.unique(candidates.devices, return_inverse=True)
    each = [_reduce_seconds(setup, int(d), {"parameters": float(parameters)}) for d in kinds]
    return np.asarray(np.array(each)[positions])


def _device_bytes(variant: Variant, table: VariableTable) -> Array:
    """What the device must have; where that was not measured, the peak of live tensors."""
    unknown = np.full(len(table["batch_size"]), np.nan)
    peak = np.fmax(table.get("step_peak_bytes", unknown), table.get("update_peak_bytes", unknown))
    if variant.allocated is not None:
        peak = np.where(
            np.isnan(peak), variant.allocated.values(table, np.zeros(len(unknown))), peak
        )
    if variant.device_bytes is None:
        return np.asarray(peak)
    return variant.device_bytes.values(table, np.nan_to_num(peak))


def _beside_training(setup: TrainingSetup, table: VariableTable) -> Array:
    """What evaluation and saving must have of the device; nan where it was not measured."""
    variant = setup.variant
    found = np.full(len(table["batch_size"]), np.nan)
    if variant.evaluating.device_bytes is not None and setup.eval_samples:
        at_once = setup.config.eval_batch_size or table["batch_size"]
        sizes = np.broadcast_to(np.minimum(at_once, setup.eval_samples), found.shape)
        evaluated = _table(setup, sizes)
        peak = _values(variant.evaluation_peak, evaluated)
        found = np.fmax(found, variant.evaluating.device_bytes.values(evaluated, peak))
    if variant.saving.device_bytes is not None:
        static = table.get("static_bytes", np.zeros(len(found)))
        found = np.fmax(found, variant.saving.device_bytes.values(table, static))
    return np.asarray(found)


def fold_samples(samples: int, folds: int) -> tuple[int, int]:
    """Training and evaluation samples of one fold: k − 1 parts and one part."""
    held_out = ceil(samples / folds)
    return samples - held_out, held_out


# -- which candidates there are, and which are worth a closer look ---------------------------------


FREE_ACCUMULATIONS = 2 ** np.arange(7)  # 1 … 64: beyond, the optimizer's share of a step is gone
STEPS_PER_DOUBLING = 2  # of a free batch size in what is shown: 96, 128, 181, 256
SHORTLIST = 12  # by each of time, money and memory: a close look takes milliseconds
NEVER_FITS = 50.0  # as an exponent: e^50 times anything is beyond every limit, and no overflow
LENIENT = 0.9  # of the bytes of a rough look: counted exactly, a configuration may need less


def reference_batch(setup: TrainingSetup, request: PlanRequest) -> int:
    """Samples of an optimizer step whose epochs and learning rate are known."""
    config = setup.config
    probed = config.batch_size * config.accumulation * config.world_size
    if request.reference_batch is not None:
        return request.reference_batch
    single = request.batch_sizes if request.batch_sizes != "free" else ()
    return single[0] if len(single) == 1 else probed


def candidates(setup: TrainingSetup, request: PlanRequest, unprobed: bool = False) -> Candidates:
    """Every way to make the batch sizes asked for, out of micro-batches as large as were probed.

    Args:
        setup: knows what was probed.
        request: asks for batches, a micro-batch and devices.
        unprobed: whether micro-batches may be smaller than any that was probed, too.

    Raises:
        UsageError: there is none.
    """
    found = _free(setup, request) if request.batch_sizes == "free" else _divided(setup, request)
    usable = found.global_batch <= setup.samples
    if not (unprobed or request.micro_batch):
        usable &= _near_what_was_probed(setup, found)
    if setup.variant.is_of_script and request.micro_batch is None:
        usable &= found.accumulation == setup.variant.accumulation  # it accumulates as it does
    if not usable.any():
        raise UsageError(
            f"no batch to choose from: {_asked(setup, request)} with {setup.samples:,} samples and "
            f"devices {', '.join(map(str, _devices(setup, request)))}; the micro-batch times the "
            "devices must divide the batch and not exceed the samples"
        )
    chosen = found.pick(usable)
    _require_use_of_bandwidth(setup, request, chosen)
    return chosen


def _near_what_was_probed(setup: TrainingSetup, found: Candidates) -> NDArray[np.bool_]:
    """Where the micro-batch is no smaller than all probed, or nothing is accumulated of it."""
    least = min(c.batch_size for c in setup.variant.configurations)
    return np.asarray((found.batch_size >= least) | (found.accumulation == 1))


def _require_use_of_bandwidth(
    setup: TrainingSetup, request: PlanRequest, chosen: Candidates
) -> None:
    """Refuse a bandwidth where no gradients are averaged, or where that was measured."""
    probed = setup.variant.world_size
    if setup.bandwidth is not None and setup.variant.scaling is not None:
        raise UsageError(
            "averaging gradients was measured, on "
            f"{', '.join(str(w.devices) for w in setup.variant.scaling.probed)} devices: leave the "
            "bandwidth out"
        )
    if setup.bandwidth is None or not np.isin(chosen.devices, (1, probed)).all():
        return
    asked = _devices(setup, request)
    devices = "1 device" if chosen.devices.max() == 1 else f"the {probed} devices probed"
    advice = f"give others too, --devices {2 * probed}"
    if not np.isin(asked, (1, probed)).all():
        advice = (
            f"the batch cannot be divided over devices {', '.join(map(str, asked))}, where the "
            "micro-batch times the devices must divide it; give another batch"
        )
    raise UsageError(
        f"a bandwidth is for averaging gradients over devices, but the plan is for {devices} "
        f"alone: {advice}, or leave the bandwidth out"
    )


def _batches(setup: TrainingSetup, request: PlanRequest) -> tuple[int, ...]:
    """The global batches asked for; epochs of all that were probed compete if none is."""
    listed = request.batch_sizes if request.batch_sizes != "free" else ()
    batches = listed or _probed_batches(setup, request)
    if max(batches) > setup.samples:
        raise UsageError(
            f"a batch is at most the {setup.samples:,} samples of an epoch, but got "
            f"{max(batches):,}; give a smaller one: --batch-size {setup.samples}"
        )
    return batches


def _probed_batches(setup: TrainingSetup, request: PlanRequest) -> tuple[int, ...]:
    """The reference, and what was probed beside it and is no more than an epoch."""
    reference = reference_batch(setup, request)
    if request.unit == "step":  # of another batch it would be another step
        return (reference,)
    probed = {c.batch_size * c.accumulation * c.world_size for c in setup.variant.configurations}
    return tuple({reference, *(batch for batch in probed if batch <= setup.samples)})


def _asked(setup: TrainingSetup, request: PlanRequest) -> str:
    sizes = "free" if request.batch_sizes == "free" else ", ".join(map(str, request.batch_sizes))
    micro = f", micro-batch {request.micro_batch}" if request.micro_batch else ""
    probed = ", ".join(map(str, sorted(_probed_batches(setup, request))))
    return f"batch size {sizes or probed}{micro}"


def _devices(setup: TrainingSetup, request: PlanRequest) -> tuple[int, ...]:
    return request.devices or (setup.variant.world_size,)


def _divided(setup: TrainingSetup, request: PlanRequest) -> Candidates:
    """All divisions of each global batch."""
    rows = [
        (micro, batch // (micro * devices), devices)
        for batch in _batches(setup, request)
        for devices in _devices(setup, request)
        for micro in ((request.micro_batch,) if request.micro_batch else _divisors(batch))
        if batch % (micro * devices) == 0
    ]
    columns = np.array(sorted(set(rows)), dtype=np.int64).reshape(-1, 3)
    return Candidates(columns[:, 0], columns[:, 1], columns[:, 2])


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def _free(setup: TrainingSetup, request: PlanRequest) -> Candidates:
    """Every micro-batch within the probed range, times powers of two."""
    probed = [c.batch_size for c in setup.variant.configurations]
    one = (request.micro_batch,) if request.micro_batch else range(min(probed), max(probed) + 1)
    grid = np.meshgrid(
        np.array(one), FREE_ACCUMULATIONS, np.array(_devices(setup, request)), indexing="ij"
    )
    micro, accumulation, devices = (axis.ravel().astype(np.int64) for axis in grid)
    return Candidates(micro, accumulation, devices)


def memory_limit(setup: TrainingSetup, budget: Budget) -> float:
    """Bytes of one device that a run may fill: as allowed, and no more than it has."""
    capacity = setup.model.device.memory_bytes or np.inf  # 0: not known, made elsewhere
    allowed = np.inf if budget.memory is None else budget.memory
    return min(allowed, MEMORY_TIGHT * capacity)


def shortlist(prices: PriceList, budget: Budget, request: PlanRequest) -> Whole:
    """Positions of the candidates worth evaluating, most promising first; memory permitting.

    Those that surely fit into memory come first, or the smallest ones where none does; those that
    may fit, looked at closely, follow.

    Args:
        prices: medians for all n candidates.
        budget: its memory and the device's own say what fits, its other limits how far each gets.
        request: the epochs, folds and evaluations to make room for, and the noise scale.
    """
    cautious, limit = _cautious_bytes(prices, budget), memory_limit(prices.setup, budget)
    hopeful = LENIENT * np.fmin(cautious, prices.device_bytes)
    surely, perhaps = ~(cautious > limit), ~(hopeful > limit)
    smallest = np.argsort(cautious, kind="stable")[:SHORTLIST]
    rough = _rough(prices, budget, request)
    found = [_best(prices, request, rough, cautious, surely) if surely.any() else smallest]
    if not np.array_equal(surely, perhaps):
        found.append(_best(prices, request, rough, cautious, perhaps))
    return np.asarray(list(dict.fromkeys(np.concatenate(found).tolist())), dtype=np.int64)


def _best(
    prices: PriceList,
    request: PlanRequest,
    rough: tuple[Array, Array],
    needed: Array,
    fits: NDArray[np.bool_],
) -> Whole:
    """The best of those that fit by time, by money and by memory, in turn."""
    progress, seconds = rough
    missing = np.where(fits, -progress, np.inf)
    money = seconds * prices.candidates.devices
    groups = _groups(prices.candidates, request)
    orders = [np.lexsort((key, missing)) for key in (seconds, money, np.nan_to_num(needed))]
    firsts = [_first_of_each(groups, order)[:SHORTLIST] for order in orders]
    interleaved = np.stack(firsts, axis=1).ravel()
    chosen = _first_of_each(groups, interleaved)
    return np.asarray(chosen[fits[chosen]])


def _groups(candidates: Candidates, request: PlanRequest) -> Whole:
    """A number for each candidate; of a free batch, near ones share it and the best stands for all.

    Otherwise a free choice would fill the list with 96, 95, 94, …
    """
    if request.batch_sizes != "free":
        return np.arange(len(candidates.batch_size))
    steps = np.round(STEPS_PER_DOUBLING * np.log2(candidates.global_batch)).astype(np.int64)
    split = candidates.accumulation * (candidates.devices.max() + 1) + candidates.devices
    return np.asarray(steps * (split.max() + 1) + split)


def _first_of_each(groups: Whole, order: Whole) -> Whole:
    """The positions in an order at which a group comes up for the first time."""
    _, first = np.unique(groups[order], return_index=True)
    return np.asarray(order[np.sort(first)])


def _caution(prices: PriceList, budget: Budget, sd: float) -> Array:
    """The factor from the median to the confidence asked for, wider outside the probed range."""
    z = NormalDist().inv_cdf(budget.confidence)
    return np.asarray(np.exp(np.minimum(z * sd * (1 + prices.doublings_outside), NEVER_FITS)))


def _cautious_bytes(prices: PriceList, budget: Budget) -> Array:
    layer = prices.setup.variant.device_bytes
    sd = layer.surface.left_out_rmse if layer else 0.0
    return prices.device_bytes * _caution(prices, budget, sd)


def _rough(prices: PriceList, budget: Budget, request: PlanRequest) -> tuple[Array, Array]:
    """Progress within the budget, and the time it takes, of every candidate.

    Where the fewest epochs worth running do not fit, no progress counts, but the time of those.
    """
    variant, efficiencies = prices.setup.variant, _efficiencies(prices, request)
    sd = float(np.hypot(variant.run.sd, variant.micro_step.left_out_rmse))
    epoch = prices.training * _caution(prices, budget, sd)
    epoch = epoch + variant.loader_restart.median + variant.fixed.median
    if request.unit == "step":
        epoch = epoch / np.maximum(prices.division.updates, 1)
    if isinstance(request.evaluate, int) and request.evaluate > 0:
        epoch = epoch + prices.evaluation / request.evaluate
    limits = _epochs_limits(prices, request)
    room = _seconds_allowed(prices, budget, request.powers) / request.folds - prices.startup
    epochs = np.clip(np.floor(room / epoch), 0, limits)
    worth = limits if request.epochs_limit else 1 / efficiencies
    least = np.ceil((request.min_epochs or 0) / efficiencies - 1e-9).clip(min=1)
    progress = np.where(epochs < least, 0.0, epochs / worth)
    return progress, (prices.startup + np.maximum(epochs, least) * epoch) * request.folds


def _efficiencies(prices: PriceList, request: PlanRequest) -> Array:
    batch = prices.candidates.global_batch.astype(float)
    if request.noise_scale is None:
        return np.ones(len(batch))
    reference = reference_batch(prices.setup, request)
    return np.array(efficiency(batch, reference, request.noise_scale))  # type: ignore[arg-type]


def _epochs_limits(prices: PriceList, request: PlanRequest) -> Array:
    epochs = request.epochs_limit or max(request.searched, request.min_epochs or 1)
    return np.ceil(epochs / _efficiencies(prices, request) - 1e-9)


def _seconds_allowed(prices: PriceList, budget: Budget, powers: Sequence[Power]) -> Array:
    """By deadline, money and energy together."""
    at = prices.candidates
    kinds = at.devices * (at.batch_size.max() + 1) + at.batch_size if powers else at.devices
    _, firsts, positions = np.unique(kinds, return_index=True, return_inverse=True)
    budgets = [
        at_power(budget, prices.config(int(i)), powers) if powers else budget for i in firsts
    ]
    limits = (
        Meter(budget, int(at.devices[i])).binding_seconds()
        for i, budget in zip(firsts, budgets, strict=True)
    )
    allowed = np.array([min(seconds.values(), default=np.inf) for seconds in limits])
    return np.asarray(allowed[positions])
