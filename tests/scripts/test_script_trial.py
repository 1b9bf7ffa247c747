"""A command that gives no measurement: why, in one line, and nothing of it is left running."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from epochcast.records import Measurement, Warning_
from epochcast.scripts import monitor, trial
from epochcast.scripts.command import Template
from epochcast.scripts.hardware import busy_machine
from epochcast.scripts.request import Isolation, ScriptRequest
from epochcast.scripts.side_effects import SOCKET_MOST, SOCKET_NAME, Place
from epochcast.scripts.trial import ScriptFailed, environment_for, run_trial

TIMEOUT = 1.0


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine does while tests run."""
    monkeypatch.setattr(trial, "busy_seconds", lambda: 0.0)


def tried(
    tmp_path: Path,
    *arguments: str,
    timeout: float = 60.0,
    isolation: Isolation = "auto",
    warn: Callable[[Warning_], None] = lambda warning: None,
) -> Measurement:
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    request = ScriptRequest(
        template=Template(arguments=arguments),
        folder=folder,
        timeout_seconds=timeout,
        isolation=isolation,
    )
    outcome = run_trial(
        request,
        request.specs[0],
        round_=0,
        folder=tmp_path / "store",
        log=tmp_path / "log",
        warn=warn,
    )
    return outcome.measurement


def python(tmp_path: Path, text: str, *arguments: str, timeout: float = 60.0) -> Measurement:
    return tried(tmp_path, sys.executable, "-c", text, *arguments, timeout=timeout)


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("import argparse; argparse.ArgumentParser().parse_args()", "crashed", "printed its usage"),
        ("input('name? ')", "crashed", "it waited for input, which a probe does not have"),
        ("raise ValueError('no such file')", "crashed", "ended with exit code 1 before torch"),
        ("print(1)", "crashed", "no process of the command has imported torch"),
        ("raise MemoryError", "oom", "MemoryError"),
        (
            "raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')",
            "oom",
            "CUDA out of memory. Tried to allocate 2 GiB",
        ),
        ("import os; os.abort()", "crashed", "was ended by SIGABRT"),
    ],
)
def test_why_there_is_nothing_to_see(tmp_path: Path, text: str, status: str, message: str) -> None:
    found = python(tmp_path, text, "--no-such-option")
    assert found.status == status
    assert message in found.message
    assert "\n" not in found.message
    assert found.log == str(tmp_path / "log")


def test_what_was_told_to_end_and_does_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "GONE_SECONDS", 0.1)
    monkeypatch.setattr(monitor, "LOOK_SECONDS", 0.05)
    text = (
        "import json, os, time; "
        "folder = json.load(open(os.environ['EPOCHCAST_SCRIPT']))['folder']; "
        "line = json.dumps({'event': 'ending', 'at': time.monotonic(), 'why': 'epochs'}); "
        "open(os.path.join(folder, '1.jsonl'), 'w').write(line + chr(10)); "
        "time.sleep(600)"
    )
    found = python(tmp_path, text)
    assert [w.code for w in found.warnings] == ["ended-hard"]
    assert "did nothing more, and was ended" in (tmp_path / "log").read_text()


def test_what_others_did_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "busy_seconds", iter([0.0, 1e6]).__next__)
    found = python(tmp_path, "print(1)")
    assert [w.code for w in found.warnings] == ["machine-busy"]


@pytest.mark.parametrize(
    ("used", "own", "told"),
    [
        (20.0, 10.0, "1.0"),  # of two processors in ten seconds: one is ours, one is another's
        (20.0, 19.0, None),  # both are ours
        (15.0, 10.0, None),  # there was room for all
        (18.1, 15.0, "0.3"),
    ],
)
def test_others_disturb_where_no_processor_is_free(
    used: float, own: float, told: str | None
) -> None:
    found = busy_machine(used, own, seconds=10.0, processors=2)
    assert [dict(w.details)["others"] for w in found] == ([told] if told else [])


def test_a_silence_is_told_with_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(monitor, "LOOK_SECONDS", 0.05)
    told: list[Warning_] = []
    text = "import time; print('waits for a worker', flush=True); time.sleep(600)"
    found = tried(tmp_path, sys.executable, "-c", text, timeout=TIMEOUT, warn=told.append)
    assert [w.code for w in told] == ["quiet"]
    assert dict(told[0].details)["said"] == "waits for a worker"
    assert found.message.endswith("its last line: waits for a worker")


