"""Runs that never were, event by event: finished, still running, drifting, resumed."""

from __future__ import annotations

from math import sqrt

from epochcast.records import (
    EpochDone,
    Notice,
    Position,
    Quantiles,
    RunConfig,
    RunEnded,
    RunEvent,
    RunStarted,
    StopReason,
    UnitPrices,
    Warning_,
)

STEPS = 120  # of an epoch
STARTUP, EPOCH, EVALUATION, SAVE = 20.0, 55.0, 2.0, 3.0  # seconds
PRICE = 2.5 / 3600  # a second
BEGIN = 1.76e9  # wall time
DEADLINE = 3600.0


def around(p50: float, spread: float = 0.03) -> Quantiles:
    """Quantiles of a roughly normal quantity; ``spread`` is relative, of P90."""
    return Quantiles(
        p05=p50 * (1 - 1.28 * spread),
        p10=p50 * (1 - spread),
        p50=p50,
        p90=p50 * (1 + spread),
        p95=p50 * (1 + 1.28 * spread),
    )


def started(
    process: int = 1, epoch: int = 0, spent: float = STARTUP, epochs: int = 57
) -> RunStarted:
    """A process that begins after ``epoch`` epochs."""
    return RunStarted(
        run="r1",
        process=process,
        wall_time=BEGIN + spent,
        workload="digits-mlp",
        config=RunConfig(batch_size=32, sizes=(("width", 512),)),
        position=Position(epoch=epoch, steps=epoch * STEPS),
        spent_seconds=spent,
        end_epochs=epochs,
        confidence=0.9,
        metric="val_loss",
        predicted=UnitPrices(
            startup=around(STARTUP),
            first_steps=around(12.0),
            epoch=around(EPOCH),
            evaluation=around(EVALUATION),
            save=around(SAVE),
            epoch_noise=0.01,
        ),
        limits=(("deadline", DEADLINE), ("money", 3.0)),
        binding_seconds=(("deadline", DEADLINE), ("money", 3.0 / PRICE)),
        planned_seconds=around(STARTUP + 12 + epochs * 57.6),
    )


class Teller:
    """Tells of epoch after epoch, and keeps the books."""

    def __init__(self, epochs: int = 57) -> None:
        self.events: list[RunEvent] = [started(epochs=epochs)]
        self.epoch, self.spent, self.end = 0, STARTUP, epochs
        self.begun = 0  # the event with which the process began
        self.ratio, self.best = 1.0, (9.9, 0)

    @property
    def position(self) -> Position:
        return Position(epoch=self.epoch, steps=self.epoch * STEPS)

    def tell(self, seconds: float, reason: StopReason | None = None) -> None:
        """One more epoch; every second one is evaluated, every fifth saved."""
        first = not any(isinstance(e, EpochDone) for e in self.events[self.begun :])
        predicted = around(EPOCH * self.ratio + 12 * first)
        self.epoch += 1
        evaluation = None if self.epoch % 2 else EVALUATION
        save = SAVE if self.epoch % 5 == 0 or reason else None
        self.spent += seconds + (evaluation or 0) + (save or 0)
        self.ratio += 0 if first else 0.5 * (seconds / EPOCH - self.ratio)
        values: tuple[tuple[str, float], ...] = ()
        if evaluation:
            loss = 0.3 + 1.2 / sqrt(self.epoch) + 0.01 * (self.epoch % 3)
            values = (("val_loss", loss), ("val_accuracy", 1 - loss / 3))
        best = bool(values) and values[0][1] < self.best[0]
        if best:
            self.best = values[0][1], self.epoch
        left = 0 if reason else max(0, self.end - self.epoch) * self.ratio * 57.6
        total = self.spent + left
        wide = 0.03 * left / total
        self.events.append(
            EpochDone(
                wall_time=BEGIN + self.spent,
                position=self.position,
                first=first,
                predicted=predicted,
                seconds=seconds,
                pace=self.ratio,
                evaluation_seconds=evaluation,
                save_seconds=save,
                spent_seconds=self.spent,
                spent_money=self.spent * PRICE,
                spent_joules=None,
                projected_seconds=around(total, wide),
                projected_money=total * PRICE,
                end_epochs=self.end,
                values=values,
                best=best,
                reason=reason,
                on_plan_probability=min(0.99, max(0.0, 0.5 + (DEADLINE - total) / 600)),
            )
        )

    def note(self, code: str, **details: str) -> None:
        """Something that people should see."""
        notice = Warning_(code=code, details=tuple(details.items()))
        at = BEGIN + self.spent
        self.events.append(Notice(wall_time=at, position=self.position, notice=notice))

    def resume(self, process: int, epoch: int) -> None:
        """Another process, from an earlier epoch."""
        self.epoch, self.spent = epoch, self.spent + STARTUP
        self.begun = len(self.events)
        self.events.append(started(process, epoch, self.spent))
        self.note("resumed", epoch=str(epoch), step="0", spent="12m 30s")

    def finish(self, reason: StopReason | None) -> tuple[RunEvent, ...]:
        """The end of this process."""
        self.events.append(
            RunEnded(
                wall_time=BEGIN + self.spent,
                position=self.position,
                reason=reason,
                limit="deadline" if reason is StopReason.BUDGET else None,
                spent_seconds=self.spent,
                spent_money=self.spent * PRICE,
                spent_joules=None,
                end_epochs=self.end,
                last_checkpoint=f"epoch-{self.epoch:04d}",
                best_checkpoint=f"epoch-{self.best[1]:04d}",
                best_value=self.best[0],
                best_epoch=self.best[1],
            )
        )
        return tuple(self.events)


