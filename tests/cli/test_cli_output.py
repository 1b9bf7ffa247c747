"""What commands write: nothing that a terminal obeys, and nothing that it cannot show."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import sample_runs
import truths
from click.testing import CliRunner
from rich.cells import cell_len

from epochcast import cli
from epochcast.guard.log import LogWriter
from epochcast.records import Measurement, make_sizes
from epochcast.storage.store import Store

EVIL = "\x1b]0;owned\x07\x9b31m"
COMMANDS = (  # on a store with a sweep, and a log of a run
    "predict --epochs 90",
    "predict --epochs 1,90 --batch-size 32,64 --price-per-hour 2",
    "predict --memory 8GiB",
    "plan --epochs 90 --deadline 8h",
    "plan --epochs 90 --deadline 1s",
    "fit",
    "calibration",
    "probes list",
    "probes list nothing",
    "probes show {key}",
    "probes export -",
    "follow-log run.jsonl",
    "datasets",
    "workloads",
    "predict --help",
    "probe --help",
    "predict --epochs 90 --device nothing",
    "predict --epochs 90 --set {knob}=1",
    "predict {knob} --epochs 1",
    "predict --epochs {knob}",
    "{knob}",
    "plan --epochs 5 --deadline 8h --json",
)


def sweep(knob: str = "width", workload: str = "imaginary") -> list[Measurement]:
    """The usual one, of other names."""
    found = []
    for m in truths.sweep(rounds=2, round_sd=0.02):
        sizes = make_sizes({knob if name == "width" else name: v for name, v in m.config.sizes})
        found.append(replace(m, workload=workload, config=replace(m.config, sizes=sizes)))
    return found


def fill(where: Path, **names: str) -> str:
    """A store and a log; the key of a measurement."""
    measurements = sweep(**names)
    failed = replace(measurements[0], status="crashed", message=names.get("knob", "±"), round=9)
    with Store.open(str(where / ".epochcast" / "measurements.sqlite")) as store:
        store.add_all([*measurements, failed])
    log = LogWriter(where / "run.jsonl")
    for event in sample_runs.drifting():
        log.see(event)
    log.close()
    return measurements[0].key


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    where = tmp_path_factory.mktemp("evil")
    return where, fill(where, knob=EVIL, workload=f"train.py:{EVIL}")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    where = tmp_path_factory.mktemp("usual")
    return where, fill(where)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_or_message_reaches_a_terminal_raw(
    command: str, evil: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where, key = evil
    monkeypatch.chdir(where)
    arguments = [part.format(key=key, knob=EVIL) for part in command.split(" ")]
    result = CliRunner().invoke(cli.cli, arguments, color=True, prog_name="epochcast")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    for text in (result.stdout, result.stderr):
        assert not {"\x1b", "\x07", "\x9b"} & set(text)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_write_where_letters_are_few(
    command: str, encoding: str, usual: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ``LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii``."""
    where, key = usual
    monkeypatch.chdir(where)
    arguments = [part.format(key=key, knob="größe…") for part in command.split(" ")]
    streams = [TextIOWrapper(BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "argv", ["epochcast", *arguments])
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with pytest.raises(SystemExit):
        cli.main()
    written = b""
    for stream in streams:
        stream.flush()
        written += stream.buffer.getvalue()  # type: ignore[attr-defined]
    assert written
    assert "--json" in command or "export" in command or written.decode(encoding).strip()


@pytest.mark.parametrize(
    "command",
    [
        "predict --epochs 90",
        "predict --epochs 1,90 --batch-size 32,64 --price-per-hour 2",
        "plan --epochs 90 --deadline 5m --price-per-hour 2 --stop patience=3",
        "compare batch-size=32 batch-size=64 --epochs 9",
        "probes list",
        "devices",
        "datasets",
        "workloads",
        "fit",
    ],
)
def test_nothing_is_cut_or_wider_than_a_terminal_of_eighty_columns(
    command: str, usual: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(usual[0])
    for name, value in {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    found = CliRunner().invoke(cli.cli, command.split(" "), prog_name="epochcast")
    assert found.exit_code == 0, found.output
    assert "…" not in found.output
    assert max(map(cell_len, found.output.splitlines())) <= 80
