"""What people read of a plan: every rule and limit has words, tables fit, long timelines shrink."""

import io
import re
from dataclasses import replace

import pytest
import truths
from rich.console import Console

from epochcast.costmodel.fitting import fit
from epochcast.planning.planner import plan
from epochcast.planning.stopping import RULES, Patience, Target, rule_record
from epochcast.records import (
    Budget,
    GradientNoise,
    LearningCurve,
    Outlook,
    Plan,
    Quantiles,
    StopRule,
)
from epochcast.records.moments import moments_of
from epochcast.report.text import plan as r
from epochcast.report.text.layout import filled
from epochcast.report.text.plan import ROWS, _worth_showing, options_tables
from epochcast.report.text.probing import noise_text, print_noise

MODEL = fit(truths.sweep(round_sd=0.05, trial_sd=0.02))
PILOT = LearningCurve(
    epochs=tuple(range(1, 31)),
    validation=tuple(0.4 + 0.002 * (e - 12) ** 2 for e in range(1, 31)),
    training=tuple(1 / e for e in range(1, 31)),
)
FULL = plan(
    MODEL,
    Budget(
        deadline=300,
        money=0.3,
        price_per_hour=2.5,
        watts=200,
        carbon_per_kwh=400,
        disk=1e9,
        memory=4e9,
    ),
    epochs=90,
    rules=(Patience(checks=3, min_delta=0.001),),
    curves=(PILOT,),
    mtbf_seconds=3600,
)


def _text(found: Plan, width: int = 120, terminal: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, highlight=False, force_terminal=terminal, color_system=None
    )
    r.print_plan(console, found)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_full_plan_says_everything() -> None:
    text = _text(FULL)
    for part in (
        "Within 5m 00s, $0.30, 3.73 GiB of memory and 954 MiB of disk, with 90 % confidence.",
        "total time",
        "An epoch 6.",
        "after a start of",
        "energy",
        "g CO₂e",
        "memory, of 16 GiB",
        "Left at 90 % confidence:",
        "one about every 3 epochs: with a failure every 1h 00m, that costs least",
        "the last one must begin",
        "Stop at the 3rd check in a row that does not improve val_loss by 0.001.",
        "Learning curve: validation was best at epoch 12 and has become worse since",
        "it beats the best so far, 0.4",
        "gets here",
        "time saved",
        "money saved",
        f"Timeline, {len(_worth_showing(FULL))} of",
        "moments; --json has all of them",
        "That ends the run early with a probability of",
    ):
        assert part in text


def test_the_answer_comes_first() -> None:
    lines = _text(FULL).splitlines()
    assert re.fullmatch(
        rf"Run {FULL.chosen.epochs} of 90 epochs: [\d.]+ % chance of all 90; "
        r"(\dm \d\ds), at most (\dm \d\ds), \$0\.\d\d",
        lines[0],
    )
    assert "batch_size=" in lines[1]
    unlimited = _text(plan(MODEL, Budget(), epochs=3)).splitlines()[0]
    assert re.fullmatch(r"Run 3 epochs: [\d.]+ s, at most [\d.]+ s", unlimited)
    limited = _text(plan(MODEL, Budget(deadline=3600), epochs=3)).splitlines()[0]
    assert limited.startswith("Run 3 epochs: 100 % chance of all 3; ")


@pytest.mark.parametrize("width", [60, 80, 112, 140])
def test_nothing_is_wider_than_a_terminal_and_nothing_is_cut(width: int) -> None:
    text = _text(FULL, width, terminal=True)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    cells = re.findall(r"\S+(?: \S+)*", _text(FULL, 200))
    numbers = {cell for cell in cells if cell[0].isdigit() and len(cell) < 20}
    assert len(numbers) > 50
    assert all(number in text for number in numbers)


def test_sentences_are_broken_between_words_on_a_terminal_alone() -> None:
    text = "One more epoch would take 1h 30m and 25.5 GiB of 30 GiB."
    assert filled(text, 28).splitlines() == [
        "One more epoch would take",
        "  1h 30m and 25.5 GiB of",
        "  30 GiB.",
    ]
    assert filled(text, 80) == text
    whole = r.limits_line(FULL.budget)
    assert whole in _text(FULL, 40)
    assert whole not in _text(FULL, 40, terminal=True)


def test_a_maximum_beside_the_target_is_explained() -> None:
    beyond = _text(plan(MODEL, Budget(deadline=300), epochs=20, max_epochs=90))
    assert "Beyond the target of 20, what is left goes into up to 90 epochs." in beyond
    assert re.match(r"Run [3-8]\d epochs: 100 % chance of all 20; ", beyond)
    below = _text(plan(MODEL, Budget(), epochs=90, max_epochs=20))
    assert "The maximum of 20 epochs ends the run before the target of 90." in below


@pytest.mark.parametrize("width", [80, 112, 140])
def test_tables_fit_their_console(width: int) -> None:
    """Sentences wrap by themselves; rows of numbers must not."""
    lines = _text(FULL, width).splitlines()
    rows = [line for line in lines if line[:12].strip()[:1].isdigit() and line[-1:] != "."]
    assert len(rows) > 15
    assert max(map(len, rows)) <= width


