"""The records that cross the border, and their reader."""

import json
from pathlib import Path

from epochcast.scripts.border import BootstrapSettings, EventReader, read_events, write_settings
from epochcast.scripts.events import Memory, Step, Steps

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
    write_settings(BootstrapSettings(folder=str(tmp_path), epochs=2), tmp_path / "settings.json")
    found = json.loads((tmp_path / "settings.json").read_text())
    assert (found["folder"], found["epochs"], found["mode"]) == (str(tmp_path), 2, "miniature")


def test_of_a_long_run_little_is_on_the_disk_and_nothing_is_lost(tmp_path: Path) -> None:
    path, reader = tmp_path / "12.jsonl", EventReader(tmp_path, most_bytes=1000)
    found, largest = 0, 0
    for _ in range(200):
        with path.open("a") as file:  # as the bootstrap does, for each write
            file.write(f"{STEPS}\n{MEMORY}\n")
        found += len(reader.poll())
        largest = max(largest, sum(each.stat().st_size for each in tmp_path.iterdir()))
    found += len(reader.poll()) + len(reader.poll())
    assert found == 400
    assert reader.damaged == 0
    assert largest < 3000


def test_what_is_written_into_a_file_that_was_put_aside_is_read(tmp_path: Path) -> None:
    path, reader = tmp_path / "12.jsonl", EventReader(tmp_path, most_bytes=10)
    with path.open("a") as opened:  # before it is put aside
        opened.write(f"{MEMORY}\n")
        opened.flush()
        assert len(reader.poll()) == 1
        opened.write(f"{STEPS}\n")
    path.write_text(f"{MEMORY}\n{MEMORY}\n")
    kinds = [type(event) for _, event in reader.poll() + reader.poll()]
    assert kinds == [Steps, Memory, Memory]
