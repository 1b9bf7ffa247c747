"""A sweep over commands: each combination in each round, kept at once, continued after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import Training

from epochcast.errors import UsageError
from epochcast.profiler.rounds import SweepResult
from epochcast.profiler.target import source_of_files
from epochcast.records import Measurement
from epochcast.scripts.command import Template
from epochcast.scripts.observed import measurement_of
from epochcast.scripts.request import ScriptRequest, ScriptSpec
from epochcast.scripts.side_effects import Undone
from epochcast.scripts.sweep import sweep_script
from epochcast.scripts.trial import Outcome, ScriptFailed
from epochcast.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store.sqlite")) as opened:
        yield opened


@pytest.fixture
def request_(tmp_path: Path) -> ScriptRequest:
    (tmp_path / "train.py").write_text("as it is")
    return ScriptRequest(
        template=Template(arguments=("python", "train.py", "{batch_size}", "{width}")),
        choices={"batch_size": ("16", "32"), "width": ("64", "128")},
        folder=tmp_path,
        rounds=2,
    )


class Starts:
    """Makes trials that take no time; some fail."""

    def __init__(self, folder: Path, *, failing: dict[str, str] | None = None) -> None:
        self.folder, self.failing = folder, failing or {}
        self.made: list[tuple[str, int]] = []
        self.kill_after = 10**9

    def __call__(
        self, request: ScriptRequest, spec: ScriptSpec, *, round_: int, log: Path, **_: Any
    ) -> Outcome:
        if len(self.made) == self.kill_after:
            raise KeyboardInterrupt
        self.made.append((spec.label, round_))
        log.write_text("Traceback\nlast words\n")
        batch_size = int(dict(spec.values)["batch_size"])
        training = Training(values=dict(spec.values), batch_size=batch_size)
        known = replace(
            training.trial(round_),
            workload=request.target,
            request=spec.request,
            template=request.template,
            folder=self.folder,
            log=str(log),
            created_at=f"2026-01-01T00:00:{len(self.made):02}",
        )
        found = measurement_of({7: training.events()}, replace(known, ended=training.at))
        assert found.script is not None
        files = ("train.py",)
        found = replace(
            found,
            script=replace(found.script, files=files),
            source=source_of_files(files, self.folder),
        )
        status = self.failing.get(spec.label, "ok")
        if status != "ok":
            found = replace(
                found,
                status=status,  # type: ignore[arg-type]
                message="it went wrong",
                step_seconds=(),
                script=None,
            )
        is_finding = status in ("ok", "oom", "timeout")
        return Outcome(measurement=found, is_finding=is_finding, undone=Undone())


def sweep(request: ScriptRequest, store: Store, starts: Starts) -> SweepResult:
    return sweep_script(request, store, start=starts)


def labels(measurements: tuple[Measurement, ...]) -> set[tuple[str, int]]:
    return {(m.config.label, m.round) for m in measurements}


def test_every_combination_is_measured_once_a_round(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    starts = Starts(tmp_path)
    result = sweep(request_, store, starts)
    assert result.stopped == "complete"
    assert len(starts.made) == len(set(starts.made)) == 8
    assert {round_ for _, round_ in starts.made} == {0, 1}
    assert len(result.measurements) == len(store.measurements("train.py")) == 8
    assert {dict(m.config.sizes)["width"] for m in result.measurements} == {64, 128}


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_sweep_that_was_killed_goes_on(
    request_: ScriptRequest, store: Store, tmp_path: Path, after: int
) -> None:
    first, second = Starts(tmp_path), Starts(tmp_path)
    first.kill_after = after
    with pytest.raises(KeyboardInterrupt):
        sweep(request_, store, first)
    result = sweep(request_, store, second)
    assert len(first.made) + len(second.made) == 8
    assert not set(first.made) & set(second.made)
    assert len(result.measurements) == 8


def test_nothing_is_left_to_do_a_second_time_unless_the_code_has_changed(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    sweep(request_, store, Starts(tmp_path))
    again = Starts(tmp_path)
    sweep(request_, store, again)
    assert not again.made
    fresh = Starts(tmp_path)
    sweep(replace(request_, fresh=True), store, fresh)
    assert len(fresh.made) == 8
    (tmp_path / "train.py").write_text("otherwise")
    changed = Starts(tmp_path)
    assert len(sweep(request_, store, changed).measurements) == 8
    assert len(changed.made) == 8


def test_out_of_memory_is_a_finding_and_the_sweep_goes_on(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    starts = Starts(tmp_path, failing={"batch_size=32 width=128": "oom"})
    result = sweep(request_, store, starts)
    assert starts.made.count(("batch_size=32 width=128", 0)) == 1
    assert ("batch_size=32 width=128", 1) not in starts.made
    assert [m.status for m in result.measurements].count("oom") == 1
    assert len(result.measurements) == 7


def test_a_command_that_does_not_train_ends_the_sweep_and_is_not_stored(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    every = [spec.label for spec in request_.specs]
    starts = Starts(tmp_path, failing=dict.fromkeys(every, "crashed"))
    with pytest.raises(ScriptFailed, match=r"it went wrong \(log: .*round-0-0.log\)") as error:
        sweep(request_, store, starts)
    assert error.value.lines == ("Traceback", "last words")
    assert len(starts.made) == 1
    assert not store.measurements()


def test_a_crash_of_one_configuration_is_kept_once_another_has_run(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    order = Starts(tmp_path)
    sweep(request_, store, order)
    last = order.made[3][0]
    result = sweep(
        replace(request_, fresh=True), store, Starts(tmp_path, failing={last: "crashed"})
    )
    assert [m.status for m in result.measurements].count("crashed") == 1


def test_no_trial_begins_that_would_end_too_late(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    ticks = iter(range(0, 10_000, 10))
    result = sweep_script(
        replace(request_, max_seconds=100.0),
        store,
        start=Starts(tmp_path),
        clock=lambda: float(next(ticks)),
    )
    assert result.stopped == "max-seconds"
    assert 0 < len(result.measurements) < 8


def test_an_evaluation_of_its_own_batch_size_never_follows_the_training(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    result = sweep(request_, store, Starts(tmp_path))  # which evaluates 32 samples at once
    assert {m.config.batch_size for m in result.measurements} == {16, 32}
    assert {m.config.eval_batch_size for m in result.measurements} == {32}
    assert len(store.measurements()) == 8


def test_a_trial_too_short_for_an_evaluation_is_of_the_same_configuration(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    starts = Starts(tmp_path)

    def start(*arguments: Any, **others: Any) -> Outcome:
        outcome = starts(*arguments, **others)
        m = outcome.measurement
        if others["round_"]:
            return outcome
        short = replace(m.config, eval_batch_size=None)
        return replace(outcome, measurement=replace(m, eval_samples=0, config=short))

    result = sweep_script(request_, store, start=start)
    assert {m.config.eval_batch_size for m in result.measurements} == {32}
    assert {m.eval_samples > 0 for m in result.measurements} == {True, False}


def test_another_name_is_another_workload(
    request_: ScriptRequest, store: Store, tmp_path: Path
) -> None:
    sweep(request_, store, Starts(tmp_path))
    sweep(replace(request_, name="second"), store, Starts(tmp_path))
    found = {(m.workload, m.target) for m in store.measurements()}
    assert found == {("train.py", "train.py"), ("second", "train.py")}
    other = replace(request_.template, arguments=("python", "a.py", "{batch_size}", "{width}"))
    with pytest.raises(UsageError, match=r"'second' is the name of train.py in this store, not"):
        sweep(replace(request_, name="second", template=other), store, Starts(tmp_path))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, but got 0"),
        ({"pass_seconds": 0.0}, "pass_seconds must be at least"),
        ({"pass_seconds": float("nan")}, "pass_seconds must be at least"),
        ({"steps_per_epoch": 10, "samples": 10}, "leave one of them out"),
        ({"steps_per_epoch": 10}, "give --samples instead of --steps-per-epoch"),
        ({"name": " "}, "must not be empty"),
        ({"choices": {"batch_size": ("1",)}}, r"\{width\} has no value"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    request_: ScriptRequest, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        replace(request_, **asked)


def test_what_decides_the_times_decides_the_request(
    request_: ScriptRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = request_.specs[0]
    before = spec.request
    assert before == replace(request_, epochs=5).specs[0].request  # {epochs} is not in it
    assert before != replace(request_, samples=7).specs[0].request
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert before != spec.request
