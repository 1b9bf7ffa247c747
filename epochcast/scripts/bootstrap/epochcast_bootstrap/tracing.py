"""A profile of a few steps, once they are steady: in the second pass that trains, or in a loop."""

from __future__ import annotations

import os

from epochcast_bootstrap.writing import now

SETTLED = 3  # steps of the pass before
LOOP = 10  # steps before, where there is no second pass


class Tracing:
    """Traces a few steps of the process of rank 0, once.

    Args:
        watch: what this is part of.
        path: of the file, a Chrome trace.
        steps: that are traced.
    """

    def __init__(self, watch, path, steps):
        self._watch, self._path, self._steps = watch, path, steps
        self._profile = None
        self._began = 0.0
        self._from = 0
        self._since = None  # the step from which it is counted

    def after_pass(self, trained):
        """A pass is over: the next one that trains is traced."""
        if self._profile is not None:
            self._unseen(self._stop)
        elif trained and self._since is None:
            self._since = self._watch.steps.count + SETTLED

    def after_step(self):
        """A step is over."""
        count = self._watch.steps.count
        if self._profile is not None:
            if count - self._from >= self._steps:
                self._unseen(self._stop)
        elif count >= (self._since or LOOP) and (self._since or not self._watch.loaders.current):
            self._start()

    def _unseen(self, call):
        """By the journal: the files are ours."""
        journal = self._watch.journal
        return call() if journal is None else journal.told(call)

    def _start(self):
        torch = self._watch.torch
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_initialized():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._began, self._from = self._watch.device_time(), self._watch.steps.count
        self._profile = torch.profiler.profile(activities=activities)
        self._profile.start()

    def _stop(self):
        profile, self._profile = self._profile, None
        self._watch.tracing = None
        self._watch.synchronize()
        profile.stop()
        folder, name = os.path.split(self._path)
        partial = os.path.join(folder, f"{os.getpid()}-{name}")  # its end says how it is packed
        profile.export_chrome_trace(partial)
        os.replace(partial, self._path)
        steps = self._watch.steps.count - self._from
        self._watch.writer.event(
            "traced", began=self._began, at=now(), path=self._path, steps=steps
        )
