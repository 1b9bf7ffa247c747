"""A probe that is refused leaves nothing, so that what comes after it does not depend on it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import truths
from click.testing import CliRunner
from strategies import make_measurement

from epochcast.cli import cli, in_option_names
from epochcast.cli.probing import probe
from epochcast.cli.running import _run_of
from epochcast.errors import EpochcastError, StoreError, UsageError, WorkloadError
from epochcast.profiler import sweep as sweeps
from epochcast.profiler.request import Prepared, SweepRequest
from epochcast.records import Budget, Plan
from epochcast.scripts.unplanned import unplanned
from epochcast.storage.store import Store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def code(*arguments: str) -> int:
    return CliRunner().invoke(cli, list(arguments), prog_name="epochcast").exit_code


@pytest.mark.parametrize("error", [UsageError("no knob 'wdith'"), WorkloadError("no loss")])
def test_a_refused_probe_makes_no_store(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: EpochcastError
) -> None:
    def refuse(request: SweepRequest, workers: object) -> Prepared:
        raise error

    before = code("predict", "--epochs", "9"), code("probes", "list"), code("devices")
    monkeypatch.setattr(sweeps, "prepare", refuse)
    assert code("probe", "mnist-mlp") == error.exit_code
    assert code("probe", "mnist-mlp", "--store", "deep/er.sqlite") == error.exit_code
    after = code("predict", "--epochs", "9"), code("probes", "list"), code("devices")
    assert before == after == (1, 1, 1)
    assert [*here.rglob("*")] == [here / "here", here / "temporary"]


def test_the_log_of_a_refused_probe_stays_where_the_message_names_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: SweepRequest, workers: sweeps.Workers) -> Prepared:
        log = workers.logs / "check.log"
        log.write_text("why")
        raise WorkloadError(f"it does not run (log: {log})")

    monkeypatch.setattr(sweeps, "prepare", refuse)
    result = CliRunner().invoke(cli, ["probe", "mnist-mlp"])
    (log,) = here.glob("temporary/*/check.log")
    assert f"(log: {log})" in result.stderr
    assert not [*(here / "here").iterdir()]


def test_a_store_that_is_made_late_is_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "late"
    with Store.open(folder=folder, create="late") as store:
        assert store.measurements() == store.outcomes() == ()
        assert store.footprints("a", "b") == {}
        assert store.cached_model("a") is None
        assert not store.exists
        assert not folder.exists()
        store.add(truths.measure(32, 256))
        assert store.exists
        assert len(store.measurements()) == 1
    with Store.open(folder=folder, create="late") as store:
        assert store.exists
        assert len(store.measurements()) == 1


def test_an_empty_store_is_as_good_as_none(here: Path) -> None:
    assert code("predict", "--epochs", "9") == 1
    Store.open().close()
    assert code("predict", "--epochs", "9") == 1


def test_a_damaged_plan_is_said_to_be_one_wherever_it_is_read(here: Path) -> None:
    Path("plan.json").write_text('{"workload": "a"')
    runner = CliRunner()
    commands = ("report plan.json", "compare plan.json plan.json", "run plan.json -- true")
    for command in commands:
        result = runner.invoke(cli, command.split(), prog_name="epochcast")
        assert result.exit_code == 1
        assert "plan.json is not a plan of epochcast, or is damaged" in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "it ends too early"),
        ("[]", "it is a list, and not an object"),
        ('{"schema": 2}', "it has no 'workload'"),
        ('{"schema": 2, "workload": 3}', "workload is a whole number, and not a text"),
        ('{"schema": 2, "workload": "a", "unit": "day"}', "unit: invalid enum value 'day'"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_in_the_words_of_its_file(
    tmp_path: Path, document: str, said: str
) -> None:
    (tmp_path / "plan.json").write_text(document)
    with pytest.raises(StoreError, match=f"is damaged: {said}; give another file"):
        Plan.load(tmp_path / "plan.json")


def test_a_note_is_one_line_of_a_table(here: Path) -> None:
    assert code("probe", "mnist-mlp", "--note", "a\nb") == 2
    assert code("probe", "mnist-mlp", "--note", "a" * 201) == 2


def test_the_name_of_a_plan_is_of_what_was_planned(here: Path) -> None:
    replace(unplanned("wide", Budget()), target="train.py").save("plan.json")
    asked = "run --no-store --name {} plan.json -- true"
    result = CliRunner().invoke(cli, asked.format("wide").split())
    said = "epochcast: 'wide' is the name of train.py in the plan, not of true\n"
    assert (result.exit_code, result.stderr) == (2, said)
    result = CliRunner().invoke(cli, asked.format("a:b").split())
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_plan_of_a_workload_is_followed_by_any_script(here: Path) -> None:
    names = [
        "deadline",
        "note",
        "epochs",
        "steps_per_epoch",
        "lead",
        "signal_name",
        "end_at_deadline",
    ]
    options = dict.fromkeys(names) | {"plan": "plan.json", "variables": (), "folder": "run"}
    for name in ("wide", "wl.py:workload"):
        replace(unplanned(name, Budget()), target="wl.py:workload").save("plan.json")
        for given in (None, name):
            asked = _run_of(("true",), options | {"name": given})
            assert asked.workload == name


def test_a_name_of_another_is_refused_before_the_run(here: Path) -> None:
    with Store.open() as store:
        store.add(make_measurement(workload="wide", target="wl.py:workload"))
    result = CliRunner().invoke(cli, ["run", "--name", "wide", "--", "touch", "ran"])
    assert (result.exit_code, Path("ran").exists()) == (2, False)
    assert result.stderr.startswith("epochcast: 'wide' is the name of wl.py:workload in this store")


def test_braces_in_a_message_are_the_users_own() -> None:
    assert in_option_names("write {batch_size}", probe) == "write {batch_size}"
    assert in_option_names("steady_seconds must be", probe) == "--seconds must be"


def test_a_name_in_quotes_is_the_users_own_and_no_option() -> None:
    said = "batch_size must be 1, but got 'batch_size' in loader_options"
    assert in_option_names(said, probe).startswith("--batch-size must be 1")
    assert in_option_names(said, probe).endswith("'batch_size' in loader_options")


def test_what_is_typed_after_set_keeps_its_name() -> None:
    for said in (
        "--set batch_size is used nowhere",
        "a has no knob 'n'; it has: eval_every, batch_size",
        "--for knows epochs, batch_size, but got 'n'",
    ):
        assert in_option_names(said, probe) == said


@pytest.mark.parametrize(
    ("command", "exit_code", "said"),
    [
        ("--store x predict", 2, "no such option '--store'; it is an option of commands, and goes"),
        ("--nosuch predict", 2, "no such option '--nosuch' (epochcast --help)"),
        ("probe --set batch_size=16 -- python train.py", 2, "--set batch_size is used nowhere"),
        ("run train.py -- true", 2, "train.py is no plan, but comes before --"),
        ("probe nosuch.py", 2, "there is no file nosuch.py"),
        ("predict --epochs 3 --store mysql://a", 2, "but got mysql://…"),
        ("predict --epochs 3 --store sqlite:/x.db", 2, "but got sqlite without ://"),
        ("report train.py", 1, "or is damaged: it is no JSON"),
        ("predict --epochs 3 --store=", 2, "HOST/NAME, but got an empty text"),
        ("probe digits-mlp --for epochs=3,steps=5", 2, "--for takes epochs or steps, and not both"),
        ("probe digits-mlp --for epochs=x", 2, "--for epochs must be a number above 0, and"),
        ("probe digits-mlp --for batch-size=x", 2, "--for batch_size must be a whole number"),
        ("probe digits-mlp --sharding fsdp", 2, "--sharding must be left out for one device"),
    ],
)
def test_a_mistake_is_one_line(here: Path, command: str, exit_code: int, said: str) -> None:
    Path("train.py").write_text("print(1)")
    result = CliRunner().invoke(cli, command.split(), prog_name="epochcast")
    assert said in " ".join(result.stderr.split())
    assert result.exit_code == exit_code
