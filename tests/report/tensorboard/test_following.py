"""A followed run for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import pytest
import sample_runs
import strategies
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

from epochcast.errors import StoreError
from epochcast.records import EpochDone, Position, RunEvent, Summary
from epochcast.report.tensorboard import board_watcher
from epochcast.report.tensorboard.following import BoardWatcher
from epochcast.report.tensorboard.publish import write_board

DRIFTING = sample_runs.drifting()
BANDS = [
    f"{group} {q}"
    for group in ("epoch seconds/predicted", "run seconds/expected")
    for q in ("P10", "P50", "P90")
]


def written(folder: Path, events: Sequence[RunEvent]) -> EventMultiplexer:
    watcher = BoardWatcher(folder / "run")
    for event in events:
        watcher.see(event)
    watcher.close()
    return EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()


def points(board: EventMultiplexer, tag: str) -> dict[int, float]:
    events = board.Tensors("run", tag)
    found = {e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in events}
    assert len(found) == len(events), "a step was drawn twice"
    return found


def tags(board: EventMultiplexer) -> set[str]:
    return set(board.GetAccumulator("run").Tags()["tensors"])


def test_every_epoch_has_its_points(tmp_path: Path) -> None:
    board = written(tmp_path, DRIFTING)
    epochs = {e.position.epoch: e for e in DRIFTING if isinstance(e, EpochDone)}

    def expected(of) -> dict[int, float]:
        return {at: pytest.approx(of(e)) for at, e in epochs.items()}

    assert points(board, "epoch seconds/actual") == expected(lambda e: e.seconds)
    assert points(board, "epoch seconds/predicted P90") == expected(lambda e: e.predicted.p90)
    assert points(board, "run seconds/expected P10") == expected(lambda e: e.projected_seconds.p10)
    assert points(board, "run seconds/deadline") == dict.fromkeys(epochs, 3600)
    assert points(board, "run money/limit")[48] == 3
    assert points(board, "plan/on plan (%)")[2] == pytest.approx(
        100 * epochs[2].on_plan_probability
    )
    assert points(board, "plan/end (epoch)")[48] == 50
    assert list(points(board, "reported/val_loss")) == list(range(2, 49, 2))
    assert not any(tag.startswith("run joules") for tag in tags(board))


def test_margin_charts_know_their_tags(tmp_path: Path) -> None:
    board = written(tmp_path, DRIFTING)
    [event] = board.Tensors("run", "custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())
    [category] = layout.category
    margins = [chart.margin.series for chart in category.chart if chart.HasField("margin")]
    assert [[s.value for s in series] for series in margins] == [
        ["epoch seconds/actual"],
        ["run seconds/expected P50", "run seconds/spent", "run seconds/deadline"],
    ]
    named = {tag for series in margins for s in series for tag in (s.value, s.lower, s.upper)}
    assert named <= tags(board)
    assert set(BANDS) - named == {"epoch seconds/predicted P50"}
    [lines] = {tuple(c.multiline.tag) for c in category.chart if "money" in c.title}
    assert lines == ("run money/.*",)


def test_what_a_killed_process_lost_is_drawn_once(tmp_path: Path) -> None:
    board = written(tmp_path, sample_runs.resumed())
    assert len(list((tmp_path / "run").iterdir())) == 2
    seconds = points(board, "epoch seconds/actual")
    assert list(seconds) == list(range(1, 17))
    assert seconds[11] == pytest.approx(sample_runs.noisy(11) + 12)


def test_notices_are_texts(tmp_path: Path) -> None:
    board = written(tmp_path, DRIFTING)
    found = [tensor_util.make_ndarray(e.tensor_proto).item() for e in board.Tensors("run", "notes")]
    assert b"the run is now to end after epoch 50, not 57: epochs have become slower" in found


def test_a_cut_epoch_has_no_time_of_a_whole_one(tmp_path: Path) -> None:
    done = next(e for e in DRIFTING if isinstance(e, EpochDone))
    cut = replace(done, position=Position(epoch=1, step=7, steps=127))
    board = written(tmp_path, (DRIFTING[0], done, cut))
    assert list(points(board, "epoch seconds/actual")) == [1]
    assert list(points(board, "run seconds/spent")) == [1, 2]


def test_nan_is_written(tmp_path: Path) -> None:
    done = next(e for e in DRIFTING if isinstance(e, EpochDone))
    board = written(tmp_path, (DRIFTING[0], replace(done, values=(("val_loss", nan),))))
    assert isnan(points(board, "reported/val_loss")[1])


@given(strategies.runs_started, st.lists(strategies.run_events, max_size=4))
def test_any_event_can_be_written(tmp_path_factory, start, events) -> None:
    written(tmp_path_factory.mktemp("board"), (start, *events))


def test_every_event_is_there_at_once(tmp_path: Path) -> None:
    watcher = BoardWatcher(tmp_path / "run")
    board = EventMultiplexer()
    for event in DRIFTING[:4]:
        watcher.see(event)
        board.AddRunsFromDirectory(str(tmp_path)).Reload()
    assert list(points(board, "epoch seconds/actual")) == [1, 2, 3]
    watcher.close()


def test_the_stores_own_board_leaves_it_alone(tmp_path: Path, summaries: list[Summary]) -> None:
    written(tmp_path, DRIFTING)
    write_board(tmp_path, summaries)
    write_board(tmp_path, summaries)
    board = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    assert len(points(board, "epoch seconds/actual")) == 48


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot write TensorBoard's folder .*run"):
        BoardWatcher(tmp_path / "run").see(DRIFTING[0])


def test_without_tensorboard_there_is_no_watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(board_watcher(tmp_path), BoardWatcher)
    monkeypatch.setattr("epochcast.report.tensorboard.find_spec", lambda name: None)
    assert board_watcher(tmp_path) is None
