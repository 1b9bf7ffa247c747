"""What may reach a terminal: text that moves no cursor, in letters that its encoding has.

knob names, messages, metrics ──printable──▶ no escape sequences, no controls, no passwords
sys.stdout, sys.stderr ────tolerate──▶ "90 % ± 5 %" to ASCII as "90 % +- 5 %", never an error
"""

from __future__ import annotations

import codecs
import sys
import unicodedata
from io import TextIOWrapper
from typing import TextIO

from epochcast.storage.address import masked

SUBSTITUTE = "?"
# What our texts are written with, where the encoding lacks it; other letters lose their accents.
_PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "±": "+-",
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "→": "->",
    "µ": "u",
    "√": "sqrt",
    "·": "*",
    "…": "...",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}
_ERRORS = "epochcast-plain"
_ASCII = "epochcast_ascii"


def printable(text: str, keep: str = "\n\t") -> str:
    """A text whose control characters, escape sequences and direction marks do nothing.

    What is in ``keep`` stays; other white space becomes a blank, all else a question mark. Nor does
    the password of a URL reach a terminal, whoever repeats what was typed.
    """
    text = masked(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _harmless(c) for c in text)


def _harmless(character: str) -> str:
    return " " if character.isspace() else SUBSTITUTE


def encodable(text: str, stream: TextIO | None = None) -> str:
    """A text as a stream can write it, by default standard output: "±" to ASCII is "+-"."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, _ERRORS).decode(encoding)


def tolerate(*streams: TextIO) -> None:
    """Let streams write any text: what their encoding lacks is written plainly.

    click takes ASCII for a mistake and would write UTF-8; so ASCII gets another name.
    """
    for stream in streams:
        if isinstance(stream, TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else None, errors=_ERRORS)


def _write_plainly(error: UnicodeError) -> tuple[str, int]:
    """What to write instead of what an encoding lacks; an error handler of ``codecs``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_plain, lacking)), error.end


def _plain(character: str) -> str:
    known = _PLAIN.get(character)
    if known:
        return known
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return bare or SUBSTITUTE


def _find_codec(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    plain = codecs.lookup("ascii")
    return codecs.CodecInfo(
        plain.encode,
        plain.decode,
        streamreader=plain.streamreader,
        streamwriter=plain.streamwriter,
        incrementalencoder=plain.incrementalencoder,
        incrementaldecoder=plain.incrementaldecoder,
        name=_ASCII,
    )


codecs.register_error(_ERRORS, _write_plainly)
codecs.register(_find_codec)
