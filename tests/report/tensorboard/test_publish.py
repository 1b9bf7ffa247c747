"""What of a store TensorBoard is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import truths

from epochcast.api.probe import run_sweep
from epochcast.costmodel.question import Question
from epochcast.errors import StoreError
from epochcast.planning.planner import plan
from epochcast.profiler.request import SweepRequest
from epochcast.records import Budget, RunConfig, Warning_
from epochcast.report.tensorboard import publish
from epochcast.report.tensorboard.index import read_index
from epochcast.storage.asked import note_plan, note_questions
from epochcast.storage.query import fitted_model, select
from epochcast.storage.store import Store


@pytest.mark.parametrize("changed", [{"source": "older"}, {"data": "another folder"}])
def test_older_code_and_other_data_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    written = []
    monkeypatch.setattr(publish, "write_board", lambda _, *contents: written.append(contents))
    newest = {"created_at": "2027-01-01T00:00:00+00:00"}
    with Store.open(folder=tmp_path) as store:
        store.add(truths.measure(32, 256, **newest))
        store.add(truths.measure(32, 256, factor=9.0, **changed))
        store.add(truths.measure(64, 256, **changed))
        store.add(truths.measure(64, 512, workload="another", **changed))
        publish.publish(store)
    ((summaries, *_),) = written
    assert [(s.workload, s.config.batch_size) for s in summaries] == [
        ("another", 64),
        ("imaginary", 32),
    ]
    assert summaries[1].trials == 1


def test_a_configuration_that_crashed_last_removes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure knows no data: its configuration was never built."""
    written = []
    monkeypatch.setattr(publish, "write_board", lambda _, *contents: written.append(contents))
    last = {"created_at": "2027-01-01T00:00:00+00:00", "data": "", "step_seconds": ()}
    with Store.open(folder=tmp_path) as store:
        store.add_all(truths.sweep())
        store.add(truths.measure(32, 13, status="crashed", message="unlucky", **last))
        publish.publish(store)
        used = select(store).measurements
    ((summaries, predictions, text, _),) = written
    assert [s.config.label for s in summaries if s.status != "ok"] == [
        "batch_size=32 depth=1 width=13"
    ]
    assert {s.config for s in summaries} == {m.config for m in used}
    assert len(summaries) > 1
    judged = [p for p in predictions if p.measured_step_seconds]
    assert len(judged) == len(summaries) - 1
    assert "imaginary" in text


def test_what_ended_a_sweep_is_told_and_not_that_the_board_failed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(message: str) -> object:
        def fail(*_: object, **__: object) -> None:
            raise StoreError(message)

        return fail

    monkeypatch.setattr("epochcast.api.probe.sweep", failing("the sweep"))
    monkeypatch.setattr("epochcast.report.tensorboard.publish.publish", failing("the board"))
    with (
        Store.open(folder=tmp_path) as store,
        pytest.raises(StoreError, match=r"^the sweep$"),
    ):
        run_sweep(SweepRequest(target="mnist-mlp"), store)


def test_a_script_without_epochs_is_shown_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(publish, "write_board", lambda _, *contents: written.append(contents))
    unseen = {"samples": 10**10, "warnings": (Warning_(code="no-epoch-seen"),)}
    with Store.open(folder=tmp_path) as store:
        store.add_all(replace(m, **unseen) for m in truths.sweep())  # type: ignore[arg-type]
        publish.publish(store)
    ((_, _, text, _),) = written
    assert "total, 1,000 steps " in text


def test_the_text_is_what_was_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(publish, "write_board", lambda _, *contents: written.append(contents[2]))
    with Store.open(folder=tmp_path) as store:
        store.add_all(truths.sweep())
        model, _ = fitted_model(store)
        publish.publish(store)
        note_questions(store, model, [Question(epochs=7), Question(epochs=8, batch_size=96)])
        publish.publish(store)
        note_plan(store, plan(model, Budget(deadline=100), epochs=9))
        publish.publish(store)
    example, questions, planned = written
    assert "total, 10 epochs" in example
    assert "total, 7 epochs" in questions
    assert "batch_size=96" in questions
    assert "Within 1m 40s, with 90 % confidence." in planned
    assert "| total time |" in planned


def test_a_store_where_some_configurations_have_a_knob_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with Store.open(folder=tmp_path) as store:
        for batch_size in (32, 64):
            with_knob = truths.measure(batch_size, 256)
            bare = replace(with_knob, config=RunConfig(batch_size=batch_size, eval_batch_size=100))
            store.add_all([with_knob, bare])
        publish.publish(store)
        index = read_index(store.log_folder / "epochcast.json")
    assert len(index.configurations) == 4
