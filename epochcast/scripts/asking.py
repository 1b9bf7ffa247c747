"""When a script has to be asked to save and leave, so that it has left before a limit is used up.

    now ──────────────────────── asks at ── step ── save ── leave ── limit
                                 └─────────── lead ─────────────────┘
    now ── asks at ── evaluation ──────── step ── save ── leave ──── limit       one is not left

A script looks whether it was asked after a step; in an evaluation that goes on then it does not
look at all, so it is asked before that begins. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from epochcast.guard.forecast import Forecast
from epochcast.guard.run_state import Samples
from epochcast.records import UnitPrices
from epochcast.scripts import events as e
from epochcast.scripts.tracker import Tracker

SURE = 0.95  # of what must fit in between
LEAVE_SECONDS = 1.0  # of a process that has torch loaded, on an idle machine
LEAVE_SHARE = 0.2  # of its start-up: the interpreter and libraries are taken down, too
SAVE_BYTES = 16  # of a parameter in a checkpoint nobody has seen: in fp32, with Adam's two moments
SAVE_SPEED = 50e6  # bytes a second, written and flushed to a slow disk
STEPS = 2.0  # of the slowest of late, until the script looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is known at a moment.

    Attributes:
        tracker: of the process that leads.
        forecast: of epochs, evaluations and saves.
        samples: that were seen.
        planned: prices; 0 where there is no plan.
        startup: seconds until the first step.
        evaluates: whether the script evaluates once more when it is asked, as Lightning does.
    """

    tracker: Tracker
    forecast: Forecast
    samples: Samples
    planned: UnitPrices
    startup: float
    evaluates: bool

    @property
    def lead(self) -> float:
        """Seconds from being asked to being gone."""
        step = STEPS * self.tracker.pace.slowest
        leave = LEAVE_SECONDS + LEAVE_SHARE * self.startup
        return self.save + step + leave + (self.evaluation if self.evaluates else 0.0)

    @property
    def save(self) -> float:
        """One save, at most; of one that nobody has seen, by the parameters that are trained."""
        upper = self.forecast.save.quantile(1, SURE)
        slowest = max(self.samples.save, default=0.0)
        if upper or slowest:
            return max(upper, slowest, self.planned.save.p95)
        optimizers = [x for x in self.tracker.lasting if isinstance(x, e.Optimizer)]
        return sum(x.parameters for x in optimizers) * SAVE_BYTES / SAVE_SPEED

    @property
    def evaluation(self) -> float:
        """One evaluation, at most."""
        upper = self.forecast.evaluation.quantile(1, SURE)
        return max(upper, max(self.samples.evaluation, default=0.0))

    def at(self, now: float, limit: float, lead: float | None) -> float:
        """When it has to be asked.

        Args:
            now: the present moment.
            limit: at which it has to be gone.
            lead: seconds before the limit, where somebody has said so.
        """
        latest = limit - (self.lead if lead is None else lead)
        tracker, evaluation = self.tracker, self.evaluation
        if not evaluation or not self.samples.evaluation:
            return latest
        if tracker.evaluating:
            return min(latest, now) if tracker.last_at + evaluation > latest else latest
        if not self.forecast.epoch.seen:
            return latest
        rest = (1.0 - tracker.share_done) * self.forecast.epoch.quantile(1, 1 - SURE)
        begins = now + rest - STEPS * tracker.pace.slowest
        return begins if begins < latest < begins + evaluation else latest
