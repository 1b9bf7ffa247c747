"""How a step's time grows with the devices that share it, learned from few and said of many.

    symbol   meaning
    p, n     devices (the world), and the nodes they are spread over
    g        compute of one micro-step on one device: a + c·m of a batch of m, or as measured
    k        micro-steps of an update (accumulation); gradients are averaged in the last one
    N        averaging the gradients; one pair (α, β) within a node, another across nodes
    γ        how far that hides behind the backward pass: 1 not at all, 10 all but wholly
    s        how far devices differ from step to step: the slowest of p is waited for

    step = (k − 1)·g′ + (g′^γ + N^γ)^(1/γ)           Pollux (Qiao et al., OSDI'21), eq. 8-11
    N    = α·(1 + w·(1 − 2/p) + c·(1 − n/p)) + β·((p − 1)^κ − 1)/κ
    g′   = g·(1 + s·z(p))                 z: the expected maximum of p normals (Blom 1958)

N is nothing on one device, c counts across nodes only. With w = c = 0 and κ = 1 it is Pollux's
α + β·(p − 2). A ring sends 2(p − 1)/p·bytes/bandwidth, at a thousand devices twice what two send
(w = 1; Patarasuk & Yuan 2009), in 2(p − 1) messages (κ = 1); a tree needs 2·log₂ p (κ → 0; Sanders
et al. 2009). Devices of a node share its link to the others (c). Up to eight devices leave w, c, κ
and β open, so they have priors, and what they leave open is in the interval.

All parameters are fitted at once, on the log scale, with Student's weights against single odd
times. The posterior is sampled from a t distribution around its mode, by truncated importance
weights (Ionides 2008). Configurations have two errors of their own: how far their compute is known,
and how far their N is from that of the others; worlds have one of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log, log2
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochcast.costmodel.features import Array
from epochcast.errors import FitError
from epochcast.records import Quantiles
from epochcast.records.estimate import LEVELS

# Priors, mean and standard deviation, of the logs (γ and the shares w, κ: of the logit). Two public
# tables were looked at, Gavel's and Pollux's; see docs/scaling.md.
PRIORS: Mapping[str, tuple[float, float]] = {
    "alpha": (log(0.1), 1.5),  # N of two devices over g
    "beta": (log(0.3), 1.0),  # β over α within a node, whose devices share a bus
    "across": (log(5.0), 1.2),  # α across nodes over α within: 2 to 40 in Pollux's table
    "beta_across": (log(0.08), 1.0),  # β over α across nodes
    "crowding": (log(0.3), 1.0),  # c: devices of a node share its link to the others
    "ring": (1.0, 1.5),  # w
    "power": (-0.85, 1.5),  # κ
    "overlap": (-2.5, 1.0),  # γ = 1 + 9·share
    "straggling": (log(0.005), 1.0),  # s
}
SHARED = len(PRIORS)
MOST_OVERLAP = 10.0  # of γ, as Pollux bounds it
COMPUTE_SD = 0.05  # of a compute time measured on one device, log
SMALLEST_WORLD = (0.85, 0.25)  # share of compute where one device was not measured, and its log sd
SYNC_SD = 0.15  # of a configuration's N beside that of the others, log
NOISE, NOISE_DOF = 0.02, 4.0  # of one measured time, log; worth so many residuals
ROBUST_DOF = 4.0  # of Student's weights
WORLD_SD = {False: 0.1, True: 0.25}  # of a world's N beside what p says, within and across nodes
# Of log N, and of a log step, at the first doubling beyond what was probed. What is wrong about the
# law's growth adds up from one doubling to the next, so that of log N grows faster than they do.
SYNC_DRIFT, STEP_DRIFT, DRIFT_POWER = 0.2, 0.02, 1.1
ROUNDS = 6  # of Student's weights
PROPOSED, DRAWS, PROPOSAL_DOF = 2000, 400, 8.0
FEWEST_DOF = 3.0
SMALL = 1e-6  # step of a finite difference, in prior standard deviations


@dataclass(frozen=True, slots=True, order=True)
class World:
    """Devices that share a step, and the nodes they are spread over."""

    devices: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= self.devices:
            raise FitError(f"{self.devices} devices cannot be spread over {self.nodes} nodes")

    @property
    def label(self) -> str:
        """``"8 devices on 2 nodes"``."""
        return f"{self.devices} device{'s' * (self.devices > 1)}" + (
            f" on {self.nodes} nodes" if self.nodes > 1 else ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The time of one optimizer step of a configuration in a world.

    Attributes:
        configuration: what is equal in worlds whose compute is: batch size and model.
        seconds: of the step, with all its micro-steps.
        payload: how much is averaged, in bytes or parameters, in the same unit for all.
    """

    configuration: str
    world: World
    seconds: float
    accumulation: int = 1
    payload: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """What a micro-step takes on one device, before worlds are compared.

    Attributes:
        sd: of its log.
    """

    seconds: float
    sd: float = COMPUTE_SD


