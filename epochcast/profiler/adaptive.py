"""A sweep that decides for itself: what to measure next, how many rounds, and when to stop.

    dry runs  [worker] footprints of all candidates, kept in the store; none that cannot fit is left
    round 0   [worker] five configurations that spread in feature space, before anything ran; then,
              while the choice of model is what is uncertain, the one that sharpens it most
    round 1…  [worker] all of them again, and again the sharpest where the model is at fault
    stop      when the 90 % interval of the answer is narrow enough, or nothing would narrow it

    spread    maximin in feature space: each is as far as possible from those before it
              (Kennard & Stone 1969, "Computer aided design of experiments")
    sharpest  where the model is least certain about the question, per second of measuring
    feature   log₂ of the counts (FLOPs, bytes, operators, parameters) and of the batch size,
    space     each divided by its standard deviation over the candidates

``Chooser`` decides, ``chosen_rounds`` has its decisions carried out. A decision is a function of
the measurements, so a sweep that was stopped goes on where it was. A sweep that measures all it is
asked for decides one thing: whether rounds differ so much that it takes more (``enough_rounds``).
This is the only module of the profiler that uses the cost model.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean, median
from typing import Any

import numpy as np

from epochcast.costmodel import features as f
from epochcast.costmodel import summary
from epochcast.costmodel.cost import ConfigurationCost
from epochcast.costmodel.discrepancy import MIN_ROWS
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.learned import Variant
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.prediction import predict
from epochcast.costmodel.question import Question, choose_variant
from epochcast.costmodel.remarks import TOLERATED
from epochcast.costmodel.scatter import ASSUMED_DOF, Scatter, round_scatter
from epochcast.costmodel.tails import tails_of
from epochcast.errors import EpochcastError, PredictionError, UsageError
from epochcast.profiler.protocol import TrialSpec
from epochcast.profiler.request import (
    MAX_ROUNDS,
    SweepRequest,
    dry_runs,
    with_outer_timelines,
)
from epochcast.profiler.rounds import Rounds, SweepEnding, every_round, make_rounds
from epochcast.profiler.sweep import Sweep
from epochcast.profiler.too_large import has_room, least_bytes, leave_out_hopeless
from epochcast.records import Footprint, Measurement, Quantiles, RunConfig, Sizes
from epochcast.units import format_half_width

FIRST = 5  # configurations before the first fit: as many as a physical model has coefficients
MIN_ROUNDS = 2  # one round says nothing about how runs differ
DEFAULT_UNTIL = 0.05
LITTLE = 0.25  # an sd of so much of the wanted half-width takes 0.4 of it: more is not sharper
UNTRACEABLE = "DryRunError"  # the error of a workload that runs, but not without values
SPREAD = ("flops", "bytes_moved", "operators", "parameters", "batch_size")

Variables = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a chooser wants: a trial of a candidate, a fresh process, or to stop.

    Attributes:
        trial: position of a candidate.
        wait: choose again when a trial that is under way has ended.
        next_round: go on in a fresh process.
        stop: why to stop; empty to go on.
    """

    trial: int | None = None
    wait: bool = False
    next_round: bool = False
    stop: str = ""


@dataclass(frozen=True, kw_only=True)
class State:
    """What the measurements so far say about every candidate.

    Attributes:
        measured: candidate → rounds in which it succeeded.
        failed: candidates that ran out of memory, crashed or hung.
        out_of_memory: those of them that ran out of memory.
        seconds: candidate → median wall-clock time of a trial.
    """

    measured: Mapping[int, frozenset[int]]
    failed: frozenset[int]
    out_of_memory: frozenset[int]
    seconds: Mapping[int, float]

    def is_over(self, candidate: int, round_: int) -> bool:
        """Whether its trial of a round has ended, well or not."""
        return candidate in self.failed or round_ in self.measured.get(candidate, ())

    @property
    def taken(self) -> list[int]:
        """Candidates that need no first trial, in order of position."""
        return sorted({*self.measured, *self.failed})


