"""What reaches a terminal does nothing but show letters, and every encoding can write it."""

from __future__ import annotations

import json
from io import BytesIO, StringIO, TextIOWrapper

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from epochcast.records import to_json
from epochcast.report.text.layout import PlainConsole
from epochcast.report.text.terminal import encodable, printable, tolerate

TITLE = "\x1b]0;owned\x07"  # sets the title of a window
BRIGHT = "\x9b31m"  # one byte begins a sequence on a terminal of eight bits
TURNED = "abc\u202egpj.exe"  # shown as abcexe.jpg


def test_an_escape_sequence_is_text() -> None:
    assert printable(f"a{TITLE}b{BRIGHT}c") == "a?]0;owned?b?31mc"
    assert printable(TURNED) == "abc?gpj.exe"
    assert printable("50 % ± 3 µs – ja, 你好\n\tnext") == "50 % ± 3 µs – ja, 你好\n\tnext"
    assert printable("two\nlines", keep="") == "two lines"


@given(st.text())
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    clean = printable(text)
    assert clean.replace("\n", "").replace("\t", "").isprintable()
    assert len(clean) == len(text)
    assert printable(clean) == clean


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "koi8-r", "utf-8"]))
def test_every_text_can_be_written_in_every_encoding(text: str, encoding: str) -> None:
    stream = TextIOWrapper(BytesIO(), encoding=encoding)
    known = encodable(text, stream)
    assert known.encode(encoding).decode(encoding) == known
    possible = text.encode(encoding, "ignore").decode(encoding) == text
    assert not possible or known == text


def test_what_ascii_lacks_is_said_plainly() -> None:
    stream = TextIOWrapper(BytesIO(), encoding="ascii")
    tolerate(stream)
    click.echo("10.9–12.7 min ± 5 %, × 3 … größer 你", file=stream)
    PlainConsole(file=stream, width=60).print(Text("§ 8.49 µs"))
    stream.flush()
    written = stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert written.splitlines() == ["10.9-12.7 min +- 5 %, x 3 ... gro?er ?", "? 8.49 us"]


def test_a_console_has_no_escapes_but_its_own() -> None:
    sink = StringIO()
    console = PlainConsole(file=sink, force_terminal=True, width=80, color_system="standard")
    table = Table(TITLE, box=None)
    table.add_row(f"[red]{TITLE}[/nothing]:smile:")
    for thing in (table, Text(TITLE, style="red"), TITLE):
        console.print(thing)
    text = sink.getvalue()
    assert TITLE not in text
    assert "\x07" not in text
    assert "\x1b[31m?]0;owned\x1b[0m" in text
    assert "[red]?]0;owned?[/nothing]:smile:" in text


@pytest.mark.parametrize("text", [TITLE, BRIGHT, TURNED, "\x7f", "é"])
def test_json_stays_the_same_text_without_controls(text: str) -> None:
    written = to_json({"name": text})
    assert json.loads(written) == {"name": text}
    assert not set(written) & {chr(c) for c in (*range(32), *range(128, 160))}
