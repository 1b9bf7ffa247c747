"""The records that cross the border, and their reader."""

import json
from pathlib import Path

from epochcast.scripts.events import (
    EventReader,
    Memory,
    Settings,
    Step,
    Steps,
    read_events,
    write_settings,
)

STEPS = '{"event":"steps","at":2.0,"loader":0,"pass":1,"steps":[[1.5,0,3,4,0.25]]}'
MEMORY = '{"event":"memory","at":3.0,"phase":"end","resident":7,"resident_peak":9}'


def test_events_are_read_by_process_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "12.jsonl").write_text(f"{STEPS}\n{MEMORY}\n")
    (tmp_path / "7.jsonl").write_text(f"{MEMORY}\n")
    (tmp_path / "settings.json").write_text("{}")
    events = read_events(tmp_path)
    step = Step(at=1.5, optimizer=0, batches=3, backwards=4, waited=0.25)
    memory = Memory(at=3.0, phase="end", resident=7, resident_peak=9)
    assert events[12] == (Steps(at=2.0, loader=0, pass_=1, steps=(step,)), memory)
    assert events[7] == (memory,)


def test_a_line_that_is_being_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path, reader = tmp_path / "12.jsonl", EventReader(tmp_path)
    path.write_text(f"{STEPS}\n{MEMORY[:20]}")
    assert len(reader.poll()) == 1
    assert reader.poll() == []
    path.write_text(f"{STEPS}\n{MEMORY}\n")
    assert [type(event) for _, event in reader.poll()] == [Memory]


def test_what_is_no_event_is_counted_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "12.jsonl").write_text(f'{{"event":"other"}}\nnonsense\n{MEMORY}\n')
    reader = EventReader(tmp_path)
    assert len(reader.poll()) == 1
    assert reader.damaged == 2


def test_settings_are_plain_json(tmp_path: Path) -> None:
    write_settings(Settings(folder=str(tmp_path), epochs=2), tmp_path / "settings.json")
    found = json.loads((tmp_path / "settings.json").read_text())
    assert (found["folder"], found["epochs"], found["mode"]) == (str(tmp_path), 2, "miniature")