class Chooser:
    """Chooses configurations for a question; see the module.

    Args:
        question: what will be asked of the model; None is every candidate alike.
        until: half the width of the answer's 90 % interval at which to stop, relative.
        seed: of the order of trials within a round.
    """

    def __init__(
        self, question: Question | None = None, until: float = DEFAULT_UNTIL, seed: int = 0
    ) -> None:
        self.question = question
        self.until = until
        self.seed = seed
        self.half_width: float | None = None
        self._candidates: Sequence[RunConfig] = ()
        self._footprints: Mapping[RunConfig, Footprint] = {}
        self._rows: list[dict[str, float]] = []

    def begin(
        self, candidates: Sequence[RunConfig], footprints: Mapping[RunConfig, Footprint]
    ) -> None:
        """What may be measured, and what dry runs counted of it."""
        self._candidates = candidates
        self._footprints = footprints
        self._rows = [f.variables(config, footprints.get(config)) for config in candidates]

    def next(
        self, measurements: Sequence[Measurement], round_: int, begun: Collection[int] = ()
    ) -> Choice:
        """What to do next in this round.

        Args:
            measurements: so far.
            round_: pass over the configurations.
            begun: candidates whose trials of this round have begun, and may be under way.
        """
        if any(m.round > round_ for m in measurements):  # over: no later process is part of it
            return Choice(next_round=True)
        state = self._state(measurements)
        under_way = {i for i in begun if not state.is_over(i, round_)}
        if len(under_way.union(state.measured)) < FIRST:
            more = spread(self._rows, 1, [*self._excluding(state), *under_way])
            if more:
                return Choice(trial=more[0])
        again = [i for i in state.measured if i not in under_way and not state.is_over(i, round_)]
        if again:
            return Choice(trial=random.Random(f"{self.seed}/{round_}/{len(again)}").choice(again))
        if under_way:
            return Choice(wait=True)
        if not state.measured:
            return Choice(stop="nothing-succeeded")
        return self._after_round(measurements, state, round_)

    def _after_round(
        self, measurements: Sequence[Measurement], state: State, round_: int
    ) -> Choice:
        model = fit(measurements, self._footprints)
        self.half_width = self._half_width(model)
        if round_ + 1 >= MIN_ROUNDS and self.half_width <= self.until:
            return Choice(stop="sharp")
        variant, table = self._seen_through(model)
        asked, learned = self._asked(), variant.micro_step.learned_sds(table)
        if float(np.mean(learned[asked])) > max(variant.run.sd, LITTLE * self.until):
            best = sharpest(self._rows, self._excluding(state), learned, asked, self._costs(state))
            if best is not None:
                return Choice(trial=best)
        if round_ + 1 >= MAX_ROUNDS:
            return Choice(stop="max-rounds")
        return Choice(next_round=True)

    # -- what is known ------------------------------------------------------------------------

    def _state(self, measurements: Sequence[Measurement]) -> State:
        position = {(c.batch_size, c.sizes): i for i, c in enumerate(self._candidates)}
        measured: dict[int, frozenset[int]] = {}
        failed: set[int] = set()
        out_of_memory: set[int] = set()
        seconds: dict[int, list[float]] = {}
        for m in measurements:
            index = position.get((m.config.batch_size, m.config.sizes))
            if index is None:
                continue
            seconds.setdefault(index, []).append(m.probe_seconds)
            if m.status == "ok":
                measured[index] = measured.get(index, frozenset()) | {m.round}
            else:
                failed.add(index)
                out_of_memory |= {index} if m.status == "oom" else set()
        return State(
            measured={i: rounds for i, rounds in measured.items() if i not in failed},
            failed=frozenset(failed),
            out_of_memory=frozenset(out_of_memory),
            seconds={i: median(values) for i, values in seconds.items()},
        )

    def _excluding(self, state: State) -> list[int]:
        """Not to be chosen: what was measured, and what is no smaller than what did not fit."""
        peaks = [row.get("peak_bytes", 0.0) for row in self._rows]
        enough = min((peaks[i] for i in state.out_of_memory if peaks[i]), default=float("inf"))
        return state.taken + [
            i for i, peak in enumerate(peaks) if peak >= enough and i not in set(state.taken)
        ]

    def _costs(self, state: State) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Seconds of a trial of each candidate: as measured, else as the others take."""
        usual = fmean(state.seconds.values())
        return np.array([state.seconds.get(i, usual) for i in range(len(self._rows))])

    # -- what is asked ------------------------------------------------------------------------

    def _asked(self) -> list[int]:
        """Positions of the candidates that the question is about."""
        everything = list(range(len(self._candidates)))
        if self.question is None:
            return everything
        wanted = dict(self.question.sizes)
        some = [
            i
            for i, c in enumerate(self._candidates)
            if self.question.batch_size in (None, c.batch_size)
            and all(dict(c.sizes).get(name) == value for name, value in wanted.items())
        ]
        return some or everything

    def _half_width(self, model: CostModel) -> float:
        """Of the 90 % interval of the answer, relative to its median."""
        if self.question is not None:
            return _relative_half_width(predict(model, self.question).total_seconds)
        variant = model.variants[0]
        return fmean(
            _relative_half_width(at.step_seconds())
            for config in self._candidates
            for at in (ConfigurationCost(model, variant, config, self._footprints.get(config)),)
        )

    def _seen_through(self, model: CostModel) -> tuple[Variant, f.VariableTable]:
        """The variant that answers the question, and the variables of every candidate."""
        variant = choose_variant(model, self.question or Question(epochs=1))
        costs = (
            ConfigurationCost(model, variant, c, self._footprints.get(c)) for c in self._candidates
        )
        return variant, f.tabulate([at.variables for at in costs])


def chooser_for(request: SweepRequest) -> Chooser:
    """The chooser of a request that leaves the choice to the sweep.

    Raises:
        PredictionError: the question makes no sense.
    """
    until = DEFAULT_UNTIL if request.until is None else request.until
    return Chooser(_question(request), until, request.seed)


def _question(request: SweepRequest) -> Question | None:
    if not request.asked:
        return None
    asked: dict[str, Any] = dict(request.asked)
    counted = {name: asked.pop(name) for name in ("epochs", "steps") if name in asked}
    if len(counted) == 2:
        raise UsageError("--for takes epochs or steps, and not both")
    try:
        return Question(
            batch_size=asked.pop("batch_size", None), sizes=asked, **(counted or {"epochs": 1})
        )
    except PredictionError as error:
        raise PredictionError(f"--for {error}") from error


def _relative_half_width(q: Quantiles) -> float:
    return exp(log(q.p95 / q.p05) / 2) - 1.0 if q.p05 > 0 else float("inf")


# -- the choices, carried out ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration that may be measured, and what a dry run counted of it."""

    spec: TrialSpec
    config: RunConfig
    footprint: Footprint | None = None


