"""What a probe of a script leaves behind: nothing that was seen.

    overlaid    the folder in which it is started: what is written there goes into another folder,
                of the same disk, which is thrown away; a shell's writes and any program's too
    journaled   everywhere else, or where the system allows no overlay: the bootstrap says what is
                about to be written and keeps what it replaces; it is put back from last to first
    a ticket    of a probe that is under way, in the store's folder: where its owner was killed, the
                next probe finds it and puts things back

A place is put back as it was, its times and those of its folder included.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from epochcast.scripts import events as e
from epochcast.scripts.border import read_events
from epochcast.scripts.process import Overlay

PREFIX = "epochcast-"
SOCKET_MOST = 103  # bytes of the path of a socket: unix(7) has 107, macOS 103
SOCKET_NAME = "/pymp-xxxxxxxx/listener-xxxxxxxx"  # of multiprocessing's, in the temporary folder
TELLING = {"git", "hostname", "ldconfig", "lscpu", "nvidia-smi", "rocm-smi", "sysctl", "uname"}


@dataclass(frozen=True, kw_only=True)
class Undone:
    """What was put back.

    Attributes:
        places: files and folders that are as they were.
        left: what could not be put back, with the reason.
    """

    places: int = 0
    left: tuple[str, ...] = ()


# -- from the journal ------------------------------------------------------------------------------


def put_back(events: Iterable[e.Event], beside: Sequence[str] = ()) -> Undone:
    """Undo what a journal says, from the last to the first.

    Args:
        events: of all processes.
        beside: folders that were overlaid or are thrown away anyway: nothing is undone there.
    """
    journal = [event for event in events if isinstance(event, e.Wrote | e.NotKept)]
    left: dict[str, str] = {}
    wrote = [x for x in journal if isinstance(x, e.Wrote) and not _is_beside(x.path, beside)]
    for one in sorted(wrote, key=lambda x: x.at, reverse=True):
        try:
            _undo(one)
        except OSError as error:
            left[one.path] = error.strerror or str(error)
        else:
            if one.kind in ("changed", "removed") and not one.kept and one.link is None:
                left[one.path] = "its former content was not kept"
    for place in _folders_first_said(wrote):
        with suppress(OSError):
            os.utime(place.path, ns=place.times)
    not_kept = (x for x in journal if isinstance(x, e.NotKept))
    left |= {x.what: x.reason for x in not_kept if not _is_beside(x.what, beside)}
    left = {what: why for what, why in left.items() if not _is_harmless(what)}
    found = tuple(f"{what}: {why}" for what, why in left.items())
    return Undone(places=len({x.path for x in wrote} - set(left)), left=found)


@dataclass(frozen=True)
class _Folder:
    path: str
    times: tuple[int, int]


def _folders_first_said(wrote: Iterable[e.Wrote]) -> list[_Folder]:
    """Folders with the times that they had first, the deepest first."""
    found: dict[str, tuple[int, int]] = {}
    for one in sorted(wrote, key=lambda x: x.at):
        if one.folder_times is not None:
            found.setdefault(os.path.dirname(one.path), one.folder_times)
    paths = sorted(found, key=len, reverse=True)
    return [_Folder(path, found[path]) for path in paths if os.path.isdir(path)]


def _undo(one: e.Wrote) -> None:
    if one.kind in ("created", "folder-created"):
        _remove(one.path)
    elif one.kind == "renamed":
        if os.path.lexists(one.target):
            os.rename(one.target, one.path)
    elif one.kind == "folder-removed":
        os.makedirs(one.path, exist_ok=True)
    elif one.link is not None:
        _remove(one.path)
        os.symlink(one.link, one.path)
        if one.times is not None:
            os.utime(one.path, ns=one.times, follow_symlinks=False)
        return
    elif one.kind == "appended" and one.size is not None:
        os.truncate(one.path, one.size)
    elif one.kept:
        _remove(one.path)
        shutil.move(one.kept, one.path)
    _restore(one)


def _remove(path: str) -> None:
    """A file, or a folder with all that is in it, which is not there any more then."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _restore(one: e.Wrote) -> None:
    """Permissions and times that it had."""
    if not os.path.lexists(one.path):
        return
    if one.permissions is not None and not os.path.islink(one.path):
        os.chmod(one.path, stat.S_IMODE(one.permissions))
    if one.times is not None:
        os.utime(one.path, ns=one.times, follow_symlinks=os.path.islink(one.path) is False)


def _is_harmless(what: str) -> bool:
    """Whether it is a program that only tells of the machine, or a Python: that is watched."""
    program = os.path.basename(what.split(" ")[0])
    return program in TELLING or re.fullmatch(r"python[\d.]*", program) is not None


