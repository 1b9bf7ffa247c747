"""Measurements made elsewhere: files as people have them, and what becomes of them."""

import csv
import io
import json
import math
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import truths
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import make_measurement

import epochcast as ec
from epochcast.cli import cli
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.summary import first_steps_seconds, step_seconds
from epochcast.errors import EpochcastError, StoreError, UsageError
from epochcast.importers import runs
from epochcast.importers.columns import ImportOptions
from epochcast.records import make_sizes
from epochcast.storage.store import Store

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
SAMPLES = 50_000
A100 = ImportOptions(workload="cnn", device="NVIDIA A100", samples=SAMPLES)


def read(text: str, options: ImportOptions = A100, **others) -> tuple[ec.Measurement, ...]:
    return runs.read(text, options, at=AT, **others).measurements


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments), prog_name="epochcast")
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_epochs(*seconds: float, batch_size: int = 64, **others) -> ec.Measurement:
    known = {"samples": 6400, "device": "NVIDIA A100"}
    return ec.Measurement.from_epochs("cnn", batch_size, seconds, **{**known, **others})


# -- what a file may look like ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "batch_size,width,epoch_seconds\n64,256,2.5\n",
        "\ufeffbatch_size,width,epoch_seconds\r\n64,256,2.5\r\n",
        "batch_size;width;epoch_seconds\n64;256;2.5\n",
        "batch_size\twidth\tepoch_time\n64\t256\t2.5",
        '"bs","width","Epoch time (s)"\n"64","256","2.5"\n',
        ",batch,width,epoch_ms\n0,64,256.0,2500\n",  # as pandas writes it
        "batch,width,seconds_per_epoch,\n64,256,2.5,\n,,,\n",
        "Batch-Size,width,time_per_epoch\n\n 64 , 256 , 2.5 \n\n",
        '{"batch_size": 64, "width": 256, "epoch_seconds": 2.5}\n',
        '\ufeff{"bs": 64.0, "width": "256", "epoch_time": [2.5], "peak_mib": null}\r\n\r\n',
    ],
)
def test_the_same_measurement_in_many_files(text) -> None:
    (m,) = read(text)
    assert m.config == ec.RunConfig(batch_size=64, sizes=make_sizes({"width": 256}))
    assert m.step_seconds == pytest.approx((2.5 * 64 / SAMPLES,))
    assert (m.workload, m.samples, m.device.kind) == ("cnn", SAMPLES, "cuda")


def test_every_role_has_its_place() -> None:
    text = (
        "workload,gpu,samples,eval_samples,bs,accumulation,precision,workers,compiled,drop_last,"
        "step_ms,peak_mib,device_gb,val_seconds,save_ms,startup_s,flops,params,width\n"
        "vit,H100,1000,100,32,4,bfloat16,2,yes,true,"
        "20 21 22,512,2,0.4,50,8,1e9,1000000,8\n"
    )
    (m,) = read(text, ImportOptions())
    assert m.config == ec.RunConfig(
        batch_size=32,
        sizes=(("width", 8),),
        accumulation=4,
        precision="bf16",
        workers=2,
        compiled=True,
        drop_last=True,
    )
    assert (m.workload, m.device.name, m.samples, m.eval_samples) == ("vit", "H100", 1000, 100)
    assert m.step_seconds == pytest.approx((0.021, 0.022))
    assert m.memory is not None
    assert (m.memory.allocated_bytes, m.memory.device_bytes) == (512 * 2**20, 2 * 10**9)
    assert m.eval_batch_seconds == pytest.approx((0.1,))  # four batches
    assert m.save_seconds == pytest.approx((0.05,))
    assert m.import_seconds == 8
    assert m.footprint is not None
    assert m.footprint.count("flops") == 10**9
    assert m.footprint.count("parameters") == 10**6
    assert m.footprint.count("bytes_moved") is None
    assert m.footprint.count("peak_bytes") is None


@pytest.mark.parametrize(
    "text",
    [
        "bs,epoch_1_s,epoch_2_s,epoch_3_s\n64,12,1,2\n",
        "bs,epoch_seconds\n64,12 1 2\n",
        "bs,epoch_seconds\n64,[12; 1; 2]\n",
        "bs,epoch,epoch_seconds\n64,1,12\n64,2,1\n64,3,2\n",
        "bs,run,epoch_seconds\n64,a,12\n64,a,1\n64,a,2\n",
        "bs,first_epoch_s,epoch_seconds\n64,12,1|2\n",
        '{"bs": 64, "epoch_seconds": [12, 1, 2]}',
    ],
)
def test_several_epochs_of_a_run(text) -> None:
    (m,) = read(text)
    assert m.step_seconds == pytest.approx(tuple(s * 64 / SAMPLES for s in (1, 2)))
    assert first_steps_seconds(m) == pytest.approx(10.5)