def chosen_rounds(sweep: Sweep, chooser: Chooser) -> SweepEnding:
    """Measure what the chooser wants, round after round."""
    candidates = find_candidates(sweep)
    sweep.begin(None, sum(m.status == "ok" for m in sweep.stored()))
    chooser.begin([c.config for c in candidates], _remember(sweep, candidates))
    specs = [c.spec for c in candidates]
    round_, stop = 0, ""
    while not stop:
        choice = _trials(sweep, chooser, specs, round_)
        stop, round_ = choice.stop, round_ + choice.next_round
    return SweepEnding(stop, chooser.half_width)


def _trials(sweep: Sweep, chooser: Chooser, specs: Sequence[TrialSpec], round_: int) -> Choice:
    """Trials of one round, until another is needed; the choice that ended them."""
    choice, begun = Choice(), set[int]()

    def chosen() -> Iterator[TrialSpec | None]:
        nonlocal choice
        while True:
            choice = chooser.next(sweep.stored(specs), round_, begun)
            if choice.trial is not None:
                begun.add(choice.trial)
                yield specs[choice.trial]
            elif choice.wait:
                yield None
            else:
                return

    return choice if sweep.make_trials(chosen(), round_) else Choice(stop="max-seconds")


def find_candidates(sweep: Sweep) -> list[Candidate]:
    """The configurations to choose among, counted by dry runs: none that the workload cannot
    be built in, none whose tensors alone are more than the device has."""
    counted, problems, untraceable = _count(sweep)
    if untraceable or not counted:
        why = untraceable or next(iter(problems.values()), "")
        sweep.note("no-footprints", why=why)
    if not counted:
        return [_uncounted(sweep, spec) for spec in sweep.prepared.specs]
    for sizes, why in problems.items():
        named = " ".join(f"{name}={value}" for name, value in sizes)
        sweep.note("no-such-size", sizes=named, why=why)
    fitting = [c for c in counted if _fits(sweep, c)]
    if len(fitting) < len(counted):
        sweep.note("too-large", count=str(len(counted) - len(fitting)))
    return fitting


