"""What our tab draws: exact, unsmoothed, in the colours of the page; drawn when it is looked at.

an index ──▶ step time and memory over the batch size, predicted against measured, followed runs
log.jsonl of a run that follows a plan, going on or over ──▶ the run in its band
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from epochcast.errors import EpochcastError
from epochcast.guard.log import LOG_NAME, first_start, last_run, lasting_epochs, read_log
from epochcast.report.plots.comparison import followed_pictures, probed_pictures
from epochcast.report.plots.following import draw_run
from epochcast.report.plots.pictures import Picture, inline_svg
from epochcast.report.tensorboard.index import BoardIndex

KEPT = 100  # pictures in memory, of 20 to 60 kB


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture of the tab.

    Attributes:
        key: 16 hexadecimal digits that change when what it shows does.
        workload: for the filter.
        title: of which workload and device.
    """

    key: str
    workload: str
    title: str
    picture: Picture


def drawings_of(path: Path, state: object, index: BoardIndex) -> list[Drawing]:
    """The pictures of an index.

    Args:
        path: of the index.
        state: of the file, different whenever it was written.
        index: as read.
    """
    devices = {(row.workload, row.device.key): row.device for row in index.configurations}
    devices |= {(run.workload, run.device.key): run.device for run in index.outcomes}
    found = []
    for here, device in devices.items():
        summaries = [r for r in index.configurations if (r.workload, r.device.key) == here]
        predictions = [p for p in index.predictions if (p.workload, p.device.key) == here]
        outcomes = [o for o in index.outcomes if (o.workload, o.device.key) == here]
        for picture in (*probed_pictures(summaries, predictions), *followed_pictures(outcomes)):
            key = _key(path, state, here, picture.name)
            found.append(Drawing(key, here[0], f"{here[0]} on {device.label}", picture))
    return found


def drawing_of_run(path: Path, state: object) -> Drawing | None:
    """The picture of a followed run; None of a log without a whole epoch, or that cannot be read.

    Args:
        path: of its log.
        state: of the file, different whenever it was written.
    """
    try:
        events = read_log(path)
    except EpochcastError:
        return None
    start = first_start(last_run(events))
    if start is None or not lasting_epochs(last_run(events)):
        return None
    words = "Each epoch in the band that was predicted for it; below, what the whole run takes."
    picture = Picture(f"the run in {path.parent.name}", words, partial(draw_run, events))
    title = f"{start.workload} with {start.config.label}"
    return Drawing(_key(path, state), start.workload, title, picture)


def find_logs(folder: Path) -> Iterator[Path]:
    """Every log of a run below a folder; links to folders are not followed."""
    for found, folders, files in os.walk(folder):
        folders.sort()
        if LOG_NAME in files:
            yield Path(found, LOG_NAME)


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Drawer:
    """Draws one picture at a time, matplotlib's settings being those of the process, and once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn: dict[tuple[str, bool], bytes] = {}

    def svg(self, drawing: Drawing, dark: bool) -> bytes:
        """The picture as a file.

        Args:
            drawing: what to draw.
            dark: whether the page around it is.

        Raises:
            MissingDependency: matplotlib is not installed.
            UsageError: there is nothing to draw.
        """
        with self._lock:
            known = self._drawn.get((drawing.key, dark))
            if known is None:
                label = f"{drawing.title}: {drawing.picture.name}"
                known = inline_svg(drawing.picture.draw(), label, dark).encode()
                self._drawn[drawing.key, dark] = known
                while len(self._drawn) > KEPT:
                    del self._drawn[next(iter(self._drawn))]
            return known