@dataclass(frozen=True, slots=True)
class _Table:
    """Observations as columns; ``of`` is the position of the configuration, log g what is known."""

    of: NDArray[np.int64]
    in_world: NDArray[np.int64]
    devices: Array
    nodes: Array
    accumulation: Array
    payload: Array
    log_compute: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What was learned of one training's worlds, as plain numbers.

    Attributes:
        configurations: in the order of their errors.
        computes: of each, as given.
        parameters: draws of the shared ones in the order of ``PRIORS``, then of the errors of every
            world's N, of every configuration's compute, and of its N.
        noise: of the log of one step's time; ``noise_dof`` tells how well that is known.
        probed: the worlds that were measured.
        typical_payload: what α is of.
    """

    configurations: tuple[str, ...]
    computes: tuple[Compute, ...]
    parameters: tuple[tuple[float, ...], ...]
    noise: float
    noise_dof: float
    probed: tuple[World, ...]
    typical_payload: float = 1.0

    def draws(
        self,
        world: World,
        *,
        configuration: str = "",
        compute: Compute | None = None,
        accumulation: int = 1,
        payload: float | None = None,
    ) -> Array:
        """Draws of an optimizer step's seconds in a world, noise of a run included.

        Args:
            world: need not have been probed.
            configuration: one that was measured, or another, of which ``compute`` tells.
            compute: of a micro-step on one device, where the configuration was not measured.
            accumulation: micro-steps of an update.
            payload: as observations have it; by default what is typical of them.

        Raises:
            FitError: neither was the configuration measured, nor is its compute given.
        """
        known, rng = np.array(self.parameters), np.random.default_rng(1)
        far, count, first = self.doublings(world), len(self.computes), SHARED + len(self.probed)
        if configuration in self.configurations:
            of = self.configurations.index(configuration)
            compute, own = self.computes[of], known[:, [first + of, first + count + of]]
        elif compute is None:
            raise FitError(f"{configuration!r} was not measured; give its compute")
        else:
            own = np.array([compute.sd, SYNC_SD]) * rng.standard_normal((DRAWS, 2))
        if world in self.probed:
            of_world = known[:, SHARED + self.probed.index(world)]
        else:
            of_world = WORLD_SD[world.nodes > 1] * rng.standard_normal(DRAWS)
        drift = SYNC_DRIFT * far**DRIFT_POWER
        of_world = of_world + drift * rng.standard_normal(DRAWS)
        at = np.concatenate([known[:, :SHARED], of_world[:, None], own], axis=1)
        table = _Table(
            of=np.array([0]),
            in_world=np.array([0]),
            devices=np.array([float(world.devices)]),
            nodes=np.array([float(world.nodes)]),
            accumulation=np.array([float(accumulation)]),
            payload=np.array([(payload or self.typical_payload) / self.typical_payload]),
            log_compute=np.array([log(compute.seconds)]),
        )
        logs = _log_step(at, table, worlds=1)[:, 0]
        noise = self.noise * rng.standard_t(max(self.noise_dof, FEWEST_DOF), DRAWS)
        return np.exp(logs + noise + STEP_DRIFT * far * rng.standard_normal(DRAWS))

    def doublings(self, world: World) -> float:
        """How many doublings a world is beyond those probed of its kind, within or across nodes."""
        alike = [w.devices for w in self.probed if (w.nodes > 1) == (world.nodes > 1)]
        return max(0.0, log2(world.devices / max([2, *alike]))) if world.devices > 1 else 0.0

    def is_unseen(self, world: World) -> bool:
        """Whether no world was probed that averages gradients over the same kind of link."""
        alike = (w for w in self.probed if w.devices > 1)
        return world.devices > 1 and all((w.nodes > 1) != (world.nodes > 1) for w in alike)


def quantiles_of(draws: Array) -> Quantiles:
    """The five levels of ``Quantiles``."""
    return Quantiles.of(np.quantile(draws, LEVELS).tolist())


def computes_of(observed: Sequence[Observed]) -> dict[str, Compute]:
    """What each configuration's compute is taken to be: its time on the fewest devices."""
    found = {}
    for name in dict.fromkeys(x.configuration for x in observed):
        own = [x for x in observed if x.configuration == name]
        fewest = min(x.world for x in own)
        times = [log(x.seconds / x.accumulation) for x in own if x.world == fewest]
        share, sd = (1.0, COMPUTE_SD) if fewest.devices == 1 else SMALLEST_WORLD
        found[name] = Compute(seconds=share * float(np.exp(np.mean(times))), sd=sd)
    return found


