"""The process that plays scenarios: ``python -m gpu_parts.child SPEC``, SPEC being JSON.

Each record is a line of JSON, written at once: what was recorded survives whatever happens next.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

TRACEBACK = 4000  # characters of a traceback that are kept, the last ones
AGAIN = (
    0.5  # seconds to the next alarm: one that rings within a garbage collector's callback is lost
)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Where a scenario is played, and whom it tells.

    Attributes:
        device: of torch.
        dry: in miniature.
        work: folder shared by all scenarios of a run.
        until: monotonic seconds at which the process is ended.
        records: file to which records go.
        scenario: being played.
    """

    device: str
    dry: bool
    work: Path
    until: float
    records: Path
    scenario: str

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def seconds_left(self) -> float:
        return self.until - time.monotonic()

    def emit(self, kind: str, *, attached: Path | None = None, **fields: Any) -> None:
        """Record something.

        Args:
            kind: what it is.
            attached: a gzipped JSON file that belongs to it; such records have a file of their own.
            **fields: what is known.
        """
        record = {"scenario": self.scenario, "kind": kind, **fields}
        if attached is not None:
            record["attached"] = str(attached)
        with self.records.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record, default=str) + "\n")

    def skip(self, what: str, why: str) -> None:
        """Record that something was left out: nothing stands in for it."""
        self.emit("skipped", what=what, why=why)


class OutOfTime(Exception):
    """The time of this process is over; what is known can still be recorded."""


def out_of_time(*_: object) -> None:
    """Called by the alarm.

    Raises:
        OutOfTime: always.
    """
    raise OutOfTime("the time of the scenario was over")


def main(spec: Mapping[str, Any]) -> int:
    """Play the scenarios one after the other; 1 if one of them failed."""
    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, spec["seconds"], AGAIN)
    run = import_module(spec["module"]).run
    until = time.monotonic() + spec["seconds"]
    failed = 0
    for name in spec["scenarios"]:
        here = Situation(
            device=spec["device"],
            dry=spec["dry"],
            work=Path(spec["work"]),
            until=until,
            records=Path(spec["records"]),
            scenario=name,
        )
        began = time.monotonic()
        try:
            run(here)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other scenarios go on
            failed = 1
            if isinstance(error, OutOfTime):
                signal.setitimer(signal.ITIMER_REAL, 0)  # what is known is recorded undisturbed
            text = "".join(traceback.format_exception(error))
            here.emit(
                "error", message=f"{type(error).__name__}: {error}", traceback=text[-TRACEBACK:]
            )
        here.emit("ended", seconds=time.monotonic() - began)
    return failed


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
