"""Commands are started without a shell, and nothing of them is left behind, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from epochcast.scripts.command import Filled
from epochcast.scripts.process import (
    Overlay,
    OverlayRefused,
    ScriptProcess,
    how_ended,
    tail,
)

# A family: a child in a session of its own whose parent ends at once, and one that does not.
FAMILY = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
if len(sys.argv) > 2:
    os.fork()
    time.sleep(600)
"""
PATIENT = 10.0  # seconds, of which a test uses milliseconds


def shell(text: str) -> Filled:
    return Filled(arguments=("sh", "-c", text))


def python(text: str, *arguments: str) -> Filled:
    return Filled(arguments=(sys.executable, "-S", "-c", text, *arguments))


def pid_in(path: Path) -> int:
    until = time.monotonic() + PATIENT
    while not (path.is_file() and path.read_text()) and time.monotonic() < until:
        time.sleep(0.01)
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(PATIENT)
    except psutil.TimeoutExpired:
        return False
    except psutil.NoSuchProcess:
        pass
    return True


def test_what_it_prints_is_kept_and_how_it_ended_known(tmp_path: Path) -> None:
    command = Filled(
        arguments=("sh", "-c", 'echo "$1 $GIVEN"; echo wrong >&2; exit 3', "sh", "$HOME; rm x"),
        environment=(("GIVEN", "{kept}"),),
    )
    log = tmp_path / "log"
    with ScriptProcess(command, tmp_path, log=log) as process:
        assert process.wait(PATIENT)
        assert process.exit_code == 3
        assert process.ended is not None
        assert process.ended > process.started > 0
    assert tail(log) == ["$HOME; rm x {kept}", "wrong"]
    assert how_ended(process.exit_code) == "ended with exit code 3"


def test_what_it_used_is_known_once_it_is_gone(tmp_path: Path) -> None:
    spin = "import time\nwhile time.process_time() < 0.1: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {spin!r}])"
    command = Filled(arguments=(sys.executable, "-S", "-c", child))
    with ScriptProcess(command, tmp_path, log=tmp_path / "log") as process:
        assert process.wait(PATIENT)
    assert process.used >= 0.09  # ticks of a hundredth of a second


def test_nobody_waits_for_input(tmp_path: Path) -> None:
    with ScriptProcess(shell("read x || echo none"), tmp_path, log=tmp_path / "log") as process:
        assert process.wait(PATIENT)
    assert tail(tmp_path / "log") == ["none"]


def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    command = Filled(arguments=("no-such-program",))
    with ScriptProcess(command, tmp_path, log=tmp_path / "log") as process:
        assert process.wait(PATIENT)
        assert process.exit_code == 127
    assert tail(tmp_path / "log") == ["no-such-program: No such file or directory"]


def test_a_child_that_left_its_family_is_ended_when_the_command_has_ended(tmp_path: Path) -> None:
    command = python(FAMILY, str(tmp_path / "pid"))
    with ScriptProcess(command, tmp_path, log=tmp_path / "log") as process:
        assert process.wait(PATIENT)
        assert process.exit_code == 0
        assert is_gone(pid_in(tmp_path / "pid"))


def test_leaving_ends_the_command_and_all_its_children(tmp_path: Path) -> None:
    command = python(FAMILY, str(tmp_path / "pid"), "stay")
    with ScriptProcess(command, tmp_path, log=tmp_path / "log") as process:
        pids = [pid_in(tmp_path / "pid"), *process.pids]
    assert process.exit_code == -signal.SIGKILL
    assert all(map(is_gone, pids))


def test_who_is_asked_to_end_may_do_so_by_itself(tmp_path: Path) -> None:
    text = 'trap "echo asked; exit 0" TERM; touch ready; while :; do sleep 0.01; done'
    with ScriptProcess(shell(text), tmp_path, log=tmp_path / "log") as process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        process.end(PATIENT)
        assert process.exit_code == 0
    assert tail(tmp_path / "log")[-1] == "asked"


def test_a_signal_reaches_the_command(tmp_path: Path) -> None:
    text = 'trap "echo saved; exit 0" USR1; touch ready; while :; do sleep 0.01; done'
    with ScriptProcess(shell(text), tmp_path, log=tmp_path / "log") as process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        process.signal(signal.SIGUSR1)
        assert process.wait(PATIENT)
        assert process.exit_code == 0


WATCHED = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from epochcast.scripts.command import Filled
from epochcast.scripts.process import ScriptProcess
family, pid, *more = sys.argv[1:]
command = Filled(arguments=(sys.executable, "-S", "-c", family, pid, "stay"))
with ScriptProcess(command, Path("."), log=Path("log"), outlive=bool(more)) as process:
    process.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_who_is_killed_takes_the_command_along(tmp_path: Path, number: signal.Signals) -> None:
    arguments = [sys.executable, "-c", WATCHED, FAMILY, str(tmp_path / "pid")]
    watcher = subprocess.Popen(
        arguments, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True
    )
    lost = pid_in(tmp_path / "pid")
    pids = [p.pid for p in psutil.Process(watcher.pid).children(recursive=True)]
    os.kill(watcher.pid, number)
    watcher.wait(PATIENT)
    assert all(map(is_gone, [lost, *pids]))


def test_a_command_may_outlive_us(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", WATCHED, FAMILY, str(tmp_path / "pid"), "outlive"]
    watcher = subprocess.Popen(arguments, cwd=tmp_path)
    lost = pid_in(tmp_path / "pid")
    keeper = psutil.Process(watcher.pid).children()[0]
    family = [p.pid for p in keeper.children(recursive=True)]
    watcher.kill()
    watcher.wait()
    time.sleep(0.1)
    alive = {pid for pid in [lost, *family] if psutil.pid_exists(pid)}
    for pid in alive:
        with suppress(ProcessLookupError):  # one may end of another's death
            os.kill(pid, signal.SIGKILL)
    assert {lost, *family} == alive
    assert is_gone(keeper.pid)


def test_what_is_written_into_an_overlaid_folder_goes_elsewhere(tmp_path: Path) -> None:
    for name in ("folder", "upper", "work"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "folder"
    (folder / "kept").write_text("as it was")
    before = (folder / "kept").stat()
    text = "echo changed > kept; echo new > new; mkdir sub; id -u > sub/who; cat kept"
    over = Overlay(folder=str(folder), upper=str(tmp_path / "upper"), work=str(tmp_path / "work"))
    try:
        with ScriptProcess(shell(text), folder, log=tmp_path / "log", overlays=[over]) as process:
            assert process.wait(PATIENT)
            assert process.exit_code == 0
    except OverlayRefused as error:
        pytest.skip(str(error))
    assert (folder / "kept").stat() == before  # before it is read: that is a time, too
    assert (folder / "kept").read_text() == "as it was"
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert (tmp_path / "upper" / "sub" / "who").read_text() == f"{os.getuid()}\n"
    assert tail(tmp_path / "log") == ["changed"]


def test_only_the_end_of_an_output_is_shown_and_no_control_codes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x\n" * 100_000 + b"\x1b[31m10%\r\x1b[0m20%\r\n\n\xff end\n")
    assert tail(log, 3) == ["x", "20%", "\ufffd end"]
    assert tail(tmp_path / "none") == []
