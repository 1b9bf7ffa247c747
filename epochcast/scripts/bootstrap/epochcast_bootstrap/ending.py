"""Ends the script: as if it had called ``sys.exit()``, then harder.

A plain BaseException would print a traceback and make torchrun report a failure; an ``Exception``
would be caught. Some scripts swallow even SystemExit: it is raised three times, then the process
ends at once. In a thread other than the main one exactly ``SystemExit`` ends in silence.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

ATTEMPTS = 3


class EarlyExit(SystemExit):
    """Ends the script before its own end: the miniature is over, or a stop was asked for."""


class ScriptEnding:
    """Whether and how the script is being ended."""

    def __init__(self, writer):
        self._writer = writer
        self.why = ""
        self.by_framework = False  # it stops by itself, and the script goes on to its own end
        self._attempts = 0

    def finish(self, why):
        """End the script from here.

        Args:
            why: as in the event.

        Raises:
            EarlyExit: with code 0.
        """
        self.why = self.why or why
        self._attempts += 1
        self._writer.event("ending", why=self.why, attempt=self._attempts)
        if self._attempts > ATTEMPTS:
            self._at_once()
        if threading.current_thread() is threading.main_thread():
            raise EarlyExit(0)
        raise SystemExit(0)

    def stop(self):
        """A framework is told to stop where its epoch ends; once."""
        if not self.by_framework:
            self.by_framework = True
            self._writer.event("ending", why="epochs", attempt=0)

    def _at_once(self):
        self._writer.event("ended", why="killed-itself", error="")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or no stream
                stream.flush()
        end_children()
        os._exit(0)

    def leave_group(self):
        """At the end of a process: gloo aborts one that leaves its group without a word."""
        dist = sys.modules.get("torch.distributed")
        if self.why and dist is not None and dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def end_children():
    """Workers of loaders and whatever else ``multiprocessing`` started."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None:
        return
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(1.0)
