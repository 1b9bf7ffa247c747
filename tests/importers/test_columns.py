"""What columns are read as: units are kept, results are no knobs, batches what they mean."""

import pytest

import epochcast as ec
from epochcast.errors import EpochcastError, UsageError
from epochcast.importers import runs
from epochcast.importers.columns import ImportOptions, understand
from epochcast.importers.names import ROLES
from epochcast.importers.roles import meaning_of
from epochcast.report.text.probing import column_line

SAMPLES = 50_000


def options(**said) -> ImportOptions:
    return ImportOptions(workload="cnn", device="NVIDIA A100", samples=SAMPLES, **said)


def read(text: str, **said) -> runs.Imported:
    return runs.read(text, options(**said))


def one(text: str, **said) -> ec.Measurement:
    (found,) = read(text, **said).measurements
    return found


def lines(text: str, **said) -> list[str]:
    return [column_line(column) for column in read(text, **said).columns]


def test_cells_with_a_unit_of_their_own_hide_that_of_no_other() -> None:
    some = lines("bs,t\n32,50400us\n64,90.1\n", renamed={"t": "step_seconds"}, unit="ms")
    assert some[1] == "t → step time, as written, else ms: 50400us"
    bare = lines("bs,step_time\n32,50400us\n64,90.1\n")
    assert (
        bare[1]
        == "step_time → step time, as written, else s (assumed; --unit says otherwise): 50400us"
    )
    every = lines("bs,step_time\n32,50400us\n64,0:01\n")
    assert every[1] == "step_time → step time, as written: 50400us"


# -- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["step_seconds", "step_time", "step_ms", "step"])
@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("train_step_time", "ms"),
        ("dt", "ms"),
        ("dt_ms", None),
        ("dt (ms)", None),
        ("dt [msec]", None),
        ("step_ms", None),
        ("dt_ms", "s"),  # of the other columns
    ],
)
def test_a_renamed_column_keeps_its_unit(role: str, name: str, unit: str | None) -> None:
    """50.4 ms, whether the option, the column or the name that it is mapped to says so."""
    if role == "step":
        role = "time_per_step"
    other = ",save_time" if unit == "s" else ""
    text = f"bs,{name}{other}\n32,50.4{',1' if other else ''}\n"
    m = one(text, renamed={name: role}, unit=unit)
    assert m.step_seconds == (pytest.approx(0.0504),)


@pytest.mark.parametrize(
    ("text", "said", "seconds"),
    [
        ("bs,dur\n32,3\n", {"renamed": {"dur": "epoch_seconds"}, "unit": "min"}, 180),
        ("bs,dur_min\n32,3\n", {"renamed": {"dur_min": "epoch_seconds"}}, 180),
        ("bs,foo_h\n32,3\n", {"renamed": {"foo_h": "epoch_seconds"}}, 10_800),
        ("bs,epoch_time\n32,3\n", {"unit": "min"}, 180),
        ("bs,epoch_time\n32,3\n", {}, 3),
        ("bs,time_per_epoch\n32,04:39\n", {}, 279),
        ("bs,epoch_time_ms\n32,0:10:31\n", {}, 631),
        ("bs,epoch\n32,1\n", {"renamed": {"epoch": "epoch_seconds"}, "unit": "h"}, 3600),
        ("bs,epoch_time\n32,10.5s\n", {"unit": "min"}, 10.5),
        ("bs,epoch_time\n32,1h 2m 3s\n", {}, 3723),
        ("bs,epochs/hour\n32,4\n", {}, 900),
    ],
)
def test_times_of_an_epoch(text: str, said: dict, seconds: float) -> None:
    assert one(text, **said).step_seconds == (pytest.approx(seconds * 32 / SAMPLES),)


def test_memory_keeps_its_unit() -> None:
    for name, said, cell in (
        ("vram", {"memory_unit": "MiB"}, "1000"),
        ("vram_mib", {}, "1000"),
        ("vram [MiB]", {}, "1000"),
        ("vram", {}, "1000MiB"),
        ("vram", {"memory_unit": "GB"}, "1000MiB"),
    ):
        text = f"bs,epoch_s,{name}\n32,1,{cell}\n"
        m = one(text, renamed={name: "peak_bytes"}, **said)
        assert m.memory is not None
        assert m.memory.allocated_bytes == 1000 * 2**20
    with pytest.raises(UsageError, match="column 'vram' has no unit; give --memory-unit"):
        read("bs,epoch_s,vram\n32,1,1000\n", renamed={"vram": "peak_bytes"})


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("flops", 2),
        ("gflops", 2_000_000_000),
        ("macs", 4),
        ("GMACs", 4_000_000_000),
        ("FLOPs (G)", 2_000_000_000),
        ("flops_per_sample", 64),
    ],
)
def test_counts_with_their_unit(name: str, count: int) -> None:
    m = one(f"bs,epoch_s,{name}\n32,1,2\n")
    assert m.footprint is not None
    assert m.footprint.flops == count


