"""The log of a run: what is written is read, whatever ends the writing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from math import inf, isnan, nan
from pathlib import Path

import pytest
import sample_runs
import strategies
from hypothesis import given
from hypothesis import strategies as st

from epochcast.errors import StoreError
from epochcast.guard.log import LogReader, LogWriter, decode_event, encode_event, read_log
from epochcast.records import OLDEST_SCHEMA, SCHEMA, EpochDone, Notice, Quantiles, RunStarted

EVENTS = sample_runs.drifting()
ANY_FLOAT = st.floats() | st.sampled_from((inf, -inf))


def write(path: Path, events: list) -> Path:
    writer = LogWriter(path)
    for event in events:
        writer.see(event)
    writer.close()
    return path


@given(strategies.run_events)
def test_a_line_is_its_event(event) -> None:
    line = encode_event(event)
    assert line.count(b"\n") == 1
    assert decode_event(line) == event
    assert next(iter(json.loads(line))) == "event"


@given(strategies.epochs_done, ANY_FLOAT.filter(lambda x: not isnan(x)), strategies.texts)
def test_infinite_numbers_come_back(event, number, name) -> None:
    wild = replace(
        event,
        pace=number,
        spent_money=number,
        values=((name, number), ("NaN", 1.0)),
        projected_seconds=Quantiles(p05=0, p10=1, p50=2, p90=3, p95=inf),
    )
    assert decode_event(encode_event(wild)) == wild
    json.loads(encode_event(wild), parse_constant=pytest.fail)


def test_nan_comes_back_as_a_number_and_texts_stay_texts() -> None:
    done = next(e for e in EVENTS if isinstance(e, EpochDone))
    read = decode_event(encode_event(replace(done, values=(("val_loss", nan), ("NaN", 0.5)))))
    assert isinstance(read, EpochDone)
    assert isnan(dict(read.values)["val_loss"])
    assert dict(read.values)["NaN"] == 0.5
    start = replace(EVENTS[0], workload="NaN", metric="Infinity")
    assert decode_event(encode_event(start)) == start


@given(st.lists(strategies.run_events, max_size=4), st.data())
def test_a_file_cut_anywhere_is_read_to_its_last_whole_line(tmp_path_factory, events, data) -> None:
    path = write(tmp_path_factory.mktemp("log") / "run.jsonl", events)
    content = path.read_bytes()
    kept = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:kept])
    whole = content[:kept].count(b"\n")
    assert read_log(path) == tuple(events[:whole])
    more = data.draw(strategies.run_events)
    write(path, [more])
    almost = kept < len(content) and content[kept : kept + 1] == b"\n"
    assert read_log(path) == (*events[: whole + almost], more)


@given(st.data())
def test_a_damaged_line_is_named(tmp_path_factory, data) -> None:
    lines = [encode_event(event) for event in EVENTS]
    bad = data.draw(st.integers(0, len(lines) - 2))
    kept = data.draw(st.integers(0, len(lines[bad]) - 2))
    lines[bad] = lines[bad][:kept] + b"\n"
    path = tmp_path_factory.mktemp("log") / "run.jsonl"
    path.write_bytes(b"".join(lines))
    with pytest.raises(
        StoreError, match=rf"line {bad + 1} of .*run\.jsonl is not an event"
    ) as error:
        read_log(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 10**5,
        b"\xff",
        b"null",
        b"{}",
        b'{"event":3}',
        b'{"event":"epoch"}',
        b"",
        b"\r",
        b'{"event":"started","schema":99}',
    ],
)
def test_what_is_no_event_is_refused_in_one_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(encode_event(EVENTS[0]) + line + b"\n")
    with pytest.raises(StoreError, match="line 2 of") as error:
        read_log(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("schema", "advice"),
    [(SCHEMA + 1, "pip install --upgrade"), (OLDEST_SCHEMA - 1, "make it again")],
)
def test_another_schema_says_what_to_do(tmp_path: Path, schema: int, advice: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(encode_event(replace(EVENTS[0], schema=schema)))
    with pytest.raises(StoreError, match=rf"schema {schema}.*{advice}"):
        read_log(path)


def test_an_event_of_a_newer_kind_becomes_a_notice(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", EVENTS[:2])
    with path.open("a") as file:
        file.write('{"event":"dreamt","of":"sheep"}\n')
    write(path, EVENTS[2:3])
    *before, notice, after = read_log(path)
    assert (*before, after) == EVENTS[:3]
    assert isinstance(notice, Notice)
    assert notice.notice.code == "unknown-event"
    assert dict(notice.notice.details) == {"kind": "dreamt", "line": "3"}
    assert notice.position == EVENTS[1].position


def test_a_field_of_a_newer_version_is_left_out() -> None:
    line = encode_event(EVENTS[0]).replace(b'{"event"', b'{"extra":[1],"event"')
    assert decode_event(line) == EVENTS[0]


def test_a_reader_goes_on_where_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", EVENTS[:3])
    reader = LogReader(path)
    assert reader.news() == EVENTS[:3]
    assert reader.news() == ()
    line = encode_event(EVENTS[3])
    with path.open("ab") as file:
        file.write(line[:20])
    assert reader.news() == ()
    write(path, EVENTS[3:5])
    assert reader.news() == EVENTS[3:5]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(StoreError, match="not the log of a run; give another name"):
        LogWriter(path)
    assert path.read_text() == "dear diary"
    with pytest.raises(StoreError, match="cannot write the log"):
        LogWriter(tmp_path / "absent" / "run.jsonl")
    with pytest.raises(StoreError, match="cannot read the log"):
        read_log(tmp_path / "absent.jsonl")


def test_after_a_full_disk_the_next_line_is_whole(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "run.jsonl"
    writer = LogWriter(path)
    writer.see(EVENTS[0])
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, line: real(file, line[:9]))
        with pytest.raises(StoreError, match="part of the line"):
            writer.see(EVENTS[1])
    writer.see(EVENTS[2])
    writer.close()
    assert read_log(path) == (EVENTS[0], EVENTS[2])


KILLED = """
import sys, os, signal, sample_runs
from epochcast.guard.log import LogWriter
writer = LogWriter(sys.argv[1])
for event in sample_runs.drifting()[:4]:
    writer.see(event)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_seen_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_log(path) == EVENTS[:4]
    assert isinstance(EVENTS[0], RunStarted)
