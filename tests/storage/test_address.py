"""A password is in no text that leaves a store, whatever it is and wherever it was given."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.cli import cli
from epochcast.errors import EpochcastError, UsageError
from epochcast.storage.address import locate, masked

AROUND = "postgresql+psycopg://ada@db.example.org:5432/team?password=&sslmode=require"
PASSWORDS = st.text(min_size=8).filter(  # none that the words beside it hold anyway
    lambda text: text.isprintable() and text not in f"{AROUND} {locate(AROUND)!r}"
)
NOWHERE = "127.0.0.1:1"  # refuses at once


@settings(max_examples=50, deadline=None)
@given(PASSWORDS, st.sampled_from(["postgres", "postgresql", "postgresql+psycopg"]))
def test_an_address_tells_libpq_alone(password: str, scheme: str) -> None:
    quoted = quote(password, safe="")
    for url in (
        f"{scheme}://ada:{quoted}@db.example.org:5432/team",
        f"{scheme}://ada@db.example.org:5432/team?password={quoted}&sslmode=require",
    ):
        address = locate(url)
        assert address.secrets == {"password": password}
        for shown in (repr(address), address.label, address.option, address.dsn):
            assert password not in shown
            assert quoted not in shown
        assert address.masked(f"no such host {password!s} {quoted}").count("***") == 2
        assert quoted not in masked(f"what was typed, {url}, is no store")


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=3, alphabet="ab1:/?#@[] %"))
def test_a_password_that_is_not_quoted_is_refused_or_kept(raw: str) -> None:
    try:
        said = locate(f"postgresql://ada:SECRET{raw}SECRET@db.example.org/team")
    except EpochcastError as error:
        said = str(error)
    assert "SECRET" not in f"{said}"


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["", "postgresql", "postgres:/", "postgresql:", "postgresql//", "sqlite:/"]),
    st.sampled_from(["ada", "", "/ada", "a.b"]),
    st.text(alphabet="ab1:/?#@%", max_size=4),
)
def test_a_mistyped_url_shows_no_password(before: str, user: str, raw: str) -> None:
    url = f"{before}{user}:SECRET{raw}SECRET@db.example.org/team"
    assert "SECRET" not in masked(f"there is no store at {url}: check")
    with pytest.raises(UsageError) as caught:
        locate(url)
    assert "SECRET" not in str(caught.value)


def test_a_url_without_a_password_stays_as_it_is() -> None:
    for text in ("postgresql://ada@h:5432/db", "file.py:function", "git@github.com:a/b", "a: b@c"):
        assert masked(text) == text


def test_what_is_left_out_is_for_libpq_to_find() -> None:
    assert locate("postgresql:///team").dsn == "postgresql:///team"
    assert (
        locate("postgres://db/team?sslmode=require").label == "postgresql://db/team?sslmode=require"
    )
    assert locate("postgresql://[::1]:5432/team").dsn == "postgresql://[::1]:5432/team"
    assert locate("postgresql://a:1,b:2/team").secrets == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--epochs", "3", "--store", "{}"],
        ["plan", "--epochs", "3", "--store={}"],
        ["plan", "--epochs", "{}"],
        ["probes", "list", "--store", "{}"],
        ["probes", "push", "{}"],
        ["probes", "pull", "{}", "--workload", "x"],
        ["probes", "list", "a", "{}"],
        ["probes", "show", "{}"],
        ["predict", "{}", "--epochs", "3"],
        ["compare", "store={}", "store={}", "--epochs", "3"],
        ["calibration", "--store", "{}", "--forget", "{}"],
        ["{}"],
        ["--{}"],
        ["predict", "--{}"],
    ],
)
def test_no_command_repeats_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (
        f"postgresql://ada:s3cr3t-w%20rd@{NOWHERE}/team",
        f"postgresql://ada@{NOWHERE}/team?password=s3cr3t-w%20rd",
        f"mysql://ada:s3cr3t@{NOWHERE}/team",
        f"postgresql://ada:s3cr3t/w@{NOWHERE}/team",
        f"postgresql://ada:p=s3cr3t@{NOWHERE}/team",
        f"postgresql:/ada:s3cr3t@{NOWHERE}/team",
        f"postgresql//ada:s3cr3t@{NOWHERE}/team",
        f"ada:s3cr3t@{NOWHERE}/team",
    ):
        done = CliRunner().invoke(cli, [argument.format(url) for argument in arguments])
        assert done.exit_code != 0
        assert "s3cr3t" not in done.output
        assert "Traceback" not in done.output
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and b"s3cr3t" in f.read_bytes()]


def test_a_setting_is_said_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("epochcast.toml").write_text(f'store = "postgresql://ada:s3cr3t@{NOWHERE}/team"')
    done = CliRunner().invoke(cli, ["predict", "--epochs", "3"])
    assert f"store=postgresql://ada:***@{NOWHERE}/team" in done.stderr
    assert "s3cr3t" not in done.output


def test_an_error_of_the_driver_holds_none(server, tmp_path: Path) -> None:
    from epochcast.storage.store import Store

    with pytest.raises(EpochcastError) as caught:
        Store.open(server.url("x").replace("/postgres?", "/nosuch?"), folder=tmp_path)
    error: BaseException | None = caught.value
    while error is not None:
        assert server.password not in f"{error!r} {error}"
        error = error.__cause__
    assert server.password.encode() not in pickle.dumps(str(caught.value))