def fit_scaling(observed: Sequence[Observed]) -> Scaling:
    """Learn how the steps of one training on one kind of device grow with the world.

    Args:
        observed: in two worlds or more; what one world says leaves the rest to the priors.

    Raises:
        FitError: nothing was observed, or a time is not positive.
    """
    from scipy.optimize import least_squares

    if not observed or any(not x.seconds > 0 for x in observed):
        raise FitError("worlds are compared by positive step times; give some of at least one")
    known = computes_of(observed)
    names = tuple(known)
    worlds = tuple(sorted({x.world for x in observed}))
    typical = float(np.exp(np.mean(np.log([x.payload for x in observed]))))
    table = _table(observed, known, worlds, typical)
    y = np.log([x.seconds for x in observed])
    mean, sd = _priors(list(known.values()), worlds)

    def residuals(at: Array, weights: Array) -> Array:
        left = weights * (_log_step(at, table, len(worlds)) - y)
        return np.concatenate([left, (at - mean) / sd], axis=-1)

    def slopes(at: Array, weights: Array) -> Array:
        moved = residuals(at + np.diag(SMALL * sd), weights) - residuals(at, weights)
        return np.asarray((moved / (SMALL * sd)[:, None]).T)

    def solved(start: Array, weights: Array) -> Any:
        return least_squares(residuals, start, slopes, x_scale=sd, max_nfev=60, args=(weights,))

    weights, variance, freedom = np.full(len(y), 1 / NOISE), NOISE**2, NOISE_DOF
    starts = (mean + shift * (np.arange(len(mean)) == 0) for shift in (0.0, -2.0, 1.5))
    best = min((solved(start, weights) for start in starts), key=lambda found: float(found.cost))
    for _ in range(ROUNDS):
        best = solved(best.x, weights)
        left, own = best.fun[: len(y)] / weights, best.jac[: len(y)]
        used = float(np.sum((own @ np.linalg.inv(best.jac.T @ best.jac)) * own))
        freedom = NOISE_DOF + max(0.0, len(y) - used)
        robust = weights**2 * variance
        variance = (NOISE_DOF * NOISE**2 + float(np.sum(robust * left**2))) / freedom
        weights = np.sqrt((ROBUST_DOF + 1) / (ROBUST_DOF + left**2 / variance) / variance)
    parameters = _sampled(best.x, best.jac, lambda at: residuals(at, weights))
    return Scaling(
        configurations=names,
        computes=tuple(known.values()),
        parameters=tuple(map(tuple, parameters.round(4).tolist())),
        noise=float(np.sqrt(variance)),
        noise_dof=freedom,
        probed=worlds,
        typical_payload=typical,
    )


