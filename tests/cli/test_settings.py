"""What a project says once instead of with every command."""

from __future__ import annotations

import re

import pytest
import truths
from click.testing import CliRunner

from epochcast.cli import cli
from epochcast.cli.settings import CURRENCY, KNOWN, find_settings
from epochcast.errors import UsageError
from epochcast.storage.store import Store


def write(folder, text, name="epochcast.toml"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_the_nearest_file_counts(tmp_path):
    write(tmp_path, '[tool.epochcast]\nconfidence = "80%"', "pyproject.toml")
    write(tmp_path / "a", "[tool.ruff]\nline-length = 100", "pyproject.toml")
    assert find_settings(tmp_path / "a").values == {"confidence": "80%"}
    write(tmp_path / "a", "confidence = 95\nprice-per-hour = 2.5\n")
    found = find_settings(tmp_path / "a" / "b")
    assert found.file == tmp_path / "a" / "epochcast.toml"
    assert found.values == {"confidence": "95", "price-per-hour": "2.5"}


def test_a_stores_path_counts_from_its_file(tmp_path):
    write(tmp_path, 'store = "runs/all.sqlite"')
    assert find_settings(tmp_path / "deep").values == {"store": str(tmp_path / "runs/all.sqlite")}
    write(tmp_path, 'store = "postgresql+psycopg://host/name"')
    assert find_settings(tmp_path).values == {"store": "postgresql+psycopg://host/name"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price = 2", "knows store, price-per-hour, .* but got 'price'"),
        ("confidence = [1]", "confidence in .* must be a number or a text"),
        ("threads = true", "threads in .* must be a number or a text, but got True"),
        ("confidence = ", "cannot be read as TOML"),
        (b"\xff\xfe", "cannot be read as TOML"),
    ],
)
def test_what_is_no_setting_is_refused(tmp_path, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "epochcast.toml").write_bytes(data)
    with pytest.raises(UsageError, match=message):
        find_settings(tmp_path)


def test_a_table_is_expected(tmp_path):
    write(tmp_path, "[tool]\nepochcast = 3", "pyproject.toml")
    with pytest.raises(UsageError, match="must be a table, but got 3"):
        find_settings(tmp_path)


def test_every_setting_is_an_option_of_a_command():
    runner = CliRunner()
    helps = "".join(runner.invoke(cli, [c, "--help"]).output for c in ("probe", "predict", "plan"))
    assert all(f"--{name}" in helps for name in KNOWN if name != CURRENCY)


def test_options_come_first_and_what_the_file_gives_is_said(tmp_path, monkeypatch):
    write(tmp_path, 'store = "nothing.sqlite"\nconfidence = "x%"')
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    asked = runner.invoke(cli, ["plan", "--epochs", "3", "--confidence", "90%"])
    file = tmp_path / "epochcast.toml"
    assert f"from {file}: store={tmp_path / 'nothing.sqlite'}\n" in asked.stderr
    assert "there is no store at" in asked.stderr
    refused = runner.invoke(cli, ["plan", "--epochs", "3"])
    assert "a share is like '90%'" in refused.stderr
    listed = runner.invoke(cli, ["probes", "list"])  # a command of a group takes them, too
    assert f"from {file}: store=" in listed.stderr
    assert "from" not in runner.invoke(cli, ["plan", "--help"]).stderr


def test_amounts_have_the_projects_currency(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open() as store:
        store.add_all(truths.sweep((32, 64)))
    runner, asked = CliRunner(), ["predict", "--epochs", "9", "--price-per-hour", "900"]
    write(tmp_path, 'currency = "EUR"')
    assert re.search(r"^cost +EUR \d", runner.invoke(cli, asked).stdout, re.MULTILINE)
    found = runner.invoke(cli, ["plan", *asked[1:], "--budget", "EUR 0.01"])
    assert (found.exit_code, "EUR" in found.stderr, "$" in found.output) == (3, True, False)
    write(tmp_path, 'currency = "1"')
    refused = runner.invoke(cli, asked)
    assert f"currency in {tmp_path / 'epochcast.toml'}: a currency is like" in refused.stderr
    (tmp_path / "epochcast.toml").unlink()
    assert re.search(r"^cost +\$\d", runner.invoke(cli, asked).stdout, re.MULTILINE)
