"""Every command through its own front door, on a store of measurements with a known truth."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import truths
from click.testing import CliRunner, Result

from epochcast.cli import cli
from epochcast.errors import StoreError
from epochcast.records import SCHEMA
from epochcast.storage.store import Store

HEAVY = ("torch", "tensorboard", "sklearn", "scipy", "matplotlib", "pandas")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def probed(here: Path) -> Path:
    """A working directory whose store has a sweep."""
    with Store.open() as store:
        for measurement in truths.sweep(round_sd=0.02, trial_sd=0.01):
            store.add(measurement)
    return here


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments), prog_name="epochcast")
    assert result.exit_code == code, result.output
    return result


def test_predict_prices_a_run(probed: Path) -> None:
    question = "predict --epochs 90 --batch-size 192 --set width=768 --price-per-hour 2.5"
    result = run(*question.split())
    text = result.stdout
    for part in (
        "imaginary  batch_size=192 depth=1 width=768  on Imaginary (cpu, 2 threads",
        "313 optimizer steps an epoch",
        "total, 90 epochs",
        "start-up",
        "first steps",
        "last partial batches ×90",
        "evaluation ×90",
        "checkpoints ×90",
        "peak of live tensors",
        "memory needed, of 16 GiB",
        "cost",
        "Measuring took",
    ):
        assert part in text
    assert result.stderr == ""


def test_predict_as_data_agrees_with_the_library(probed: Path) -> None:
    document = json.loads(run("predict", "--epochs", "10,50,90", "--json").stdout)
    assert [e["epochs"] for e in document["estimates"]] == [10, 50, 90]
    assert document["estimates"][0]["config"]["sizes"] == {"depth": 1, "width": 1024}
    from epochcast.storage.query import fitted_model

    with Store.open() as store:
        model, _ = fitted_model(store)
    expected = model.predict(epochs=50).total_seconds.p50
    assert document["estimates"][1]["total_seconds"]["p50"] == pytest.approx(expected)


def test_several_questions_give_a_row_each(probed: Path) -> None:
    lines = run("predict", "--epochs", "10,50", "--batch-size", "32,64").stdout.splitlines()
    starts = [line.split()[:2] for line in lines[2:6]]
    assert starts == [["10", "32"], ["50", "32"], ["10", "64"], ["50", "64"]]


def test_steps_instead_of_epochs(probed: Path) -> None:
    by_steps = json.loads(run("predict", "--steps", "2350", "--json").stdout)
    assert by_steps["estimates"][0]["epochs"] == 10
    assert "give --epochs" in run("predict", code=2).stderr
    assert "give one of them" in run("predict", "--epochs", "1", "--steps", "1", code=2).stderr


def test_the_second_prediction_reads_the_fitted_model(
    probed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("predict", "--epochs", "3", "--json").stdout
    monkeypatch.setattr("epochcast.costmodel.fitting.fit", lambda _: pytest.fail("fitted again"))
    assert run("predict", "--epochs", "3", "--json").stdout == first


def test_another_version_of_the_cost_model_fits_again(
    probed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("predict", "--epochs", "3")
    fitted: list[int] = []

    def fit(measurements, *_):
        fitted.append(len(measurements))
        return real(measurements)

    from epochcast.costmodel.fitting import fit as real

    monkeypatch.setattr("epochcast.costmodel.fitting.fit", fit)
    monkeypatch.setattr("epochcast.storage.query._code", lambda: "another")
    run("predict", "--epochs", "3")
    assert len(fitted) == 1


def test_a_new_measurement_is_fitted(probed: Path) -> None:
    before = json.loads(run("predict", "--epochs", "3", "--json").stdout)
    with Store.open() as store:
        store.add(truths.measure(512, 512, round_=9, factor=1.5))
    after = json.loads(run("predict", "--epochs", "3", "--json").stdout)
    assert before["estimates"][0]["probing_seconds"] < after["estimates"][0]["probing_seconds"]


def test_extrapolation_is_said(probed: Path) -> None:
    text = run("predict", "--epochs", "3", "--batch-size", "4096").stdout
    assert "batch_size lies far outside the probed range, by a factor of 16" in text


def test_a_model_can_be_carried_away(probed: Path, tmp_path: Path) -> None:
    run("fit", "--output", "model.json")
    (probed / ".epochcast").rename(probed / "elsewhere")
    assert "imaginary" in run("predict", "--epochs", "3", "--model", "model.json").stdout
    assert "leave-one-out error" in run("fit", "--store", "elsewhere/measurements.sqlite").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict --epochs 3 --device cuda", "epochcast probe imaginary --device cuda"),
        ("predict char-gpt --epochs 3", "run: epochcast probe char-gpt --batch-sizes"),
        ("predict other --epochs 3", "name one of them, or probe your own: epochcast probe file"),
        ("predict --epochs 3 --set height=3", "no knob 'height'; it has: depth, width"),
        ("predict --epochs 3 --precision bf16", "was not probed with bf16"),
        ("predict --epochs 3 --model absent.json", "does not exist"),
        ("probes show zzz", "zzz"),
        ("datasets nist", "MNIST"),
    ],
)
def test_questions_without_an_answer_say_what_would_give_one(
    probed: Path, arguments: str, message: str
) -> None:
    result = CliRunner().invoke(cli, arguments.split(), prog_name="epochcast")
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "predict --epochs none",
        "predict --epochs 0",
        "predict --epochs 3 --batch-size 0",
        "predict --epochs 3 --set width",
        "predict --epochs 3 --set width=1 --set width=2",
        "probe",
        "probe x --rounds 0",
        "probe x --max-seconds soon",
        "probe x --batch-sizes 1,b",
        "probes import absent.jsonl",
        "probes export .",
        "frobnicate",
    ],
)
def test_wrong_usage_exits_with_two(here: Path, arguments: str) -> None:
    assert CliRunner().invoke(cli, arguments.split()).exit_code == 2
    assert not (here / ".epochcast").exists()


def test_without_measurements_the_command_that_makes_some_is_named(here: Path) -> None:
    assert "run: epochcast probe mnist-mlp" in run("predict", "--epochs", "3", code=1).stderr
    assert not (here / ".epochcast").exists()


def test_measurements_are_listed_shown_moved_and_removed(probed: Path) -> None:
    listed = json.loads(run("probes", "list", "--json").stdout)["measurements"]
    assert len(listed) == 36
    assert len(run("probes", "list").stdout.splitlines()) == 2 + 12  # of three trials each
    with Store.open() as store:
        key = store.measurements()[0].key
    shown = json.loads(run("probes", "show", key[:10]).stdout)["measurement"]
    assert shown["config"]["sizes"] == {"depth": 1, "width": 256}
    run("probes", "export", "all.jsonl")
    run("probes", "remove", key)
    assert len(json.loads(run("probes", "list", "--json").stdout)["measurements"]) == 35
    run("probes", "import", "all.jsonl")
    assert len(json.loads(run("probes", "list", "--json").stdout)["measurements"]) == 36


def test_counts_as_documents(probed: Path) -> None:
    run("probes", "export", "all.jsonl")
    with Store.open() as store:
        key = store.measurements()[0].key
    assert json.loads(run("probes", "show", key, "--json").stdout)["measurement"]["samples"]
    assert json.loads(run("probes", "remove", key, "--json").stdout) == {
        "schema": SCHEMA,
        "removed": 1,
    }
    imported = json.loads(run("probes", "import", "all.jsonl", "--json").stdout)
    assert imported == {"schema": SCHEMA, "imported": 36}


def test_a_record_that_cannot_be_read_can_be_removed(probed: Path) -> None:
    with Store.open() as store:
        key = store.measurements()[0].key
    connection = sqlite3.connect(".epochcast/measurements.sqlite")
    connection.execute("UPDATE epochcast_measurements SET document='{}' WHERE key=?", (key,))
    connection.commit()
    connection.close()
    assert f"epochcast probes remove {key}" in run("probes", "list", code=1).stderr
    run("probes", "remove", key)
    assert len(json.loads(run("probes", "list", "--json").stdout)["measurements"]) == 35


def test_a_list_of_nothing_says_what_there_is(probed: Path) -> None:
    result = run("probes", "list", "nosuch")
    assert result.stdout == ""
    assert result.stderr == "no measurements of 'nosuch'; in the store: imaginary\n"
    assert json.loads(run("probes", "list", "nosuch", "--json").stdout)["measurements"] == []


def test_a_file_is_listed_however_its_path_is_written(here: Path) -> None:
    with Store.open() as store:
        store.add(truths.measure(32, 256, workload="train.py:workload"))
    assert "train.py:workload" in run("probes", "list", "./a/../train.py:workload").stdout


@pytest.mark.parametrize("question", ["other", "--device cuda", "--device Xeon"])
def test_a_model_of_something_else_is_refused(probed: Path, question: str) -> None:
    run("fit", "--output", "model.json")
    result = run("predict", "--epochs", "3", "--model", "model.json", *question.split(), code=2)
    assert "model.json is a model" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    for same in ("imaginary", "--device cpu", "--device Imag"):
        run("predict", "--epochs", "3", "--model", "model.json", *same.split())


def test_a_model_that_cannot_be_written(probed: Path) -> None:
    result = run("fit", "--output", "absent/model.json", code=2)
    assert "cannot write the cost model to absent/model.json: No such file" in result.stderr


def test_an_unknown_knob_is_wrong_usage(probed: Path) -> None:
    run("predict", "--epochs", "3", "--set", "height=3", code=2)


def test_tensorboard_shows_what_was_written_before(
    probed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a store that can be read and not written."""

    def publish(store: Store) -> None:
        raise StoreError("cannot write TensorBoard's log folder")

    served: list[Path] = []
    monkeypatch.setattr("epochcast.report.tensorboard.publish.publish", publish)
    monkeypatch.setattr(
        "epochcast.report.tensorboard.serve", lambda folder, **_: served.append(folder)
    )
    assert "cannot write" in run("tensorboard", code=1).stderr
    folder = probed / ".epochcast" / "tensorboard"
    folder.mkdir()
    assert "showing what was written before" in run("tensorboard").stderr
    assert served == [folder]


