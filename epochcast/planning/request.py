"""What to plan: everything that is neither the cost model nor the budget.

    optimizer="adamw"      ▶  "adaptive"          batch_sizes=256      ▶  (256,)
    evaluate="rungs"       ▶  Rungs()             devices=[2, 2, 4]    ▶  (2, 4)
    objective="money"      ▶  Cheapest()          rules=Patience(…)    ▶  (Patience(…),)

``ec.plan`` and the command line give names, single values or lists; ``request_from`` reads them
into a ``PlanRequest``, which refuses what makes no sense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Literal, Protocol, get_args

from epochcast.errors import UsageError
from epochcast.planning.batch import OPTIMIZERS, OptimizerKind
from epochcast.planning.cadence import Cadence, Rungs
from epochcast.planning.direction import mode_of
from epochcast.planning.stopping import RULES, Futility, Patience, Rule
from epochcast.records import CountUnit, LearningCurve, Mode, Option, Power, SizeValue
from epochcast.records.plan import MAX_RATE
from epochcast.records.validation import LARGEST_FLOAT, is_integer, is_number, plain, shown
from epochcast.units import LONGEST_SECONDS

LONGEST = 1_000_000  # epochs of a run, and moments of one: what is made of a plan looks at each
MAX_SEARCHED_EPOCHS = 100_000  # where the search ends, unless more epochs are asked for
LONGEST_STEPS = 1_000_000_000  # of a run that is counted in steps, and where their search ends
FIRST_RUNG = 100  # steps, of a plan of steps: the rungs of one of epochs begin at 1
SHORTEST_MTBF = 1e-3  # seconds: with a failure every millisecond not one step gets done

# -- objectives -----------------------------------------------------------------------------------


class Objective(Protocol):
    """What makes one option better than another."""

    @property
    def name(self) -> str:
        """For people and the plan."""
        ...

    def key(self, option: Option) -> tuple[float, ...]:
        """Smaller is better."""
        ...


def progress(option: Option) -> float:
    """How much of the maximum or target an option reaches; without either, epochs' progress."""
    if option.max_epochs is not None:
        return option.epochs / option.max_epochs
    return option.epochs * (option.efficiency or 1.0)


@dataclass(frozen=True, slots=True)
class Fastest:
    """Most progress, then the least time at P90."""

    name: str = "time"

    def key(self, option: Option) -> tuple[float, ...]:
        return (-progress(option), option.seconds.p90)


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Most progress, then the least money at P90; without a price, the least device time."""

    name: str = "money"

    def key(self, option: Option) -> tuple[float, ...]:
        cost = option.seconds.scaled(option.config.world_size)
        return (-progress(option), (option.money or cost).p90)


@dataclass(frozen=True, slots=True)
class Smallest:
    """Most progress, then the least device memory at P90."""

    name: str = "memory"

    def key(self, option: Option) -> tuple[float, ...]:
        memory = option.device_bytes.p90 if option.device_bytes else 0.0
        return (-progress(option), memory, option.seconds.p90)


_ALL: tuple[Objective, ...] = (Fastest(), Cheapest(), Smallest())
OBJECTIVES: Mapping[str, Objective] = {objective.name: objective for objective in _ALL}

# -- the request ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which numbers a setting may be; more is a slip of the pen, or beyond 64 bits."""

    highest: float = inf
    whole: bool = True
    positive: bool = True
    words: tuple[str, ...] = ()


SETTINGS: Mapping[str, Bounds] = {
    "epochs": Bounds(LONGEST),
    "min_epochs": Bounds(LONGEST),
    "max_epochs": Bounds(LONGEST),
    "batch_sizes": Bounds(10**9, words=("free",)),
    "micro_batch": Bounds(10**9),
    "devices": Bounds(10**6),
    "devices_per_node": Bounds(10**6),
    "bandwidth": Bounds(whole=False),
    "samples": Bounds(10**15),
    "folds": Bounds(),
    "workers": Bounds(positive=False),
    "evaluate": Bounds(10**9, positive=False, words=("auto", "rungs")),
    "save": Bounds(10**9, positive=False, words=("auto",)),
    "keep": Bounds(10**9, positive=False),
    "mtbf_seconds": Bounds(whole=False, positive=False),
    "restart_seconds": Bounds(whole=False, positive=False),
    "spot_price_per_hour": Bounds(MAX_RATE, whole=False, positive=False),
    "spot_mtbf_seconds": Bounds(whole=False),
    "min_delta": Bounds(whole=False, positive=False),
    "noise_scale": Bounds(whole=False),
    "reference_batch": Bounds(10**9),
    "seed": Bounds(2**63 - 1, positive=False),
}