def test_repeated_runs_are_rounds() -> None:
    text = "bs,width,epoch,epoch_seconds\n" + "".join(
        f"64,{width},{epoch},{second}\n"
        for _ in range(2)
        for width, epoch, second in ((8, 0, 9), (8, 1, 1), (16, 0, 9), (16, 1, 2))
    )
    found = read(text)
    assert [(dict(m.config.sizes)["width"], m.round) for m in found] == [
        (8, 0),
        (16, 0),
        (8, 1),
        (16, 1),
    ]
    assert len({m.key for m in found}) == 4
    assert all(len(m.step_seconds) == 1 for m in found)


def test_logs_of_parallel_runs_may_be_mixed() -> None:
    text = "bs,run,epoch,epoch_seconds\n64,a,1,9\n64,b,1,8\n64,a,2,1\n64,b,2,2\n"
    assert [step_seconds(m) * SAMPLES / 64 for m in read(text)] == pytest.approx([1, 2])


def test_a_log_that_begins_later_has_no_first_epoch() -> None:
    (m,) = read("bs,epoch,epoch_seconds\n64,7,2\n64,8,1\n")
    assert len(m.step_seconds) == 2
    assert m.warmup_seconds == ()


def test_columns_are_renamed_and_ignored() -> None:
    options = ImportOptions(
        workload="cnn",
        device="A100",
        samples=SAMPLES,
        unit="ms",
        memory_unit="MiB",
        renamed={"x": "batch", "t": "step_time", "w": "width"},
        ignored={"loss"},
    )
    (m,) = read("x,t,w,loss,memory\n64,20,8,0.3,100\n", options)
    assert m.config == ec.RunConfig(batch_size=64, sizes=(("width", 8),))
    assert m.step_seconds == (0.02,)
    assert m.memory is not None
    assert m.memory.allocated_bytes == 100 * 2**20


def test_the_last_row_is_the_most_recent() -> None:
    found = read("bs,epoch_seconds\n" + "".join(f"{b},1\n" for b in (64, 32, 128, 16)))
    assert [m.config.batch_size for m in sorted(found, key=lambda m: m.created_at)] == [
        64,
        32,
        128,
        16,
    ]


def test_workloads_may_have_knobs_of_their_own() -> None:
    text = "workload,bs,heads,width,epoch_seconds\na,8,2,,1\nb,8,,16,1\n"
    found = read(text, ImportOptions(device="A100", samples=10))
    assert [m.config.sizes for m in found] == [(("heads", 2),), (("width", 16),)]


# -- what is wrong with a file ------------------------------------------------------------------

