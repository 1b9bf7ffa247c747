"""What a project says once instead of with every command: ``epochcast.toml`` or ``pyproject.toml``.

    # pyproject.toml                     # epochcast.toml
    [tool.epochcast]                     store = "runs/measurements.sqlite"
    store = "runs/measurements.sqlite"   price-per-hour = 2.50
    price-per-hour = 2.50

The nearest file upwards of the working directory counts. What an option says comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from epochcast.errors import UsageError

OWN, PROJECT = "epochcast.toml", "pyproject.toml"
CURRENCY = "currency"  # that amounts are written in; no option says it
KNOWN = (
    *("store", "price-per-hour", CURRENCY, "watts", "carbon-per-kwh", "mtbf", "confidence"),
    "threads",
)


@dataclass(frozen=True)
class Settings:
    """What a file says.

    Attributes:
        file: where it was said; None where no file says anything.
        values: by the names of the options, as they would be typed.
    """

    file: Path | None = None
    values: Mapping[str, str] | None = None

    @property
    def currency(self) -> str:
        """That amounts are written in."""
        return (self.values or {}).get(CURRENCY, "$")

    def defaults(self, command: click.Command) -> dict[str, str]:
        """Of a command's parameters, by click's names for them."""
        found = self._of(command)
        return {str(o.name): text for o, _, text in found}

    def used_by(self, command: click.Command, arguments: list[str]) -> str:
        """What a command takes from the file, in words; empty where nothing."""
        typed = {argument.partition("=")[0] for argument in arguments}
        found = self._of(command)
        used = [f"{name}={text}" for o, name, text in found if not typed & set(o.opts)]
        return f"from {self.file}: {', '.join(used)}" if used else ""

    def _of(self, command: click.Command) -> list[tuple[click.Option, str, str]]:
        """The options of a command that the file has a value for."""
        return [
            (option, name, text)
            for name, text in (self.values or {}).items()
            for option in command.params
            if isinstance(option, click.Option) and f"--{name}" in option.opts
        ]


def find_settings(folder: Path) -> Settings:
    """The settings that hold in a folder: those of the nearest file that has any.

    Raises:
        UsageError: the file is not TOML, or says what is no setting.
    """
    for parent in (folder, *folder.parents):
        for name in (OWN, PROJECT):
            found = _read(parent / name)
            if found is not None:
                return Settings(parent / name, _checked(parent / name, found))
    return Settings()


def _read(file: Path) -> Mapping[str, Any] | None:
    """The table of settings in a file; None where there is none."""
    if not file.is_file():
        return None
    import msgspec.toml

    try:
        text = file.read_text("utf-8")
        if file.name == PROJECT and "epochcast" not in text:
            return None
        table: Mapping[str, Any] = msgspec.toml.decode(text)
    except (OSError, UnicodeError, msgspec.DecodeError) as error:
        raise UsageError(f"{file} cannot be read as TOML: {error}") from error
    if file.name == OWN:
        return table
    tools = table.get("tool", {})
    found: Mapping[str, Any] | None = tools.get("epochcast") if isinstance(tools, dict) else None
    return found


def _checked(file: Path, table: object) -> dict[str, str]:
    """As texts; a store's path counts from the file that names it."""
    if not isinstance(table, dict):
        raise UsageError(f"tool.epochcast in {file} must be a table, but got {table!r}")
    values: dict[str, str] = {}
    for name, value in table.items():
        if name not in KNOWN:
            raise UsageError(f"{file} knows {', '.join(KNOWN)}, but got {name!r}")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise UsageError(f"{name} in {file} must be a number or a text, but got {value!r}")
        values[name] = str(value)
    if "store" in values and "://" not in values["store"]:
        values["store"] = str(file.parent / values["store"])
    return values
