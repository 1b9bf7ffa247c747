"""When to end a run early: rules as small objects that see one check after another.

A check is one evaluation. A rule is a value with one method, ``update(state, check)``, that gives
its next state and a reason to stop, or None. A state is a tuple of numbers, ``()`` before the
first check, so that whoever follows a run can store it; replaying a finished curve and following
a live one run the same code.

    E(t)   the metric at check t, smaller is better        E_opt(t)   the best so far
    GL(t)  = 100·(E(t) − E_opt(t))/|E_opt(t)|              generalisation loss
    P_k(t) = 1000·(mean E_tr over the last k − min E_tr over the last k)/|min E_tr …|    progress
    PQ     GL(t)/P_k(t) > α at the end of a strip of k checks
    UP     E grew from strip end to strip end, s times in a row

GL, PQ and UP are those of Prechelt 1998, "Early stopping – but when?", where losses are positive;
the same differences, relative to their size, say as much of others. Patience is that of Keras and
Lightning: the p-th check in a row that does not improve by more than min_delta stops the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import frexp, inf, isfinite, ulp
from struct import pack, unpack
from typing import Any, ClassVar, NamedTuple, Protocol

from epochcast.errors import UsageError
from epochcast.records import LearningCurve, Mode, StopReason, StopRule
from epochcast.records.validation import is_finite, is_number, plain, shown

State = tuple[float, ...]
Verdict = tuple[State, StopReason | None]

LARGEST_SINGLE, SINGLE_DIGITS = 3.4e38, 24  # of single precision; digits are binary
STRIP = 5  # checks; Prechelt 1998, section 2.3


class Check(NamedTuple):
    """One evaluation: after which epoch, the metric, the same on training data if known."""

    epoch: float
    value: float
    training: float | None = None


class Rule(Protocol):
    """A reason to stop, looked for at every check."""

    def update(self, state: State, check: Check) -> Verdict:
        """The state after one more check, and why to stop there, if so."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Stop at the p-th check in a row without an improvement; state: best, checks since."""

    kind: ClassVar[str] = "patience"
    checks: int
    min_delta: float = 0.0
    mode: Mode = "min"

    def __post_init__(self) -> None:
        _require_whole(self, "checks")
        _require_between(self, 0, inf, "min_delta")

    def update(self, state: State, check: Check) -> Verdict:
        value = _smaller_is_better(check.value, self.mode)
        if not state or improves(value, state[0], self.min_delta):
            return (value, 0.0), None
        waited = state[1] + 1
        return (state[0], waited), StopReason.PATIENCE if waited >= self.checks else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralizationLoss:
    """Prechelt's GL: stop when the metric is ``percent`` worse than its best; state: best."""

    kind: ClassVar[str] = "gl"
    percent: float
    mode: Mode = "min"

    def __post_init__(self) -> None:
        _require_loss(self)
        _require_between(self, 0, inf, "percent")

    def update(self, state: State, check: Check) -> Verdict:
        best = min(*state, check.value) if state else check.value
        lost = _generalization_loss(check.value, best) > self.percent
        return (best,), StopReason.PATIENCE if lost else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressQuotient:
    """Prechelt's PQ: generalisation loss against training progress over a strip.

    State: best, then the training losses of the strip so far.
    """

    kind: ClassVar[str] = "pq"
    quotient: float
    strip: int = STRIP
    mode: Mode = "min"

    def __post_init__(self) -> None:
        _require_loss(self)
        _require_between(self, 0, inf, "quotient")
        _require_whole(self, "strip")

    def update(self, state: State, check: Check) -> Verdict:
        """The state after one more check, and why to stop there, if so.

        Raises:
            UsageError: the check has no training loss.
        """
        if check.training is None:
            raise UsageError("the rule pq needs training losses beside the validation losses")
        best = min(state[0], check.value) if state else check.value
        strip = (*state[1:], check.training)
        if len(strip) < self.strip:
            return (best, *strip), None
        progress = _progress(strip)
        lost = _generalization_loss(check.value, best) > self.quotient * progress
        return (best,), StopReason.PATIENCE if lost else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessiveRises:
    """Prechelt's UP: the metric grew over ``rises`` strips in a row.

    State: checks in this strip, rises so far, the metric at the last strip's end.
    """

    kind: ClassVar[str] = "up"
    rises: int
    strip: int = STRIP
    mode: Mode = "min"

    def __post_init__(self) -> None:
        _require_whole(self, "rises", "strip")

    def update(self, state: State, check: Check) -> Verdict:
        value = _smaller_is_better(check.value, self.mode)
        seen, rises, *last = state or (0.0, 0.0)
        if seen + 1 < self.strip:
            return (seen + 1, rises, *last), None
        rises = rises + 1 if last and value > last[0] else 0.0
        return (0.0, rises, value), StopReason.PATIENCE if rises >= self.rises else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Stop when the metric reaches a value."""

    kind: ClassVar[str] = "target"
    value: float
    mode: Mode = "min"

    def __post_init__(self) -> None:
        _require_between(self, -inf, inf, "value")

    def update(self, state: State, check: Check) -> Verdict:
        mine = _smaller_is_better(check.value, self.mode)
        reached = mine <= _smaller_is_better(self.value, self.mode)
        return state, StopReason.TARGET if reached else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Stop when the metric is worse than a value (Lightning's ``divergence_threshold``)."""

    kind: ClassVar[str] = "divergence"
    value: float
    mode: Mode = "min"

    def __post_init__(self) -> None:
        _require_between(self, -inf, inf, "value")

    def update(self, state: State, check: Check) -> Verdict:
        mine = _smaller_is_better(check.value, self.mode)
        worse = mine > _smaller_is_better(self.value, self.mode)
        return state, StopReason.DIVERGED if worse else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Futility:
    """Stop when the curve so far makes an improvement by the horizon too improbable.

    Without a horizon, a plan sets the last of its epochs.
    Only where asked for: under a schedule that depends on the horizon, a curve misleads.
    State: epoch, value, epoch, value, …
    """

    kind: ClassVar[str] = "futility"
    probability: float
    horizon: float | None = None
    min_delta: float = 0.0
    first_checks: int = 8  # two for each parameter of the largest family
    mode: Mode = "min"

    def __post_init__(self) -> None:
        _require_between(self, 0, 1, "probability")
        _require_whole(self, "first_checks")
        if self.horizon is not None:
            _require_between(self, 1, inf, "horizon")
        _require_between(self, 0, inf, "min_delta")

    def update(self, state: State, check: Check) -> Verdict:
        """The state after one more check, and why to stop there, if so.

        Raises:
            UsageError: the rule has no horizon.
        """
        if self.horizon is None:
            raise UsageError("the rule futility needs a horizon: the last epoch of the run")
        state = (*state, check.epoch, check.value)
        if len(state) < 2 * self.first_checks:
            return state, None
        from epochcast.planning.curves import LARGEST, fit_curve

        values = tuple(max(-LARGEST, min(value, LARGEST)) for value in state[1::2])
        curve = LearningCurve(epochs=state[::2], validation=values)
        chance = fit_curve(curve, self.mode).improvement_probability(self.horizon, self.min_delta)
        return state, StopReason.FUTILE if chance < self.probability else None