HEAD = "bs,width,epoch_seconds,peak_mib\n64,256,2.5,100\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{HEAD}abc,256,2.5,1",
            "line 3, column 'bs': expected a whole number of at least 1, but got 'abc'",
        ),
        (f"{HEAD}64.5,256,2.5,1", "line 3, column 'bs': expected a whole number"),
        (f"{HEAD},256,2.5,1", "line 3, column 'bs': batch_size is needed, but the cell is empty"),
        (
            f"{HEAD}64,256,NaN,1",
            "column 'epoch_seconds': expected a positive number, but got 'NaN'",
        ),
        (f"{HEAD}64,256,-1,1", "column 'epoch_seconds': expected a positive number, but got '-1'"),
        (f"{HEAD}64,256,0,1", "column 'epoch_seconds': expected a positive number, but got '0'"),
        (
            f"{HEAD}64,256,,1",
            "column 'epoch_seconds': epoch_seconds or step_seconds is needed, but neither is given",
        ),
        (
            f'{HEAD}64,256,"1,234.5",1',
            "expected a number without commas, such as 1234.5, but got '1,234.5'",
        ),
        (f"{HEAD}64,256,1_000,1", "expected a positive number, but got '1_000'"),
        (f"{HEAD}64,256,2.5,inf", "line 3, column 'peak_mib': expected a positive number"),
        (f"{HEAD}64,nan,2.5,1", "column 'width': the knob 'width' needs a value in every row"),
        (f"{HEAD}64,inf,2.5,1", "column 'width': a knob's value must be finite, but got 'inf'"),
        (f"{HEAD}64,{10**30},2.5,1", "column 'width': expected a number of at most 9.2e+18"),
        (f"{HEAD}64,,2.5,1", "column 'width': the knob 'width' needs a value in every row of cnn"),
        (f"{HEAD}64,256,2.5", "line 3: 3 cells, but the header has 4 columns"),
        (f'{HEAD}64,256,"2.5,1', "line 3: not CSV: unexpected end of data"),
        (f'{HEAD}\n"6\n4",256,2,1\n64,256,x,1', "line 4, column 'bs'"),
        ("bs,bs,epoch_seconds\n1,1,1", "line 1, column 'bs': the header has this name twice"),
        ("bs,epoch_seconds,\n1,1,1", "line 2: column 3 has no name in the header"),
        ("bs,epoch_seconds\n", "no measurements in it, only a header"),
        ("", "no measurements in it, only an empty file"),
        ("\ufeff \r\n", "no measurements in it, only an empty file"),
        ('{"bs": 1, "epoch_s": 1}\n{"bs": 1,', "line 2: not JSON"),
        ('{"bs": 1, "epoch_s": 1}\n[1]', "line 2: expected a JSON object, but got [1]"),
        ('{"bs": true, "epoch_s": 1}', "line 1, column 'bs': expected a whole number"),
        ('{"bs": 1, "epoch_s": []}', "line 1, column 'epoch_s': expected positive numbers"),
        (
            '{"bs": 1, "epoch_s": 1, "w": {"a": [1], "b": 2}}',
            "line 1, column 'w/a': expected a number or a text",
        ),
        (
            "bs,epoch_s,precision\n1,1,int8",
            "column 'precision': expected one of fp32, bf16, fp16, but got 'int8'",
        ),
        ("bs,epoch_s,drop_last\n1,1,maybe", "column 'drop_last': expected true or false"),
        ("bs,epoch_s,drop_last\n60000,1,true", "line 2: with drop_last, a batch size of 60000"),
        ("bs,epoch_s,val_s\n1,1,1", "column 'val_s': how many samples were evaluated"),
        ("bs,run,epoch,epoch_s\n1,a,2,1\n1,a,2,1", "line 3: run a is at epoch 2 already"),
        (
            "bs,epoch,epoch_s,quality\n1,1,9,0.5\n1,5,9,0.4",
            "line 3, column 'quality': it changes from epoch 1 of a run to 5, so it is no "
            "knob: --ignore quality",
        ),
        ("bs,epoch_s,flops\n1,1,0", "column 'flops': expected a whole number of at least 1"),
    ],
)
def test_a_malformed_row_is_named(text, message) -> None:
    with pytest.raises(StoreError) as error:
        read(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "width,epoch_s\n1,1",
            A100,
            "no column is batch_size; there are: width, epoch_s; say "
            "which with --map batch_size=COLUMN",
        ),
        ("bs,time\n1,1", A100, "no column is epoch_seconds or step_seconds"),
        ("bs,batch,epoch_s\n1,1,1", A100, "columns 'bs' and 'batch' both mean batch_size"),
        ("bs,epoch_s,epoch_ms\n1,1,1", A100, "'epoch_s' and 'epoch_ms' both mean epoch_seconds"),
        ("bs,epoch_s,epoch_1_s\n1,1,1", A100, "'epoch_1_s' and 'epoch_s' both have epochs"),
        ("bs,epoch_s,memory\n1,1,1", A100, "column 'memory' has no unit; give --memory-unit"),
        ("bs,epoch_s\n1,1", ImportOptions(device="A100", samples=1), "say it with --workload"),
        ("bs,epoch_s\n1,1", ImportOptions(workload="a", samples=1), "say it with --device"),
        ("bs,epoch_s\n1,1", ImportOptions(workload="a", device="A100"), "say it with --samples"),
        (
            "bs,epoch_s\n1,1",
            ImportOptions(workload="a", device="Box", samples=1),
            "with --device-kind",
        ),
        (
            "bs,epoch_s\n1,1",
            ImportOptions(ignored={"loss"}),
            "there is no column 'loss'; there are: bs",
        ),
        ("bs,epoch_time\n1,1", ImportOptions(unit="lightyears"), "'lightyears' is no unit of time"),
        ("bs,epoch_s,memory\n1,1,1", ImportOptions(memory_unit="m"), "'m' is no unit of memory"),
    ],
)
def test_what_is_not_clear_is_asked(text, options, message) -> None:
    with pytest.raises(UsageError) as error:
        read(text, options)
    assert message in str(error.value)


