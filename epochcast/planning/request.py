"""What to plan: everything that is neither the cost model nor the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol, get_args

from epochcast.errors import UsageError
from epochcast.planning.cadence import Cadence
from epochcast.planning.metrics import mode_of
from epochcast.planning.optimizers import OptimizerKind
from epochcast.planning.settings import (
    numbers,
    require_at_most,
    require_not_negative,
    require_number,
    require_positive,
    require_whole,
)
from epochcast.planning.stopping import RULES, Futility, Patience, Rule
from epochcast.records import LearningCurve, Mode, Option, SizeValue
from epochcast.records.validation import shown
from epochcast.units import LONGEST_SECONDS

LONGEST = 1_000_000  # epochs of a run: a plan lists what happens after each
MOST = {  # more is a slip of the pen: a plan of gigabytes, a number beyond 64 bits
    "epochs": LONGEST,
    "min_epochs": LONGEST,
    "max_epochs": LONGEST,
    "samples": 10**15,
    "batch_sizes": 10**9,
    "micro_batch": 10**9,
    "reference_batch": 10**9,
    "devices": 10**6,
    "keep": 10**9,
    "evaluate": 10**9,
    "save": 10**9,
    "seed": 2**63 - 1,
}
SHORTEST_MTBF = 1e-3  # seconds: with a failure every millisecond not one step gets done
WHOLE = (
    "epochs", "min_epochs", "max_epochs", "micro_batch", "samples", "folds", "workers", "keep",
    "reference_batch", "seed",
)  # fmt: skip
NUMBERS = ("bandwidth", "mtbf_seconds", "restart_seconds", "min_delta", "noise_scale")


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
    if option.most_epochs is not None:
        return option.epochs / option.most_epochs
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A question to the planner. None means: as probed last, or whatever the budget allows.

    Attributes:
        epochs: wanted at the reference batch; the run ends there, whatever limits leave.
        min_epochs: fewer are not worth running: the plan then does not fit. At the reference
            batch, as ``epochs``; default: one of whatever batch is run.
        max_epochs: never more; default: ``epochs``. Above it, what limits leave beyond the target
            is spent on more epochs, up to here.
        batch_sizes: samples of one optimizer step, one or several to choose from; ``"free"`` for
            whatever makes most progress per second.
        micro_batch: samples of one forward pass on one device; default: any that divides.
        devices: that share the work, one number or several to choose from.
        bandwidth: bytes per second between devices, for averaging gradients.
        samples: training samples per epoch.
        folds: of cross-validation; multiplies the run.
        sizes, precision, workers: select what was probed, as in a prediction.
        evaluate: epochs between evaluations, 0 for never, ``"auto"`` for what stopping early pays
            for, or a cadence.
        save: epochs between checkpoints, 0 for none, ``"auto"`` for what failures and the cost of
            saving ask for, or a cadence.
        keep: checkpoints kept on disk; 0 keeps all.
        mtbf_seconds: mean time between failures or interruptions; None for never.
        restart_seconds: from a failure until training goes on; default: the start-up.
        rules: for stopping early.
        curves: of a pilot or of earlier runs.
        metric: that ``rules`` watch and ``curves`` show.
        mode: whether a smaller or a larger metric is better; None for what its name tells.
        min_delta: improvement that counts.
        noise_scale: of the gradient, in samples.
        reference_batch: at which ``epochs`` and the learning rate are known.
        optimizer: decides how the learning rate follows the batch.
        objective: what to prefer among options with equal progress.
        seed: of the draws.
    """

    epochs: int | None = None
    min_epochs: int | None = None
    max_epochs: int | None = None
    batch_sizes: tuple[int, ...] | Literal["free"] = ()
    micro_batch: int | None = None
    devices: tuple[int, ...] = ()
    bandwidth: float | None = None
    samples: int | None = None
    folds: int = 1
    sizes: Mapping[str, SizeValue] = field(default_factory=dict)
    precision: str | None = None
    workers: int | None = None
    evaluate: int | Literal["auto"] | Cadence = 1
    save: int | Literal["auto"] | Cadence = "auto"
    keep: int = 2
    mtbf_seconds: float | None = None
    restart_seconds: float | None = None
    rules: tuple[Rule, ...] = ()
    curves: tuple[LearningCurve, ...] = ()
    metric: str = "val_loss"
    mode: Mode | None = None
    min_delta: float = 0.0
    noise_scale: float | None = None
    reference_batch: int | None = None
    optimizer: OptimizerKind | None = None
    objective: Objective = Fastest()
    seed: int = 0

    def __post_init__(self) -> None:
        self._require_kinds()
        for name in ("epochs", "max_epochs", "micro_batch", "samples", "reference_batch"):
            require_positive(name, getattr(self, name))
        for name in ("bandwidth", "min_epochs", "folds", "noise_scale"):
            require_positive(name, getattr(self, name))
        for name, most in MOST.items():
            for value in numbers(getattr(self, name)):
                require_at_most(name, value, most)
        for name in ("keep", "evaluate", "save", "restart_seconds"):
            for value in numbers(getattr(self, name)):
                require_not_negative(name, value)
        require_not_negative("seed", self.seed)
        if (self.restart_seconds or 0.0) > LONGEST_SECONDS:
            raise UsageError(
                f"restart_seconds must be at most 3,000 years, but got {self.restart_seconds:g} "
                "seconds"
            )
        if not 0 <= self.min_delta < float("inf"):
            raise UsageError(f"min_delta must be finite and >= 0, but got {self.min_delta}")
        for name in ("batch_sizes", "devices"):
            for value in numbers(getattr(self, name)):
                require_positive(name, value)
        self._require_used()
        mtbf = self.mtbf_seconds
        if mtbf is not None and not SHORTEST_MTBF <= mtbf <= LONGEST_SECONDS:
            raise UsageError(
                "mtbf_seconds, the mean time between failures, must lie between 1 ms and 3,000 "
                f"years, but got {shown(mtbf)}; leave it out for a run that never fails"
            )
        for rule in self.rules:
            if (mode := getattr(rule, "mode", self.better)) != self.better:
                raise UsageError(
                    f"a rule takes the {mode} of {self.metric} as best, and the plan its "
                    f"{self.better}: give both the same mode"
                )
        if self.batch_sizes == "free" and self.noise_scale is None:
            raise UsageError(
                "a free batch size needs the gradient noise scale, to weigh larger batches against "
                "more steps: give --noise-scale, or measure it: epochcast probe --noise-scale"
            )
        if self.most_epochs is not None and (self.min_epochs or 1) > self.most_epochs:
            raise UsageError(
                f"min_epochs must not be above the target or maximum of {self.most_epochs}, "
                f"but got {self.min_epochs}"
            )

    def _require_kinds(self) -> None:
        """Refuse what is no number where one is meant, and words and objects of other kinds."""
        unset = {
            f.name for f in fields(self) if f.default is None and getattr(self, f.name) is None
        }
        for name in (name for name in WHOLE if name not in unset):
            require_whole(name, getattr(self, name))
        for name in (name for name in NUMBERS if name not in unset):
            require_number(name, getattr(self, name))
        for name, word in (("batch_sizes", "free"), ("devices", "")):
            asked = getattr(self, name)
            for value in (asked,) if isinstance(asked, str) else asked:
                require_whole(name, value, word)
        for name, words in (("evaluate", ("auto", "rungs")), ("save", ("auto",))):
            if not hasattr(getattr(self, name), "epochs"):
                require_whole(name, getattr(self, name), *words)
        for name in ("metric", "precision"):
            if name not in unset and not isinstance(getattr(self, name), str):
                raise UsageError(f"{name} must be a name, but got {shown(getattr(self, name))}")
        if self.mode not in (None, *get_args(Mode)):
            raise UsageError(f"mode must be min or max, but got {shown(self.mode)}")
        self._require_sizes()
        if not hasattr(self.objective, "key"):
            raise UsageError(
                f"objective must be one of {', '.join(OBJECTIVES)}, but got {shown(self.objective)}"
            )
        for curve in self.curves:
            if not isinstance(curve, LearningCurve):
                raise UsageError(
                    "curves are LearningCurves, as of epochcast.importers.curves.read_curve, "
                    f"but got {shown(curve)}"
                )
        for rule in self.rules:
            if type(rule) not in RULES.values():
                raise UsageError(
                    f"a plan is stored as data, and knows the rules {', '.join(RULES)} of "
                    f"epochcast.planning.stopping, but got {shown(rule)}; one of your own can be "
                    "tried with ec.stopping_epoch"
                )

    def _require_sizes(self) -> None:
        if not isinstance(self.sizes, Mapping):
            raise UsageError(
                f"sizes are values by name, like {{'width': 512}}, but got {shown(self.sizes)}"
            )
        for name, value in self.sizes.items():
            if not isinstance(value, get_args(SizeValue)):
                raise UsageError(f"a plan is for one value of {name}, but got {shown(value)}")

    def _require_used(self) -> None:
        """Refuse what would change nothing."""
        if self.restart_seconds is not None and self.mtbf_seconds is None:
            raise UsageError(
                "a restart comes after a failure, and none is expected: give mtbf_seconds too "
                "(--mtbf or --interruptions-per-hour)"
            )
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
            "learning curve promises, and none of them is given: add --patience or --curve; "
            "in Python, Patience(checks=5, min_delta=…)"
        )

    @property
    def better(self) -> Mode:
        """Which metric is, a smaller or a larger one."""
        return self.mode or mode_of(self.metric)

    @property
    def most_epochs(self) -> int | None:
        """The end of a run that no limit ends sooner, at the reference batch."""
        return self.max_epochs or self.epochs
