"""Signals that reach us are for the command: passed on, unless it had them itself.

    Ctrl-C        terminal ──▶ the whole group: the command too          not passed on
    kill PID      a person ──▶ us alone                                  passed on
    scancel, srun SLURM ──▶ every process of the step: the command too   not passed on

Two signals where one was meant end many scripts in the middle of the save that the first one began.
Whether the command had it nobody says; so a small process stands beside it and says what it got.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from types import TracebackType

PASSED_ON = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
OTHERS_SECONDS = 0.1  # for a signal to all to reach all
BESIDE = """
import os, signal
numbers, parent = {numbers}, {parent}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
os.write(1, b"\\0")
while os.getppid() == parent:
    got = signal.sigtimedwait(numbers, 2.0)
    if got is not None:
        os.write(1, bytes([got.si_signo]))
"""


class Relay:
    """A context in which signals are noted, to be passed on to the command."""

    def __enter__(self) -> Relay:
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._woken, False)
        self._wake = wake
        self._former = {number: signal.getsignal(number) for number in PASSED_ON}
        for number in PASSED_ON:
            if self._former[number] is not signal.SIG_IGN:  # nohup's, for the command too
                signal.signal(number, lambda *_: None)
        self._former[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        self._former_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._beside = _start_beside()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._former_wake)
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(self._woken)
        os.close(self._wake)
        if self._beside is not None:
            self._beside.kill()
            self._beside.communicate()

    def wait(self, seconds: float) -> list[int]:
        """Wait until a signal comes, a child has ended, or time is over; what is to be passed on.

        Args:
            seconds: at most.
        """
        select.select([self._woken], [], [], max(0.0, seconds))
        try:
            got = os.read(self._woken, 4096)
        except BlockingIOError:
            return []
        numbers = [number for number in dict.fromkeys(got) if number in PASSED_ON]
        if not numbers or self._beside is None:
            return numbers
        time.sleep(OTHERS_SECONDS)
        had = self._had()
        return [number for number in numbers if number not in had]

    def _had(self) -> set[int]:
        """Signals that the process beside the command got since the last call."""
        assert self._beside is not None
        assert self._beside.stdout is not None
        descriptor = self._beside.stdout.fileno()
        if not select.select([descriptor], [], [], 0)[0]:
            return set()
        return set(os.read(descriptor, 4096))


def _start_beside() -> subprocess.Popen[bytes] | None:
    """The process beside the command; None where there is no such system call."""
    if not hasattr(signal, "sigtimedwait"):
        return None
    code = BESIDE.format(numbers=[int(number) for number in PASSED_ON], parent=os.getpid())
    beside = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert beside.stdout is not None
    os.read(beside.stdout.fileno(), 1)  # it is ready
    return beside
