"""A fuzz over every reader: bytes, columns, units and numbers in ranges.

Whatever a file holds, it is read or refused in one line by an error of ours; every unit that was
used is told; and a file that is refused leaves nothing in a store.
"""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochcast.cli import cli
from epochcast.errors import EpochcastError
from epochcast.importers import runs
from epochcast.importers.columns import ImportOptions
from epochcast.importers.curves import read_curve
from epochcast.importers.names import ROLES
from epochcast.report.text.probing import column_line
from epochcast.report.text.warnings import warning_text
from epochcast.units import size_unit, time_unit

PHRASES = sorted({p for role in ROLES.values() for p in role.names.split("|") if p} | set(ROLES))
UNITS = ("", "_s", "_ms", " (min)", " [GiB]", "_mib", "_h", "/s", "_per_sec", "_m", " (M)")
BEFORE = ("", "train_", "avg ", "val/", "#")
NAMES = st.text(max_size=6) | st.builds(
    "{}{}{}".format, st.sampled_from(BEFORE), st.sampled_from(PHRASES), st.sampled_from(UNITS)
)
ODD = (
    "|NA|nan|inf|-1|0|04:39|0:10:31|1-02:03:04|10.5s|1h 30m|5%|512MiB|24G|25.6M|1,5|1 2 3|[1; 2]"
    "|true|bf16|\x1b[31m|1e308|1e-320|99999:00|٣|A100"
)
CELLS = (
    st.sampled_from([*ODD.split("|"), "9" * 400])
    | st.integers(-2, 10**19).map(str)
    | st.floats(1e-9, 1e9).map(repr)
)
ANY_OPTIONS = st.builds(
    ImportOptions,
    workload=st.just("cnn"),
    device=st.just("A100"),
    samples=st.sampled_from([None, 1000]),
    eval_samples=st.sampled_from([None, 10]),
    batch_size=st.sampled_from([None, 8]),
    devices=st.sampled_from([None, 2]),
    unit=st.sampled_from([None, "ms", "h"]),
    memory_unit=st.sampled_from([None, "MiB"]),
)
SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Mostly tables with a batch size and a time, in several forms."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    names = ["bs", "epoch_s", *names] if draw(st.booleans()) else names
    good = {"bs": st.just("8"), "epoch_s": st.floats(0.1, 99).map(repr)}
    rows = draw(
        st.lists(st.tuples(*(good.get(name, CELLS) for name in names)), min_size=1, max_size=4)
    )
    form = draw(st.sampled_from([",", ";", "\t", "|", "lines", "array", "lists", "nested"]))
    dicts = [dict(zip(names, row, strict=True)) for row in rows]
    if form == "lines":
        return "\n".join(map(json.dumps, dicts))
    if form == "array":
        return json.dumps(dicts, indent=2)
    if form in ("lists", "nested"):
        lists = {name: [row[name] for row in dicts] for name in names}
        return json.dumps({"history": lists, "params": {"a": 1}} if form == "nested" else lists)
    return "\n".join(form.join(cells) for cells in (names, *rows))


def is_line(text: str) -> bool:
    return "\n" not in text and "\x1b" not in text


def refusal(read: Callable[[], object]) -> str:
    """The reason why something is refused; ``""`` if it is read."""
    try:
        read()
    except EpochcastError as error:
        return str(error) or "\n"
    return ""


@settings(max_examples=150, suppress_health_check=SLOW, deadline=None)
@given(tables(), ANY_OPTIONS)
def test_a_table_is_read_with_its_units_or_refused_in_one_line(
    text: str, options: ImportOptions
) -> None:
    reason = refusal(lambda: runs.read(text, options))
    assert is_line(reason)
    if reason:
        return
    found = runs.read(text, options)
    assert found.measurements
    for read in found.columns:
        line = column_line(read)
        assert is_line(line)
        assert line.startswith(f"{read.column.name} → ")
        kind = ROLES[read.column.role].kind if read.column.role in ROLES else "plain"
        if kind == "time" and not read.says_its_unit:
            assert time_unit(read.column.unit), line
        if kind == "size" and read.first and not read.says_its_unit:
            assert size_unit(read.column.unit) or read.first.lower() in ("na", "nan"), line
    assert all(is_line(warning_text(warning)) for warning in found.warnings)


@settings(max_examples=80, suppress_health_check=SLOW, deadline=None)
@given(tables() | st.text(max_size=80), st.sampled_from(["utf-8", "utf-16", "latin-1"]))
def test_a_table_is_a_curve_or_refused_in_one_line(
    tmp_path: Path, text: str, encoding: str
) -> None:
    file = tmp_path / "curve.csv"
    file.write_bytes(text.encode(encoding, errors="replace"))
    for metric in ("val_loss", "epoch_s"):
        assert is_line(refusal(partial(read_curve, file, metric, 2)))


@settings(max_examples=20, suppress_health_check=SLOW, deadline=None)
@given(st.binary(max_size=60) | tables().map(lambda text: f"{text},\0".encode(errors="replace")))
def test_what_is_refused_makes_no_store(tmp_path: Path, content: bytes) -> None:
    url = tmp_path / "store.sqlite"
    command = ["probes", "import", "-", "--workload", "a", "--device", "A100", "--samples", "9"]
    result = CliRunner().invoke(cli, [*command, "--store", str(url)], input=io.BytesIO(content))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2)
    assert not url.exists()
