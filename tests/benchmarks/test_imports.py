"""Every benchmark finds what it imports of the package: they run too rarely for that to be seen."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = ROOT / "scripts"  # trainings, which train when they are imported
FILES = [
    path.relative_to(ROOT).with_suffix("")
    for path in sorted(ROOT.rglob("*.py"))
    if SCRIPTS not in path.parents
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_it_can_be_imported(file: Path) -> None:
    import_module(".".join(file.parts))
