"""Whole-file writes: a reader, or a kill, finds the old content or the new, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step: its content is the old one or the new one, never a part.

    Args:
        path: of the file; its folder must be there.
        content: of the whole file.
        durable: whether it must survive a power cut too, not only a kill; costs a few milliseconds.

    Raises:
        OSError: the folder cannot be written; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
