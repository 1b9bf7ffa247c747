"""A command as a template: arguments and environment in which values are put.

    python train.py --batch-size {batch_size} --epochs {epochs}        --set batch_size=16,32
    ───────────────────────── Template ────────────────────────        ───── choices ────────
         │ filled(batch_size="16", epochs="3")
         ▼
    python train.py --batch-size 16 --epochs 3                         no shell reads it

``{name}`` is a name where a Python variable could be called so: JSON arguments stay as they are.
``${name}`` is a shell's and stays too; ``{{name}}`` stands for ``{name}`` itself. ``{epochs}`` is
filled by whoever starts the command: with a few for a probe, which then ends by itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import get_args

from epochcast.errors import UsageError
from epochcast.profiler.target import script_at, workload_name
from epochcast.records import Precision, SizeValue, parse_size_value

EPOCHS = "epochs"
PLACE = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|(?<!\$)\{([A-Za-z_]\w*)\}")
_PROCESSES = {  # options of launchers that say how many processes train together
    "devices",
    "nproc-per-node",
    "np",
    "num-gpus",
    "num-processes",
    "world-size",
}
_LEAST = {"batch_size": 1, "accumulation": 1, "workers": 0, "world_size": 1}
Choices = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A command that can be started."""

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def request(self) -> str:
        """Fingerprint of what is started."""
        text = repr((self.arguments, self.environment))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Template:
    """A command with places for values.

    Attributes:
        arguments: the program first; no shell takes part.
        environment: variables to set beside those that are there.

    Raises:
        UsageError: there is no command, or no such program.
    """

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.arguments or not self.arguments[0]:
            raise UsageError("no command was given; write it after --, like -- python train.py")
        for name, _ in self.environment:
            if not name or "=" in name:
                raise UsageError(f"a variable of the environment needs a name, but got {name!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """What is to be filled in, each once, in the order in which it first appears."""
        texts = (*self.arguments, *(value for _, value in self.environment))
        found = (match[2] for text in texts for match in PLACE.finditer(text) if match[2])
        return tuple(dict.fromkeys(found))

    def filled(self, values: Mapping[str, str]) -> Filled:
        """The command with its values.

        Raises:
            UsageError: a value is missing.
        """
        for name in self.names:
            if name not in values:
                raise UsageError(_missing(name))

        def fill(text: str) -> str:
            return PLACE.sub(lambda m: f"{{{m[1]}}}" if m[1] else values[m[2]], text)

        return Filled(
            arguments=tuple(fill(argument) for argument in self.arguments),
            environment=tuple((name, fill(value)) for name, value in self.environment),
        )

    @property
    def workload(self) -> str:
        """What the script is called: its file as it was written, or its module."""
        return workload_name(self.arguments)

    def settings(self, values: Mapping[str, str]) -> dict[str, SizeValue]:
        """Of values, those that are settings of every training, by the names that we have for them.

        Args:
            values: as they are to be written.
        """
        pairs = ((self.setting(name), parse_size_value(text)) for name, text in values.items())
        return {setting: value for setting, value in pairs if _is_possible(setting, value)}

    def knobs(self, values: Mapping[str, str]) -> dict[str, SizeValue]:
        """All others; a batch size that is no number is none of them, the loader tells it then.

        Args:
            values: as they are to be written.
        """
        known = {*self.settings(values), "batch_size", "accumulation"}
        own = (name for name in values if self.setting(name) not in known)
        return {name: parse_size_value(values[name]) for name in own}

    def setting(self, name: str) -> str:
        """The setting that a name stands for; empty where it is a knob of the script's own."""
        if name in _LEAST or name == "precision":
            return name
        filled = [value for option, value in _options(self.arguments) if option in _PROCESSES]
        return "world_size" if f"{{{name}}}" in filled else ""


def _is_possible(setting: str, value: SizeValue) -> bool:
    if setting in _LEAST:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and int(value) >= _LEAST[setting]
    return setting == "precision" and value in get_args(Precision)


def _options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """``--nproc_per_node 2`` as ``("nproc-per-node", "2")``, and ``--nproc_per_node=2`` too."""
    split = [argument.partition("=") for argument in arguments if argument.startswith("-")]
    joined = [(option, value) for option, equals, value in split if equals]
    apart = [(a, b) for a, b in pairwise(arguments) if a.startswith("-") and "=" not in a]
    return [(name.lstrip("-").replace("_", "-"), value) for name, value in (*joined, *apart)]


def processes_said(arguments: Sequence[str]) -> int | None:
    """How many processes a launcher is told to start; None where there is none, or it is not told.

    Args:
        arguments: of the command, filled.
    """
    launcher = arguments[: script_at(arguments)]
    said = [value for option, value in _options(launcher) if option in _PROCESSES]
    return int(said[-1]) if said and said[-1].isdecimal() else None


def verbatim(arguments: Sequence[str]) -> tuple[str, ...]:
    """Arguments as a template that stands for nothing but themselves."""
    return tuple(PLACE.sub(lambda m: f"{{{{{m[2]}}}}}" if m[2] else m[0], a) for a in arguments)


def _missing(name: str) -> str:
    literal = "{{" + name + "}}"
    if name == EPOCHS:
        return f"{{{EPOCHS}}} has no value here; write a number, or {literal} for the braces"
    return (
        f"{{{name}}} has no value; give it: --set {name}=VALUE[,VALUE…], or write {literal} where "
        "the braces themselves are meant"
    )


def combinations(template: Template, choices: Choices) -> list[dict[str, str]]:
    """Every combination of the values that were given, in the order given.

    Args:
        template: every name in it but ``epochs`` needs values, and every value a place.
        choices: the values of each name, as they are to be written.

    Raises:
        UsageError: a name without values or without a place.
    """
    places = template.names
    for name, values in choices.items():
        if name == EPOCHS:
            raise UsageError("{epochs} is filled by the probe itself; leave --set epochs out")
        if not values:
            raise UsageError(f"--set {name}= needs at least one value")
        if name not in places:
            raise UsageError(
                f"--set {name} is used nowhere; write {{{name}}} into an argument of the command "
                "or a value of --env, where it goes"
            )
    for name in places:
        if name not in choices and name != EPOCHS:
            raise UsageError(_missing(name))
    names = list(choices)
    different = (dict.fromkeys(choices[name]) for name in names)
    return [dict(zip(names, values, strict=True)) for values in product(*different)]


def require_program(filled: Filled, folder: Path) -> None:
    """Refuse a command whose program is not there.

    Raises:
        UsageError: it is not, or cannot be executed.
    """
    program, environment = filled.arguments[0], dict(filled.environment)
    path = environment.get("PATH", os.environ.get("PATH", os.defpath))
    where = str(folder / program) if os.sep in program else program
    if shutil.which(where, path=path) is None:
        raise UsageError(
            f"there is no program {program!r} that can be started; write the command as you do, "
            "after --, like -- python train.py"
        )


# -- what it consists of ---------------------------------------------------------------------------


def own_files(arguments: Sequence[str], imported: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Of what a script consists: the file that the command names, and what it has imported.

    Args:
        arguments: of the command; a shell script among them is imported by nobody.
        imported: files, installed ones among them.
        folder: where the command is started.
    """
    at = script_at(arguments)
    named = [] if at is None or not (folder / arguments[at]).is_file() else [arguments[at]]
    return local_files([*named, *imported], folder)


def local_files(files: Iterable[str], folder: Path) -> tuple[str, ...]:
    """Those that are not installed, relative to a folder where they lie in it."""
    paths = (Path(os.path.abspath(folder / file)) for file in files)
    own = (path for path in paths if not _is_installed(path))
    inside = (x.relative_to(folder) if x.is_relative_to(folder) else x for x in own)
    return tuple(sorted({path.as_posix() for path in inside}))


def _is_installed(path: Path) -> bool:
    return any(part in ("site-packages", "dist-packages") for part in path.parts)