def test_a_temporary_folder_has_room_for_the_sockets_of_workers(tmp_path: Path) -> None:
    request = ScriptRequest(template=Template(arguments=(sys.executable,)), folder=tmp_path)
    short, long = Place(root=Path("/tmp/epochcast-abcdefgh")), Place(root=Path("/" + 69 * "x"))
    assert environment_for(request.specs[0], short)["TMPDIR"] == str(short.temporary)
    assert "TMPDIR" not in environment_for(request.specs[0], long)
    assert len(str(long.temporary) + SOCKET_NAME) == SOCKET_MOST + 1


def test_what_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    found = python(tmp_path, text, timeout=TIMEOUT)
    assert found.status == "timeout"
    assert found.message.startswith("the command did not end within 1 s before torch")
    assert not psutil.pid_exists(int((tmp_path / "log").read_text()))


def test_an_interpreter_that_cannot_be_watched_is_named(tmp_path: Path) -> None:
    found = tried(tmp_path, sys.executable, "-I", "-c", "pass")
    assert "-I makes Python ignore PYTHONPATH" in found.message


@pytest.mark.parametrize(
    ("launcher", "cause"),
    [
        ([sys.executable, "-E"], "Python was started with -E, which ignores PYTHONPATH"),
        (["env", "-i", sys.executable], "its environment was cleared, as by env -i"),
        (["env", "PYTHONPATH=x", sys.executable], "PYTHONPATH was set anew"),
    ],
)
def test_why_a_process_is_not_heard_of(launcher: list[str], cause: str) -> None:
    arguments = [*launcher, "-c", "print(1, flush=True); import time; time.sleep(60)"]
    environment = {"EPOCHCAST_SCRIPT": "x", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert cause in monitor.why_unheard(process.pid)
        finally:
            process.kill()


def test_a_process_that_is_not_heard_of_is_ended_and_its_cause_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_has_torch", lambda pid: True)
    monkeypatch.setattr(monitor, "WORD_SECONDS", 0.0)
    monkeypatch.setattr(monitor, "LOOK_SECONDS", 0.01)
    env = shutil.which("env")
    assert env is not None
    text = "import time; time.sleep(60)"
    found = tried(tmp_path, env, "-i", sys.executable, "-c", text)
    assert found.status == "crashed"
    assert "imported torch, but cannot be watched" in found.message
    assert "its environment was cleared" in found.message


WRITES = "open('kept', 'a').write('more'); open('new', 'w').close(); import time; time.sleep(60)"


def test_ctrl_c_ends_the_command_and_puts_back_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, pids = tmp_path / "folder", []
    folder.mkdir()
    (folder / "kept").write_text("before")

    def interrupted(watched: monitor.Monitor, *_: object) -> str:
        until = time.monotonic() + 10
        while not (folder / "new").exists() and time.monotonic() < until:
            time.sleep(0.01)
        pids.extend(watched._process.pids)
        raise KeyboardInterrupt

    monkeypatch.setattr(monitor.Monitor, "to_its_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tried(tmp_path, sys.executable, "-c", WRITES, isolation="journal")
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert (folder / "kept").read_text() == "before"
    assert pids
    assert not any(map(psutil.pid_exists, pids))


def test_the_command_has_a_temporary_folder_of_its_own_which_is_gone(tmp_path: Path) -> None:
    text = "import tempfile; print(tempfile.mkdtemp())"
    python(tmp_path, text)
    made = Path((tmp_path / "log").read_text().strip())
    assert made.parent.name == "t"
    assert not made.exists()


def test_a_shell_that_writes_leaves_nothing_where_overlays_are_allowed(tmp_path: Path) -> None:
    found = tried(tmp_path, "sh", "-c", "touch written; test -e written")
    assert "ended with exit code 0" in found.message
    if list((tmp_path / "folder").iterdir()):
        pytest.skip("the system allows no overlay")


def test_a_refusal_shows_the_last_lines() -> None:
    assert ScriptFailed("why", ["a", "b"]).lines == ("a", "b")