RULES: Mapping[str, type[Any]] = {
    rule.kind: rule
    for rule in (
        Patience,
        GeneralizationLoss,
        ProgressQuotient,
        SuccessiveRises,
        Target,
        Divergence,
        Futility,
    )
}


def improves(value: float, best: float, min_delta: float) -> bool:
    """Whether a smaller value is better by more than ``min_delta``, as Keras and Lightning ask.

    0.3 after 0.4 is no improvement by more than 0.1, though 0.4 − 0.1 is 0.30000000000000004: a
    difference that rounding may have made is none. Without a ``min_delta`` any decrease is one.

    Args:
        value: of a check, smaller is better.
        best: of those before.
        min_delta: in the metric's own unit.
    """
    rounding = _rounding(value) + _rounding(best) if min_delta else 0.0
    return best - value > min_delta + rounding


def _rounding(value: float) -> float:
    """What writing a value as a number of single or double precision may have moved it by."""
    if float(value).is_integer():
        return 0.0
    if abs(value) < LARGEST_SINGLE and unpack("f", pack("f", value))[0] == value:
        return float(2.0 ** (frexp(value)[1] - SINGLE_DIGITS))
    return ulp(value)


def _smaller_is_better(value: float, mode: Mode) -> float:
    return value if mode == "min" else -value


def _progress(strip: Sequence[float]) -> float:
    """P_k; without end where losses come down to nothing, none where they are nothing already."""
    return 1000 * _relative(sum(strip) / len(strip), min(strip))


def _generalization_loss(value: float, best: float) -> float:
    """GL; without end where the best is nothing and the value is not."""
    return 100 * _relative(value, best)


