"""What is written is read again, or refused in one line; a file is replaced whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_measurement

from epochcast import records
from epochcast.errors import StoreError
from epochcast.records import Measurement, from_json, to_json
from epochcast.records.documents import write_atomic


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "not a valid Measurement"),
        ("{", "not a valid Measurement"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `workload`"),
        (to_json(make_measurement()).replace('"batch_size":32', '"batch_size":"x"'), r"\$\.config"),
        (to_json(make_measurement()).replace('"batch_size":32', '"batch_size":0'), "at least 1"),
        ('{"schema":99,"renamed":true}', "written by a newer epochcast .schema 99"),
        ('{"schema":1,"renamed":true}', "written by an earlier epochcast .schema 1"),
        ("[" * 100_000, "not a valid Measurement"),
        (b"\xff", "not a valid Measurement"),
        ("\udcff", "not a valid Measurement"),
    ],
)
def test_a_bad_document_is_one_clear_line(document, message):
    with pytest.raises(StoreError, match=message) as caught:
        from_json(document, Measurement)
    assert "\n" not in str(caught.value)


@given(st.one_of(strategies.measurements, strategies.plans, strategies.run_outcomes))
def test_a_document_one_schema_newer_or_older_than_what_is_read_is_refused_in_one_line(record):
    newer = to_json(dataclasses.replace(record, schema=records.SCHEMA + 1))
    older = to_json(dataclasses.replace(record, schema=records.OLDEST_SCHEMA - 1))
    for document, advice in ((newer, "pip install --upgrade"), (older, "make it again")):
        with pytest.raises(StoreError, match=advice) as caught:
            from_json(document, type(record))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", range(records.OLDEST_SCHEMA, records.SCHEMA + 1))
def test_every_schema_since_the_oldest_is_read(schema):
    written = dataclasses.replace(make_measurement(), schema=schema)
    assert from_json(to_json(written), Measurement) == written


@settings(max_examples=300)
@given(st.one_of(strategies.measurements, strategies.plans, strategies.run_outcomes), st.data())
def test_a_damaged_document_is_a_record_or_one_clear_line(record, data):
    text = to_json(record).encode()
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, min(len(text), at + 9)))
    values = st.sampled_from([b"null", b"1e999", b"-1", b"9" * 400, b'"x"', b"[]", b"[" * 5000])
    damaged = text[:at] + data.draw(values | st.binary(max_size=9)) + text[until:]
    try:
        message = to_json(from_json(damaged, type(record)))
    except StoreError as error:
        message = str(error)
    assert "\n" not in message


def test_what_json_cannot_hold_is_a_clear_error():
    with pytest.raises(StoreError, match="cannot be written as JSON"):
        to_json(make_measurement(workload="train\udcff.py"))


class Killed(BaseException):
    """The process is gone."""


def test_the_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for content in (b"old", b"new and longer"):
        write_atomic(tmp_path / "a.json", content, durable=content != b"old")
        assert (tmp_path / "a.json").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_kill_before_the_rename_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "a.json", b"old")

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(Killed):
        write_atomic(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_a_disk_that_fails_leaves_the_old_content_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "a.json", b"old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomic(tmp_path / "a.json", b"new", durable=True)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
