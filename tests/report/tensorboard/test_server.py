"""Which requests are answered: those that name this machine as a browser on it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.report.tensorboard import for_local_names


def status(host: str | None) -> str:
    seen: list[str] = []
    application = for_local_names(lambda environ, start: start("200 OK", []) or [b"secret"])
    environ = {} if host is None else {"HTTP_HOST": host}
    body = b"".join(application(environ, lambda line, headers: seen.append(line)))
    assert (seen == ["200 OK"]) == (body == b"secret")
    return seen[0][:3]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:6006", "LocalHost.:1", "127.0.0.1:80", "[::1]:6006", "[::1]"]
)
def test_local_names_are_answered(host: str) -> None:
    assert status(host) == "200"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:6006",
        "localhost.evil.example",
        "evil.example@localhost:1:2",
        "127.0.0.1.nip.io",
        "192.168.0.7:6006",
        "0.0.0.0",
        "",
        "localhost:",
        "[::2]",
        "localhost:80:80",
        None,
    ],
)
def test_other_names_are_not(host: str | None) -> None:
    assert status(host) == "403"


@given(st.text(max_size=30))
def test_no_header_breaks_it(host: str) -> None:
    assert status(host) in ("200", "403")