def _relative(value: float, lowest: float) -> float:
    """How far a value lies above the lowest, relative to that one's size."""
    if value <= lowest:  # a mean may be below by rounding
        return 0.0
    return (value - lowest) / abs(lowest) if lowest else inf


def _require_loss(rule: GeneralizationLoss | ProgressQuotient) -> None:
    if rule.mode != "min":
        raise UsageError(f"the rule {rule.kind} compares losses, so its mode must be min")


def _require_between(rule: Any, low: float, high: float, *names: str) -> None:
    """Settings are numbers, plain ones from here on, finite and within bounds."""
    for name in names:
        value = plain(getattr(rule, name))
        object.__setattr__(rule, name, value)
        if not is_number(value):
            raise UsageError(
                f"the rule {rule.kind} needs a number for {name}, but got {shown(value)}"
            )
        if not (is_finite(value) and low <= value <= high):
            bounds = f" of at least {low:g}" if isfinite(low) else ""
            bounds += f" and at most {high:g}" if isfinite(high) else ""
            raise UsageError(
                f"the rule {rule.kind} needs a finite number{bounds} for {name}, "
                f"but got {shown(value)}"
            )


def _require_whole(rule: Any, *names: str) -> None:
    """Settings that count are whole and at least 1."""
    _require_between(rule, 1, inf, *names)
    for name in names:
        if (value := getattr(rule, name)) != int(value):
            raise UsageError(
                f"the rule {rule.kind} counts {name}: give a whole number, but got {value:g}"
            )


class EarlyStopping:
    """Several rules over one run; whichever fires first stops it. Values must be finite.

    Args:
        rules: that see every check.
        states: of them, from an earlier process; default: as before the first check.
        min_epochs: before which no rule stops the run, whatever it has seen.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        states: Sequence[State] | None = None,
        min_epochs: float = 0,
    ) -> None:
        self.rules = tuple(rules)
        self.states = list(states or [()] * len(self.rules))
        self.min_epochs = min_epochs

    def update(self, check: Check) -> StopReason | None:
        """Show one check to every rule; the first reason found, or None."""
        if not isfinite(check.value):
            return StopReason.NON_FINITE
        found = None
        for i, rule in enumerate(self.rules):
            self.states[i], reason = rule.update(self.states[i], check)
            found = found or reason
        return found if check.epoch >= self.min_epochs else None


def stop(rules: Sequence[Rule], curve: LearningCurve) -> tuple[float, StopReason] | None:
    """Where and why a run with this curve would have stopped; None if it would not have."""
    stopping = EarlyStopping(rules)
    training = curve.training or (None,) * len(curve.epochs)
    broken = inf if curve.non_finite_epoch is None else curve.non_finite_epoch
    for check in map(Check, curve.epochs, curve.validation, training):
        if check.epoch > broken:
            break
        reason = stopping.update(check)
        if reason is not None:
            return check.epoch, reason
    return None if broken == inf else (broken, StopReason.NON_FINITE)


def stopping_epoch(rule: Rule | Sequence[Rule], curve: LearningCurve | Sequence[float]) -> Any:
    """The epoch after which a rule, or the first of several, would have stopped a run.

    Args:
        rule: e.g. ``Patience(checks=5)``.
        curve: what the run showed; a plain sequence is one validation loss per epoch.

    Returns:
        The epoch, counted from 1 in a plain sequence; None if the run would not have stopped, as
        one without a single value.
    """
    rules = tuple(rule) if isinstance(rule, Sequence) else (rule,)
    if not isinstance(curve, LearningCurve):
        if not curve:
            return None
        epochs = tuple(range(1, len(curve) + 1))
        curve = LearningCurve(epochs=epochs, validation=tuple(curve))
    found = stop(rules, curve)
    return found[0] if found else None


def rule_record(rule: Any) -> StopRule:
    """A rule as data."""
    settings = {f.name: getattr(rule, f.name) for f in fields(rule) if f.name != "mode"}
    known = tuple((name, float(value)) for name, value in settings.items() if value is not None)
    return StopRule(kind=rule.kind, mode=rule.mode, settings=known)


def rule_from(record: StopRule) -> Rule:
    """The rule that a record describes.

    Raises:
        UsageError: there is no such rule.
    """
    if record.kind not in RULES:
        raise UsageError(f"no stop rule {record.kind!r}; there are: {', '.join(RULES)}")
    try:
        rule: Rule = RULES[record.kind](mode=record.mode, **dict(record.settings))
    except TypeError as error:
        raise UsageError(f"the stop rule {record.kind} has other settings: {error}") from error
    return rule
