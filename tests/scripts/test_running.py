"""Real commands under ``epochcast run``: what is theirs stays theirs, and they leave in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from epochcast.guard.log import ending, read_log
from epochcast.records import EpochDone, Notice, StopReason
from epochcast.scripts.running import handles

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "scripts"
TALKS = """
import os, sys
sys.stdout.write("out " + sys.stdin.read())
print("PYTHONPATH" in os.environ, file=sys.stderr)
sys.exit(7)
"""
COUNTS = """
import os, signal, sys, time
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
print("ready", flush=True)
while not got:
    time.sleep(0.05)
time.sleep(0.4)
print("got", len(got), flush=True)
"""


def command(folder: Path, *arguments: str) -> list[str]:
    run = [sys.executable, "-m", "epochcast", "run", "--no-store", "--folder", str(folder)]
    return [*run, *arguments]


def test_output_input_and_exit_code_are_the_commands(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "run", "--", sys.executable, "-c", TALKS, "--epochs", "3"),
        input="in",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (7, "out in")
    assert done.stderr.splitlines() == [
        "True",
        "epochcast: the command has ended, and no optimizer step was seen in it",
    ]


@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_comes_once(tmp_path: Path, to_all: bool) -> None:
    """To us alone it is passed on; where the command had it too, it is not."""
    with subprocess.Popen(
        command(tmp_path / "run", "--", sys.executable, "-c", COUNTS),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGUSR1)
        assert process.stdout.readline() == "got 1\n"
    assert process.returncode == 0


def test_a_command_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--", "no-such-program"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "no-such-program" in done.stderr


def test_whether_a_signal_is_handled_is_known_from_outside() -> None:
    former = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        assert handles(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, former)
    assert not handles(os.getpid(), signal.SIGUSR2)


@pytest.fixture(scope="module")
def preempted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A script that saves on SIGTERM, under a deadline that it does not fit into."""
    folder = tmp_path_factory.mktemp("preempted")
    script = [sys.executable, str(SCRIPTS / "preemptible.py"), "--epochs", "100000"]
    done = subprocess.run(
        command(folder / "run", "--deadline=9s", "--", *script, "--samples", "1000"),
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder, done.returncode


def test_a_script_that_saves_on_sigterm_leaves_with_a_whole_checkpoint(
    preempted: tuple[Path, int],
) -> None:
    torch = pytest.importorskip("torch")
    folder, code = preempted
    assert code == 0
    assert "asked to leave" in (folder / "stdout").read_text()
    assert "model" in torch.load(folder / "checkpoint.pt", weights_only=True)


def test_its_log_is_that_of_a_followed_run(preempted: tuple[Path, int]) -> None:
    folder, _ = preempted
    events = read_log(folder / "run" / "log.jsonl")
    end = ending(events)
    assert end is not None
    assert (end.reason, end.limit, end.exit_code) == (StopReason.BUDGET, "deadline", 0)
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert len(epochs) >= 2
    assert all(event.save_seconds for event in epochs[:-1])
    codes = [event.notice.code for event in events if isinstance(event, Notice)]
    assert codes.count("asked-to-leave") == 1
    assert "asked to save and leave, by SIGTERM" in (folder / "stderr").read_text()


def test_a_run_leaves_no_folder_of_events_behind(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        command(tmp_path / "run", "--", sys.executable, "-c", "pass"),
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert not list(temporary.iterdir())