def noisy(epoch: int) -> float:
    """Seconds of a steady epoch: 55 ± 2 %, without a random generator."""
    return EPOCH * (1 + 0.02 * ((epoch * 7) % 11 - 5) / 5)


def finished(epochs: int = 57) -> tuple[RunEvent, ...]:
    """As planned."""
    teller = Teller(epochs)
    teller.tell(EPOCH + 12.9)
    for epoch in range(2, epochs):
        teller.tell(noisy(epoch))
    teller.tell(noisy(epochs), StopReason.PLAN_DONE)
    return teller.finish(StopReason.PLAN_DONE)


def running(epochs: int = 14) -> tuple[RunEvent, ...]:
    """Not yet at its end."""
    return finished()[: epochs + 1]


def drifting() -> tuple[RunEvent, ...]:
    """Slower from epoch 20 on: planned again, and ended by the deadline."""
    teller = Teller()
    teller.tell(EPOCH + 12.9)
    for epoch in range(2, 20):
        teller.tell(noisy(epoch))
    for epoch in range(20, 24):
        teller.tell(1.5 * noisy(epoch))
        if epoch == 21:
            teller.note("drift", ratio_before="1.00", ratio_after="1.45")
            teller.end = 50
            teller.note("replanned", old="57", new="50", why="epochs have become slower")
    while teller.spent < DEADLINE - 2 * 1.5 * EPOCH:
        teller.tell(1.5 * noisy(teller.epoch))
    teller.tell(1.5 * EPOCH, StopReason.BUDGET)
    return teller.finish(StopReason.BUDGET)


def resumed() -> tuple[RunEvent, ...]:
    """Killed after epoch 12, goes on from epoch 10, and is told to stop."""
    teller = Teller()
    teller.tell(948.0)  # a cold cache
    for epoch in range(2, 13):
        teller.tell(noisy(epoch))
    teller.resume(2, 10)
    teller.tell(noisy(11) + 12)
    for epoch in range(12, 17):
        teller.tell(noisy(epoch))
    teller.note("signal", name="SIGTERM")
    return teller.finish(StopReason.SIGNAL)