IN_STEPS = {"epochs": "steps", "min_epochs": "min_steps"}  # by the names that people gave
MOST = "max"  # steps: as many as the limits allow


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A question to the planner: the arguments of ``ec.plan`` by the same names, read.

    None means: as probed last, or whatever the budget allows.

    Attributes:
        unit: what ``epochs``, ``min_epochs``, ``max_epochs`` and the cadences count; ``ec.plan``
            has names of their own for steps.

    Raises:
        UsageError: a value that makes no sense, or values that contradict each other.
    """

    unit: CountUnit = "epoch"
    epochs: int | None = None
    min_epochs: int | None = None
    max_epochs: int | None = None
    batch_sizes: tuple[int, ...] | Literal["free"] = ()
    micro_batch: int | None = None
    devices: tuple[int, ...] = ()
    devices_per_node: int | None = None
    bandwidth: float | None = None
    samples: int | None = None
    folds: int = 1
    sizes: Mapping[str, SizeValue] = field(default_factory=dict)
    precision: str | None = None
    workers: int | None = None
    evaluate: int | Literal["auto"] | Cadence | None = None
    save: int | Literal["auto"] | Cadence | None = None
    keep: int = 2
    mtbf_seconds: float | None = None
    restart_seconds: float | None = None
    spot_price_per_hour: float | None = None
    spot_mtbf_seconds: float | None = None
    rules: tuple[Rule, ...] = ()
    curves: tuple[LearningCurve, ...] = ()
    metric: str = "val_loss"
    mode: Mode | None = None
    min_delta: float = 0.0
    noise_scale: float | None = None
    reference_batch: int | None = None
    optimizer: OptimizerKind | None = None
    objective: Objective = Fastest()
    powers: tuple[Power, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, bounds in SETTINGS.items():
            self._require_numbers(name, bounds)
        self._require_kinds()
        self._require_durations()
        self._require_rules()
        self._require_sizes()
        self._require_used()
        if self.batch_sizes == "free" and self.noise_scale is None:
            raise UsageError(
                "a free batch size needs the gradient noise scale, to weigh larger batches against "
                "more steps: give --noise-scale, or measure it: epochcast probe --noise-scale"
            )
        if self.unit == "step":
            self._require_one_batch()
        if self.epochs_limit is not None and (self.min_epochs or 1) > self.epochs_limit:
            raise UsageError(
                f"min_{self.unit}s must not be above the target or maximum of {self.epochs_limit}, "
                f"but got {self.min_epochs}"
            )

    def _require_numbers(self, name: str, bounds: Bounds) -> None:
        """Refuse what is no number where one is meant, and numbers out of range."""
        asked = getattr(self, name)
        optional = next(f.default is None for f in fields(self) if f.name == name)
        if self.unit == "step" and name in IN_STEPS:
            name, bounds = IN_STEPS[name], Bounds(LONGEST_STEPS)
        if (asked is None and optional) or hasattr(asked, "epochs"):  # a cadence
            return
        for value in asked if isinstance(asked, tuple) else (asked,):
            _require_number(name, value, bounds)

    def _require_one_batch(self) -> None:
        """Refuse to choose among batch sizes: a step of another one is another step."""
        if self.batch_sizes == "free" or len(self.batch_sizes) > 1 or self.noise_scale is not None:
            raise UsageError(
                "a number of steps is of one batch size: give one --batch-size and no "
                "--noise-scale, or epochs instead of steps"
            )

    def _require_kinds(self) -> None:
        """Refuse words and objects of other kinds."""
        for name, optional in (("metric", False), ("precision", True)):
            value = getattr(self, name)
            if not isinstance(value, str) and not (optional and value is None):
                raise UsageError(f"{name} must be a name, but got {shown(value)}")
        if self.mode not in (None, *get_args(Mode)):
            raise UsageError(f"mode must be min or max, but got {shown(self.mode)}")
        if self.mode is None:
            mode_of(self.metric)  # rules, forecasts and the best checkpoint hang on it
        if self.optimizer not in (None, *get_args(OptimizerKind)):
            raise UsageError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, but got {shown(self.optimizer)}"
            )
        if not hasattr(self.objective, "key"):
            raise UsageError(
                f"objective must be one of {', '.join(OBJECTIVES)}, but got {shown(self.objective)}"
            )
        for power in self.powers:
            if not isinstance(power, Power):
                raise UsageError(
                    f"powers are as of ec.measured_power(…).powers, but got {shown(power)}"
                )
        for curve in self.curves:
            if not isinstance(curve, LearningCurve):
                raise UsageError(
                    f"curves are LearningCurves, as of ec.read_curve, but got {shown(curve)}"
                )

    def _require_durations(self) -> None:
        restart, mtbf = self.restart_seconds, self.mtbf_seconds
        spot = self.spot_mtbf_seconds
        if (self.spot_price_per_hour is None) != (spot is None):
            raise UsageError(
                "devices that may be taken away have a price and are interrupted: give both "
                "spot_price_per_hour and spot_mtbf_seconds"
            )
        if spot is not None and not SHORTEST_MTBF <= spot <= LONGEST_SECONDS:
            raise UsageError(
                "spot_mtbf_seconds, the mean time between interruptions, must lie between 1 ms and "
                f"3,000 years, but got {shown(spot)}"
            )
        if (restart or 0.0) > LONGEST_SECONDS:
            raise UsageError(
                f"restart_seconds must be at most 3,000 years, but got {restart:g} seconds"
            )
        if mtbf is not None and not SHORTEST_MTBF <= mtbf <= LONGEST_SECONDS:
            raise UsageError(
                "mtbf_seconds, the mean time between failures, must lie between 1 ms and 3,000 "
                f"years, but got {shown(mtbf)}; leave it out for a run that never fails"
            )
        if restart is not None and mtbf is None and self.spot_mtbf_seconds is None:
            raise UsageError(
                "a restart comes after a failure, and none is expected: give mtbf_seconds too"
            )

    def _require_rules(self) -> None:
        for rule in self.rules:
            if type(rule) not in RULES.values():
                raise UsageError(
                    f"a plan is stored as data, and knows the rules {', '.join(RULES)} of "
                    f"epochcast.planning.stopping, but got {shown(rule)}; one of your own can be "
                    "tried with ec.stopping_epoch"
                )
            if (mode := getattr(rule, "mode", self.better)) != self.better:
                raise UsageError(
                    f"a rule takes the {mode} of {self.metric} as best, and the plan its "
                    f"{self.better}: give both the same mode"
                )

    def _require_sizes(self) -> None:
        if not isinstance(self.sizes, Mapping):
            raise UsageError(
                f"sizes are values by name, like {{'width': 512}}, but got {shown(self.sizes)}"
            )
        for name, value in self.sizes.items():
            if not isinstance(value, SizeValue):
                raise UsageError(f"a plan is for one value of {name}, but got {shown(value)}")

    def _require_used(self) -> None:
        """Refuse an improvement that nothing waits for."""
        deltas = {r.kind: r.min_delta for r in self.rules if isinstance(r, Patience | Futility)}
        if not self.min_delta or self.curves or self.min_delta in deltas.values():
            return
        if deltas:
            kind, delta = next(iter(deltas.items()))
            raise UsageError(
                f"the plan's min_delta is {self.min_delta:g}, but the rule {kind} waits for its "
                f"own, {delta:g}: give it to the rule, like Patience(checks=5, min_delta=…)"
            )
        raise UsageError(
            "min_delta is the improvement that patience and futility wait for, or that a "
            "learning curve promises, and none of them is given: add --stop patience=5 or "
            "--curve; in Python, Patience(checks=5, min_delta=…)"
        )

    @property
    def better(self) -> Mode:
        """Which metric is, a smaller or a larger one."""
        return self.mode or mode_of(self.metric)

    @property
    def epochs_limit(self) -> int | None:
        """The end of a run that no limit ends sooner, at the reference batch."""
        return self.max_epochs or self.epochs

    @property
    def searched(self) -> int:
        """Where the search ends, unless more are asked for."""
        return LONGEST_STEPS if self.unit == "step" else MAX_SEARCHED_EPOCHS


def _require_number(name: str, value: Any, bounds: Bounds) -> None:
    if isinstance(value, str) and value in bounds.words:
        return
    if bounds.whole and not is_integer(value):
        words = "".join(f" or {word!r}" for word in bounds.words)
        raise UsageError(f"{name} must be a whole number{words}, but got {shown(value)}")
    if not is_number(value):
        raise UsageError(f"{name} must be a number, but got {shown(value)}")
    if value < 0 or (bounds.positive and value == 0):
        sign = "be positive" if bounds.positive else "not be negative"
        raise UsageError(f"{name} must {sign}, but got {shown(value)}")
    if not (bounds.whole or value < inf):  # NaN is not either
        raise UsageError(f"{name} must be finite, but got {shown(value)}")
    if value > bounds.highest:
        raise UsageError(f"{name} must be at most {bounds.highest:,}, but got {shown(value)}")
    if not bounds.whole and value > LARGEST_FLOAT:
        raise UsageError(f"{name} must be at most {LARGEST_FLOAT:.2g}, but got {shown(value)}")


# -- as people say it -----------------------------------------------------------------------------


def request_from(**given: Any) -> PlanRequest:
    """The request that values mean which may be names, single values, lists or NumPy's numbers.

    Args:
        **given: the fields of ``PlanRequest``; ``steps`` and ``min_steps`` instead of epochs.

    Raises:
        UsageError: a value that makes no sense.
    """
    found = {name: READERS.get(name, plain)(given[name]) for name in given}
    return PlanRequest(**_in_one_unit(found))


def _in_one_unit(given: dict[str, Any]) -> dict[str, Any]:
    """Steps as what a plan of steps counts."""
    steps, fewest = given.pop("steps", None), given.pop("min_steps", None)
    evaluate = given.get("evaluate")
    if steps is None and fewest is None:
        return given
    both = [name for name in ("epochs", "min_epochs", "max_epochs") if given.get(name) is not None]
    if both:
        raise UsageError(f"{both[0]} must be left out where a plan counts steps")
    if isinstance(steps, str) and steps != MOST:
        raise UsageError(f"steps must be a whole number or {MOST!r}, but got {shown(steps)}")
    rungs = isinstance(evaluate, Rungs) and evaluate == Rungs()
    return given | {
        "unit": "step",
        "epochs": None if steps == MOST else steps,
        "min_epochs": fewest,
        "evaluate": Rungs(FIRST_RUNG) if rungs else evaluate,
    }


def _named(what: str, known: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Reads one of some names; what is no name stays as it is."""

    def read(asked: Any) -> Any:
        if isinstance(asked, str) and asked in known:
            return known[asked]
        if isinstance(asked, str):
            raise UsageError(f"{what} must be one of {', '.join(known)}, but got {shown(asked)}")
        return asked

    return read


def _evaluate(asked: Any) -> Any:
    return Rungs() if isinstance(asked, str) and asked == "rungs" else plain(asked)


def _several(asked: Any) -> Any:
    """One value is a tuple of one; None is none."""
    if asked is None:
        return ()
    if not isinstance(asked, str):
        with suppress(TypeError):  # no list, or a numpy array without a dimension
            return tuple(asked)
    return (asked,)


def _different(asked: Any) -> Any:
    """Each once; a word stays one."""
    if isinstance(asked, str):
        return asked
    values = tuple(map(plain, _several(asked)))
    with suppress(TypeError):  # lists in a list: for the request to refuse
        return tuple(dict.fromkeys(values))
    return values


def _sizes(asked: Any) -> Any:
    if not isinstance(asked, Mapping):
        return {} if asked is None else asked
    return {name: plain(value) for name, value in asked.items()}


READERS: Mapping[str, Callable[[Any], Any]] = {
    "optimizer": _named("optimizer", OPTIMIZERS),
    "objective": _named("objective", OBJECTIVES),
    "evaluate": _evaluate,
    "sizes": _sizes,
    "batch_sizes": _different,
    "devices": _different,
    "rules": _several,
    "curves": _several,
    "powers": _several,
}
