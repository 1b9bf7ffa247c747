"""The plan's metric, check by check: which rule stops the run, and which value is the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from epochcast.errors import UsageError
from epochcast.guard.books import Books
from epochcast.planning.stopping import Check, Watch, rule_from
from epochcast.records import Plan, StopReason

States = tuple[tuple[float, ...], ...]


class Checks:
    """Of one run; goes on where its newest checkpoint was.

    Attributes:
        verdict: why the run stops after this epoch; None if it goes on.
        improved: whether the newest value is the best so far, and not saved yet.
    """

    def __init__(self, plan: Plan, books: Books) -> None:
        self._plan = plan
        self._books = books
        self._watch = Watch([rule_from(rule) for rule in plan.stop_rules])
        self._take_up()
        self._before = self._states
        self.verdict: StopReason | None = None
        self.improved = False

    def _take_up(self) -> None:
        """What a checkpoint remembers counts for the same metric, and for the same rules."""
        plan, state = self._plan, self._books.state
        same = (state.metric, state.mode) == (plan.metric, plan.mode)
        if same and state.rules == plan.stop_rules:
            self._watch.states = list(state.watch)
        if not same:
            state = replace(state, best_value=None, best_epoch=None, improvements=0, checks=0)
        self._books.state = replace(
            state, rules=plan.stop_rules, metric=plan.metric, mode=plan.mode
        )

    def begin_epoch(self) -> None:
        """From here on, what is reported belongs to the next epoch."""
        self._before = self._states

    @property
    def _states(self) -> States:
        """Of the rules, as they are now."""
        return tuple(self._watch.states)

    def states_at(self, step: int) -> States:
        """Of the rules, for a checkpoint at a step of an epoch.

        Within one they are those of its beginning: where a run goes on there, it checks again.
        """
        return self._before if step else self._states

    @property
    def needed(self) -> bool:
        """Whether there are rules, which need values to stop anything."""
        return bool(self._watch.rules)

    def report(self, epoch: int, new: Mapping[str, float], values: Mapping[str, float]) -> None:
        """Values were reported after an epoch.

        Args:
            new: now.
            values: in this epoch, these included.
        """
        if self._plan.metric in new:
            self._check(epoch, values)

    def require(self, values: Mapping[str, float]) -> None:
        """After an evaluation that was due: the rules need the plan's metric.

        Raises:
            UsageError: it was never reported, but other values were.
        """
        metric = self._plan.metric
        if self.needed and values and metric not in values and not self._books.state.checks:
            known = ", ".join(values)
            raise UsageError(f"the plan's stop rules watch {metric}, but only {known} was reported")

    def _check(self, epoch: int, values: Mapping[str, float]) -> None:
        value = values[self._plan.metric]
        reason = self._watch.update(Check(epoch, value, self._training(values)))
        best, lower = self._books.state.best_value, self._plan.mode == "min"
        better = best is None or (value < best if lower else value > best)
        better = better and reason is not StopReason.NON_FINITE
        self.verdict = reason or self.verdict
        self.improved = self.improved or better
        self._books.checked(epoch, value, better)

    def _training(self, values: Mapping[str, float]) -> float | None:
        """The plan's metric on training data, under one of its customary names."""
        plain = self._plan.metric.removeprefix("val_").removeprefix("eval_")
        names = (f"train_{plain}", f"train/{plain}", plain)
        return next((values[name] for name in names if name in values), None)
