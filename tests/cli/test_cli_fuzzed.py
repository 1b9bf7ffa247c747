"""Whatever is typed, an answer or a line that says what is wrong; never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import truths
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from epochcast.api import probe as api
from epochcast.cli import cli
from epochcast.profiler.request import SweepRequest
from epochcast.profiler.rounds import SweepResult
from epochcast.storage.store import Store

NUMBERS = st.one_of(
    st.integers(-3, 400),
    st.integers(min_value=-(10**330), max_value=10**330),
    st.floats(),
).map(str)
WORDS = st.text(max_size=12).filter(lambda text: not text.startswith("-"))
ODD = st.sampled_from(
    [
        *(
            "",
            "0",
            "9" * 320,
            "1e999",
            "nan",
            "inf",
            "-0",
            "½",
            "١٢",
            "1_000",
            " 7 ",
            "1,2",
            "0x10",
        ),
        *("🎲", "a\udc80b", "%", "100%", "1h", "24GiB", "tomorrow", "\x1b[31m", "a=b"),
        "sqlite:///a%00b",
    ]
)
VALUES = st.one_of(NUMBERS, ODD, WORDS)

PREDICT = (
    "--epochs",
    "--steps",
    "--batch-size",
    "--samples",
    "--accumulation",
    "--workers",
    "--eval-batch-size",
    "--eval-every",
    "--save-every",
    "--memory",
    "--confidence",
    "--price-per-hour",
    "--device",
    "--precision",
    "--model",
)
PLAN = (
    "--epochs",
    "--deadline",
    "--budget",
    "--price-per-hour",
    "--memory",
    "--disk",
    "--confidence",
    "--device",
    "--batch-size",
    "--keep",
    "--mtbf",
    "--max-epochs",
)
PROBE = (
    "--batch-sizes",
    "--threads",
    "--rounds",
    "--seconds",
    "--max-seconds",
    "--timeout",
    "--until",
    "--device",
    "--accumulation",
    "--workers",
    "--eval-batch-size",
    "--for",
    "--precision",
)

quick = settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzed")
    with Store.open(folder=folder) as store:
        store.add_all(truths.sweep((32, 64, 128), (256, 512), rounds=2, round_sd=0.02))
    return folder / "measurements.sqlite"


def answered(*arguments: str) -> None:
    result = CliRunner().invoke(cli, list(arguments), prog_name="epochcast", color=True)
    assert result.exception is None or isinstance(result.exception, SystemExit), arguments
    assert result.exit_code in (0, 1, 2, 3), arguments
    assert "Traceback" not in result.output
    assert "\x1b" not in result.output
    if result.exit_code in (1, 2):
        assert result.stderr.strip(), arguments


def given_options(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    """Some options with a value each."""
    pairs = st.lists(st.tuples(st.sampled_from(names), VALUES), max_size=3)
    return pairs.map(lambda found: [part for pair in dict(found).items() for part in pair])


@quick
@given(given_options(PREDICT), VALUES)
@example(["--epochs", "9"], "9" * 320)
@example(["--epochs", "9", "--eval-batch-size", "1000000000"], "512")
def test_predict(where: Path, options: list[str], width: str) -> None:
    answered("predict", *options, "--store", str(where))
    answered("predict", "--epochs", "9", "--set", f"width={width}", "--store", str(where))


@settings(quick, max_examples=8)
@given(given_options(PLAN))
def test_plan(where: Path, options: list[str]) -> None:
    answered("plan", "--max-epochs", "50", *options, "--store", str(where))


@quick
@given(given_options(PROBE), VALUES, VALUES)
def test_probe(where: Path, options: list[str], knob: str, value: str) -> None:
    """Up to where a sweep would begin."""

    def sweep(request: SweepRequest, *_: object) -> SweepResult:
        return SweepResult(measurements=(truths.measure(32, 256),), seconds=1.0, stopped="complete")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "run_sweep", sweep)
        answered("probe", "mnist-mlp", *options, "--store", str(where))
        answered("probe", "mnist-mlp", "--set", f"{knob}={value}", "--store", str(where))


@quick
@given(VALUES, VALUES)
def test_the_others(where: Path, value: str, other: str) -> None:
    store = ("--store", str(where))
    for command in (
        ("fit", value, "--device", other),
        ("devices", value),
        ("calibration", value, "--device", other),
        ("probes", "list", value),
        ("probes", "show", value),
        ("probes", "remove", f"no{value}"),
        ("datasets", value),
        ("follow-log", value),
        (value, other),
        ("predict", "--epochs", "1", "--store", f"{value}/{other}"),
    ):
        end = (
            () if "--store" in command or command[0] in ("datasets", "follow-log", value) else store
        )
        answered(*command, *end)
