"""The folder of results: one gzipped JSON file for each part, and ``summary.json``.

    PART.json.gz   {"records": [{"scenario": …, "kind": …, …}, …], "cut": [what did not fit]}
    summary.json   the command, how it ended, and what became of each scenario

Each record is a gzip member of its own and the file is their concatenation, which is a gzip file
again (RFC 1952, section 2.2): a record is packed once, however often its file is written.
"""

from __future__ import annotations

import gzip
import json
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FILE_BYTES = 8 * 2**20  # seven files of this size and the summary are under 64 MiB
ATTACHMENTS = "traces"  # the file of records that have a file attached
SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended that played scenarios.

    Attributes:
        status: ``"ok"``, ``"failed"``, ``"crashed"``, ``"cut off"`` or ``"interrupted"``.
        message: what went wrong.
        records: what it had recorded by then.
    """

    status: str
    seconds: float
    message: str = ""
    records: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder holds.

    Attributes:
        summary: the document ``summary.json``.
        records: of each file, by its name without endings.
        cut: what did not fit, likewise.
    """

    summary: Mapping[str, Any]
    records: Mapping[str, Sequence[Mapping[str, Any]]]
    cut: Mapping[str, Sequence[Mapping[str, Any]]]

    def of(self, file: str, kind: str) -> list[Mapping[str, Any]]:
        """The records of one kind in one file."""
        return [record for record in self.records.get(file, ()) if record["kind"] == kind]


class Recording:
    """Writes a folder, again after each scenario.

    Args:
        path: of the folder, which is made.
        command: by which it came about.
        dry: whether it is one in miniature.
        file_bytes: that no file exceeds.
    """

    def __init__(
        self, path: Path, *, command: str, dry: bool, file_bytes: int = FILE_BYTES
    ) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.file_bytes = file_bytes
        self._packed: dict[str, list[tuple[dict[str, Any], bytes]]] = {}
        self._outcomes: list[dict[str, Any]] = []
        self._head = {
            "command": command,
            "dry": dry,
            "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "ended": "not yet",
        }
        self._began = time.monotonic()
        self._write_summary()

    def add(self, part: str, scenarios: Sequence[str], ended: Ended) -> None:
        """What a process recorded, and how it ended.

        Args:
            part: that it belongs to.
            scenarios: that it was to play.
            ended: the rest.
        """
        for record in ended.records:
            file = ATTACHMENTS if "attached" in record else part
            self._packed.setdefault(file, []).append((_name(record), pack(record)))
        for name in scenarios:
            self._outcome(part, name, ended)
        for file in {part, *(ATTACHMENTS for r in ended.records if "attached" in r)}:
            self._write(file)
        self._write_summary()

    def skipped(self, part: str, scenario: str, why: str) -> None:
        """A scenario that was not played.

        Args:
            part: that it belongs to.
            scenario: its name.
            why: it was left out.
        """
        self._outcomes.append({"part": part, "scenario": scenario, "status": f"skipped: {why}"})
        self._write_summary()

    def close(self, how: str) -> None:
        """Everything is over."""
        self._head["ended"] = how
        self._write_summary()

    def _outcome(self, part: str, scenario: str, ended: Ended) -> None:
        own = [record for record in ended.records if record["scenario"] == scenario]
        errors = [record["message"] for record in own if record["kind"] == "error"]
        over = [record["seconds"] for record in own if record["kind"] == "ended"]
        status = ("failed" if errors else "ok") if over else ended.status
        found = {"part": part, "scenario": scenario, "status": status}
        found["seconds"] = round(over[0] if over else ended.seconds, 2)
        if status != "ok":
            found["message"] = errors[0] if errors else ended.message
        self._outcomes.append(found)
        print(f"{part}/{scenario}: {status}, {found['seconds']:.1f} s", flush=True)

    def _write(self, file: str) -> None:
        members, cut = fitting(self._packed.get(file, ()), self.file_bytes)
        _replace(self.path / f"{file}.json.gz", joined(members, cut))

    def _write_summary(self) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        document = {**self._head, "seconds": seconds, "scenarios": self._outcomes}
        _replace(self.path / SUMMARY, (json.dumps(document, indent=1) + "\n").encode())


def pack(record: Mapping[str, Any]) -> bytes:
    """A record as gzip members; a file that is attached goes in as it is."""
    attached = record.get("attached")
    if attached is None:
        return _gzip(json.dumps(record))
    rest = {key: value for key, value in record.items() if key != "attached"}
    head = json.dumps(rest).removesuffix("}")
    return b"".join((_gzip(f'{head}, "attached": '), Path(attached).read_bytes(), _gzip("}")))


def fitting(
    packed: Iterable[tuple[dict[str, Any], bytes]], limit: int
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The records that fit into a file, in order, and what is said of the others."""
    members, cut, used = [], [], 4096  # for what stands around them
    for name, data in packed:
        if used + len(data) + 64 <= limit:
            members.append(data)
            used += len(data) + 64
        else:
            cut.append({**name, "packed_bytes": len(data)})
            used += 128
    return members, cut


def joined(members: Sequence[bytes], cut: Sequence[Mapping[str, Any]]) -> bytes:
    """A gzipped JSON document of packed records."""
    comma = _gzip(",\n")
    body = comma.join(members)
    return _gzip('{"records": [\n') + body + _gzip(f'\n], "cut": {json.dumps(cut)}}}\n')


def read_folder(path: Path) -> Folder:
    """Read what ``Recording`` wrote."""
    documents = {
        file.name.removesuffix(".json.gz"): json.loads(gzip.decompress(file.read_bytes()))
        for file in sorted(path.glob("*.json.gz"))
    }
    return Folder(
        summary=json.loads((path / SUMMARY).read_text()),
        records={name: document["records"] for name, document in documents.items()},
        cut={name: document["cut"] for name, document in documents.items()},
    )


def _name(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("scenario", "kind", "name") if key in record}


def _gzip(text: str) -> bytes:
    return gzip.compress(text.encode(), 6, mtime=0)


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
