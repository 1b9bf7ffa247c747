"""The event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.util import tensor_util

from epochcast.errors import MissingDependency, StoreError
from epochcast.records import SCHEMA, RunConfig, Summary, make_sizes
from epochcast.report.plots.probed import ProbedPrediction
from epochcast.report.tensorboard import publish
from epochcast.report.tensorboard.contents import series_runs, trial_names
from epochcast.report.tensorboard.index import slug
from epochcast.report.tensorboard.publish import write_board

MIB = 2**20


def read(folder: Path) -> EventMultiplexer:
    return EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()


def points(board: EventMultiplexer, run: str, tag: str) -> dict[int, float]:
    events = board.Tensors(run, tag)
    found = {e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in events}
    assert len(found) == len(events), "a step was drawn twice"
    return found


def event_files(folder: Path) -> list[Path]:
    """Those that hold anything."""
    return sorted(p for p in folder.rglob("*tfevents*") if p.stat().st_size)


def test_curves_are_drawn_over_the_batch_size(folder: Path, summaries: list[Summary]) -> None:
    write_board(folder, summaries)
    board = read(folder)
    times = points(board, "mnist-mlp/width=256", "by batch size/step time (ms)")
    memory = points(board, "mnist-mlp/width=512", "by batch size/peak tensor memory (MiB)")
    rate = points(board, "mnist-mlp/width=256", "by batch size/samples per second")
    assert times == pytest.approx({32: 1.032, 64: 1.064, 128: 1.128})
    assert memory == {32: 544, 64: 576}  # the failed one is left out
    assert rate[64] == pytest.approx(64 / 1.064e-3)


def test_every_configuration_is_a_row_of_the_hparams_table(
    folder: Path, summaries: list[Summary]
) -> None:
    write_board(folder, summaries)
    board = read(folder)
    run = "mnist-mlp/width=512/batch_size=64"
    start = _hparams(board, run, hparams.SESSION_START_INFO_TAG).session_start_info
    assert {name: value.number_value for name, value in start.hparams.items()} == {
        "batch_size": 64,
        "width": 512,
    }
    assert points(board, run, "configuration/step time (ms)")[64] == pytest.approx(1.064)
    failed = "mnist-mlp/width=512/batch_size=128"
    end = _hparams(board, failed, hparams.SESSION_END_INFO_TAG).session_end_info
    assert end.status == api_pb2.STATUS_FAILURE
    experiment = _hparams(board, "epochcast", hparams.EXPERIMENT_TAG).experiment
    assert {info.name for info in experiment.hparam_infos} == {"batch_size", "width"}
    assert {info.name.tag for info in experiment.metric_infos} == {
        "configuration/step time (ms)",
        "configuration/samples per second",
        "configuration/peak tensor memory (MiB)",
        "configuration/device memory (MiB)",
    }


def test_the_beginning_of_a_trials_name_tells(summaries: list[Summary]) -> None:
    """TensorBoard shows some 14 letters of it."""
    names = list(trial_names(summaries).values())
    assert names == [f"{b} width={w}" for w in (256, 512) for b in (32, 64, 128)]
    alike = replace(summaries[0], device=replace(summaries[0].device, memory_bytes=1))
    assert len(set(trial_names([*summaries, alike]).values())) == 7


def _hparams(board: EventMultiplexer, run: str, tag: str):  # type: ignore[no-untyped-def]
    content = board.SummaryMetadata(run, tag).plugin_data.content
    parsed = hparams.plugin_data_pb2.HParamsPluginData.FromString(content)
    assert parsed.version == hparams.PLUGIN_DATA_VERSION
    return parsed


def test_figures_and_text_are_shown(
    folder: Path, summaries: list[Summary], predictions: list[ProbedPrediction]
) -> None:
    write_board(folder, summaries, predictions, "| epochs | total |")
    board = read(folder)
    tags = [tag for tag in board.GetAccumulator("mnist-mlp").Tags()["tensors"] if "figures" in tag]
    assert tags == [
        "figures/step time by batch size",
        "figures/step time, predicted against measured",
        "figures/peak memory by batch size",
        "figures/peak memory, predicted against measured",
    ]
    for tag in tags:
        [event] = board.Tensors("mnist-mlp", tag)
        width, height, png = tensor_util.make_ndarray(event.tensor_proto)
        assert int(width) > 300
        assert int(height) > 300
        assert png.startswith(b"\x89PNG\r\n")
    [text] = board.Tensors("epochcast", "prediction")
    assert tensor_util.make_ndarray(text.tensor_proto).item() == b"| epochs | total |"


def test_the_index_holds_raw_numbers(folder: Path, summaries: list[Summary]) -> None:
    write_board(folder, [replace(summaries[0], trace="mnist-mlp/a/trace.json.gz"), summaries[-1]])
    index = json.loads((folder / "epochcast.json").read_text())
    good, failed = index["configurations"]
    assert index["schema"] == SCHEMA
    assert good["config"]["batch_size"] == 32
    assert good["step_seconds"] == summaries[0].step_seconds
    assert good["peak_bytes"] == 288 * MIB
    assert good["trace"] == "mnist-mlp/a/trace.json.gz"
    assert (failed["status"], failed["step_seconds"], failed["trace"]) == ("oom", None, None)
    assert "wanted 3 GiB" in failed["message"]


def test_writing_twice_shows_everything_once(
    folder: Path, summaries: list[Summary], predictions: list[ProbedPrediction]
) -> None:
    write_board(folder, summaries, predictions, "text")
    first = event_files(folder)
    write_board(folder, summaries, predictions, "text")
    second = event_files(folder)
    assert len(second) == len(first)
    assert not set(first) & set(second)
    assert len(points(read(folder), "mnist-mlp/width=256", "by batch size/step time (ms)")) == 3


def test_what_is_gone_disappears_and_the_rest_is_not_touched(
    folder: Path, summaries: list[Summary]
) -> None:
    write_board(folder, summaries)
    trace = folder / "mnist-mlp" / "width=512" / "trace.json.gz"
    foreign = folder / "their-run" / "events.out.tfevents.1700000000.host.1.0"
    foreign.parent.mkdir()
    for path in (trace, foreign):
        path.write_bytes(b"kept")
    write_board(folder, [s for s in summaries if s.config.sizes == make_sizes({"width": 256})])
    assert trace.read_bytes() == foreign.read_bytes() == b"kept"
    assert not (folder / "mnist-mlp" / "width=512" / "batch_size=64").exists()
    assert [p.name for p in (folder / "mnist-mlp" / "width=512").iterdir()] == ["trace.json.gz"]


def test_a_running_tensorboard_sees_new_values_once(folder: Path, summaries: list[Summary]) -> None:
    write_board(folder, summaries)
    board = read(folder)
    slower = [replace(s, step_seconds=2 * s.step_seconds) for s in summaries if s.step_seconds]
    write_board(folder, slower)
    board.Reload()
    times = points(board, "mnist-mlp/width=256", "by batch size/step time (ms)")
    assert times == pytest.approx({32: 2.064, 64: 2.128, 128: 2.256})


def test_killed_between_writing_and_removing_the_newer_values_win(
    folder: Path, summaries: list[Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_board(folder, summaries)
    monkeypatch.setattr(publish, "_own_event_files", lambda folder, before: iter(()))
    write_board(folder, [replace(s, step_seconds=5e-3) for s in summaries])
    times = points(read(folder), "mnist-mlp/width=256", "by batch size/step time (ms)")
    assert times == pytest.approx({32: 5, 64: 5, 128: 5})
    monkeypatch.undo()
    write_board(folder, summaries)
    runs = {path.parent for path in event_files(folder)}
    assert len(event_files(folder)) == len(runs)


def test_retired_files_are_removed_in_time(folder: Path, summaries: list[Summary]) -> None:
    for _ in range(3):
        write_board(folder, summaries)
    empty = [p for p in folder.rglob("*tfevents*") if not p.stat().st_size]
    assert len(empty) == 2 * len(event_files(folder))
    for path in empty:
        os.utime(path, (0, 0))
    write_board(folder, summaries)
    assert not any(path.exists() for path in empty)


def test_killed_while_writing_a_file_the_rest_is_readable(
    folder: Path, summaries: list[Summary]
) -> None:
    write_board(folder, summaries)
    [cut] = [p for p in event_files(folder) if p.parent.name == "width=256"]
    cut.write_bytes(cut.read_bytes()[:-7])
    board = read(folder)
    assert points(board, "mnist-mlp/width=256", "by batch size/step time (ms)")
    assert points(board, "mnist-mlp/width=512", "by batch size/step time (ms)")


def test_one_that_began_later_wins(
    folder: Path, summaries: list[Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish.time, "time_ns", lambda: 2 * 10**18)
    write_board(folder, [replace(s, step_seconds=2e-3) for s in summaries])
    monkeypatch.setattr(publish.time, "time_ns", lambda: 1 * 10**18)
    write_board(folder, summaries)
    times = points(read(folder), "mnist-mlp/width=256", "by batch size/step time (ms)")
    assert times == pytest.approx(dict.fromkeys((32, 64, 128), 2.0))


def test_runs_of_unlike_workloads_and_devices_stay_apart(summaries: list[Summary]) -> None:
    other = replace(summaries[0], device=replace(summaries[0].device, name="NVIDIA H200"))
    names = series_runs([*summaries, other, replace(other, workload="mnist:mlp")])
    assert len(names) == 4
    assert all(len({s.device.key for s in members}) == 1 for members in names.values())
    assert any("NVIDIA H200" in name for name in names)


def test_labels_with_the_same_slug_get_runs_of_their_own(summaries: list[Summary]) -> None:
    twins = [replace(summaries[0], workload=name) for name in ("a/b:c", "a:b/c", "a/b:c")]
    names = series_runs(twins)
    assert sorted(len(members) for members in names.values()) == [1, 2]


@pytest.mark.parametrize("text", ["../../etc", "/abs/train.py:f", "a\0b", "", "..", "é" * 300])
def test_a_slug_names_one_folder(text: str) -> None:
    name = slug(text)
    assert name == Path(name).name
    assert name not in ("", ".", "..")
    assert len(name.encode()) < 255


def test_knobs_of_mixed_types_and_settings_are_columns(
    folder: Path, summaries: list[Summary]
) -> None:
    texts = replace(
        summaries[0],
        config=RunConfig(batch_size=32, sizes=make_sizes({"width": "wide"}), precision="bf16"),
    )
    write_board(folder, [*summaries, texts])
    board = read(folder)
    experiment = _hparams(board, "epochcast", hparams.EXPERIMENT_TAG).experiment
    columns = {info.name: info for info in experiment.hparam_infos}
    assert set(columns) == {"batch_size", "width", "precision"}
    values = [value.string_value for value in columns["width"].domain_discrete.values]
    assert values == ["256", "512", "wide"]


def test_nothing_probed_is_an_empty_board(folder: Path) -> None:
    write_board(folder, [])
    assert event_files(folder) == []
    assert json.loads((folder / "epochcast.json").read_text())["configurations"] == []


def test_a_missing_extra_is_named_and_the_index_written(
    folder: Path, summaries: list[Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingDependency, match=r"pip install 'epochcast\[tensorboard\]'"):
        write_board(folder, summaries)
    assert (folder / "epochcast.json").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write TensorBoard's log folder") as caught:
        write_board(tmp_path / "file" / "tensorboard", [])
    assert "\n" not in str(caught.value)


def test_neither_torch_nor_tensorflow_is_loaded() -> None:
    code = (
        "import sys; import epochcast.report.tensorboard.contents, "
        "epochcast.report.tensorboard.plugin, "
        "epochcast.report.plots.comparison; "
        "from tensorboard import default; "
        "default.get_static_plugins(); "
        "print({'torch', 'tensorflow', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "set()"
