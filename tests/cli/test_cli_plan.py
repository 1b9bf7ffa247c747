"""``epochcast plan`` through its front door: limits as people type them, plans as programs read."""

import json
import re
import subprocess
import sys
import time
from dataclasses import fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import fmean

import click
import pytest
import truths
from click.testing import CliRunner, Result

import epochcast as ec
from epochcast.cli import cli
from epochcast.cli.plan import plan as command
from epochcast.planning.batch import OPTIMIZERS
from epochcast.planning.planner import plan
from epochcast.planning.request import PlanRequest
from epochcast.records import Budget, GradientNoise, Plan, Quantiles
from epochcast.storage.query import fitted_model
from epochcast.storage.store import Store

HEAVY = ("torch", "tensorboard", "sklearn", "scipy", "matplotlib", "pandas")
WORKED = "--epochs max --eval-every 2 --save-every 5"


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose store has a sweep."""
    monkeypatch.chdir(tmp_path)
    with Store.open() as store:
        for measurement in truths.sweep(round_sd=0.05, trial_sd=0.02):
            store.add(measurement)
    return tmp_path


@pytest.fixture
def worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the model of the worked example in model.json."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "planning"))
    import known

    monkeypatch.chdir(tmp_path)
    known.model(**known.EXAMPLE).save("model.json")
    return tmp_path


def run(line: str, *more: str, code: int = 0) -> Result:
    arguments = ["plan", *line.split(), *more]
    result = CliRunner().invoke(cli, arguments, prog_name="epochcast")
    assert result.exit_code == code, result.output
    return result


def planned(line: str, *more: str) -> Plan:
    run(f"{line} --json --output found.json", *more)
    return Plan.load("found.json")


def test_a_plan_says_what_to_run(probed: Path) -> None:
    text = run(
        "--epochs 90 --deadline 5m --price-per-hour 2.50 --stop patience=5", "--budget", "$18"
    ).stdout
    for part in (
        "imaginary  batch_size=256 depth=1 width=1024  on Imaginary (cpu, 2 threads",
        "Within 5m 00s and $18.00, with 90 % confidence.",
        "fit P10–P90",
        "256 = 128×2",
        " of 90 epochs: ",
        " % chance of all 90; ",
        "The deadline binds.",
        "One more epoch would take",
        "learning-rate schedule spans",
        "Stop at the 5th check in a row that does not improve val_loss.",
        "evaluate, save, decide",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("limits", "epochs", "binding"),
    [
        (("--deadline", "1h"), 57, "deadline"),
        (("--budget", "$2.75", "--price-per-hour", "3"), 52, "money"),
        (("--energy", "0.25 kWh", "--watts", "300"), 47, "energy"),
    ],
)
def test_the_worked_example(
    worked: Path, limits: tuple[str, ...], epochs: int, binding: str
) -> None:
    chosen = planned(f"--model model.json {WORKED}", *limits).chosen
    assert (chosen.epochs, chosen.binding) == (epochs, binding)


def test_the_document_is_the_plan(probed: Path) -> None:
    line = "--epochs 90 --deadline 5m"
    Path("plan.json").write_text(run(f"{line} --json").stdout, encoding="utf-8")
    with Store.open() as store:
        model, _ = fitted_model(store)
    expected = plan(model, Budget(deadline=300.0), epochs=90)
    assert Plan.load("plan.json") == expected == planned(line)


def test_a_deadline_may_be_a_time(worked: Path) -> None:
    soon = datetime.now() + timedelta(hours=1, seconds=10)
    found = planned(f"--model model.json {WORKED}", "--deadline", soon.isoformat(" "))
    assert found.budget.deadline == pytest.approx(3605, abs=6)
    assert found.budget.deadline_at == pytest.approx(soon.timestamp())
    assert found.chosen.epochs == 57
    started = (datetime.now() - timedelta(minutes=10)).isoformat(" ")
    when = ("--deadline", soon.isoformat(" "), "--counted-from", f"start={started}")
    same = planned(f"--model model.json {WORKED}", *when)
    assert same.chosen.epochs == 57
    assert same.budget.spent_seconds == pytest.approx(600, abs=6)


def test_time_may_count_from_elsewhere(worked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"--model model.json {WORKED} --deadline 1h --counted-from"
    started = (datetime.now() - timedelta(minutes=10)).isoformat(" ")
    given = planned(
        f"--model model.json {WORKED} --deadline 1h", "--counted-from", f"start={started}"
    )
    assert given.budget.spent_seconds == pytest.approx(600, abs=20)
    begin = datetime.now().timestamp() - 600
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(round(begin)))
    assert planned(f"{base} start").chosen.epochs == 47
    total = planned(f"{base} total=10m")
    assert (total.chosen.epochs, total.budget.counted_from) == (47, "total")
    assert "10m 00s were spent in earlier runs" in run(f"{base} total=10m").stdout


def test_an_allocation_may_begin_later(worked: Path) -> None:
    start = datetime.now() + timedelta(days=1)
    later = f"--model model.json {WORKED}"
    begins = ("--counted-from", f"start={start.isoformat(' ')}", "--deadline")
    lasts = planned(later, *begins, "1h")
    until = planned(later, *begins, (start + timedelta(hours=1)).isoformat(" "))
    for found in (lasts, until):
        assert found.budget.deadline == pytest.approx(3600)
        assert (found.budget.spent_seconds, found.chosen.epochs) == (0.0, 57)
    soon = (datetime.now() + timedelta(hours=1)).isoformat(" ")
    assert "lies before the allocation's start" in run(later, *begins, soon, code=2).stderr


@pytest.mark.parametrize("other", ["digits-mlp", "--device cuda"])
def test_a_model_of_something_else_than_asked_for_is_refused(worked: Path, other: str) -> None:
    failed = run(f"{other} --model model.json --epochs 3", code=2)
    assert "model.json is a model" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    run("known --device cpu --model model.json --epochs 3")


def test_nothing_fits(worked: Path) -> None:
    line = f"--model model.json {WORKED} --epochs 90 --min-epochs 90 --deadline 1h"
    failed = run(line, code=3)
    assert failed.stdout == ""
    assert "90 epochs at 90 % confidence need 1h 33m of deadline" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    document = json.loads(run(f"{line} --json", code=3).stdout)
    assert document["shortfall"]["fitting_epochs"] == 57
    assert document["shortfall"]["limits"][0][:2] == ["deadline", 3600.0]


def test_every_wish_reaches_the_planner(probed: Path) -> None:
    Path("pilot.csv").write_text(
        "epoch,train_loss,val_loss\n" + "".join(f"{e},{1 / e},{1 + 1 / e}\n" for e in range(1, 13))
    )
    found = planned(
        "--epochs 40 --min-epochs 2 --max-epochs 60 --deadline 20m --price-per-hour 3 "
        "--fixed-cost 1 --watts 200 --carbon-per-kwh 400 --disk 10GB --memory 8GiB --keep 3 "
        "--confidence 80% --batch-size 128,256 --micro-batch 64 --devices 1,2 --bandwidth 10GB "
        "--samples 0.5x --set width=512 --precision fp32 --workers 0 --eval-every auto "
        "--mtbf 0.5/h --restart 30 --stop patience=4 --min-delta 0.01 "
        "--stop target=0.1 --stop gl=20 --curve pilot.csv --noise-scale 300 --reference-batch 64 "
        "--optimizer adamw --objective money --seed 3 --plot plan.svg",
    )
    assert dict(found.chosen.config.sizes)["width"] == 512
    assert (found.samples, found.keep, found.objective, found.seed) == (30_000, 3, "money", 3)
    assert found.mtbf_seconds == 7200
    assert [r.kind for r in found.stop_rules] == ["patience", "target", "gl"]
    assert {o.global_batch for o in found.options} == {128, 256}
    assert all(o.config.batch_size == 64 for o in found.options)
    assert found.chosen.carbon_grams is not None
    assert found.outlook is not None
    ratio = found.chosen.global_batch / 64
    assert found.chosen.learning_rate_factor == pytest.approx(ratio**0.5)
    assert Path("plan.svg").read_text(encoding="utf-8").startswith("<?xml")
    folds = planned("--epochs 4 --folds 5 --eval-every rungs --save-every 0 --mtbf 3h")
    assert (folds.folds, tuple(folds.epochs_of("evaluate")), tuple(folds.epochs_of("save"))) == (
        5,
        (1, 3, 4),
        (),
    )
    free = planned("--epochs 4 --batch-size free --noise-scale 300")
    assert len({o.global_batch for o in free.options}) > 1


def test_curves_that_count_steps_are_read_as_epochs(probed: Path) -> None:
    rows = (f"{10 * e},{1 + 1 / e}\n" for e in range(1, 13))
    Path("steps.csv").write_text("step,val_loss\n" + "".join(rows))
    assert "--steps-per-epoch" in run("--epochs 3 --curve steps.csv", code=2).stderr
    found = planned("--epochs 30 --curve steps.csv --steps-per-epoch 10")
    assert found.outlook is not None
    assert found.outlook.seen_epochs == 12


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_the_ends_of_the_calendar_are_times_too(
    probed: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    first, last = "0001-01-01 00:00", "9999-12-31 23:59"
    lines = [
        (("--deadline", first), 2, "has passed"),
        (("--deadline", last), 2, "at most 3,000 years away"),
        (("--deadline", "1h", "--counted-from", f"start={first}"), 3, "nothing fits"),
    ]
    try:
        for more, code, says in lines:
            stderr = run("--epochs max", *more, code=code).stderr
            assert says in stderr
            assert len(stderr.splitlines()) == 1
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_pilot_that_exploded_is_refused_where_it_did(probed: Path) -> None:
    rows = "".join(f"{e},{1e300 if e > 8 else 1 / e}\n" for e in range(1, 13))
    Path("pilot.csv").write_text(f"epoch,val_loss\n{rows}")
    failed = run("--epochs 20 --stop patience=3 --curve pilot.csv", code=2)
    assert "line 10, column 'val_loss': expected at most 1e+100, but got 1e+300" in failed.stderr


def test_what_is_given_twice_is_one(probed: Path) -> None:
    once = planned("--epochs 3 --batch-size 128 --devices 2")
    assert planned("--epochs 3 --batch-size 128,128 --devices 2,2,2") == once


def test_a_fixed_cost_counts_without_a_price(probed: Path) -> None:
    line = "--epochs 3 --fixed-cost 5"
    found = planned(line)
    assert found.chosen.money == Quantiles.exactly(5.0)
    assert found == planned(f"{line} --price-per-hour 0")


def test_a_fixed_cost_alone_is_held_to_a_limit_of_money(worked: Path) -> None:
    assert planned("--model model.json --epochs 3 --fixed-cost 5 --budget 9").chosen.epochs == 3
    failed = run("--model model.json --epochs 3 --fixed-cost 5 --budget 4", code=3)
    assert "$5.00 of money, $1.00 more than the $4.00 allowed" in failed.stderr


@pytest.mark.parametrize("rate", ["inf", "nan", "0", "-1"])
def test_a_rate_of_interruptions_is_refused_by_its_own_name(probed: Path, rate: str) -> None:
    failed = run(f"--epochs 3 --mtbf {rate}/h", code=2)
    assert "--mtbf: a rate of interruptions is above 0 and finite" in failed.stderr
    assert f"but got '{rate}/h'; leave it out" in failed.stderr


def test_steps_per_epoch_of_a_curve_that_has_epochs_is_refused(probed: Path) -> None:
    rows = [f"{e},{16 * e},{1 / e}\n" for e in range(1, 13)]
    Path("epochs.csv").write_text("epoch,step,val_loss\n" + "".join(rows))
    steps = (row.partition(",")[2] for row in rows)
    Path("steps.csv").write_text("step,val_loss\n" + "".join(steps))
    line = "--epochs 20 --steps-per-epoch 16 --curve"
    assert "epochs.csv has epochs, or a line for each" in run(f"{line} epochs.csv", code=2).stderr
    assert planned(f"{line} steps.csv --curve epochs.csv") == planned(
        f"{line} steps.csv --curve steps.csv"
    )


def test_an_improvement_that_nothing_waits_for_is_said(probed: Path) -> None:
    rows = "".join(f"{e},{1 / e}\n" for e in range(1, 13))
    Path("pilot.csv").write_text(f"epoch,val_loss\n{rows}")
    line, said = "--min-delta .1 --curve pilot.csv", "--min-delta changes nothing"
    assert said in run(f"--epochs 2 {line}").stderr
    assert said not in run(f"--epochs 2 {line} --stop patience=3").stderr
    assert said not in run(f"--epochs 20 {line}").stderr


def test_the_optimizers_are_those_of_the_library() -> None:
    (option,) = [o for o in command.params if o.name == "optimizer"]
    assert list(option.type.choices) == list(OPTIMIZERS)  # type: ignore[attr-defined]


def test_a_score_is_planned_upside_down(probed: Path) -> None:
    Path("scores.csv").write_text(
        "epoch,accuracy\n" + "".join(f"{e},{1 - 1 / e}\n" for e in range(1, 13))
    )
    line = "--epochs 12 --stop patience=2 --metric accuracy --mode max --curve scores.csv"
    found = planned(f"{line} --device cpu --store .epochcast/measurements.sqlite")
    assert (found.metric, found.stop_rules[0].mode) == ("accuracy", "max")
    assert found.outlook is not None
    assert (found.outlook.mode, found.outlook.best_epoch) == ("max", 12)
    assert "not probed on 'cuda'" in run(f"{line} --device cuda", code=2).stderr


def test_more_epochs_may_fit_than_were_looked_for(probed: Path) -> None:
    """100 k stood there as if it were known."""
    text = run("--epochs 3 --deadline 100000d").stdout
    (told,) = (line for line in text.splitlines() if line.startswith("epochs that fit"))
    assert told.count("≥ 100 k") == 3


TWINS = {  # fields of Budget and PlanRequest that options call otherwise
    "knobs": "sizes",
    "stops": "rules",
}
AROUND = {  # the plan, the cost model, and how files are read
    "as_json",
    "device",
    "emit",
    "model_file",
    "on",
    "output",
    "plot",
    "steps_per_epoch",
    "store",
    "workload",
}


def test_every_option_has_a_twin_in_the_library() -> None:
    options = {option.name for option in command.params} - AROUND
    library = {field.name for record in (Budget, PlanRequest) for field in fields(record)}
    library = library - {"unit"} | {"steps", "min_steps"}  # what is counted in that unit
    assert {TWINS.get(name, name) for name in options} == library - {
        "watts_spread",
        "powers",
        "deadline_at",
        "spent_seconds",
    }


@pytest.mark.parametrize(
    ("line", "message", "code"),
    [
        ("", "how many epochs are wanted? give --epochs, e.g. --epochs 90", 2),
        ("--deadline 8h", "as many as the limits allow are --epochs max", 2),
        ("--epochs max", "nothing ends the run", 2),
        ("--epochs max --steps 5", "leave --epochs out, or --steps", 2),
        ("--epochs max --fixed-cost 5 --budget 6", "nothing ends the run", 2),
        ("--epochs 3 --emit slurm", "its command: give it, -o plan.json", 2),
        ("--deadline soon", "s, ms, us, ns; or it is a time, like '08:00', 'tomorrow 8:00'", 2),
        ("--deadline 2020-01-01", "has passed", 2),
        ("--epochs 3 --budget $5", "needs --price-per-hour", 2),
        ("--epochs 3 --energy 5kWh", "needs watts", 2),
        ("--epochs 3 --confidence 120%", "between 0 and 1", 2),
        ("--epochs 3 --batch-size free", "epochcast probe --noise-scale", 2),
        ("--epochs 3 --set width=1,2", "this is for one model", 2),
        ("--epochs 3 --set height=1", "no knob 'height'", 2),
        ("--epochs 3 --noise-scale much", "a number or 'measured'", 2),
        ("--epochs 3 --watts measured", "was not measured; give it: --watts 300", 2),
        ("--epochs 3 --watts -1", "a power is a number of watts or like '300W'", 2),
        ("--epochs 9000 --price-per-hour 1e308", "--price-per-hour must be at most 1e+15", 2),
        ("--epochs 3 --watts 1e306", "at most 1e15 watts, but got '1e306'", 2),
        (
            "--epochs 3 --watts 9 --carbon-per-kwh 1e308",
            "--carbon-per-kwh must be at most 1e+15",
            2,
        ),
        ("--epochs 3 --noise-scale -1", "--noise-scale must be positive", 2),
        ("--epochs 3 --curve absent.csv", "no learning curve at absent.csv", 2),
        ("--epochs 3 --samples lots", "--samples is a number", 2),
        ("--deadline 1h --counted-from start", "'start=2026-12-01 08:00', or run inside a job", 2),
        ("--epochs 3 --confidence 99.99%", "between 0.1 % and 99.9 %", 2),
        ("--epochs 3 --folds 100000000", "--folds must be at most the 60,000 samples", 2),
        ("--epochs 3 --batch-size 70000", "at most the 60,000 samples of an epoch", 2),
        ("--epochs 3 --samples 100", "at most the 100 samples of an epoch, but got 256", 2),
        ("--epochs 3 --samples inf", "--samples is a number", 2),
        ("--epochs 3 --samples 1e300", "--samples must be at most 1,000,000,000,000,000", 2),
        ("--epochs 3 --min-epochs 2000000", "--min-epochs must be at most 1,000,000", 2),
        ("--epochs 3 --seed -1", "--seed must not be negative, but got -1", 2),
        ("--epochs 3 --output nodir/plan.json", "cannot write the plan to nodir/plan.json", 2),
        ("--epochs 3 --stop target=inf", "needs a finite number for value, but got inf", 2),
        ("--epochs 3 --stop gl=nan", "a finite number of at least 0 for percent, but got nan", 2),
        ("--epochs 3 --stop up=0", "a finite number of at least 1 for rises", 2),
        (
            "--epochs 3 --min-delta nan",
            "--min-delta: expected a number of at least 0, but got 'nan'",
            2,
        ),
        (
            "--epochs 3 --stop patience=2 --min-delta inf",
            "a finite number of at least 0 for --min-delta",
            2,
        ),
        (
            "--epochs 3 --stop futility=5",
            "a finite number of at least 0 and at most 1",
            2,
        ),
        ("--epochs 3 --stop up=2.5", "counts rises: give a whole number, but got 2.5", 2),
        ("--epochs 3 --restart 5m", "comes after a failure, and none is expected: give", 2),
        ("--epochs 3 --bandwidth 10GB", "the plan is for 1 device alone: give others too", 2),
        ("--epochs 3 --steps-per-epoch 5", "add --curve", 2),
        (
            "--epochs 3 --min-delta 0.1",
            "none of them is given: add --stop patience=5 or --curve",
            2,
        ),
        ("--epochs 3 --stop gl=5 --min-delta 3", "none of them is given: add --stop", 2),
        ("--epochs 9 --mtbf 1e-300/h", "leave it out for a run that never", 2),
        ("--epochs 9 --mtbf 1e300/h", "must lie between 1 ms and 3,000 years", 2),
        ("--epochs 9 --mtbf 10ms", "as failures come every 10 ms, and from a save to the next", 2),
        ("--epochs max --deadline 8h --mtbf 10ms", "nothing fits: 1 epoch with", 3),
        ("--epochs 9 --samples 1e14", "may take over 3,000 years: give fewer epochs", 2),
        ("--epochs 3 --counted-from total=1e300d", "at most 3,000 years, but got", 2),
        ("--epochs 3 --plot plan.gif", ".png or .svg", 2),
        ("--epochs 3 --plot nodir/plan.png", "cannot write nodir/plan.png", 2),
        ("--epochs 3 --model absent.json", "does not exist", 2),
    ],
)
def test_bad_input_gives_one_line(probed: Path, line: str, message: str, code: int) -> None:
    failed = run(line, code=code)
    assert message in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert failed.stdout == ""


@pytest.mark.parametrize(
    "line",
    [
        "--counted-from then",
        "--epochs none",
        "--epochs 0",
        "--budget free",
        "--energy 5 apples",
        "--memory much",
        "--stop chance=3",
        "--stop gl",
        "--batch-size 1,x",
        "--eval-every x",
        "--confidence high",
    ],
)
def test_wrong_usage_exits_with_two(probed: Path, line: str) -> None:
    assert CliRunner().invoke(cli, ["plan", *line.split()]).exit_code == 2


def test_a_measured_noise_scale_is_used(probed: Path) -> None:
    line = "--epochs 4 --batch-size free --noise-scale measured"
    assert "run: epochcast probe imaginary --noise-scale" in run(line, code=2).stderr
    noise = GradientNoise(
        small_batch=32, large_batch=256, small_norms=(3.0,), large_norms=(1.25,), trained_steps=9
    )
    with Store.open() as store:
        store.add(replace(store.measurements()[-1], gradient_noise=noise))
    result = run(line)
    assert "measured on synthetic data" in result.stderr
    given = planned("--epochs 4 --batch-size free --noise-scale 64")
    assert planned(line).options == given.options


def test_measured_power_is_used(probed: Path) -> None:
    with Store.open() as store:
        for m, watts in zip(store.measurements(), (190.0, 200.0, 260.0), strict=False):
            store.add(replace(m, power_watts=watts))
    assert planned("--epochs 3 --energy 1kWh --watts measured").budget.watts == 200.0


def test_power_is_that_of_the_models_own_workload(probed: Path, tmp_path: Path) -> None:
    """And not of what was probed last."""
    with Store.open() as store:
        ours = store.measurements()
        ec.fit(ours).save(tmp_path / "model.json")
        for m in ours:
            store.add(replace(m, power_watts=200.0))
            later = {"workload": "other.py", "created_at": "2099-01-01T00:00:00+00:00"}
            store.add(replace(m, power_watts=700.0, **later))
    model = f"--model {tmp_path / 'model.json'} --epochs 3 --watts measured"
    assert planned(model).budget.watts == 200.0
    found = json.loads(CliRunner().invoke(cli, ["predict", *model.split(), "--json"]).stdout)
    (estimate,) = found["estimates"]
    assert estimate["energy_joules"]["p50"] == pytest.approx(
        200.0 * estimate["total_seconds"]["p50"]
    )


def test_a_file_of_settings_asks_for_the_power_that_there_is(probed: Path) -> None:
    Path("epochcast.toml").write_text('watts = "measured"\n')
    assert planned("--epochs 3").budget.watts is None
    done = CliRunner().invoke(cli, ["predict", "--epochs", "3", "--watts", "measured"])
    assert done.exit_code != 0


def test_joules_that_were_counted_price_energy_unasked(probed: Path) -> None:
    """20 % apart in two rounds; of the batch that is planned, and not of the others."""
    with Store.open() as store:
        for m in store.measurements():
            watts = m.config.batch_size * (0.9 if m.round else 1.1)
            store.add(replace(m, step_joules=watts * fmean(m.step_seconds), power_watts=7.0))
    batches = sorted({m.config.batch_size for m in Store.open().measurements()})
    found = planned(f"--epochs 3 --batch-size {batches[0]} --carbon-per-kwh 400")
    assert found.budget.watts == pytest.approx(batches[0], rel=0.11)
    energy, carbon = found.chosen.energy_joules, found.chosen.carbon_grams
    assert energy.p50 == pytest.approx(found.budget.watts * found.chosen.seconds.p50, rel=0.05)
    assert energy.p90 / energy.p10 > 1.02 * found.chosen.seconds.p90 / found.chosen.seconds.p10
    assert carbon.p50 == pytest.approx(energy.p50 / 3.6e6 * 400)
    assert planned("--epochs 3 --energy 1kWh").budget.energy == 3.6e6
    assert planned("--epochs 3 --watts 50").budget.watts == 50
    question = ["predict", "--epochs", "3", "--batch-size", str(batches[0]), "--json"]
    (estimate,) = json.loads(CliRunner().invoke(cli, question).stdout)["estimates"]
    joules = found.budget.watts * estimate["total_seconds"]["p50"]
    assert estimate["energy_joules"]["p50"] == pytest.approx(joules)
    said = run("--epochs 3 --watts 50").stderr
    assert "Imaginary is taken to draw 50 W, as --watts or epochcast.toml says; while it" in said
    other = planned(f"--epochs 3 --batch-size {2 * batches[-1]} --micro-batch {2 * batches[-1]}")
    assert "power-of-others" in {w.code for w in other.warnings}
    assert other.budget.watts_spread > found.budget.watts_spread


def test_planning_loads_nothing_heavy(probed: Path) -> None:
    run("--epochs 3")  # fits, with scikit-learn, once
    command = [sys.executable, "-X", "importtime", "-m", "epochcast", "plan", "--epochs", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert loaded.isdisjoint(HEAVY)


def test_help_texts_are_sentences() -> None:
    helps = {o.name: o.help for o in command.params if isinstance(o, click.Option)}
    for name, text in helps.items():
        assert text, name
        assert re.match(r"[A-Z].* .*[.]$", text), (name, text)


def test_help_names_every_option_with_its_use() -> None:
    text = CliRunner().invoke(cli, ["plan", "--help"], prog_name="epochcast").stdout
    assert "--deadline DURATION|TIME" in text
    assert not re.search(r"--[a-z-]+ (TEXT|INTEGER|PATH)\s*$", text, re.MULTILINE)


def test_accuracy_is_better_when_larger_without_being_told(worked: Path) -> None:
    rows = "\n".join(f"{e},{1 - 1 / e}" for e in range(1, 11))
    Path("pilot.csv").write_text(f"epoch,val_accuracy\n{rows}\n")
    line = (
        "--model model.json --epochs 20 --stop patience=3 --metric val_accuracy --curve pilot.csv"
    )
    found = planned(line)
    assert (found.mode, found.stop_rules[0].mode) == ("max", "max")
    assert "a larger val_accuracy is taken to be better, by its name" in run(line).output


def test_a_plan_of_steps_says_steps(worked: Path) -> None:
    """150 + n + 8 for each 500 steps within an hour: 3,394 and 7 evaluations."""
    (worked / "pilot.csv").write_text(
        "step,val_loss\n" + "".join(f"{s},{0.3 + s**-0.5}\n" for s in range(0, 2001, 200) if s)
    )
    line = "--model model.json --steps 5000 --deadline 1h --eval-every 500 --save-every 0"
    text = run(f"{line} --stop futility=0.01 --curve pilot.csv").output
    for said in (
        "Run 3,394 of 5,000 steps: 0.0 % chance of all 5,000; 1h 00m, at most 1h 00m",
        "The deadline binds.",
        "One more step would take 1",
        "500 steps 8m 20s and an evaluation 8",
        "by step 3,394 is less likely than",
        "validation is still improving at step 2000: more steps should help",
        "steps that fit",
    ):
        assert said in " ".join(text.split()), said
    assert not re.search(r"\bepochs?\b", text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--steps 10 --epochs 5", "--epochs must be left out where a plan counts steps"),
        ("--steps many", "expected a whole number or max, but got 'many'"),
        ("--steps 5 --batch-size 1,2", "a number of steps is of one batch size"),
        ("--steps max", "nothing ends the run: give steps, or a limit"),
        ("--steps 9 --curve epochs.csv", "it counts no steps, as a plan of steps does"),
    ],
)
def test_what_a_plan_of_steps_cannot_have_is_refused(worked: Path, line: str, said: str) -> None:
    (worked / "epochs.csv").write_text("epoch,val_loss\n1,0.5\n2,0.4\n")
    assert said in " ".join(run(f"--model model.json {line}", code=2).output.split())


def test_epochs_of_a_curve_are_steps_where_an_epoch_has_so_many(worked: Path) -> None:
    rows = "".join(f"{e},{1 / e}\n" for e in range(1, 8))
    (worked / "epochs.csv").write_text(f"epoch,val_loss\n{rows}")
    found = planned(
        "--model model.json --steps 900 --eval-every 100 --curve epochs.csv --steps-per-epoch 50"
    )
    assert found.outlook is not None
    assert found.outlook.seen_epochs == 350
