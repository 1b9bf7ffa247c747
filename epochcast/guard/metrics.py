"""The plan's metric, check by check: which rule stops the run, and which value is the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from epochcast.planning.stopping import Check, EarlyStopping, rule_from
from epochcast.records import Mode, Plan, StopReason, StopRule
from epochcast.records.plan import LONGEST
from epochcast.records.validation import require_within

RuleStates = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricState:
    """What was seen of the plan's metric, as a checkpoint keeps it.

    Attributes:
        rule_states: of each stop rule, as ``planning.stopping`` keeps it.
        best_value, best_epoch: None before the first report.
        improvements, checks: reports that were the best so far, and all.
        rules, metric, mode: that all of this belongs to.
        min_epochs: before which no rule stops the run.
    """

    rule_states: RuleStates = ()
    best_value: float | None = None
    best_epoch: int | None = None
    improvements: int = 0
    checks: int = 0
    rules: tuple[StopRule, ...] = ()
    metric: str = ""
    mode: Mode = "min"
    min_epochs: int = 1

    def __post_init__(self) -> None:
        require_within(self, 0, LONGEST, "improvements", "checks", "min_epochs", "best_epoch")

    def followed_by(self, plan: Plan) -> MetricState:
        """For a plan that goes on here: what was seen counts for the same metric and rules.

        Raises:
            UsageError: the plan has a rule that does not exist, or cannot be set like that.
        """
        for rule in plan.stop_rules:
            rule_from(rule)
        fresh = MetricState(
            rule_states=((),) * len(plan.stop_rules),
            rules=plan.stop_rules,
            metric=plan.metric,
            mode=plan.mode,
            min_epochs=plan.least_epochs,
        )
        if (self.metric, self.mode) != (plan.metric, plan.mode):
            return fresh
        states = self.rule_states if self.rules == plan.stop_rules else fresh.rule_states
        return replace(self, rules=fresh.rules, rule_states=states, min_epochs=fresh.min_epochs)

    @property
    def improving(self) -> float:
        """Share of the checks to come that will be the best so far (Laplace's rule)."""
        return (self.improvements + 1) / (self.checks + 2)

    def check(
        self, epoch: int, values: Mapping[str, float]
    ) -> tuple[MetricState, StopReason | None, bool]:
        """The metric was reported.

        Args:
            epoch: after which, counted from 1.
            values: reported in this epoch, the metric among them.

        Returns:
            The state after it, why a rule stops the run there, and whether it is the best so far.
        """
        value = values[self.metric]
        rules = [rule_from(rule) for rule in self.rules]
        stopping = EarlyStopping(rules, self.rule_states, self.min_epochs)
        reason = stopping.update(Check(epoch, value, self._training(values)))
        seen = replace(self, rule_states=tuple(stopping.states), checks=self.checks + 1)
        if reason is StopReason.NON_FINITE or not self._is_best(value):
            return seen, reason, False
        improvements = self.improvements + 1
        best = replace(seen, best_value=value, best_epoch=epoch, improvements=improvements)
        return best, reason, True

    def _is_best(self, value: float) -> bool:
        if self.best_value is None:
            return True
        return value < self.best_value if self.mode == "min" else value > self.best_value

    def _training(self, values: Mapping[str, float]) -> float | None:
        """The metric on training data, under one of its customary names."""
        plain = self.metric.removeprefix("val_").removeprefix("eval_")
        names = (f"train_{plain}", f"train/{plain}", plain)
        return next((values[name] for name in names if name in values), None)
