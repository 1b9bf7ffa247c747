"""One reader of files: the same table in every form, and no file that ends in a traceback."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sized
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochcast.errors import EpochcastError
from epochcast.importers import runs
from epochcast.importers.cells import parse_number
from epochcast.importers.columns import ImportOptions
from epochcast.importers.curves import read_curve
from epochcast.importers.rows import Malformed
from epochcast.importers.table import read_file, read_text

A100 = ImportOptions(workload="cnn", device="NVIDIA A100", samples=100)
NAMES = ("bs", "epoch", "epoch_s", "val_loss", "a\nb", "Epoch\n", "\nval_loss")
BROKEN = ('"a\nb"', '"\nepoch"', '"val\nloss"')  # names in a cell of a CSV
CELLS = (*NAMES[:4], *BROKEN, "", "1", "2.5", "nan", "1e999", '"', "1,5", "-", "\x00", "\x1c")

names = st.lists(
    st.text(st.characters(codec="utf-8", categories=["L"]), min_size=1, max_size=5),
    min_size=1,
    max_size=4,
    unique=True,
)
numbers = st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, float]]:
    keys = draw(names)
    rows = st.lists(numbers, min_size=len(keys), max_size=len(keys))
    return [dict(zip(keys, row, strict=True)) for row in draw(st.lists(rows, min_size=1))]


def as_csv(rows: list[dict[str, float]], delimiter: str) -> str:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


@given(tables(), st.sampled_from(",;\t"), st.booleans())
def test_a_table_is_the_same_in_every_form(
    rows: list[dict[str, float]], delimiter: str, strict: bool
) -> None:
    forms = {
        "csv": as_csv(rows, delimiter),
        "json lines": "\n".join(map(json.dumps, rows)),
        "array": json.dumps(rows, indent=1),
        "lists": json.dumps({name: [row[name] for row in rows] for name in rows[0]}),
        "trainer": json.dumps({"log_history": rows}),
    }
    for text in forms.values():
        table = read_text("\ufeff" + text, strict=strict)
        assert table.names == tuple(rows[0])
        found = [{name: row.get(name, parse_number) for name in table.names} for row in table.rows]
        assert found == rows


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a,b\n1,x\n", "line 2"),
        ('a,b\n"1\n2",1\n\n3,x\n', "line 5"),
        ('{"b": 1}\n\n{"b": "x"}\n', "line 3"),
        ('\n\n{"b": "x"}\n', "line 3"),
        ('[{"b": 1}, {"b": "x"}]', "entry 2"),
        ('{"b": [1, "x"]}', "entry 2"),
    ],
)
def test_a_row_knows_where_it_is_written(text: str, place: str) -> None:
    with pytest.raises(Malformed, match=f"^{place}, column 'b': expected a number, but got 'x'$"):
        [row.get("b", parse_number) for row in read_text(text).rows]


def test_a_name_in_two_lines_is_typed_in_one() -> None:
    (m,) = runs.read('bs,"Epoch time\n(ms)"\n8,9 9\n', A100).measurements
    assert m.step_seconds == pytest.approx((9e-3 * 8 / 100,))
    assert read_text('{" val\\n loss": 1}').names == ("val loss",)


def test_columns_without_a_name_hold_nothing_that_is_used() -> None:
    table = read_text(",a,\n0,1,\n1,2,\n", strict=True)
    assert table.names == ("a",)
    assert [row.cells for row in table.rows] == [{"a": "1"}, {"a": "2"}]
    with pytest.raises(EpochcastError, match="a column has no name"):
        runs.read('{"": 1, "bs": 1, "epoch_s": 1}', A100)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
nearly_csv = st.lists(
    st.lists(st.sampled_from(CELLS) | st.text(max_size=4), max_size=5).map(",".join), max_size=5
).map("\n".join)
texts = (
    st.text()
    | nearly_csv
    | nearly_csv.map(lambda text: ",".join(NAMES[:4]) + "\n" + text)
    | anything.map(json.dumps)
    | st.lists(anything.map(json.dumps), max_size=4).map("\n".join)
    | st.sampled_from(["[" * 100_000, '{"a":' * 100_000, "[" + "9" * 5000 + "]", "\udcff", "\r"])
)


def in_one_line(read: Callable[[], Sized]) -> None:
    """Either something is read, or the reason why not is a line."""
    try:
        found = read()
    except EpochcastError as error:
        message = str(error)
    else:
        message = "" if len(found) else "\n"
    assert "\n" not in message


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(texts)
def test_a_text_is_imported_or_refused_in_one_line(text: str) -> None:
    runs.is_export(text)
    in_one_line(lambda: runs.read(text, A100).measurements)


def read_anything(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    in_one_line(lambda: read_curve(path, steps_per_epoch=1).epochs)


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(texts.map(lambda text: text.encode(errors="surrogatepass")) | st.binary())
def test_any_file_is_a_learning_curve_or_refused_in_one_line(
    tmp_path: Path, content: bytes
) -> None:
    read_anything(tmp_path / "curve.csv", content)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(), kept=st.integers(0, 200), changed=st.integers(0, 200))
def test_a_damaged_event_file_is_refused_in_one_line(
    tmp_path: Path, content: bytes, kept: int, changed: int
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    whole = io.BytesIO()
    writer = RecordWriter(whole)
    value = Summary.Value(tag="val_loss", simple_value=0.5)
    for step in (1, 2, 3):
        event = Event(step=step, wall_time=0.0, summary=Summary(value=[value]))
        writer.write(event.SerializeToString())
    damaged = bytearray(whole.getvalue())
    damaged[changed % len(damaged)] ^= 255
    file = tmp_path / "events.out.tfevents.1"
    cut = whole.getvalue()[:kept]
    for broken in (content, cut, cut + content, bytes(damaged)):
        read_anything(file, broken)


def test_a_file_that_is_not_text_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"val_loss\n1\n2\xb5s\n")
    with pytest.raises(EpochcastError, match=r"cannot use .* as a learning curve: line 3: not UTF"):
        read_curve(file)
    file.write_bytes(b"val_loss\n1\n\0\n")
    with pytest.raises(EpochcastError, match=r"line 3: not text: there is a NUL"):
        read_curve(file)
    with pytest.raises(OSError, match="nothing"):
        read_file(tmp_path / "nothing.csv")
