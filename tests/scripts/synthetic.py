"""Events as a training of known costs would cause them: in miniature, and what it takes whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import msgspec

from epochcast.scripts import events as e
from epochcast.scripts.command import Template
from epochcast.scripts.observed import Trial

FIRST_PASS = 1000.0  # the clock when the command is started


@dataclass
class Training:
    """A script that trains; seconds of its parts are exact.

    Attributes:
        eval_batches, eval_samples: of a whole evaluation; 0 for none.
        evaluate_every, save_every: epochs; 0 for never. ``save_phase`` is what an epoch's
            number leaves by ``save_every`` when it saves.
        evaluate_each: steps within an epoch, instead; 0 for never.
        miniature: batches of a miniature pass; ``eval_miniature`` of an evaluation.
        ahead: batches that are drawn before they are used.
        block: steps after which an accelerator is waited for; 0 trains on the CPU. The others
            are stamped when they are started, long before the device has done them.
    """

    samples: int = 6400
    batch_size: int = 16
    drop_last: bool = False
    accumulation: int = 1
    steps_a_batch: int = 1
    workers: int = 0
    startup: float = 4.0
    first: float = 1.5
    step: float = 0.02
    fixed: float = 0.3
    restart: float = 0.2
    eval_samples: int = 800
    eval_batch_size: int = 32
    eval_batch: float = 0.01
    eval_restart: float = 0.05
    save: float = 0.25
    save_bytes: int = 10_000
    finish: float = 0.7
    evaluate_every: int = 1
    save_every: int = 1
    save_phase: int = 0
    evaluate_each: int = 0
    epochs: int = 3
    miniature: int = 96
    eval_miniature: int = 10
    ahead: int = 0
    block: int = 0
    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.at = FIRST_PASS
        self.passes = 0
        self.index = 0
        self.found: list[e.Event] = []

    @property
    def batches(self) -> int:
        whole = self.samples // self.batch_size
        return whole if self.drop_last else ceil(self.samples / self.batch_size)

    @property
    def eval_batches(self) -> int:
        return ceil(self.eval_samples / self.eval_batch_size)

    def evaluation_seconds(self) -> float:
        return self.eval_restart + self.eval_batches * self.eval_batch

    def total(self, epochs: int) -> float:
        """Of an unprobed run."""
        steps = self.batches * self.step + self.restart + self.fixed
        evaluations = epochs // self.evaluate_every if self.evaluate_every else 0
        if self.evaluate_each:
            evaluations = epochs * self.batches / self.accumulation / self.evaluate_each
        saves = epochs // self.save_every if self.save_every else 0
        return (
            self.startup
            + self.first
            + epochs * steps
            + evaluations * (self.evaluation_seconds() if self.eval_samples else 0.0)
            + saves * self.save
            + self.finish
        )

    # -- events ---------------------------------------------------------------------------------

    def events(self) -> list[e.Event]:
        """Of a probe that ends it after its miniature epochs."""
        self.__post_init__()
        self._begin()
        for epoch in range(self.epochs):
            self._train(epoch)
            if self.eval_samples and self.evaluate_every and (epoch + 1) % self.evaluate_every == 0:
                self._evaluate()
            if self.save_every and (epoch + 1) % self.save_every == self.save_phase:
                self._save()
            self.at += self.fixed
        self.found.append(e.PassBegan(at=self.at, loader=0, number=self.passes))
        self.found.append(e.Ending(at=self.at, why="epochs"))
        self.at += self.finish
        return self.found

    def _begin(self) -> None:
        at, self.at = self.at, self.at + self.startup
        self.found = [
            e.Began(
                at=at + 0.1,
                pid=7,
                parent=6,
                started=at,
                executable="/usr/bin/python",
                argv=("train.py",),
                folder="/work",
            ),
            e.TorchLoaded(
                at=at + 0.5 * self.startup,
                began=at + 0.2 * self.startup,
                version="2.13.0+cpu",
                cuda=None,
                threads=1,
                argv=("train.py",),
                main="/work/train.py",
            ),
            e.Sources(at=at + 0.6 * self.startup, files=("/work/train.py",)),
            *([self._optimizer()] if self.block else []),
            self._loader(0, self.samples, self.batches, self.batch_size),
            self._loader(1, self.eval_samples, self.eval_batches, self.eval_batch_size),
        ]

    def _optimizer(self) -> e.Optimizer:
        return e.Optimizer(
            at=self.at,
            number=0,
            name="torch.optim.adamw.AdamW",
            parameters=1000,
            device="cuda:0",
            device_name="NVIDIA T4",
            device_memory=2**34,
        )

    def _loader(self, number: int, samples: int, batches: int, batch_size: int) -> e.Loader:
        return e.Loader(
            at=self.at,
            number=number,
            samples=samples,
            batches=batches,
            batch_size=batch_size,
            drop_last=self.drop_last and number == 0,
            workers=self.workers,
            dataset="torch.utils.data.TensorDataset",
            site=f"train.py:{number}",
        )

    def _train(self, epoch: int) -> None:
        number, self.passes = self.passes, self.passes + 1
        began = self.at
        self.found.append(e.PassBegan(at=began, loader=0, number=number))
        self.at += self.restart + (self.first if epoch == 0 else 0.0)
        first_batch, steps = self.at, []
        drawn = min(self.miniature, self.batches)
        drawn -= drawn % self.accumulation
        for batch in range(1, drawn + 1):
            self.at += self.step
            if batch % self.accumulation:
                continue
            for part in range(self.steps_a_batch):
                left = (self.steps_a_batch - 1 - part) / self.steps_a_batch
                steps.append(self._step(batch, self.at - left * self.step, part))
            if self.evaluate_each and (self.index + 1) % self.evaluate_each == 0:
                self._flush(steps, number)
                self.index += 1
                self._evaluate()
                continue
            self.index += 1
            if self.block and len(steps) == self.block:
                self._flush(steps, number)
        self._flush(steps, number, synchronized=not self.block)
        self.found.append(
            e.PassEnded(
                at=self.at,
                loader=0,
                number=number,
                batches=drawn,
                outcome="exhausted" if drawn == self.batches else "cut",
                first_batch_at=first_batch,
                last_batch_at=self.at - self.step,
                waited=self.restart,
                steps=drawn * self.steps_a_batch // self.accumulation,
                backwards=drawn,
            )
        )

    def _step(self, batch: int, at: float, optimizer: int) -> e.Step:
        drawn = min(batch + self.ahead, self.batches)
        return e.Step(at=at, optimizer=optimizer, batches=drawn, backwards=batch, waited=0.0)

    def _flush(self, steps: list[e.Step], number: int, synchronized: bool = True) -> None:
        if steps and self.block:
            started = [self._started(step) for step in steps]
            steps[: len(steps) - synchronized] = started[: len(steps) - synchronized]
        if steps:
            block = e.Steps(
                at=self.at, loader=0, pass_=number, steps=tuple(steps), synchronized=synchronized
            )
            self.found.append(block)
            steps.clear()

    def _started(self, step: e.Step) -> e.Step:
        """When the host was done with it."""
        return msgspec.structs.replace(step, at=step.at - 0.4 * self.step)

    def _evaluate(self) -> None:
        number, self.passes = self.passes, self.passes + 1
        began = self.at
        self.found.append(e.PassBegan(at=began, loader=1, number=number))
        drawn = min(self.eval_miniature, self.eval_batches)
        first_batch = began + self.eval_restart
        self.at = first_batch + drawn * self.eval_batch
        self.found.append(
            e.PassEnded(
                at=self.at,
                loader=1,
                number=number,
                batches=drawn,
                outcome="exhausted" if drawn == self.eval_batches else "cut",
                first_batch_at=first_batch,
                last_batch_at=self.at - self.eval_batch,
                waited=self.eval_restart,
                steps=0,
                backwards=0,
            )
        )

    def _save(self) -> None:
        began, self.at = self.at, self.at + self.save
        self.found.append(
            e.Save(at=self.at, began=began, bytes=self.save_bytes, path="x.pt", writer="torch")
        )

    # -- the trial ------------------------------------------------------------------------------

    def trial(self, round_: int = 0) -> Trial:
        """What is known of it without its events; they have been made."""
        return Trial(
            workload="train.py",
            template=Template(arguments=("python", "train.py")),
            values=self.values,
            request="0" * 16,
            folder=Path("/work"),
            started=FIRST_PASS,
            ended=self.at,
            machine=("a CPU", 2**34),
            round=round_,
            created_at="2026-01-01T00:00:00+00:00",
        )