GOOD_CELLS = {"bs": "64", "width": "256", "epoch_seconds": "2.5", "peak_mib": "100", "samples": "9"}
NUMERIC = ("bs", "epoch_seconds", "peak_mib", "samples")


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.integers(0, 4),
    column=st.sampled_from(NUMERIC),
    cell=st.one_of(
        st.sampled_from(["nan", "-inf", "-3", "0", "1,5", "0x10", "1 2 x", "١٢,٣", "1__0"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
            lambda text: (
                text.strip()
                and not any(map(is_number, text.split()))
                and any(c.isalpha() for c in text)
            )
        ),
    ),
)
def test_any_malformed_cell_is_named_and_the_store_is_unchanged(
    tmp_path_factory, rows, column, cell
) -> None:
    folder = tmp_path_factory.mktemp("store")
    url = str(folder / "m.sqlite")
    with Store.open(url) as store:
        store.add(make_measurement())
        before = store.measurements()
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(GOOD_CELLS))
    writer.writeheader()
    writer.writerows([GOOD_CELLS] * rows + [{**GOOD_CELLS, column: cell}] + [GOOD_CELLS])
    file = folder / "log.csv"
    file.write_bytes(stream.getvalue().encode())
    names = ("--workload", "cnn", "--device", "A100", "--store", url)
    result = run("probes", "import", str(file), *names, code=1)
    assert f"line {rows + 2}, column '{column}'" in result.stderr
    assert result.stderr.count("\n") == 1
    with Store.open(url) as store:
        assert store.measurements() == before