def _sampled(mode: Array, jacobian: Array, residuals: Callable[[Array], Array]) -> Array:
    """Draws of the posterior, (DRAWS, parameters).

    Args:
        mode: where it is highest.
        jacobian: of the residuals there.
        residuals: of parameters (…, parameters); half their squares are minus its log.
    """
    rng, dof = np.random.default_rng(0), PROPOSAL_DOF
    root = np.linalg.cholesky(np.linalg.inv(jacobian.T @ jacobian))
    wide = np.sqrt(dof / rng.chisquare(dof, (PROPOSED, 1)))
    steps = wide * rng.standard_normal((PROPOSED, len(mode)))
    proposed = mode + steps @ root.T
    proposal = -(dof + len(mode)) / 2 * np.log1p(np.sum(steps**2, axis=1) / dof)
    logs = -np.sum(residuals(proposed) ** 2, axis=1) / 2 - proposal
    weights = np.exp(logs - logs.max())
    weights = np.minimum(weights, weights.mean() * np.sqrt(PROPOSED))
    return np.asarray(proposed[rng.choice(PROPOSED, DRAWS, p=weights / weights.sum())])


def _table(
    observed: Sequence[Observed],
    computes: Mapping[str, Compute],
    worlds: Sequence[World],
    typical: float,
) -> _Table:
    """Observations as columns.

    Args:
        observed: all of them.
        computes: of every configuration.
        worlds: in the order of their parameters.
        typical: the payload that others are relative to.
    """
    of = np.array([list(computes).index(x.configuration) for x in observed])
    logs = np.log([c.seconds for c in computes.values()])
    return _Table(
        of=of,
        in_world=np.array([worlds.index(x.world) for x in observed]),
        devices=np.array([float(x.world.devices) for x in observed]),
        nodes=np.array([float(x.world.nodes) for x in observed]),
        accumulation=np.array([float(x.accumulation) for x in observed]),
        payload=np.array([x.payload / typical for x in observed]),
        log_compute=logs[of],
    )


def _priors(computes: Sequence[Compute], worlds: Sequence[World]) -> tuple[Array, Array]:
    """Means and standard deviations of all parameters; α is relative to an average compute."""
    typical = float(np.mean(np.log([c.seconds for c in computes])))
    own = [WORLD_SD[w.nodes > 1] for w in worlds]
    own += [c.sd for c in computes] + [SYNC_SD] * len(computes)
    mean = np.array([mean for mean, _ in PRIORS.values()] + [0.0] * len(own))
    mean[0] += typical
    return mean, np.array([sd for _, sd in PRIORS.values()] + own)


def _log_step(at: Array, table: _Table, worlds: int) -> Array:
    """Logs of the steps' seconds, (…, observations).

    Args:
        at: parameters, (…, parameters), in the order of ``Scaling.mode``.
        table: the observations.
        worlds: how many parameters are of worlds.
    """
    shared = dict(zip(PRIORS, np.moveaxis(at[..., :SHARED, None], -2, 0), strict=True))
    of_worlds, first = at[..., SHARED : SHARED + worlds], SHARED + worlds
    count = (at.shape[-1] - first) // 2
    own = at[..., first : first + count][..., table.of]
    sync = at[..., first + count :][..., table.of] + of_worlds[..., table.in_world]
    p, across = table.devices, table.nodes > 1
    power, gamma = _share(shared["power"]), 1 + (MOST_OVERLAP - 1) * _share(shared["overlap"])
    alpha = np.exp(shared["alpha"] + across * shared["across"] + sync) * table.payload
    beta = np.exp(np.where(across, shared["beta_across"], shared["beta"]))
    ring = 1 + _share(shared["ring"]) * (1 - 2 / np.maximum(p, 2))
    ring = ring + across * np.exp(shared["crowding"]) * (1 - table.nodes / p)
    growth = (np.maximum(p - 1, 1) ** power - 1) / power
    averaging = np.where(p > 1, alpha * (ring + beta * growth), 0.0)
    slowest = 1 + np.exp(shared["straggling"]) * np.array([_expected_maximum(x) for x in p])
    compute = np.exp(table.log_compute + own) * slowest
    larger = np.maximum(compute, averaging)
    last = (compute / larger) ** gamma + (averaging / larger) ** gamma
    return np.asarray(np.log((table.accumulation - 1) * compute + larger * last ** (1 / gamma)))


def _share(x: Array) -> Array:
    """The logistic function."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -50, 50))))


def _expected_maximum(count: float) -> float:
    """Of so many standard normals, by Blom's approximation; 0 of one."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
