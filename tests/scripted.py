"""Sweeps with scripted workers under a fake clock."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import truths
from strategies import CPU

from epochcast.profiler.adaptive import chosen_rounds
from epochcast.profiler.process import Workers
from epochcast.profiler.protocol import CheckedWorkload, Counted, Description, Reply
from epochcast.profiler.request import SweepRequest
from epochcast.profiler.rounds import SilentObserver
from epochcast.profiler.sweep import sweep
from epochcast.records import GradientNoise, Measurement, RunConfig

KNOBS = (("activation", "relu"), ("bias", True), ("rate", 0.5), ("width", 8))
TRIAL_SECONDS = 10.0
NOISE = GradientNoise(small_batch=8, large_batch=64, small_norms=(2.0,), large_norms=(1.0,))
OWN_BATCH_SIZE, SAMPLES = 32, 1000


class Memory:
    """An archive in memory that remembers what was done to it, in order."""

    def __init__(self, folder, measurements=()):
        self.folder, self.log_folder = folder, folder / "tensorboard"
        self.kept = {m.key: m for m in measurements}
        self.removed = []

    def add(self, measurement):
        self.kept[measurement.key] = measurement

    def remove(self, keys):
        self.removed += keys
        return sum(self.kept.pop(key, None) is not None for key in keys)

    def add_footprints(self, workload, source, footprints, data=""):
        self.counted = dict(footprints)

    def measurements(self, workload=None, *, source=None):
        return tuple(
            m for m in self.kept.values() if m.workload == workload and source in (None, m.source)
        )


class Machine:
    """Starts scripted workers and is their clock.

    Attributes:
        outcomes: what happens to a configuration, by batch size; else it succeeds.
        asked: every task, with the number of the worker that got it.
        stored_before: how many measurements the archive held when each trial began.
    """

    def __init__(self, archive, outcomes=None, **description):
        self.archive = archive
        self.outcomes = outcomes or {}
        self.device = CPU
        self.description = {"knobs": KNOBS, "takes_data": False} | description
        self.checked = CheckedWorkload(
            config=RunConfig(batch_size=OWN_BATCH_SIZE), samples=SAMPLES, data="synthetic"
        )
        self.problem = lambda sizes: ""
        self.error = "WorkloadError"
        self.too_large = math.inf
        self.now = 0.0
        self.asked = []
        self.stored_before = []
        self.workers = []

    def start(self, log):
        log.touch()
        self.workers.append(Worker(self, log, len(self.workers)))
        return self.workers[-1]

    def trials(self, kind="trial"):
        return [task for _, task in self.asked if task.kind == kind]

    def measured(self):
        return [(task.spec.batch_size, task.spec.sizes, task.round) for task in self.trials()]

    def answer(self, task):
        if task.kind == "describe":
            return Reply(
                kind="described",
                described=Description(source="abc", device=self.device, **self.description),
            )
        if task.kind == "check":
            return Reply(kind="checked", checked=self.checked)
        if task.kind == "dry-run":
            return self.count(task)
        if task.kind == "trial":
            self.now += TRIAL_SECONDS
            self.stored_before.append(len(self.archive.kept))
        outcome = self.outcomes.get((task.kind, task.spec.batch_size), "ok")
        if isinstance(outcome, BaseException):
            raise outcome
        if task.kind == "noise":
            return Reply(kind="noise", noise=NOISE)
        if task.kind == "trace":
            return Reply(kind="traced", text=f"{task.folder}/trace.json.gz")
        threads = task.spec.workload.threads or self.device.threads
        device = replace(self.device, threads=threads)
        return Reply(kind="measured", measured=measurement_of(task, outcome, device=device))

    def count(self, task):
        if self.problem(task.spec.sizes):
            problem = self.problem(task.spec.sizes)
            return Reply(kind="counted", problem=problem, error=self.error)
        width = dict(task.spec.sizes)["width"]
        return Reply(
            kind="counted",
            counted=tuple(
                Counted(
                    config=RunConfig(batch_size=b, sizes=task.spec.sizes),
                    footprint=truths.footprint(b, width),
                )
                for b in task.batch_sizes
                if b < self.too_large
            ),
        )


class Worker:
    """Answers as its machine says, and never after it was left."""

    def __init__(self, machine, log, number):
        self.machine, self.log, self.number = machine, log, number
        self.alive = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.alive = False

    def ask(self, task, timeout, on_phase=lambda phase: None):
        assert self.alive
        self.machine.asked.append((self.number, task))
        on_phase("build")
        return self.machine.answer(task)


def measurement_of(task, status="ok", source="abc", device=CPU):
    return Measurement(
        workload=task.spec.workload.target,
        source=source,
        request=task.spec.request,
        config=task.spec.config,
        device=device,
        status=status,
        message="" if status == "ok" else "it failed",
        round=task.round,
        trial=task.trial,
        samples=SAMPLES,
        step_seconds=(0.1,) if status == "ok" else (),
        log=task.log,
    )


class Noting(SilentObserver):
    """Keeps what it is told."""

    def __init__(self):
        self.begun, self.seen, self.warnings, self.phases = None, [], [], []

    def begin(self, trials, done, device, data):
        self.begun = (trials, done, device, data)

    def phase(self, label, phase):
        self.phases.append((label, phase))

    def finished(self, measurement):
        self.seen.append(measurement)

    def warn(self, warning):
        self.warnings.append(warning)


def request_of(**changes):
    values = {"target": "mine.py:workload", "batch_sizes": (8, 16, 32), "device": "cpu"}
    return SweepRequest(**(values | {"rounds": 2, "traces": False} | changes))


def swept(request, machine, observer=None, chooser=None):
    return sweep(
        request,
        machine.archive,
        observer,
        rounds=partial(chosen_rounds, chooser=chooser) if chooser else None,
        workers=Workers(machine.archive.folder, machine.start),
        clock=lambda: machine.now,
    )


def machine_of(folder, stored=(), **options):
    return Machine(Memory(folder, stored), **options)
