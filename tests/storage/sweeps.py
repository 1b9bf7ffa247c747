"""Eight sweeps at once, each in a process of its own, into one store.

python sweeps.py STORE FOLDER TRIALS
    NAME PID     once it has the store open; it then waits for the end of stdin
    NAME ROUND   once the store has that round's trial of its own workload and of a shared one
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))  # the package may not be installed

from strategies import make_measurement

from epochcast.storage.store import Store

NAMES = tuple(f"sweep-{i}" for i in range(8))
SHARED = "shared"


def say(name: str, number: int) -> None:
    os.write(1, f"{name} {number}\n".encode())  # at once, among eight that write


def sweep(where: str, folder: Path, name: str, trials: int) -> None:
    with Store.open(where, folder=folder) as store:
        say(name, os.getpid())
        os.read(0, 1)
        for number in range(trials):
            for workload in (name, SHARED):
                store.add(make_measurement(workload=workload, round=number))
            say(name, number)


class Sweeps:
    """They all have the store open, and none has begun, once this is made.

    Attributes:
        pids: of the processes, by name.
    """

    def __init__(self, where: str, folder: Path, trials: int) -> None:
        self.where, self.folder, self.trials = where, folder, trials
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, __file__, where, str(folder), str(trials)]
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.pids = dict(self._line() for _ in NAMES)

    def _line(self) -> tuple[str, int]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        name, number = line.split()
        return name, int(number)

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def kill(self, name: str) -> int:
        """One of them, in the middle of its work; the last round that it said was stored."""
        while True:
            who, number = self._line()
            if who == name:
                os.kill(self.pids[name], signal.SIGKILL)
                return number

    def end(self, failures: int = 0) -> str:
        """What they said on stderr; so many of them fail."""
        _, said = self.process.communicate()
        assert self.process.returncode == failures, said
        return said

    def assert_all_once(self, killed: str = "") -> None:
        with Store.open(self.where, folder=self.folder, create=False) as store:
            for name in (SHARED, *NAMES):
                if name != killed:
                    found = [m.round for m in store.measurements(workload=name)]
                    assert sorted(found) == list(range(self.trials))


def main() -> None:
    where, folder, trials = sys.argv[1:]
    for name in NAMES:
        if not os.fork():
            sweep(where, Path(folder), name, int(trials))
            return
    sys.exit(sum(os.wait()[1] != 0 for _ in NAMES))


if __name__ == "__main__":
    main()