def _count(sweep: Sweep) -> tuple[list[Candidate], dict[Sizes, str], str]:
    """Dry runs of all configurations.

    Returns:
        The candidates, those that cannot be traced without a footprint; why some sizes cannot be
        built; and why some cannot be traced.
    """
    found: list[Candidate] = []
    problems: dict[Sizes, str] = {}
    untraceable = ""
    timeout = sweep.request.timeout_seconds
    with sweep.workers.start("dry-run") as worker:
        for specs, reply in dry_runs(worker, sweep.prepared.specs, timeout, timeline=True):
            if reply.problem and reply.error == UNTRACEABLE:
                untraceable = reply.problem
                found += [_uncounted(sweep, spec) for spec in specs]
            elif reply.problem:
                problems[specs[0].sizes] = reply.problem
            by_batch = {spec.batch_size: spec for spec in specs}
            found += [
                Candidate(
                    spec=by_batch[c.config.batch_size], config=c.config, footprint=c.footprint
                )
                for c in reply.counted
            ]
    return found, problems, untraceable


def _uncounted(sweep: Sweep, spec: TrialSpec) -> Candidate:
    return Candidate(spec=spec, config=sweep.prepared.config(spec))


def _fits(sweep: Sweep, candidate: Candidate) -> bool:
    """Whether a candidate may fit. The CPU's operators keep more than a GPU's: where they do not
    fit, its own are followed, and what fits with a probability of a twentieth is tried."""
    footprint, device = candidate.footprint, sweep.prepared.device
    if footprint is None or not device.memory_bytes:
        return True
    if has_room(footprint, device):
        return True
    if device.kind != "cuda":
        return footprint.peak_bytes < device.memory_bytes
    batch_size = candidate.config.batch_size
    try:
        return least_bytes(sweep.workers, candidate.spec, batch_size, device) < device.memory_bytes
    except EpochcastError:
        return False


def _remember(sweep: Sweep, candidates: Sequence[Candidate]) -> dict[RunConfig, Footprint]:
    """Keep what was counted, so that predictions know it too."""
    prepared = sweep.prepared
    counted = {c.config: c.footprint for c in candidates if c.footprint is not None}
    footprints = with_outer_timelines(counted)
    sweep.store.add_footprints(
        sweep.request.target, prepared.source, footprints, prepared.checked.data
    )
    return footprints


# -- how many rounds ------------------------------------------------------------------------------


def rounds_that_fit(sweep: Sweep) -> SweepEnding:
    """The same without what will surely not fit a GPU."""
    leave_out_hopeless(sweep)
    if not sweep.specs and not sweep.stored():
        return SweepEnding("nothing-succeeded")
    return enough_rounds(sweep)


def enough_rounds(sweep: Rounds[Any]) -> SweepEnding:
    """The rounds asked for; where no number was, more as long as they differ too much.

    A number that was asked for is kept to, and how much rounds differ is told.
    """
    ending, request = every_round(sweep), sweep.asked
    if ending.why != "complete":
        return ending
    rounds, width = request.first_rounds, later_run_half_width(sweep.stored())
    if width is not None and width > TOLERATED and request.rounds is None:
        sweep.note("more-rounds", **_told(rounds, width), limit=str(MAX_ROUNDS))
    while width is not None and width > TOLERATED:
        if request.rounds is not None or rounds >= MAX_ROUNDS:
            code = "one-round-strays" if rounds == 1 else "rounds-differ"
            sweep.note(code, **_told(rounds, width))
            return SweepEnding("complete" if request.rounds is not None else "max-rounds", width)
        if make_rounds(sweep, range(rounds, rounds + 1)).why != "complete":
            return SweepEnding("max-seconds", width)
        rounds, width = rounds + 1, later_run_half_width(sweep.stored())
    return SweepEnding("complete", width)


def _told(rounds: int, width: float) -> dict[str, str]:
    return {"rounds": str(rounds), "width": format_half_width(width)}


