"""``epochcast follow-log`` through its front door: finished, running, growing and broken logs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest
import sample_runs
from click.testing import CliRunner, Result

from epochcast.cli import cli, watching
from epochcast.cli.watching import growing, print_lines
from epochcast.guard.log import LogReader, LogWriter, decode_event
from epochcast.records import EpochDone, RunEvent

HEAVY = ("torch", "tensorboard", "sklearn", "scipy", "matplotlib", "pandas")
EVENTS = sample_runs.drifting()


def write(path: Path, events: Sequence[RunEvent]) -> Path:
    writer = LogWriter(path)
    for event in events:
        writer.see(event)
    writer.close()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "run.jsonl", EVENTS)


def run(*arguments: str | Path, code: int = 0) -> Result:
    line = ["follow-log", *map(str, arguments)]
    result = CliRunner().invoke(cli, line, prog_name="epochcast")
    assert result.exit_code == code, result.output
    return result


def test_a_finished_log_is_told_and_summed_up(log: Path) -> None:
    lines = run(log).stdout.splitlines()
    assert lines[0].startswith("Following the plan of digits-mlp: 57 epochs")
    assert sum(line.startswith(("1/", "2/", "48/")) for line in lines) == 3
    assert "note: the run is now to end after epoch 50, not 57: epochs have become slower" in lines
    end = lines.index("Stopped after epoch 48 of 50: more might not have fitted the deadline.")
    assert lines.count(lines[end]) == 1
    assert lines[end + 1].startswith("Time 59m 08s of 1h 00m; money $2.46 of $3.00")
    assert lines[-1] == "Checkpoints: last epoch-0048, best epoch-0048."


def test_a_running_log_says_that_it_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", sample_runs.running())
    assert "Running, or killed: after epoch 14 of 57" in run(path).stdout
    path.write_bytes(b"")
    assert run(path).stdout == "Nothing has happened yet.\n"


def test_json_is_one_document(tmp_path: Path) -> None:
    wild = [
        replace(e, values=(("val_loss", nan),), pace=inf) if isinstance(e, EpochDone) else e
        for e in EVENTS
    ]
    path = write(tmp_path / "run.jsonl", wild)
    found = json.loads(run(path, "--json").stdout, parse_constant=pytest.fail)
    assert (found["ended"], found["reason"]) == (True, "budget")
    assert found["summary"][0].startswith("Stopped after epoch 48 of 50")
    assert len(found["events"]) == len(EVENTS)
    assert found["events"][1]["values"] == [["val_loss", "NaN"]]
    assert decode_event(json.dumps(found["events"][-1]).encode()) == EVENTS[-1]


def test_watching_goes_on_until_the_run_stops(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", EVENTS[:10])
    parts = iter((EVENTS[10:30], (), EVENTS[30:-1], EVENTS[-1:]))
    found = list(growing(LogReader(path), lambda: write(path, next(parts))))
    assert tuple(found) == EVENTS
    assert list(parts) == []


def test_watching_begins_where_an_ended_process_is_continued(tmp_path: Path) -> None:
    first = sample_runs.resumed()
    path = write(tmp_path / "run.jsonl", (*first, sample_runs.started(3, 16)))
    more = iter([first[-1:]])
    found = list(growing(LogReader(path), lambda: write(path, next(more))))
    assert len(found) == len(first) + 2


def test_ctrl_c_ends_watching_with_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    path = write(tmp_path / "run.jsonl", sample_runs.running())
    assert tuple(print_lines(LogReader(path), interrupted)) == sample_runs.running()
    monkeypatch.setattr(watching, "_pause", interrupted)
    assert "Best val_loss: 0.6407, after epoch 14." in run(path, "--watch").stdout


def test_a_picture_is_drawn(log: Path, tmp_path: Path) -> None:
    run(log, "--plot", tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    run(log, "--json", "--plot", tmp_path / "run.svg")
    assert (tmp_path / "run.svg").is_file()
    assert "run.pdf" in run(log, "--plot", tmp_path / "run.pdf", code=2).stderr


def test_wrong_use_is_refused_in_one_line(log: Path, tmp_path: Path) -> None:
    assert "give one of them" in run(log, "--watch", "--json", code=2).stderr
    assert "does not exist" in run(tmp_path / "absent.jsonl", code=2).stderr
    with log.open("a") as file:
        file.write("what?\n")
    error = run(log, code=1).stderr
    assert error.startswith(f"epochcast: line {len(EVENTS) + 1} of {log} is not an event of a run")
    assert error.count("\n") == 1


def test_nothing_heavy_is_imported(log: Path) -> None:
    code = (
        "import sys; from epochcast.cli import cli\n"
        f"cli(['follow-log', {str(log)!r}], standalone_mode=False)\n"
        f"found = [m for m in {HEAVY} if m in sys.modules]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