def test_options_that_nothing_beats_come_first() -> None:
    """The chosen one stays on top; each row keeps its rank."""
    beaten = {0: False, 1: False, 2: True, 3: False, 4: True}
    options = [replace(FULL.chosen, pareto=beaten[rank]) for rank in beaten]
    (table,) = options_tables(replace(FULL, options=tuple(options)), 200)
    assert [cell.strip() for cell in table.columns[0].cells] == ["1", "3*", "5*", "2", "4"]


def test_a_column_that_says_the_same_in_every_row_is_left_out() -> None:
    """Which limit binds stands above, and what was wanted in the heading."""
    (table,) = options_tables(FULL, 200)
    headings = [str(column.header) for column in table.columns]
    assert "all 90" in headings
    assert len({o.binding for o in FULL.options}) > 1 or "binds" not in headings


def test_long_timelines_keep_both_ends_and_likely_stops() -> None:
    shown, moments = _worth_showing(FULL), moments_of(FULL)
    likely = max(FULL.timeline, key=lambda c: c.stop_probability or 0)
    assert len(shown) <= ROWS < len(moments)
    assert {moments[0], likely.epoch, moments[-1]} <= set(shown) <= set(moments)


def test_every_rule_has_words() -> None:
    assert set(r.RULES) == set(RULES)
    assert r.rule_text(rule_record(Target(value=0.5)), "accuracy") == "when accuracy reaches 0.5"
    futile = StopRule(kind="futility", settings=(("horizon", 90.0), ("probability", 0.05)))
    words = "when improving loss by epoch 90 is less likely than 5.0 %"
    assert r.rule_text(futile, "loss") == words


@pytest.mark.parametrize(
    ("count", "words"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]
)
def test_ordinals(count: int, words: str) -> None:
    text = r.rule_text(rule_record(Patience(checks=count)), "loss")
    assert text == f"at the {words} check in a row that does not improve loss"


@pytest.mark.parametrize(
    ("fit_", "words"),
    [
        ("underfitting", "still improving at epoch 30: more epochs should help"),
        ("overfitting", "best at epoch 12 and has become worse since: more epochs overfit"),
        ("settled", "settled by epoch 30"),
    ],
)
def test_fits_are_said_with_their_epoch(fit_: str, words: str) -> None:
    shape = Outlook(
        mode="min",
        families=(),
        seen_epochs=30,
        best_value=1.0,
        best_epoch=12,
        final_value=Quantiles.exactly(1.0),
        min_delta=0.0,
        improve_probability=0.5,
        fit=fit_,
        turning_epoch=12,  # type: ignore[arg-type]
    )
    assert words in r.fit_text(shape)


def test_limits_in_words() -> None:
    assert r.limits_line(Budget()) == "Without limits, with 90 % confidence."
    spent = Budget(deadline=3600, spent_seconds=600, counted_from="start")
    assert r.limits_line(spent) == (
        "Within 1h 00m, with 90 % confidence; 10m 00s were spent since the allocation began."
    )


def test_another_batch_comes_with_its_learning_rate() -> None:
    found = plan(
        MODEL,
        Budget(),
        epochs=3,
        batch_sizes=(512,),
        reference_batch=128,
        optimizer="sgd",
        folds=2,
        evaluate=0,
        save=0,
    )
    text = _text(found)
    assert "the learning rate by 4 (linear rule, for SGD: Goyal et al. 2017)." in text
    assert "in each of 2 folds" in text
    assert "checkpoints" not in text


def test_a_learning_rate_follows_the_root_of_the_batch_of_an_adaptive_optimizer() -> None:
    found = plan(
        MODEL, Budget(), epochs=3, batch_sizes=(512,), reference_batch=128, optimizer="adaptive"
    )
    assert found.chosen.learning_rate_rule == "square-root"
    text = "by 2 (square-root rule, for adaptive optimizers: Malladi et al. 2022)."
    assert text in _text(found)


def test_another_batch_without_an_optimizer_says_what_to_give() -> None:
    wishes = {"epochs": 3, "batch_sizes": (512,), "noise_scale": 64.0}
    text = "the batch of 512 is not the 128 at which the learning rate is known"
    assert text in _text(plan(MODEL, Budget(), reference_batch=128, **wishes))
    assert text not in _text(plan(MODEL, Budget(), reference_batch=128, optimizer="sgd", **wishes))
    assert "--optimizer" not in _text(plan(MODEL, Budget(), reference_batch=512, **wishes))


def test_one_of_everything_is_singular() -> None:
    found = plan(MODEL, Budget(deadline=60.0), epochs=1)
    text = _text(replace(found, options=found.options[:1]))
    assert "Run 1 epoch: 100 % chance of all 1; " in text
    assert "1 checkpoint," in text


def test_gradient_noise_is_said_with_what_it_rests_on() -> None:
    noise = GradientNoise(
        small_batch=32, large_batch=256, small_norms=(3.0,), large_norms=(1.25,), trained_steps=1200
    )
    console = Console(file=io.StringIO(), width=200, highlight=False)
    print_noise(console, [truths.measure(32, 256, gradient_noise=noise)])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.startswith(
        "depth=1 width=256: gradient noise scale 64 samples, from 1 gradients at batch sizes 32 "
        "and 256, after 1,200 optimizer steps"
    )
    assert "synthetic data, whose labels are random" in text
    assert "no gradient noise scale" in noise_text(replace(noise, large_norms=(0.1,)))
