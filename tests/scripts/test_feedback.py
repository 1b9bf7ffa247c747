"""What a run teaches: the same as a probe of the same script."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import FIRST_PASS
from test_watch import prices, replayed, streamed, watched, whole

import epochcast as ec
from epochcast.records import Budget
from epochcast.scripts.command import Template
from epochcast.scripts.feedback import measured_run, outcome_of, teach, values_among
from epochcast.scripts.running import Finished, Run
from epochcast.scripts.unplanned import unplanned
from epochcast.scripts.watch import Watch
from epochcast.storage.store import Store

RUN = Run(arguments=("python", "train.py", "-b", "16"), workload="train.py", folder=Path("run"))


def finished(**parts: object) -> Finished:
    training = whole(epochs=4, **parts)
    watch = Watch(watched(epochs=4))
    replayed(training, watch)
    return Finished(
        exit_code=0,
        watch=watch,
        events={7: tuple(streamed(whole(epochs=4, **parts)))},
        began=FIRST_PASS,
        ended=training.at,
        kept_until=training.at,
    )


def test_a_run_predicts_itself(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        taught = teach(replace(RUN, note="night run"), finished(), store)
        assert taught is not None
        (stored,) = store.measurements("train.py")
    training = whole(epochs=4)
    assert stored == taught
    assert stored.note == "night run"
    assert (stored.config.batch_size, stored.samples) == (16, training.samples)
    assert stored.probe_seconds == 0  # nothing was spent on probing
    estimate = ec.fit([stored]).predict(epochs=9, batch_size=16)
    assert estimate.total_seconds.p50 == pytest.approx(training.total(9), rel=0.02)


def test_runs_of_a_script_are_rounds_and_replace_no_probe(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        for _ in range(3):
            teach(RUN, finished(), store)
        assert [m.round for m in store.measurements("train.py")] == [0, 1, 2]


def test_a_run_under_a_name_is_of_its_script_and_of_no_other(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        elsewhere = ec.Measurement.from_epochs("net", 16, [9.0, 8.0], samples=100, device="cpu")
        store.add(elsewhere)  # of whatever code: no reason not to learn
        named = teach(replace(RUN, workload="net"), finished(), store)
        assert named is not None
        assert (named.workload, named.target) == ("net", "train.py")
        other = replace(RUN, workload="net", arguments=("python", "other.py"))
        with pytest.raises(ec.UsageError, match=r"'net' is the name of train.py in this store"):
            teach(other, finished(), store)
        assert store.measurements() == (elsewhere, named)


def test_a_script_that_follows_the_plan_of_a_workload_counts_for_it(tmp_path: Path) -> None:
    """As a measurement it is of the script, so that no probe of the workload is displaced."""
    training = whole(epochs=3)
    plan = replace(unplanned("big", Budget()), target="wl.py:workload")
    chosen = replace(plan.chosen, epochs=3, steps_per_epoch=training.batches)
    plan = replace(plan, options=(chosen,), prices=prices(training))
    watch = Watch(replace(watched(plan=plan), workload="big"))
    replayed(training, watch)
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        teach(replace(RUN, workload="big", plan=plan), replace(finished(), watch=watch), store)
        assert store.workloads() == ("train.py",)
        (outcome,) = store.outcomes("big")
    assert (outcome.epochs, outcome.source) == (3, "")


def test_braces_of_a_command_stand_for_themselves() -> None:
    run = replace(RUN, arguments=("python", "train.py", "{seed}", '{"a": 1}'))
    measured = measured_run(run, finished())
    assert measured is not None
    assert measured.script is not None
    assert Template(arguments=measured.script.arguments).filled({}).arguments == run.arguments


def test_a_run_that_trained_nothing_teaches_nothing() -> None:
    nothing = Finished(
        exit_code=0,
        watch=Watch(watched()),
        events={},
        began=0.0,
        ended=1.0,
        kept_until=1.0,
    )
    assert measured_run(RUN, nothing) is None


def test_an_outcome_is_of_a_plan_alone() -> None:
    training = whole(epochs=3)
    watch = Watch(watched(epochs=3))
    replayed(training, watch)
    assert outcome_of(watch, training.at, watch.plan.device, "") is None
    plan = unplanned("train.py", Budget())
    chosen = replace(plan.chosen, epochs=3, steps_per_epoch=training.batches)
    planned = Watch(watched(plan=replace(plan, options=(chosen,), prices=prices(training))))
    replayed(training, planned)
    outcome = outcome_of(planned, training.at, plan.device, "abc")
    assert outcome is not None
    assert (outcome.epochs, outcome.source) == (3, "abc")
    assert outcome.total_predicted is not None
    other = Watch(replace(planned.watched, workload="other.py"))
    replayed(whole(epochs=3), other)
    assert outcome_of(other, training.at, plan.device, "abc") is None
    seen = training.total(3) - training.finish - training.fixed
    assert outcome.total_predicted.p50 == pytest.approx(seen, abs=training.fixed + 0.01)


@pytest.mark.parametrize(
    ("template", "arguments", "values"),
    [
        ("t.py -b {batch_size}", "t.py --lr 1 -b 48", {"batch_size": "48"}),
        ("t.py --b={batch_size}", "t.py --epochs 9 --b=48", {"batch_size": "48"}),
        ("t.py --size {w}x{h}", "t.py --size 3x5", {"w": "3", "h": "5"}),
        ("t.py {size} -e 3", "t.py large -e 90", {"size": "large"}),
        ("t.py {size} -e 3", "t.py -e 90 large", {}),
        ("t.py -b {batch_size}", "t.py -c 48", {}),
        ("t.py -b 16", "t.py -b 48", {}),
        ("t.py --x={{a}} {b}", "t.py --x={a} 5", {"b": "5"}),
    ],
)
def test_values_are_where_the_template_has_their_names(
    template: str, arguments: str, values: dict[str, str]
) -> None:
    assert values_among(template.split(), arguments.split()) == values
