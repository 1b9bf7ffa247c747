"""A run on a fake clock saves hundreds of times; in memory none of them waits for a disk."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    if MEMORY.is_dir():
        monkeypatch.setattr(tempfile, "tempdir", str(MEMORY))


@pytest.fixture
def tmp_path(_in_memory: None) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder)
