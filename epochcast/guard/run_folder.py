"""The folder of a run: what of it must survive, who is in it, and a sign of life.

<folder>/ledger.json     time used and what was learned; written at least every second
<folder>/checkpoints/    each whole or not there (checkpoints.py)
<folder>/lock            held by the one process that follows the run
<folder>/alive           touched every second by a thread, while the ledger waits for a step to end;
                         there when a run begins: the process before was killed

The lock is a POSIX record lock: the system releases it however the process ends, ``kill -9``
included, and the workers of a loader, which are forked from it, do not keep it. Where there is none
(Windows, a network file system without locks) nothing is locked.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from epochcast.errors import UsageError
from epochcast.guard.checkpoints import CheckpointStore, Damaged, number_of, read_record
from epochcast.guard.forecast import Forecast
from epochcast.guard.run_state import CheckpointState, Ledger
from epochcast.records import Plan, Position, Warning_, to_json
from epochcast.records.documents import write_atomic

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

BEAT_SECONDS = 1.0  # between touches
LEDGER, ALIVE, LOCK = "ledger.json", "alive", "lock"

_held: dict[tuple[int, Path], int] = {}  # process and lock → its one descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where a run goes on, as its folder says.

    Attributes:
        ledger: of this process from now on; ``spent_seconds`` are those of earlier ones.
        checkpoint: the newest one's state; of a beginning where there is none.
        number: of that checkpoint; 0 where there is none.
        another_plan: whether earlier processes followed another plan.
        damage: what could not be read and was passed over.
    """

    ledger: Ledger
    checkpoint: CheckpointState
    number: int = 0
    another_plan: bool = False
    damage: tuple[Warning_, ...] = ()


def resume(folder: Path, checkpoints: CheckpointStore, plan: Plan, began: float) -> Resumed:
    """What earlier processes left in a run's folder.

    Args:
        folder: of the run.
        checkpoints: in it; what was not finished there is removed.
        plan: to follow from now on.
        began: when this process began, seconds since 1970.

    Raises:
        UsageError: the folder belongs to a run of another workload.
        StoreError: what is in the folder cannot be read, and nothing older is there.
    """
    checkpoints.abandon()
    for left in folder.glob(f".{LEDGER}.*"):  # of a process that was killed as it wrote
        left.unlink(missing_ok=True)
    newest = checkpoints.last()
    damage = [
        Warning_.of("damaged-checkpoint", name=name, error=error)
        for name, error in checkpoints.damaged.items()
    ]
    try:
        ledger = read_ledger(folder)
    except Damaged as error:
        ledger = None
        damage.append(Warning_.of("damaged-ledger", error=str(error)))
    state = newest[1] if newest else CheckpointState(position=Position())
    ledger = ledger or state.ledger
    if ledger is not None and ledger.workload != plan.workload:
        raise UsageError(
            f"{folder} holds a run of {ledger.workload}, but the plan is for "
            f"{plan.workload}: give another folder"
        )
    found = number_of(newest[0]) if newest else 0
    if ledger is not None and found < ledger.saves and not damage:
        damage.append(Warning_.of("vanished-checkpoint", number=str(ledger.saves)))
    begun = _new_ledger(plan, began)
    return Resumed(
        ledger=begun if ledger is None else _next_ledger(ledger, begun, lived_on(folder, began)),
        checkpoint=state,
        number=found,
        another_plan=ledger is not None and ledger.plan != begun.plan,
        damage=tuple(damage),
    )


def begin(plan: Plan, began: float) -> Resumed:
    """Of a process that does not own the run's folder: as if there were nothing in it."""
    return Resumed(ledger=_new_ledger(plan, began), checkpoint=CheckpointState(position=Position()))


def _new_ledger(plan: Plan, began: float) -> Ledger:
    return Ledger(
        run=uuid4().hex[:12],
        workload=plan.workload,
        plan=hashlib.sha256(to_json(plan).encode()).hexdigest()[:12],
        processes=1,
        began_at=began,
        spent_seconds=0.0,
        forecast=Forecast.of_plan(plan.prices),
    )


def _next_ledger(earlier: Ledger, new: Ledger, lived: float) -> Ledger:
    """Of one more process; what was learned of another plan's parts says nothing of this one's."""
    forecast = earlier.forecast if earlier.plan == new.plan else new.forecast
    return replace(
        earlier,
        processes=earlier.processes + 1,
        plan=new.plan,
        forecast=forecast,
        spent_seconds=earlier.spent_seconds + lived,
    )


def read_ledger(folder: Path) -> Ledger | None:
    """The ledger of a run's folder; None where there is none.

    Raises:
        Damaged: what is there is no ledger.
        StoreError: it is one of a newer epochcast.
    """
    path = folder / LEDGER
    return read_record(path, Ledger) if path.exists() else None


def write_ledger(folder: Path, ledger: Ledger, durable: bool) -> None:
    """Replace the ledger, whole or not at all.

    Args:
        folder: of the run; made where it is missing.
        ledger: as it is now.
        durable: whether it must survive a power cut, not only a kill; costs a few milliseconds.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / LEDGER, to_json(ledger).encode(), durable=durable)


class Heartbeat:
    """A sign of life beside the ledger, so that what a kill forgets is known to a second."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ALIVE
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Beat until ``stop``; a folder that cannot be written has no beat."""
        with suppress(OSError):
            self._file.touch()
            self._thread = threading.Thread(target=self._beat, name="epochcast-alive", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """The run is left in order."""
        self._left.set()
        if self._thread is not None:
            self._thread.join()
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._left.wait(BEAT_SECONDS):
            with suppress(OSError):
                self._file.touch()


def lived_on(folder: Path, until: float) -> float:
    """Seconds that a process which was killed went on after its last note in the ledger.

    It was killed before its next beat: the whole of that is counted, for parts of seconds that are
    forgotten add up.

    Args:
        folder: of the run.
        until: when the next process began, seconds since 1970.
    """
    try:
        beat = (folder / ALIVE).stat().st_mtime
        noted = (folder / LEDGER).stat().st_mtime
    except OSError:
        return 0.0
    return max(0.0, beat - noted, min(max(beat, noted) + BEAT_SECONDS, until) - noted)


def hold(folder: Path) -> None:
    """Keep other processes out of a run's folder, until ``release`` or this process's end.

    Raises:
        UsageError: another process is in there.
    """
    path = folder.absolute() / LOCK
    if fcntl is None or (os.getpid(), path) in _held:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # whatever writes there next says what is wrong
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.read(descriptor, 1000).decode(errors="replace").strip()
        os.close(descriptor)
        raise UsageError(
            f"{folder} is in use by {holder or 'another process'}: a run is followed by one "
            "process at a time; wait for its end, or give another folder"
        ) from None
    except OSError:  # no locks on this file system
        os.close(descriptor)
        return
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[os.getpid(), path] = descriptor


def release(folder: Path) -> None:
    """Let others in; the file stays, for removing it could take another's lock away."""
    descriptor = _held.pop((os.getpid(), folder.absolute() / LOCK), None)
    if descriptor is not None:
        os.close(descriptor)