def test_two_workloads_the_last_is_chosen_and_that_is_said(probed: Path) -> None:
    later = {"workload": "later", "created_at": "2027-01-01T00:00:00+00:00"}
    with Store.open() as store:
        store.add(truths.measure(32, 256, **later))
    result = run("predict", "--epochs", "3")
    assert result.stdout.startswith("later")
    assert "also in the store: imaginary" in result.stderr
    assert run("predict", "imaginary", "--epochs", "3").stdout.startswith("imaginary")


def test_a_changed_file_is_noticed_without_running_it(probed: Path) -> None:
    Path("train.py").write_text("raise SystemExit('user code was executed')\n")
    with Store.open() as store:
        store.add(
            truths.measure(
                32,
                256,
                workload="train.py:workload",
                source="abc",
                created_at="2027-01-01T00:00:00+00:00",
            )
        )
    result = run("predict", "--epochs", "3")
    assert "has changed since it was probed" in result.stderr


def test_catalogues(here: Path) -> None:
    assert "60,000" in run("datasets", "mnist").stdout
    listed = json.loads(run("workloads", "--json").stdout)["workloads"]
    names = {w["name"] for w in listed}
    assert names == {"mnist-mlp", "cifar10-cnn", "cifar10-resnet", "char-gpt", "digits-mlp"}
    assert "mnist-mlp" in run("workloads").stdout
    assert not (here / ".epochcast").exists()


def test_debug_shows_the_traceback(here: Path) -> None:
    result = CliRunner().invoke(cli, ["--debug", "predict", "--epochs", "3"])
    assert type(result.exception).__name__ == "StoreError"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["predict", "--epochs", "3"], ["probes", "list"]]
)
def test_nothing_heavy_is_loaded(probed: Path, arguments: list[str]) -> None:
    """``--help`` and ``predict`` must answer at once (python -X importtime)."""
    if arguments[0] == "predict":
        run(*arguments)  # fits, with scikit-learn, once
    command = [sys.executable, "-X", "importtime", "-m", "epochcast", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert loaded.isdisjoint(HEAVY)
    if arguments == ["--help"]:
        assert loaded.isdisjoint({"numpy", "sqlite3", "rich", "msgspec"})


def test_the_checkout_runs_without_being_installed(here: Path) -> None:
    script = Path(__file__).parents[2] / "cli.py"
    command = [sys.executable, str(script), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("epochcast, version")