def _is_beside(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


# -- a place to work -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Place:
    """Folders of one probe.

    Attributes:
        root: everything, in the system's temporary folder.
        overlays: folders that are overlaid; empty where the journal has to do.
        user: whether overlays need a user namespace.
        layers: folder of the overlays' contents; None without any.
    """

    root: Path
    overlays: tuple[Overlay, ...] = ()
    user: bool = True
    layers: Path | None = None

    @property
    def events(self) -> Path:
        """Takes the events."""
        return self.root / "events"

    @property
    def temporary(self) -> Path:
        """The command's own temporary folder."""
        return self.root / "t"

    @property
    def has_sockets(self) -> bool:
        """Whether the path of the temporary folder is short enough for sockets in it: workers of
        loaders hand over their batches by them, and wait for ever where they cannot."""
        return len(os.fsencode(self.temporary)) + len(SOCKET_NAME) <= SOCKET_MOST

    @property
    def trace(self) -> Path:
        """Takes a trace."""
        return self.root / "trace.json.gz"

    @property
    def settings(self) -> Path:
        """What the bootstrap is told."""
        return self.root / "settings.json"

    @property
    def beside(self) -> tuple[str, ...]:
        """What nothing has to be put back in."""
        return (str(self.root), *(one.folder for one in self.overlays))


@contextmanager
def working_place(folder: Path, tickets: Path, overlay: bool) -> Iterator[Place]:
    """Folders for one probe, which are gone afterwards; a ticket says so until then.

    Args:
        folder: in which the command is started; overlaid where that is possible.
        tickets: folder of the probes under way.
        overlay: whether to try.
    """
    root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    place = Place(root=root)
    ticket = tickets / f"{root.name}.json"
    try:
        for one in (place.events, place.temporary):
            one.mkdir()
        if overlay:
            place = _overlaid(root, folder)
        tickets.mkdir(parents=True, exist_ok=True)
        _write_ticket(ticket, place)
        yield place
    finally:
        _throw_away(place.root, place.layers)
        ticket.unlink(missing_ok=True)
        with suppress(OSError):  # others may be under way
            tickets.rmdir()


def _overlaid(root: Path, folder: Path) -> Place:
    """The place with an overlay of the folder, if there is room for one on the same disk."""
    if root.is_relative_to(folder):  # events would not come through
        return Place(root=root)
    layers = _layers_beside(folder, root)
    if layers is None:
        return Place(root=root)
    upper, work = layers / "upper", layers / "work"
    for one in (upper, work):
        one.mkdir()
    os.chmod(upper, stat.S_IMODE(folder.stat().st_mode))
    over = Overlay(folder=str(folder), upper=str(upper), work=str(work))
    return Place(root=root, overlays=(over,), layers=layers, user=os.geteuid() != 0)


def _layers_beside(folder: Path, root: Path) -> Path | None:
    """A folder on the disk of another one, and not in it: saving must take as long as it does."""
    if not hasattr(os, "geteuid") or not Path("/proc/self/ns/mnt").exists():
        return None
    for where in (root.parent, folder.parent):
        same = where.stat().st_dev == folder.stat().st_dev and not where.is_relative_to(folder)
        if same and os.access(where, os.W_OK):
            return Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=where))
    return None


def _throw_away(root: Path, layers: Path | None) -> None:
    for folder in filter(None, (layers, root)):
        for parent, names, _ in os.walk(folder):
            for name in names:  # the file system's own folder in an overlay has no permissions
                path = os.path.join(parent, name)
                with suppress(OSError):
                    if not os.path.islink(path):
                        os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)


# -- of probes that were killed --------------------------------------------------------------------


def _write_ticket(ticket: Path, place: Place) -> None:
    ticket.write_text(
        json.dumps(
            {
                "pid": os.getpid(),
                "started": psutil.Process().create_time(),
                "root": str(place.root),
                "layers": str(place.layers) if place.layers else None,
                "overlaid": [one.folder for one in place.overlays],
            }
        )
    )


def recover(tickets: Path) -> Undone:
    """Put back what probes left whose owner is gone."""
    places = 0
    left: list[str] = []
    for ticket in sorted(tickets.glob(f"{PREFIX}*.json")):
        try:
            said = json.loads(ticket.read_text())
        except (OSError, ValueError):
            continue  # being written
        if _is_alive(said["pid"], said["started"]):
            continue
        root = Path(said["root"])
        if root.is_dir() and root.name.startswith(PREFIX):
            of_all = read_events(root / "events").values()
            every = [event for of_it in of_all for event in of_it]
            undone = put_back(every, (str(root), *said["overlaid"]))
            places += undone.places
            left += undone.left
        layers = Path(said["layers"] or "")
        _throw_away(root, layers if layers.name.startswith(f".{PREFIX}") else None)
        ticket.unlink(missing_ok=True)
    return Undone(places=places, left=tuple(left))


def _is_alive(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 2.0
    except psutil.Error:
        return False