def later_run_half_width(measurements: Sequence[Measurement]) -> float | None:
    """Half the relative width of the 90 % interval of a later run's steps, by how rounds differ.

    After a single round by how far its configurations stray from the forms that are fitted to
    them; None where these are too few to tell.
    """
    good = [m for m in measurements if m.status == "ok"]
    if not good:
        return None
    slow = tails_of(good, summary.step_series)
    groups = summary.group_by_config(good)
    logs = summary.round_logs(groups, lambda m: summary.step_seconds(m, slow))
    if found := round_scatter(logs):
        run = found.of_a_later_run()
    elif len(logs) < MIN_ROWS:
        return None
    else:
        strays = fit(good).variants[0].micro_step.left_out_rmse
        run = Scatter(sd=strays, dof=ASSUMED_DOF)
    return _relative_half_width(run.quantiles(1.0))


# -- where in feature space ------------------------------------------------------------------------


def spread(candidates: Sequence[Variables], count: int, taken: Sequence[int] = ()) -> list[int]:
    """Positions of ``count`` candidates that lie far from each other and from those taken.

    Args:
        candidates: variables of each, with counts where they are known.
        count: how many more to choose; fewer if there are not as many different ones.
        taken: positions chosen before.
    """
    if not candidates:
        return []
    points = feature_space(candidates)
    chosen = list(taken) or [_furthest_from_centre(points)]
    target = min(len(taken) + count, len(candidates))
    while len(chosen) < target:
        distance = np.min([_distances(points, points[i]) for i in chosen], axis=0)
        furthest = int(distance.argmax())
        if distance[furthest] == 0:
            break
        chosen.append(furthest)
    return chosen[len(taken) :]


def feature_space(candidates: Sequence[Variables]) -> f.Array:
    """Candidates as points, (n, d); what does not vary or was not counted everywhere is left out.

    Without counts the knobs themselves are the features.
    """
    table = {k: v for k, v in f.tabulate(candidates).items() if np.ptp(v) > 0 and (v > 0).all()}
    counted = [name for name in SPREAD if name in table]
    if "flops" not in counted:
        counted = [n for n in table if n == "batch_size" or n.startswith(f.KNOB_PREFIX)]
    if not counted:
        return np.zeros((len(candidates), 1))
    logs = np.log2(np.stack([table[name] for name in counted], axis=1))
    return np.asarray((logs - logs.mean(axis=0)) / logs.std(axis=0))


def _furthest_from_centre(points: f.Array) -> int:
    return int(_distances(points, points.mean(axis=0)).argmax())


def _distances(points: f.Array, point: f.Array) -> f.Array:
    return np.asarray(np.sqrt(((points - point) ** 2).sum(axis=1)))


def sharpest(
    candidates: Sequence[Variables],
    taken: Sequence[int],
    sd_logs: f.Array,
    asked: Sequence[int],
    seconds: f.Array,
) -> int | None:
    """The candidate whose measurement would lower the variance of what is asked most per second.

    Measuring c lowers the variance at q by the share that the two have in common, and by no more
    than c is still unknown:

        gain(c) = (1 − max_t k(c, t)²) · Σ_q sd(q)² k(q, c)²        t taken, q asked

    (Cohn 1996, "Neural network exploration using optimal experiment design", with correlations k
    that fall off over one standard deviation of the candidates in feature space.)

    Args:
        candidates: the variables of each of the n configurations, by name.
        taken: positions of those that are not to be measured again.
        sd_logs: of the prediction at every candidate, as far as measuring others lowers it, (n,).
        asked: positions of the configurations that the question is about.
        seconds: that measuring each candidate takes, (n,).

    Returns:
        A position; None where every candidate is taken.
    """
    left = [i for i in range(len(candidates)) if i not in set(taken)]
    if not left:
        return None
    points = feature_space(candidates)
    common = np.stack([np.exp(-(_distances(points, points[i]) ** 2)) for i in left])
    known = common[:, list(taken)].max(axis=1, initial=0.0)
    gain = (1.0 - known) * (common[:, list(asked)] @ (sd_logs[list(asked)] ** 2))
    return left[int((gain / seconds[left]).argmax())]
