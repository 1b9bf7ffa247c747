"""A training run on a fake clock: what it does takes as long as the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

from epochcast.guard.forecast import Forecast
from epochcast.guard.guard import Guard
from epochcast.guard.metrics import MetricState
from epochcast.guard.run_state import Epoch, Ledger, RunState
from epochcast.planning.cadence import Every
from epochcast.records import (
    Budget,
    Checkpoint,
    Device,
    Option,
    Plan,
    Quantiles,
    RunConfig,
    StopReason,
    StopRule,
    UnitPrices,
)

DEVICE = Device(kind="cpu", name="a CPU", memory_bytes=2**34, torch="2.13.0", threads=1)


def about(median: float, spread: float = 0.0) -> Quantiles:
    """Quantiles around a median: P5 and P95 are ``spread`` away, relative."""
    low, high = 1 - spread, 1 + spread
    return Quantiles(
        p05=median * low,
        p10=median * (1 - 0.8 * spread),
        p50=median,
        p90=median * (1 + 0.8 * spread),
        p95=median * high,
    )


def make_plan(
    *,
    epochs: int = 10,
    deadline: float | None = 1000.0,
    epoch: Quantiles | None = None,
    first: Quantiles | None = None,
    evaluation: Quantiles | None = None,
    save: Quantiles | None = None,
    steps: int = 10,
    evaluate_every: int = 1,
    save_every: int = 2,
    rules: tuple[StopRule, ...] = (),
    target: int | None = None,
    workload: str = "a-workload",
    keep: int = 2,
    save_interval: float | None = None,
    epoch_noise: float = 0.01,
    **budget: object,
) -> Plan:
    """A plan in which every number is the test's."""
    nothing = Quantiles.exactly(0.0)
    epoch = epoch or about(50.0, 0.05)
    evaluation = nothing if evaluation is None else evaluation
    save = about(2.0, 0.1) if save is None else save
    config = RunConfig(batch_size=10)
    option = Option(
        config=config,
        epochs=epochs,
        affordable_epochs=Quantiles.exactly(epochs),
        target_epochs=target or epochs,
        target_probability=0.9,
        probability=0.9,
        seconds=epoch.scaled(epochs),
        money=None,
        energy_joules=None,
        carbon_grams=None,
        device_bytes=None,
        memory_share=None,
        save_bytes=None,
        binding=None,
        slack=(),
        next_epoch_seconds=epoch.p50,
        next_epoch_money=None,
        efficiency=None,
        learning_rate_factor=None,
        steps_per_epoch=steps,
        horizon_steps=steps * epochs,
    )
    timeline = tuple(
        Checkpoint(
            epoch=e,
            seconds=epoch.scaled(e),
            money=None,
        )
        for e in range(1, epochs + 1)
    )
    return Plan(
        workload=workload,
        device=DEVICE,
        samples=steps * 10,
        folds=1,
        budget=Budget(deadline=deadline, **budget),  # type: ignore[arg-type]
        min_epochs=1,
        target_epochs=target or epochs,
        max_epochs=None,
        objective="time",
        options=(option,),
        evaluations=Every(evaluate_every).epochs(epochs).ranges,
        saves=Every(save_every).epochs(epochs).ranges,
        timeline=timeline,
        prices=UnitPrices(
            startup=nothing,
            first_steps=first or nothing,
            epoch=epoch,
            evaluation=evaluation,
            save=save,
            epoch_noise=epoch_noise,
        ),
        metric="val_loss",
        stop_rules=rules,
        final_save_seconds=save.p95,
        save_interval_seconds=save_interval,
        mtbf_seconds=None,
        keep=keep,
        outlook=None,
        probing_seconds=0.0,
        seed=0,
    )


def new_state(plan: Plan, **fields: object) -> RunState:
    """Of a run that begins, but for what the test says."""
    ledger = Ledger(
        run="a-run",
        workload=plan.workload,
        plan="a-plan",
        processes=1,
        began_at=0.0,
        spent_seconds=0.0,
        forecast=Forecast.of_plan(plan.prices),
    )
    state = RunState(
        ledger=ledger,
        metrics=MetricState().followed_by(plan),
        end=plan.chosen.epochs,
        done=0,
        steps_before=0,
        epoch=Epoch(began=0.0),
        saved_at=0.0,
        has_checkpoint=False,
    )
    return replace(state, **fields)  # type: ignore[arg-type]


@dataclass
class FakeClock:
    """Time passes when the test says so."""

    now: float = 100.0
    offset: float = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.offset

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Listener:
    """Keeps all events."""

    events: list = field(default_factory=list)

    def see(self, event: object) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass

    def notes(self) -> list[str]:
        return [e.notice.code for e in self.events if hasattr(e, "notice")]


@dataclass
class Rehearsal:
    """One process of a run: a guard, and a loop as a framework would have it.

    Attributes:
        step_seconds, evaluation_seconds, save_seconds: of each, as they come.
        losses: that evaluations give; the last one goes on for ever.
    """

    plan: Plan
    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    step_seconds: Iterable[float] = field(default_factory=lambda: repeat(5.0))
    evaluation_seconds: Iterable[float] = field(default_factory=lambda: repeat(0.0))
    save_seconds: Iterable[float] = field(default_factory=lambda: repeat(2.0))
    losses: Iterable[float] = field(default_factory=lambda: repeat(1.0))
    steps: int = 10
    each_step: Callable[[Rehearsal], None] = lambda self: None
    settings: dict = field(default_factory=dict)
    listener: Listener = field(default_factory=Listener)

    def __post_init__(self) -> None:
        self._steps, self._losses = iter(self.step_seconds), iter(self.losses)
        self._evaluations = iter(self.evaluation_seconds)
        self._saves: Iterator[float] = iter(self.save_seconds)
        self.guard = Guard(
            self.plan,
            self.folder,
            self._write,
            clock=self.clock,
            watchers=[self.listener],
            **self.settings,
        )

    def _write(self, path: Path) -> None:
        self.clock.pass_(next(self._saves))
        path.write_text(str(self.guard.position.steps))

    def run(self) -> StopReason | None:
        """To the end, whatever ends it."""
        self.guard.start()
        while self.guard.begin_epoch():
            self._train()
            if self.guard.reason is None:
                self._evaluate()
                self.guard.end_epoch()
        self.guard.close()
        return self.guard.reason

    def _train(self) -> None:
        if self.guard.resumed_step and self.guard.position.steps == 0:
            self.guard.skip(self.guard.resumed_step)
        while self.guard.position.step < self.steps:
            self.clock.pass_(next(self._steps))
            self.each_step(self)
            if self.guard.step():
                return

    def _evaluate(self) -> None:
        if self.guard.due("evaluate"):
            self.clock.pass_(next(self._evaluations))
            self.guard.report({"val_loss": next(self._losses)})
