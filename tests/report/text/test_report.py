"""What people read: every warning has words, tables fit, progress counts."""

import ast
import io
from dataclasses import replace
from pathlib import Path

import pytest
import truths
from rich.cells import cell_len
from rich.console import Console

import epochcast
from epochcast.cli.options import document
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.summary import summarise
from epochcast.profiler.rounds import SweepResult
from epochcast.records import SCHEMA, Warning_
from epochcast.report.text.estimate import (
    estimate_markdown,
    print_capacities,
    print_estimate,
    print_estimates,
)
from epochcast.report.text.layout import PlainConsole, plain_table, print_columns, print_table
from epochcast.report.text.probing import print_measurements, print_probed, print_summaries
from epochcast.report.text.progress import BarProgress, PlainProgress
from epochcast.report.text.warnings import WARNINGS, print_warnings

NOTE_MAKERS = {"note"}
PACKAGE = Path(epochcast.__file__).parent


def _console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False)


def _text(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def _codes(node: ast.expr) -> set[str]:
    """The texts that an expression can be: a constant, or one of two."""
    if isinstance(node, ast.IfExp):
        return _codes(node.body) | _codes(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def _used_codes(tree: ast.AST) -> set[str]:
    """Codes given to ``Warning_``, its ``of`` or functions called ``note``, or named ``code``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "Warning_":
                found |= {c for k in node.keywords if k.arg == "code" for c in _codes(k.value)}
            of_warning = getattr(getattr(node.func, "value", None), "id", "") == "Warning_"
            if name in NOTE_MAKERS or of_warning:
                found |= {c for argument in node.args[:2] for c in _codes(argument)}
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
            found |= _codes(node.value)
    return found


def test_every_warning_that_the_package_gives_has_a_text_and_every_text_is_used() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "warnings.py"]
    trees = [ast.parse(path.read_text("utf-8")) for path in files]
    literals = {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    used = {code for tree in trees for code in _used_codes(tree)}
    assert used <= set(WARNINGS), used - set(WARNINGS)
    assert set(WARNINGS) <= literals, set(WARNINGS) - literals
    assert len(used) > 0.8 * len(WARNINGS)


def test_equal_warnings_are_printed_once() -> None:
    console = _console()
    print_warnings(console, [Warning_(code="one-round")] * 3)
    assert _text(console).count("only one round") == 1


def test_the_table_of_a_sweep_fits_eighty_columns() -> None:
    console = _console(80)
    print_summaries(console, summarise(truths.sweep()))
    lines = _text(console).splitlines()
    assert len(lines) == 2 + 12 + 1 + 13  # evaluation and save follow below
    assert max(map(len, lines)) <= 80
    assert lines[0] == "imaginary  depth=1"
    assert lines[1].split()[:3] == ["batch", "width", "step"]
    assert lines[2].split()[:2] == ["32", "256"]


def test_settings_that_differ_have_a_column_and_others_none() -> None:
    alone = truths.measure(32, 256)
    two = replace(alone, config=replace(alone.config, world_size=2))
    print_summaries(console := _console(100), summarise([alone, two]))
    heading, *rows = _text(console).splitlines()[1:4]
    assert heading.split()[:3] == ["batch", "devices", "step"]
    assert [row.split()[:2] for row in rows] == [["32", "1"], ["32", "2"]]


def test_a_noisy_machine_is_said_to_be_with_what_helps() -> None:
    """Visits of 10 and 20 ms differ by ± 33 %, those of the quiet by none."""
    loud = [truths.measure(64, 256, round_=r, factor=f) for r, f in enumerate((1.0, 2.0))]
    quiet = [truths.measure(32, 256, round_=r) for r in range(2)]
    console = _console(80)
    print_summaries(console, summarise([*loud, *quiet]))
    text = " ".join(_text(console).split())
    assert "trials of 1 of 2 configurations differ by more than ± 10 %" in text
    assert "batch_size=64 depth=1 width=256 by ± 33 %; what helps: close other programs" in text
    print_summaries(console := _console(80), summarise(quiet))
    assert "noisy" not in _text(console)


def test_stored_measurements_are_a_row_for_each_configuration() -> None:
    """A trial that failed is counted; one trial has no spread; notes are shown where there are."""
    measured = [replace(m, note="after the fix") for m in truths.sweep((32,), (256, 512), rounds=2)]
    failed = replace(truths.measure(64, 512, status="oom"), created_at="2026-01-01T00:00:00")
    console = _console(100)
    print_measurements(console, [*measured, failed], [m.key for m in measured])
    title, heading, *rows = _text(console).splitlines()
    assert title.startswith("imaginary  depth=1  on Imaginary")
    assert heading.split()[:4] == ["key", "configuration", "trials", "used"]
    assert [row.split()[1:5] for row in rows[:2]] == [
        ["batch_size=32", f"width={w}", "2", "yes"] for w in (256, 512)
    ]
    assert all(row.endswith("after the fix") for row in rows[:2])
    assert rows[2].split()[1:6] == ["batch_size=64", "width=512", "0", "of", "1,"]
    assert rows[2].split()[6:] == ["oom", "no", "–", "–"]


def test_failed_configurations_are_listed_with_message_and_log() -> None:
    failed = truths.measure(512, 256, status="oom", message="no memory", log="a.log")
    console = _console()
    print_summaries(console, summarise([failed]))
    assert _text(console).strip() == "batch_size=512 depth=1 width=256: oom: no memory (log: a.log)"


def test_markup_in_user_text_is_text() -> None:
    failed = truths.measure(512, 256, status="crashed", message="[red]x[/nope]", log="[b].log")
    console = _console(200)
    print_summaries(console, summarise([failed]))
    progress = PlainProgress(console)
    progress.begin(1, 0, replace(truths.DEVICE, name="[i]GPU"), "synthetic")
    progress.finished(failed)
    assert _text(console).count("[red]x[/nope]") == 2
    assert "[i]GPU" in _text(console)


def test_plain_progress_counts_trials() -> None:
    console = _console(200)
    progress = PlainProgress(console)
    progress.begin(2, 3, truths.DEVICE, "synthetic")
    for measurement in truths.sweep((32, 64), (256,), rounds=1):
        progress.finished(measurement)
    lines = _text(console).splitlines()
    assert lines[0].startswith("2 trials to make (3 more are in the store already); on Imaginary")
    assert lines[0].endswith("synthetic data")
    assert lines[1].startswith("[1/2] batch_size=32 depth=1 width=256: ")


def test_a_bar_shows_failures_and_ends() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, highlight=False)
    progress = BarProgress(console)
    progress.begin(2, 0, truths.DEVICE, "synthetic")
    progress.phase("batch_size=32", "warm up")
    progress.finished(truths.measure(32, 256))
    progress.finished(truths.measure(64, 256, status="crashed", message="it broke"))
    progress.close()
    assert "it broke" in _text(console)
    assert progress.count == 2


def test_an_estimate_as_markdown_is_a_table() -> None:
    text = estimate_markdown(fit(truths.sweep()).predict(epochs=3))
    assert "| total, 3 epochs |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}


def test_steps_of_an_endless_sampler_are_told_without_epochs() -> None:
    model = fit([replace(m, samples=10**10) for m in truths.sweep()])
    some, more = model.predict(steps=300), model.predict(steps=600)
    console = _console()
    print_estimate(console, some)
    print_estimates(console, [some, more])
    text = _text(console) + estimate_markdown(some)
    assert "epoch" not in text.replace("starting epochs", "").replace("epochcast", "")
    assert "total, 300 steps " in text
    print_estimate(console, model.predict(epochs=1))
    assert "optimizer steps an epoch" in _text(console)


def test_several_answers_in_steps_are_told_by_them() -> None:
    model = fit(truths.sweep())
    console = _console(120)
    print_estimates(console, [model.predict(steps=n, batch_size=64) for n in (1, 5000)])
    heading, *rows = _text(console).splitlines()[1:]
    assert heading.split()[0] == "steps"
    assert [row.split()[0] for row in rows[:2]] == ["1", "5,000"]
    print_estimate(console, model.predict(steps=1, batch_size=64))
    assert "1 step (0.0011 epochs)" in _text(console)


def test_documents_name_their_knobs() -> None:
    found = document(estimates=[fit(truths.sweep()).predict(epochs=3)])
    assert found["schema"] == SCHEMA
    assert found["estimates"][0]["config"]["sizes"] == {"depth": 1, "width": 1024}


def test_what_a_sweep_cost_and_why_it_ended() -> None:
    def said(trials: int, stopped: str, half_width: float | None = None) -> str:
        console = _console(80)
        result = SweepResult(measurements=(), seconds=3.0, stopped=stopped, half_width=half_width)
        print_probed(console, trials, result, 0.05)
        return _text(console)

    assert "3 trials took 3 s." in said(3, "complete")
    assert "Nothing was left to measure." in said(0, "complete")
    assert "3 trials took 3 s and stopped at --max-seconds" in said(3, "max-seconds")
    assert "--max-seconds left no time for one" in said(0, "max-seconds")
    assert "Next:" not in said(0, "max-seconds")
    assert "the 90 % interval is ±4.2 %, under 5.0 %." in said(9, "sharp", 0.042)
    assert "after the last round: the 90 % interval is ±27 %" in said(9, "max-rounds", 0.27)


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (None, "predict --epochs 90, and epochcast tensorboard\n"),
        ("my store", "predict --epochs 90 --store 'my store', and epochcast tensorboard --store"),
        ("postgresql+psycopg://u:secret@h/d", "tensorboard, with the same --store"),
    ],
)
def test_what_is_next_asks_the_store_that_was_filled(store: str | None, told: str) -> None:
    console = _console(200)
    result = SweepResult(measurements=(), seconds=3.0, stopped="complete")
    print_probed(console, 1, result, None, store)
    text = _text(console)
    assert "1 trial took 3 s." in text
    assert told in text
    assert "secret" not in text


def test_what_rules_a_step_is_said_where_loading_matters() -> None:
    estimate = fit(truths.sweep()).predict(epochs=3)

    def said(compute: float, loader: float, workers: int) -> str:
        console = _console(200)
        config = replace(estimate.config, workers=workers)
        print_estimate(
            console,
            replace(estimate, config=config, compute_seconds=compute, loader_seconds=loader),
        )
        return _text(console)

    assert "computing 1 ms, loading 3 ms: loading rules" in said(1e-3, 3e-3, 2)
    assert "loading 2 ms: computing rules" in said(3e-3, 2e-3, 2)
    assert "(of it computing 3 ms, loading 2 ms, one after the other" in said(3e-3, 2e-3, 0)
    assert "loading" not in said(3e-3, 1e-6, 0)


def test_the_largest_batch_in_words() -> None:
    console = _console(200)
    found = fit(truths.sweep()).largest_batch(2**30, width=512)
    print_capacities(console, [found])
    text = _text(console)
    assert f"Largest batch that fits 1 GiB with 95 % confidence: {found.batch_size:,}" in text
    assert "outside the probed range: batch_size" in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_window_cuts_what_a_row_is_called(width: int) -> None:
    found = io.StringIO()
    console = PlainConsole(file=found, width=width, force_terminal=True, color_system=None)
    table = plain_table()
    for heading in ("", "P10", "P50", "P90", "share"):
        table.add_column(heading, no_wrap=bool(heading))
    table.add_row("  last partial checkpoints ×1,000", *["1.05 ms"] * 3, "100 %")
    print_table(console, table)
    keys = {
        "key": ["e3a611c2"],
        "configuration": ["batch_size=128 width=128"],
        "trials": ["2 of 9"],
    }
    print_columns(console, keys, keys=2, left=("key", "configuration"))
    shown = found.getvalue()
    assert "…" not in shown
    assert max(map(cell_len, shown.splitlines())) <= width
    for word in (
        "checkpoints",
        "×1,000",
        "share",
        "e3a611c2",
        "batch_size=128 width=128",
        "2 of 9",
    ):
        assert word in shown
