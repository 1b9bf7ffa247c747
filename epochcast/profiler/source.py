"""Which version of a workload's code a measurement belongs to. Executes nothing."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path


def split_target(target: str) -> tuple[str, str]:
    """Place and function of a target; a built-in has no place."""
    place, _, name = target.rpartition(":")
    return place, name


def canonical(target: str) -> str:
    """The same target always written the same way: ``./train.py:workload`` without its dot."""
    place, name = split_target(target)
    return f"{os.path.normpath(place)}:{name}" if place.endswith(".py") else target


def source_of(target: str) -> str:
    """Fingerprint of the file that defines a workload; not of what that file imports.

    Empty where the file is not known: a module that this process has not imported.
    """
    place, _ = split_target(target)
    if not place:
        files = sorted(Path(__file__).with_name("builtin").glob("*.py"))
    elif place.endswith(".py"):
        files = [Path(place)]
    else:
        files = _files_of_module(place)
    digest = hashlib.sha256()
    if not files:
        return ""
    try:
        for file in files:
            digest.update(file.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:12]


def _files_of_module(name: str) -> list[Path]:
    """The file of a module, imported or not: found by its path, so that nothing is executed."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded:
        return [Path(loaded)]
    parts = Path(*name.split("."))
    for folder in (".", *sys.path):
        place = Path(folder or ".")
        for way in (place / f"{parts}.py", place / parts / "__init__.py"):
            if way.is_file():
                return [way]
    return []