@pytest.mark.parametrize("name", ["params_m", "params (M)", "parameters [million]", "params"])
def test_parameters_in_millions(name: str) -> None:
    cell = "25.6M" if name == "params" else "25.6"
    m = one(f"bs,epoch_s,{name}\n32,1,{cell}\n")
    assert m.footprint is not None
    assert m.footprint.parameters == 25_600_000


def test_two_units_are_asked() -> None:
    with pytest.raises(UsageError, match=r"'t_s' is in s by its name, and in ms by --map"):
        read("bs,t_s\n32,1\n", renamed={"t_s": "step_ms"})
    with pytest.raises(UsageError, match=r"--unit ms is for columns that do not say .*'step_s'"):
        read("bs,step_s\n32,1\n", unit="ms")


def test_every_column_is_told() -> None:
    text = "bs,train_step_time,val_loss,gpus,mem,samples/s,width\n32,50.4,0.6,1,9,635,256\n"
    said = {"renamed": {"train_step_time": "step_seconds"}, "unit": "ms", "memory_unit": "GB"}
    assert lines(text, **said) == [
        "bs → batch size of a forward pass: 32",
        "train_step_time → step time, ms: 50.4 ms",
        "val_loss → left out (a result): 0.6",
        "gpus → number of devices: 1",
        "mem → peak memory, GB: 9 GB",
        "samples/s → left out (the times are those of train_step_time): 635",
        "width → knob: 256",
    ]
    assert "step_time → step time, s (assumed; --unit says otherwise): 2 s" in lines(
        "bs,step_time\n32,2\n"
    )


# -- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "row", "step"),
    [
        ("bs,samples/s", "32,640", 0.05),
        ("bs,train_samples_per_second", "32,640", 0.05),
        ("bs,Throughput (images/sec)", "32,640", 0.05),
        ("bs,img_per_min", "32,38400", 0.05),
        ("bs,it/s", "32,20", 0.05),
        ("bs,s/it", "32,0.05", 0.05),
        ("bs,ms_per_sample", "32,1.5625", 0.05),
        ("bs,seq_len,tokens/s", "32,100,64000", 0.05),
        ("bs,gpus,samples/s", "32,4,2560", 0.05),
        ("bs,gpus,samples/s/gpu", "32,4,640", 0.05),
        ("bs,grad_accum,optimizer_step_ms", "32,4,200", 0.05),
        ("micro_batch,grad_accum,micro_step_s,step_s", "32,4,0.05,0.2", 0.05),
    ],
)
def test_throughput_is_a_time(header: str, row: str, step: float) -> None:
    assert one(f"{header}\n{row}\n").step_seconds == (pytest.approx(step),)


def test_tokens_need_their_number_in_a_sample() -> None:
    with pytest.raises(EpochcastError, match=r"how many tokens a sample has, such as seq_len"):
        read("bs,tokens/s\n32,64000\n")


def test_rates_of_evaluations_are_not_of_the_training() -> None:
    text = "bs,epoch_s,eval_samples_per_second\n32,1,900\n"
    assert "eval_samples_per_second → left out (not of the training): 900" in lines(text)


# -- knobs and results ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("val_loss", "final_loss", "accuracy", "train_samples_per_sec", "MulticlassF1Score"),
        *("lr", "seed", "date", "mfu", "gpu_util", "grad_norm", "best_epoch_ms", "throughput"),
        *("epochs", "energy_kwh", "co2", "data_time", "metrics/mAP50(B)", "status", "rss"),
    ],
)
def test_results_are_no_knobs(name: str) -> None:
    text = f"bs,width,epoch_s,{name}\n32,8,3,7\n64,8,2,8\n"
    found = read(text)
    assert {m.config.sizes for m in found.measurements} == {(("width", 8),)}
    assert any(line.startswith(f"{name} → left out (") for line in map(column_line, found.columns))


def test_a_knob_that_looks_like_a_result_is_kept_by_its_name() -> None:
    text = "bs,map_size,epoch_s\n32,8,3\n"
    assert one(text).config.sizes == ()
    assert one(text, renamed={"map_size": "map_size"}).config.sizes == (("map_size", 8),)


def test_some_epochs_of_one_run_with_results() -> None:
    """Epochs 1, 5 and 10: one run, whose first epoch took longer; not three configurations."""
    m = one("bs,epoch,epoch_s,val_loss\n32,1,30,0.9\n32,5,2.5,0.5\n32,10,2.5,0.4\n")
    assert m.step_seconds == pytest.approx((2.5 * 32 / SAMPLES,) * 2)
    with pytest.raises(EpochcastError, match=r"'quality': it changes from epoch 1 of a run to 5"):
        read("bs,epoch,epoch_s,quality\n32,1,30,0.9\n32,5,2.5,0.5\n32,10,2.5,0.5\n")


def test_a_grid_by_epoch_is_no_result() -> None:
    text = "bs,epoch,width,epoch_s\n" + "".join(
        f"32,{epoch},{width},{9 - epoch}\n" for epoch in (1, 2, 3) for width in (8, 16)
    )
    assert [dict(m.config.sizes)["width"] for m in read(text).measurements] == [8, 16]


