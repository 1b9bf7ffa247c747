"""When a script has to be asked to save and leave, so that it has left before a limit is used up.

    now ──────────────────────── asks at ── step ── save ── leave ── limit
                                 └─────────── lead ─────────────────┘
    now ── asks at ── evaluation, save ── step ── save ── leave ──── limit

A script looks after a step whether it was asked. Between epochs, while it evaluates and saves, it
does not look at all: where that would be the moment, it is asked before. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from epochcast.guard.forecast import Forecast
from epochcast.guard.run_state import Samples
from epochcast.records import UnitPrices
from epochcast.scripts import events as e
from epochcast.scripts.tracker import Tracker

SURE = 0.95  # of what must fit in between
LEAVE_SECONDS = 2.0  # of a process that has torch loaded, on an idle machine, and then of us
LEAVE_SHARE = 0.4  # of its start-up: the interpreter and libraries are taken down, too
LAUNCHER_SECONDS = 3.0  # of torchrun, which ends after all of its processes
SAVE_BYTES = 16  # of a parameter in a checkpoint nobody has seen: in fp32, with Adam's two moments
SAVE_SPEED = 50e6  # bytes a second, written and flushed to a slow disk
QUICKER = 0.97  # that an epoch may end than its steps say
NOTICED_SECONDS = 2.5  # until all processes of a framework have seen the request, and agreed
STEPS = 2.0  # of the slowest of late, until the script looks
STOPS = {  # by the feature that tells of it; the first one that is seen counts
    "epochcast": "its own guard's stop",
    "lightning": "Lightning's own stop",
    "transformers": "Trainer's own stop",
    "keras": "Keras's own stop",
}
EVALUATING = ("lightning", "transformers", "keras")  # once more, and saving, when stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is known at a moment.

    Attributes:
        tracker: of the process that leads.
        forecast: of epochs, evaluations and saves.
        samples: that were seen.
        planned: prices; 0 where there is no plan.
        startup: seconds until the first step.
        processes: that train together.
        way: whose own stop it is, of ``STOPS``; None for a signal.
    """

    tracker: Tracker
    forecast: Forecast
    samples: Samples
    planned: UnitPrices
    startup: float
    processes: int
    way: str | None

    @property
    def lead(self) -> float:
        """Seconds from being asked to being gone."""
        step = STEPS * self.tracker.pace.slowest
        leave = LEAVE_SECONDS + LEAVE_SHARE * self.startup
        leave += LAUNCHER_SECONDS if self.processes > 1 else 0.0
        more = NOTICED_SECONDS if self.way else 0.0
        more += self.evaluation + self.save if self.way in EVALUATING else 0.0
        return self.tracker.gap_within + step + self.save + leave + more

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
        tracker, gap = self.tracker, self.tracker.gap_after
        if tracker.evaluating or tracker.share_done >= 1.0:
            return min(latest, now) if tracker.last_at + gap > latest else latest
        begins = self._gap_begins
        return begins if begins < latest < begins + gap else latest

    @property
    def _gap_begins(self) -> float:
        """At the end of the pass that goes on, or a little earlier."""
        tracker = self.tracker
        left = (tracker.batches_an_epoch or inf) - tracker.batches
        seconds = left * tracker.pace.level.median * QUICKER
        return tracker.last_at + seconds - STEPS * tracker.pace.slowest
