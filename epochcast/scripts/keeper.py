"""The process between us and a command: it starts it, and leaves no process of it behind.

    epochcast ── order, signal, end ──▶ keeper ──▶ command ──▶ its children, and theirs
              ◀── started, ended, gone ──┘ └ a subreaper: whoever loses its parent becomes its child

Run as a file by an interpreter of its own, with the standard library alone. Where the process that
gave the order is gone, however it went, the pipe from it ends: then the command is ended too,
unless the order says that it shall outlive us.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import time
from collections.abc import Iterable
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000  # unshare(2)
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # mount(2)
LEFT_SECONDS = 1.0  # for workers to notice that their parent is gone
POLL_SECONDS = 0.02


def prctl(option: int, value: int) -> None:
    """prctl(2), where there is one."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def report(**what: object) -> None:
    """A line to the process that gave the order; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, (json.dumps(what) + "\n").encode())


# -- folders that are overlaid ---------------------------------------------------------------------


def call(name: str, *arguments: object) -> None:
    """A function of the C library that says how it failed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, name + ": " + os.strerror(number))


def enter_namespace(user: bool) -> None:
    """A view of the mounts of our own; ``user`` where that needs a user namespace."""
    uid, gid = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWNS | (CLONE_NEWUSER if user else 0))
    if user:  # ourselves and nobody else: the command runs as who it is
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    call("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)


def escaped(path: str) -> str:
    """A path among the options of an overlay."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def overlay(folder: str, upper: str, work: str, user: bool) -> None:
    """Let what is written into a folder go elsewhere.

    Args:
        folder: as it is seen, before and after.
        upper: takes what is written.
        work: for the file system's own use.
        user: whether this is a user namespace.
    """
    lower = f"lowerdir={escaped(folder)},upperdir={escaped(upper)},workdir={escaped(work)}"
    options = os.fsencode(lower + (",userxattr" if user else ""))
    call(
        "mount",
        b"overlay",
        os.fsencode(folder),
        b"overlay",
        ctypes.c_ulong(0),
        os.fsencode(options),
    )


def overlay_all(overlays: list[dict[str, str]], user: bool) -> str:
    """Overlay folders; what hinders it, or an empty text."""
    try:
        enter_namespace(user)
        for one in overlays:
            overlay(one["folder"], one["upper"], one["work"], user)
    except (OSError, AttributeError) as error:
        return str(error)
    return ""


# -- the command -----------------------------------------------------------------------------------


def start(order: dict[str, Any]) -> int:
    """Start the command in a session of its own; its process id."""
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        if not order["outlive"]:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:
                os._exit(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(order["output"], 1)
        os.dup2(order["errors"], 2)
        os.chdir(order["folder"])
        os.closerange(3, 256)
        os.execvpe(order["arguments"][0], order["arguments"], order["environment"])
    except OSError as error:
        os.write(2, f"{order['arguments'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def descendants() -> set[int]:
    """Process ids of all that came from us, zombies included."""
    parents = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found: set[int] = set()
    more = {os.getpid()}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more and pid not in found}
        found |= more
    return found


def send(pids: Iterable[int], number: int) -> None:
    """A signal to processes that may be gone."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


class Keeper:
    """What is known of the command."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None

    def reap(self) -> bool:
        """Take note of every process that has ended; whether there is any left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.code = os.waitstatus_to_exitcode(status)
                report(ended=self.code, at=time.monotonic())

    def wait(self, seconds: float) -> bool:
        """Wait for all to end; whether they did."""
        until = time.monotonic() + seconds
        while self.reap():
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def end(self, grace: float) -> None:
        """End everything: kindly at first."""
        if grace:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGTERM)
            self.wait(grace)
        while self.reap():
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            send(descendants(), signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def obey(self, line: bytes, outlive: bool) -> bool:
        """Do as a line says; an empty one is the end of the pipe. Whether to go on."""
        if not line:
            if not outlive:
                self.end(0.0)
            return outlive
        asked = json.loads(line)
        if "signal" in asked and self.code is None:
            send([self.pid], asked["signal"])
        if "end" in asked:
            self.end(asked["end"])
        return True

    def keep(self, outlive: bool) -> None:
        """Until the command has ended, and everything that it has started."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        sources = [woken, 0]
        while self.reap() and self.code is None:
            ready = select.select(sources, [], [], 1.0)[0]
            if woken in ready:
                os.read(woken, 4096)
            if 0 in ready:
                line = read_line()
                if not self.obey(line, outlive):
                    break
                sources = sources if line else [woken]
        if not outlive and not self.wait(LEFT_SECONDS):
            report(left=len(descendants()))
            self.end(0.0)


def read_line() -> bytes:
    """One line from the process that gives orders; empty at the end."""
    found = b""
    while not found.endswith(b"\n"):
        some = os.read(0, 1)
        if not some:
            return b""
        found += some
    return found


def main() -> None:
    """Read the order, start, keep."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C is for the process that gave the order
    order = json.loads(read_line())
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    problem = overlay_all(order["overlays"], order["user"]) if order["overlays"] else ""
    if problem:
        report(refused=problem)
        return
    at = time.monotonic()
    keeper = Keeper(start(order))
    report(started=keeper.pid, at=at)
    keeper.keep(order["outlive"])
    spent = os.times()
    report(gone=True, used=spent.children_user + spent.children_system)


if __name__ == "__main__":
    main()
