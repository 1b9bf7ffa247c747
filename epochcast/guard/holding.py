"""One process at a time follows a run: a lock on ``<folder>/lock``.

A POSIX record lock: the system releases it however the process ends, ``kill -9`` included, and
the workers of a loader, which are forked from it, do not keep it. Where there is none (Windows, a
network file system without locks) nothing is locked.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from epochcast.errors import UsageError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"

_held: dict[tuple[int, Path], int] = {}  # process and lock → its one descriptor


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
