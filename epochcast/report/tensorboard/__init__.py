"""TensorBoard: what is written for it, and a tab of our own with the traces. No torch in here.

a store      ──publish.py──▶ index.py, contents.py ──▶ files in the log folder
a run        ──following.py──▶ an event file for each process        events.py: their format
TensorBoard  ──plugin.py──▶ our tab, answered by responses.py        server.py: starts it
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epochcast.report.tensorboard.following import BoardWatcher


def board_watcher(folder: str | Path) -> BoardWatcher | None:
    """A watcher that writes a run's events to a folder; None where TensorBoard is missing."""
    if find_spec("tensorboard") is None:
        return None
    from epochcast.report.tensorboard.following import BoardWatcher

    return BoardWatcher(folder)