def test_a_column_that_nobody_filled_is_no_knob() -> None:
    assert one("bs,epoch_s,notes,peak_mib\n32,1,,nan\n").config.sizes == ()
    assert one("bs,epoch_s,a\n32,1,NaN\n").config.sizes == ()


# -- batches and devices --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["num_gpus", "world_size", "gpus", "n_devices", "Number of GPUs", "ngpus"]
)
def test_device_counts(name: str) -> None:
    m = one(f"bs,{name},epoch_s\n32,4,100\n")
    assert (m.config.batch_size, m.config.world_size) == (32, 4)
    assert m.step_seconds == (pytest.approx(100 * 32 * 4 / SAMPLES),)


DEEPSPEED = (
    "train_batch_size,train_micro_batch_size_per_gpu,gradient_accumulation_steps,world_size,step_ms"
)


@pytest.mark.parametrize("lacks", [None, 1, 2, 3])
def test_the_batch_sizes_of_deepspeed(lacks: int | None) -> None:
    """256 = 16 × 4 × 4: any of the three follows from the others."""
    names, cells = DEEPSPEED.split(","), ["256", "16", "4", "4", "20"]
    kept = [i for i in range(5) if i != lacks]
    text = f"{','.join(names[i] for i in kept)}\n{','.join(cells[i] for i in kept)}\n"
    renamed = {"train_batch_size": "global_batch"} if lacks == 1 else {}
    config = one(text, renamed=renamed).config
    assert (config.batch_size, config.accumulation, config.world_size) == (16, 4, 4)


def test_batches_that_do_not_multiply_are_refused() -> None:
    with pytest.raises(EpochcastError, match=r"line 2, column 'train_batch_size': .* 250 is not"):
        read(f"{DEEPSPEED}\n250,16,4,4,20\n")
    with pytest.raises(EpochcastError, match=r"is 16 the accumulation or the world_size\?"):
        read("global_batch,micro_batch,step_ms\n256,16,20\n")
    assert one("global_batch,micro_batch,step_ms\n256,16,20\n", devices=4).config.accumulation == 4


def test_a_batch_that_may_be_of_all_is_asked() -> None:
    text = "train_batch_size,gradient_accumulation_steps,step_ms\n32,4,20\n"
    with pytest.raises(UsageError, match=r"--map global_batch=train_batch_size"):
        read(text)
    whole = one(text, renamed={"train_batch_size": "global_batch"}, devices=2).config
    assert (whole.batch_size, whole.accumulation, whole.world_size) == (4, 4, 2)
    micro = one(text, renamed={"train_batch_size": "batch_size"}).config
    assert (micro.batch_size, micro.accumulation) == (32, 4)


def test_statistics_of_a_time_are_not_the_time() -> None:
    text = "bs,step_time_min,step_time_max,step_time_std,step_time_mean\n32,1,3,0.1,2\n"
    assert one(text).step_seconds == (2,)
    assert one("bs,step_time_min\n32,1\n").step_seconds == (60,)


def test_gaps_in_what_nobody_asked_for() -> None:
    assert one("bs,epoch_s,val_s,save_s,flops\n32,1,nan,NaN,NA\n").eval_batch_seconds == ()


def test_what_may_be_of_all_devices_is_said() -> None:
    notes = {w.code for w in read("bs,gpus,grad_accum,step_ms\n32,4,2,20\n").warnings}
    assert {"batch-of-one-device", "step-of-micro-batch"} <= notes
    clear = read("micro_batch,gpus,grad_accum,micro_step_ms\n32,4,2,20\n").warnings
    assert not {"batch-of-one-device", "step-of-micro-batch"} & {w.code for w in clear}


def test_the_gain_of_counts_is_said_where_models_differ() -> None:
    def codes(text: str) -> set[str]:
        return {w.code for w in read(text).warnings}

    assert "no-counts" in codes("bs,width,epoch_s\n32,8,1\n32,16,2\n")
    assert "no-counts" not in codes("bs,width,epoch_s\n32,8,1\n64,8,2\n")
    assert "no-counts" not in codes("bs,width,params,epoch_s\n32,8,9,1\n32,16,9,2\n")


# -- laws -----------------------------------------------------------------------------------------


def test_every_name_of_a_role_is_read_as_it() -> None:
    """With its noun or a unit, in any spelling."""
    suffix = {"plain": "", "time": "_ms", "size": "_mib", "count": ""}
    for role, known in ROLES.items():
        assert meaning_of(role).role == role
        for phrase in known.names.split("|"):
            name = phrase.replace(" ", "_") + suffix[known.kind]
            for spelled in (name, name.upper(), name.replace("_", "-")):
                if phrase:
                    assert meaning_of(spelled).role == role, spelled


def test_nothing_is_needed_twice() -> None:
    with pytest.raises(UsageError, match="both mean step_seconds; leave one out with --ignore"):
        understand(["bs", "step_ms", "iter_ms"], options())


@pytest.mark.parametrize("name", ["step_time_ns", "Step time (nanoseconds)"])
def test_nanoseconds(name):
    columns = {c.name: c for c in understand(["bs", name], ImportOptions())}
    assert (columns[name].role, columns[name].scale) == ("step_seconds", 1e-9)
