"""What surrounds a guard: its log, its TensorBoard, the store, and the process it runs in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from rehearsal import Listener, about, make_plan

import epochcast as ec
from epochcast.errors import UsageError
from epochcast.guard import run_folder
from epochcast.guard.log import read_log
from epochcast.integrations import session as sessions
from epochcast.records import EpochDone, Plan, RunEnded, RunStarted, StopReason
from epochcast.report.text.following import summary_lines
from epochcast.storage.store import Store


def quick(**settings) -> Plan:
    tiny = {"epochs": 3, "steps": 4, "epoch": about(0.01, 0.5), "save": about(0.01, 0.5)}
    return make_plan(**{**tiny, "deadline": 600.0, **settings})


def followed(plan: Plan, folder: Path, **settings) -> ec.integrations.plain.FollowedRun:
    with ec.follow(
        plan, save=lambda path: path.write_text("weights"), folder=folder, **settings
    ) as run:
        for _ in run.epochs():
            for _ in run.batches(range(4)):
                pass
            if run.due("evaluate"):
                run.report(val_loss=0.5)
    return run


def test_a_run_tells_the_terminal_a_log_and_tensorboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = followed(quick(), tmp_path / "run", store=False)
    events = read_log(tmp_path / "run" / "log.jsonl")
    assert isinstance(events[0], RunStarted)
    assert sum(isinstance(event, EpochDone) for event in events) == 3
    assert isinstance(events[-1], RunEnded)
    assert events[-1].reason is StopReason.PLAN_DONE
    assert events[0].planned_seconds is not None
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "stop: all done" in shown.err
    assert "Best val_loss: 0.5, after epoch 1." in run.summary()
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_summary_is_that_of_the_log_over_all_processes(tmp_path: Path) -> None:
    folder, plan = tmp_path / "run", quick(epochs=10)

    def process(epochs: int) -> str:
        """So many more epochs, then the loop is left."""
        with ec.follow(
            plan, save=lambda path: path.write_text("x"), load=print, folder=folder, store=False
        ) as run:
            for _ in islice(run.epochs(), epochs):
                for _ in run.batches(range(4)):
                    pass
        return run.summary()

    for epochs in (3, 20):
        summary = process(epochs)
        assert summary.splitlines() == summary_lines(read_log(folder / "log.jsonl"))
    assert "(median of 8)" in summary  # of ten, without the first of each process
    assert "It took 2 processes." in summary


def test_the_outcome_goes_to_a_store_and_comes_back(tmp_path: Path) -> None:
    store = str(tmp_path / "store.sqlite")
    followed(quick(), tmp_path / "run", store=store, watchers=[])
    with Store.open(store) as opened:
        (outcome,) = opened.outcomes("a-workload")
    assert outcome.epochs == 3
    assert len(outcome.epoch_seconds) == 2
    assert len(outcome.first_epoch_seconds) == 1
    assert outcome.predicted == quick().prices
    assert outcome.total_predicted is not None


def test_the_outcome_is_of_the_device_that_ran_and_of_the_steps_that_were_made(
    tmp_path: Path,
) -> None:
    listener, url = Listener(), f"sqlite:///{tmp_path / 'store.sqlite'}"
    plan = quick(steps=40)
    followed(plan, tmp_path / "run", store=url, watchers=[listener])
    with Store.open(url) as store:
        (outcome,) = store.outcomes()
    assert outcome.epoch_share == 4 / 40
    assert outcome.total_predicted is None
    assert outcome.device == sessions.device_in_use(plan.device)
    assert outcome.device.threads == torch.get_num_threads()
    assert "other-device" in listener.notes()


def test_without_a_store_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listener = Listener()
    followed(quick(), tmp_path / "run", watchers=[listener])
    assert not (tmp_path / ".epochcast").exists()
    assert "store-failed" not in listener.notes()


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_text("no database at all, and long enough to be read as one")
    listener = Listener()
    run = followed(
        quick(), tmp_path / "run", store=str(tmp_path / "store.sqlite"), watchers=[listener]
    )
    assert run.reason is StopReason.PLAN_DONE
    assert "store-failed" in listener.notes()


def test_a_process_counts_from_its_own_beginning_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions._counted.clear()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "train.py", raising=False)
    first, second = Listener(), Listener()
    followed(quick(), tmp_path / "a", store=False, watchers=[first])
    before = time.time()
    followed(quick(), tmp_path / "b", store=False, watchers=[second])
    alive = sessions.process_age() - (time.time() - before)
    assert 0.01 < first.events[0].spent_seconds < alive
    assert second.events[0].spent_seconds <= time.time() - before


OTHER = """
import sys, time
from pathlib import Path
from epochcast.guard.run_folder import hold
hold(Path(sys.argv[1]))
print("here", flush=True)
if sys.argv[2:]:
    import os
    if not os.fork():
        time.sleep(60)  # as a loader's worker that has not noticed yet
time.sleep(60)
"""


def test_one_process_at_a_time_follows_a_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "here\n"
            with pytest.raises(UsageError, match=rf"is in use by process {other.pid} on .*: a run"):
                followed(quick(), tmp_path, store=False, watchers=[])
        finally:
            other.kill()
            other.wait()
    assert followed(quick(), tmp_path, store=False, watchers=[]).reason is StopReason.PLAN_DONE
    done = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    assert done.stdout.readline() == "here\n"  # the run has left
    done.kill()
    done.communicate()


def test_a_lock_is_not_kept_by_what_the_killed_process_has_forked(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OTHER, str(tmp_path), "fork"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "here\n"
    time.sleep(0.5)
    other.kill()
    other.wait()
    try:
        run_folder.hold(tmp_path)
    finally:
        run_folder.release(tmp_path)
        os.killpg(other.pid, signal.SIGKILL)
        other.stdout.close()


def test_a_notebook_counts_from_when_following_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    listener = Listener()
    followed(quick(), tmp_path / "run", store=False, watchers=[listener])
    assert listener.events[0].spent_seconds < 5


def test_the_schedulers_clock_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000")  # 1970
    run = followed(quick(deadline=None), tmp_path / "run", store=False, watchers=[])
    assert run.reason is StopReason.BUDGET
    assert run.position.steps == 0


def test_torchrun_without_a_process_group_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UsageError, match="call init_process_group before following"):
        ec.follow(quick(), save=print, folder=tmp_path)
