"""What a table does not make clear is asked for, and what is clear in any spelling is read."""

import pytest

from epochcast.errors import EpochcastError
from epochcast.importers.columns import ImportOptions
from epochcast.importers.roles import meaning_of
from epochcast.importers.runs import Imported, read

SAID = ImportOptions(workload="w", device="NVIDIA A100", samples=50_000)


def imported(text: str, options: ImportOptions = SAID) -> Imported:
    return read(text, options)


def refused(text: str, options: ImportOptions = SAID) -> str:
    with pytest.raises(EpochcastError) as error:
        imported(text, options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "role", "unit"),
    [
        ("t_epoch", "epoch_seconds", None),
        ("T_step(us)", "step_seconds", "us"),
        ("step_t_ms", "step_seconds", "ms"),
        ("epochtime", "epoch_seconds", None),
        ("batchtime_ms", "step_seconds", "ms"),
        ("step_time_in_ms", "step_seconds", "ms"),
        ("Epoch Duration (hh:mm:ss)", "epoch_seconds", None),
        ("walltime", "elapsed_seconds", None),
        ("total_bs", "global_batch", None),
        ("effective_bs", "global_batch", None),
        ("samples_per_gpu", "batch_size", None),
        ("images per device", "batch_size", None),
        ("per_device_eval_batch_size", "eval_batch_size", None),
        ("gas", "accumulation", None),
        ("update_freq", "accumulation", None),
        ("mixed_precision", "precision", None),
        ("train_steps_per_second", "update_seconds", "second"),
        ("Time per Step (ms)", "step_seconds", "ms"),
        ("avg time per batch [us]", "step_seconds", "us"),
        ("Time / epoch (min)", "epoch_seconds", "min"),
        ("step_ms_mean", "step_seconds", "ms"),
        ("step_ms_p50", "step_seconds", "ms"),
    ],
)
def test_names_in_other_spellings(name: str, role: str, unit: str | None) -> None:
    found = meaning_of(name)
    assert (found.role, found.unit) == (role, unit)


@pytest.mark.parametrize(
    "name",
    [
        "commit",
        "experiment",
        "id",
        "fold",
        "partition",
        "sec/kimg",
        "kimg/s",
        "loss/s",
        "achieved_tflops",
        "early_stopped",
        "retries",
        "score",
        "total_tokens",
        "Epoch_Duration_(hh:mm)",
        "nan_count",
        "flops_per_s",
    ],
)
def test_no_knobs_are_what_was_written_down_or_came_of_it(name: str) -> None:
    assert meaning_of(name).left_out


@pytest.mark.parametrize("name", ["T", "model_name", "mem_len", "width", "optimizer", "dropout"])
def test_knobs_stay_knobs(name: str) -> None:
    assert (meaning_of(name).role, meaning_of(name).left_out) == ("", "")


def test_a_fraction_of_its_own_in_every_row_is_asked() -> None:
    rows = "bs,step_ms,goodness\n32,5,0.812\n64,9,0.83\n128,17,0.851\n"
    assert "--ignore goodness, or say that it is known before a run with --map" in refused(rows)
    mapped = ImportOptions(
        workload="w", device="NVIDIA A100", samples=50_000, renamed={"goodness": "goodness"}
    )
    assert len(imported(rows, mapped).measurements) == 3
    few = "bs,step_ms,mult\n32,5,0.5\n64,9,0.75\n128,17,1.25\n"
    assert dict(imported(few).measurements[0].config.sizes) == {"mult": 0.5}


@pytest.mark.parametrize("number", ["4", "0"])
def test_a_number_is_no_name_of_a_device(number: str) -> None:
    assert f"{number} is no name of a device" in refused(f"bs,GPU,step_ms\n8,{number},50\n")