logged = st.lists(
    st.tuples(
        st.integers(1, 4096),
        st.fixed_dictionaries({name: st.integers(1, 2048) for name in ("width", "depth")}),
        st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50, deadline=None)
@given(logged)
def test_what_is_written_is_read_whatever_the_form(runs) -> None:
    """Times that only rise may be since the start: see test_elapsed."""
    runs = [(b, knobs, sorted(seconds, reverse=True)) for b, knobs, seconds in runs]
    expected = [
        ec.Measurement.from_epochs(
            "cnn", b, seconds, samples=SAMPLES, device="NVIDIA A100", sizes=knobs, created_at=""
        )
        for b, knobs, seconds in runs
    ]
    lines = [{"bs": b, **knobs, "epoch_seconds": seconds} for b, knobs, seconds in runs]
    as_json = "\n".join(map(json.dumps, lines))
    rows = [
        f"{i};{b};{knobs['depth']};{knobs['width']};{n};{second!r}"
        for i, (b, knobs, seconds) in enumerate(runs)
        for n, second in enumerate(seconds)
    ]
    as_csv = "\r\n".join(["\ufeffrun;bs;depth;width;epoch;epoch_seconds", *rows])
    for text in (as_json, as_csv):
        found = read(text)
        assert len({m.key for m in found}) == len(found)
        plain = [(m.config, m.step_seconds, m.warmup_seconds, m.message) for m in found]
        assert plain == [(m.config, m.step_seconds, m.warmup_seconds, m.message) for m in expected]


# -- footprints ---------------------------------------------------------------------------------


def test_an_absent_count_is_no_feature() -> None:
    """Zeros would make a launch-only model of rows that do not know their operators."""
    rows = []
    for width, b in product((256, 512, 1024), (32, 64, 128, 256)):
        counted = truths.footprint(b, width)
        seconds = truths.compute_seconds(b, width)
        rows.append(f"{b},{width},{seconds * 1e3!r},{counted.flops},{counted.parameters}")
    found = read("bs,width,step_ms,flops,params\n" + "\n".join(rows))
    model = fit(found)
    variant = model.variants[0]
    assert {name for name, _ in variant.counts} == {"flops", "parameters"}
    names = {name for form in variant.micro_step.forms for f in form.features for name, _ in f}
    assert names <= {"flops", "parameters", "batch_size"}
    assert "step_peak_bytes" not in dict(variant.counts)
    got = model.predict(epochs=1, batch_size=96, width=768).step_seconds.p50
    assert got == pytest.approx(truths.compute_seconds(96, 768), rel=0.03)


def test_without_flops_the_knobs_are_the_features() -> None:
    rows = [
        f"{b},{w},{truths.compute_seconds(b, w) * 1e3!r},{truths.parameters(w)}"
        for w, b in product((256, 512, 1024), (32, 64, 128, 256))
    ]
    model = fit(read("bs,width,step_ms,params\n" + "\n".join(rows)))
    got = model.predict(epochs=1, batch_size=96, width=768).step_seconds.p50
    assert got == pytest.approx(truths.compute_seconds(96, 768), rel=0.03)


def test_footprints_are_counted_once_for_each_configuration() -> None:
    asked = []

    def count(config: ec.RunConfig) -> ec.Footprint:
        asked.append(config)
        return truths.footprint(config.batch_size, dict(config.sizes)["width"])

    text = "bs,width,epoch_s,flops\n64,8,1,\n64,8,1,\n32,8,1,\n16,8,1,77\n"
    found = read(text, count=count)
    assert [c.batch_size for c in asked] == [64, 32]
    assert [m.footprint.flops for m in found if m.footprint][:3] == [
        truths.footprint(b, 8).flops for b in (64, 64, 32)
    ]
    assert found[3].footprint is not None
    assert found[3].footprint.flops == 77


def test_the_command_counts_by_dry_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dry_run(workload: str, batch_size: int, width: int) -> ec.Footprint:
        assert workload == "train.py:workload"
        return truths.footprint(batch_size, width)

    monkeypatch.setattr("epochcast.api.probe.dry_run", dry_run, raising=False)
    Path("log.csv").write_text("bs,width,epoch_s\n64,8,1\n")
    said = ["--device", "A100", "--samples", "100", "--footprints"]
    assert (
        "--footprints needs --workload" in run("probes", "import", "log.csv", *said, code=2).stderr
    )
    run("probes", "import", "log.csv", "--workload", "train.py:workload", *said)
    with Store.open() as store:
        (m,) = store.measurements("train.py:workload")
    assert m.footprint == truths.footprint(64, 8)


# -- the store and the commands -----------------------------------------------------------------

EPOCH_NOISE = 0.005


def true_epoch_seconds(b: int, depth: int, width: int) -> float:
    """Of an imaginary network: launches with every batch, arithmetic and loading by sample."""
    launch = 2e-3 + 4e-4 * depth
    sample = 2e-6 + 3e-9 * depth * width + 1.5e-12 * depth * width**2
    return math.ceil(SAMPLES / b) * launch + SAMPLES * sample


def grid_csv(configs, epochs: int = 5, runs: int = 2, seed: int = 0) -> str:
    random = np.random.default_rng(seed)
    rows = ["run,depth,width,batch,epoch,time_s,gpu_mib"]
    for name in range(runs):
        for b, depth, width in configs:
            for epoch in range(epochs):
                seconds = true_epoch_seconds(b, depth, width) * (12 if epoch == 0 else 1)
                seconds *= math.exp(random.normal(0, EPOCH_NOISE))
                memory = 500 + 0.01 * b * depth * width / 32
                rows.append(f"{name},{depth},{width},{b},{epoch + 1},{seconds:.4f},{memory:.1f}")
    return "\n".join(rows) + "\n"


TRAIN = list(product((32, 64, 128, 256), (2, 4, 8), (64, 128, 256)))
HELD_OUT = list(product((48, 96, 192), (3, 6), (96, 192)))
IMPORT = ["--workload", "cnn", "--device", "A100", "--samples", "50000"]
IMPORT += ["--map", "epoch_seconds=time_s,device_mib=gpu_mib"]


@pytest.fixture
def imported(here: Path) -> Path:
    Path("log.csv").write_text(grid_csv(TRAIN))
    run("probes", "import", "log.csv", *IMPORT)
    return here


def test_a_grid_of_real_runs_prices_what_was_never_run(imported: Path) -> None:
    with Store.open() as store:
        model, notes = ec.fitted_model(store)
    assert notes == ()
    errors = []
    for b, depth, width in HELD_OUT:
        estimate = model.predict(epochs=90, batch_size=b, depth=depth, width=width)
        truth = true_epoch_seconds(b, depth, width)
        errors.append(abs(estimate.epoch_seconds.p50 / truth - 1))
        start = next(t for t in estimate.terms if t.name == "first steps")
        training = sum(t.seconds.p50 for t in estimate.terms if "epoch" not in t.name)
        assert training == pytest.approx(start.seconds.p50 + 90 * truth, rel=0.05)
    assert median(errors) < 0.01
    assert max(errors) < 0.03
    starts = [11 * true_epoch_seconds(*config) for config in TRAIN]
    assert model.variants[0].first_steps.median == pytest.approx(median(starts), rel=0.1)
    assert model.variants[0].run.sd == pytest.approx(EPOCH_NOISE / 2, rel=0.5)  # of four epochs


def test_the_commands_work_on_them(imported: Path) -> None:
    assert len(run("probes", "list").stdout.splitlines()) == len(TRAIN) + 2
    assert "leave-one-out error" in run("fit").stdout
    result = run("predict", "--epochs", "90", "--batch-size", "96", "--set", "width=192")
    assert "cnn  batch_size=96 depth=8 width=192  on A100 (cuda, torch unknown)" in result.stdout
    assert "memory needed " in result.stdout
    assert (
        "not in the total beyond what the epochs contained: start-up, evaluation" in result.stdout
    )
    assert "No probe was needed; the run takes" in result.stdout
    document = json.loads(run("predict", "--epochs", "9", "--json").stdout)
    assert document["estimates"][0]["device_bytes"]["p50"] > 500 * 2**20


def test_importing_twice_changes_nothing_and_another_file_adds_rounds(imported: Path) -> None:
    def listed() -> dict[str, tuple[float, ...]]:
        with Store.open() as store:
            return {m.key: m.step_seconds for m in store.measurements()}

    before = listed()
    said = run("probes", "import", "log.csv", *IMPORT).stderr
    assert "\ntime_s → epoch time, s: " in said
    assert "\nwidth → knob: 64\n" in said
    assert f"imported {2 * len(TRAIN)} measurements" in said
    assert listed() == before
    Path("more.csv").write_text(grid_csv(TRAIN[:3], runs=1, seed=1))
    run("probes", "import", "more.csv", *IMPORT)
    assert len(listed()) == len(before) + 3
    with Store.open() as store:
        assert {m.round for m in store.measurements()} == {0, 1, 2}


def test_an_export_of_them_is_imported_again(imported: Path) -> None:
    run("probes", "export", "all.jsonl")
    run("probes", "import", "all.jsonl", "--store", "other.sqlite")
    with Store.open() as one, Store.open("other.sqlite") as other:
        assert one.measurements() == other.measurements()
    said = run("probes", "import", "all.jsonl", "--samples", "3", code=2).stderr
    assert "leave the options out" in said


def test_a_single_time_is_noted(here: Path) -> None:
    Path("log.csv").write_text("bs,epoch_s\n64,1\n32,2\n16,3 2\n")
    said = run(
        "probes", "import", "log.csv", "--workload", "a", "--device", "A100", "--samples", "9"
    )
    assert "note: 2 of 3 runs have a single time" in said.stderr
    priced = run("predict", "--epochs", "2")
    assert "2 of 3 runs behind this have a single time" in priced.output


def test_a_prediction_from_single_times_says_so() -> None:
    model = fit([from_epochs(2.0), from_epochs(3.0, 1.0, batch_size=32)])
    (note,) = (w for w in model.predict(epochs=1).warnings if w.code == "fitted-one-time")
    assert note.details == (("count", "1"), ("runs", "2"))
    steady = fit([from_epochs(2.0, includes_first=False)])
    assert "fitted-one-time" not in {w.code for w in steady.predict(epochs=1).warnings}


def test_nothing_is_made_of_a_malformed_file(here: Path) -> None:
    Path("log.csv").write_bytes(b"bs;epoch_s\n64;x\n")
    run("probes", "import", "log.csv", code=1)
    Path("log.csv").write_bytes(b"bs,epoch_s\n64,1\xff\n")
    assert "line 2: not UTF-8 text" in run("probes", "import", "log.csv", code=1).stderr
    assert (
        "expected MEANING=COLUMN" in run("probes", "import", "log.csv", "--map", "a", code=2).stderr
    )
    assert not (here / ".epochcast").exists()


def test_a_model_of_them_scales_with_the_unit_of_time(here: Path) -> None:
    seconds = fit(read(grid_csv(TRAIN).replace("gpu_mib", "peak_mib").replace("time_s", "epoch_s")))
    minutes = fit(
        read(grid_csv(TRAIN).replace("gpu_mib", "peak_mib").replace("time_s", "epoch_min"))
    )
    of = [m.predict(epochs=9, batch_size=96, width=96).total_seconds for m in (seconds, minutes)]
    assert of[1].p90 == pytest.approx(60 * of[0].p90, rel=1e-3)


def test_every_error_is_ours() -> None:
    for text in ("\0", "a\0b,c\n1,2", "{", "[", '{"a":1}', "bs\n\x1c", '"', "bs,epoch_s\n\n"):
        with pytest.raises(EpochcastError):
            read(text)