@pytest.mark.parametrize("name", ["8x A100", "4 x NVIDIA V100", "2×RTX 3090"])
def test_devices_in_a_name_are_counted(name: str) -> None:
    rows = f"bs,gpu,step_ms\n8,{name},50\n"
    assert "but world_size is 1" in refused(rows)
    counted = ImportOptions(
        workload="w", device="NVIDIA A100", samples=50_000, devices=int(name[0])
    )
    assert imported(rows, counted).measurements[0].config.world_size == int(name[0])


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [
        ("bs,step,elapsed\n32,100,60\n32,200,118\n32,300,177\n", [0.58, 0.59]),
        ("bs,epoch,step,elapsed\n32,0,50,30\n32,0,100,60\n32,1,150,91\n", [0.6, 0.62]),
        ("bs,step,elapsed,ga\n32,10,60,4\n32,20,100,4\n32,30,140,4\n", [1.0, 1.0]),
    ],
)
def test_times_since_the_start_by_steps_are_of_steps(rows: str, seconds: list[float]) -> None:
    """They were read as the times of epochs, of 1,563 steps each."""
    found = imported(rows)
    assert found.measurements[0].step_seconds == pytest.approx(seconds)
    assert "since-start-steps" in {w.code for w in found.warnings}


def test_a_run_in_pieces_or_one_that_only_rises_beside_others_is_asked() -> None:
    pieces = "bs,epoch,elapsed\n32,0,30\n32,0,60\n32,1,91\n"
    assert "name a column step that tells rows of one epoch apart" in refused(pieces)
    mixed = "bs,run,epoch,time\n" + "".join(
        f"{bs},{run},{epoch},{time}\n"
        for bs, run, times in ((32, "a", (60, 58, 61)), (64, "b", (40, 79, 118)))
        for epoch, time in enumerate(times, start=1)
    )
    assert "from 40 to 118 seconds: say whether" in refused(mixed)


def test_evaluation_has_a_batch_size_of_its_own() -> None:
    option = ImportOptions(workload="w", device="NVIDIA A100", samples=50_000, eval_samples=1000)
    (found,) = imported("bs,eval_batch_size,step_ms,eval_s\n32,500,5,3\n", option).measurements
    assert found.config.eval_batch_size == 500
    assert found.eval_batch_seconds == (1.5,)


def test_runs_that_failed_are_left_out_where_only_their_whole_time_is_known() -> None:
    rows = "JobID|bs|epoch|Elapsed|State\n" + "".join(
        f"{job}|32|10|10:00:00|{state}\n"
        for job, state in enumerate(("COMPLETED", "TIMEOUT", "CANCELLED by 1000", "OUT_OF_MEMORY"))
    )
    found = imported(rows)
    assert len(found.measurements) == 1
    assert ("count", "3") in next(w for w in found.warnings if w.code == "failed-rows").details
    assert "no run has come to its end" in refused(rows.replace("COMPLETED", "FAILED"))
    steady = imported("bs,step_ms,status\n32,50,crashed\n64,90,finished\n")
    assert len(steady.measurements) == 2  # a step took what it took


def test_flops_that_do_not_follow_the_batch_are_asked() -> None:
    rows = "bs,step_ms,FLOPs (G)\n32,5,1.8\n64,9,1.8\n"
    assert "--map 'flops_per_sample=FLOPs (G)' if it is of one sample" in refused(rows)
    mapped = ImportOptions(
        workload="w",
        device="NVIDIA A100",
        samples=50_000,
        renamed={"FLOPs (G)": "flops_per_sample"},
    )
    footprints = [m.footprint for m in imported(rows, mapped).measurements]
    assert [f.flops for f in footprints if f] == [32 * 1_800_000_000, 64 * 1_800_000_000]
    imported("bs,step_ms,FLOPs (G)\n32,5,1.8\n64,9,3.6\n")


def test_parts_of_epochs_as_the_trainer_writes_them() -> None:
    """120 s for 2.97 epochs of 50,000 samples at batch 16."""
    (found,) = imported('{"epoch": 2.97, "train_runtime": 120.0, "bs": 16}').measurements
    assert found.step_seconds == pytest.approx([120 / 2.97 / (50_000 / 16)])
    rows = "bs,epoch,elapsed\n16,0.5,30\n16,1.0,58\n16,1.5,86\n"
    (found,) = imported(rows).measurements
    steady = [seconds * 50_000 / 16 for seconds in found.step_seconds]
    assert steady == pytest.approx([56, 56])
    assert "expected a whole number" in refused("bs,epoch,epoch_s\n16,0.5,30\n")
