"""Files as other tools export them: read rightly, or refused in a line that says what to do."""

import json

import pytest

from epochcast.errors import EpochcastError
from epochcast.importers.columns import ImportOptions
from epochcast.importers.curves import read_curve
from epochcast.importers.runs import Imported, read
from epochcast.report.text.probing import column_line

SAID = ImportOptions(workload="w", device="NVIDIA A100", samples=6400)


def imported(text: str, **said) -> Imported:
    return read(text, ImportOptions(**{f: getattr(SAID, f) for f in SAID.__slots__} | said))


def lines(found: Imported) -> list[str]:
    return [column_line(read) for read in found.columns]


def refused(text: str, **said) -> str:
    with pytest.raises(EpochcastError) as error:
        imported(text, **said)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_table_of_runs_of_wandb() -> None:
    """It has the time of the whole run twice."""
    found = imported(
        '"Name","State","Runtime","_runtime","_wandb","bs","width","seed","epoch_time"\n'
        '"fluffy-1","finished","312","311.2","","32","256","1","30.1"\n'
        '"fluffy-2","crashed","12","11.2","","64","512","2",""\n'
    )
    (m,) = found.measurements
    assert (m.config.batch_size, m.config.sizes) == (32, (("width", 256),))
    assert m.step_seconds == (pytest.approx(30.1 / 200),)
    assert [w.code for w in found.warnings] == ["failed-rows", "one-time"]
    assert "Runtime → left out (there are times of epochs or steps): 312" in lines(found)
    assert "seed → left out (no influence on a step): 1" in lines(found)


def test_a_chart_of_wandb(tmp_path) -> None:
    def chart(*names: str) -> str:
        drawn = [f"{name}{end}" for name in names for end in ("", "__MIN", "__MAX")]
        rows = [["1", "3.1"], ["2", "2.0"], ["3", "2.1"]]
        header = ",".join(f'"{name}"' for name in ("Step", *drawn))
        return "\n".join([header, *(",".join([n, *[v] * len(drawn)]) for n, v in rows)])

    (m,) = imported(chart("fluffy-1 - epoch_time"), batch_size=64).measurements
    assert m.config.sizes == ()
    assert m.step_seconds == pytest.approx((0.02, 0.021))
    path = tmp_path / "chart.csv"
    path.write_text(chart("fluffy-1 - val/loss"))
    assert read_curve(path, steps_per_epoch=1).validation == (3.1, 2.0, 2.1)
    path.write_text(chart("a - val/loss", "b - val/loss"))
    with pytest.raises(EpochcastError, match="it has: Step, a - val/loss, b - val/loss"):
        read_curve(path, steps_per_epoch=1)
    assert read_curve(path, "b - val/loss", 1).validation == (3.1, 2.0, 2.1)


def test_a_table_of_runs_of_mlflow() -> None:
    found = imported(
        "run_id,status,params.batch_size,params.width,metrics.epoch_time,metrics.depth,tags.a\n"
        "a1,FINISHED,32,128,12.5,3,x\na2,FINISHED,64,128,9.5,4,x\na3,FAILED,64,256,,,x\n"
    )
    assert [m.config.sizes for m in found.measurements] == [(("width", 128),)] * 2
    assert "metrics.depth → left out (a result): 3" in lines(found)
    assert "tags.a → left out (of the job): x" in lines(found)


def test_lightnings_rows_of_the_training_have_no_time() -> None:
    found = imported(
        "epoch,step,train_loss,val_loss,epoch_s\n0,49,0.9,,\n0,49,,0.8,12.3\n1,99,.8,,\n1,99,,.7,11\n",
        batch_size=64,
    )
    (m,) = found.measurements
    assert m.step_seconds == (pytest.approx(0.11),)
    assert dict(found.warnings[0].details) == {"count": "2", "first": "line 2"}
    assert "neither is given" in refused("bs,epoch_s\n32,5\n64,\n")  # a mistake in a table of runs


def test_a_log_of_deepspeed() -> None:
    stamp = "[2026-01-01 00:00:00,123] [INFO]"
    log = "".join(
        f"{stamp} [logging.py:96:log_dist] [Rank 0] step={n}, skipped=0, lr=[0.1], mom=[(0, 1)]\n"
        f"{stamp} [timer.py:199:stop] epoch=0/micro_step={n}/global_step={n}, CurrSamplesPerSec=64,"
        " MemAllocated=1.2GB, MaxMemAllocated=4.5GB\n"
        for n in (10, 20, 30)
    )
    found = imported(log, batch_size=16)
    (m,) = found.measurements
    assert m.step_seconds == (0.25,) * 2
    assert m.memory is not None
    assert m.memory.allocated_bytes == 4.5e9


def test_a_log_of_megatron() -> None:
    log = "".join(
        f" [2026-01-01 00:00:05] iteration    {n}/  5000 | consumed samples:   {n * 256} | "
        "elapsed time per iteration (ms): 512.0 | global batch size:   256 | lm loss: 7.1E+00 | "
        "number of nan iterations:   0 |\n"
        for n in (100, 200, 300)
    )
    (m,) = imported(log, devices=8).measurements
    assert (m.config.batch_size, m.config.world_size, m.config.sizes) == (32, 8, ())
    assert m.step_seconds == (0.512,) * 2


def test_a_count_that_goes_on_is_no_knob() -> None:
    rows = "".join(f"{n},32,0.5,{n * 32}\n" for n in (10, 20, 30))
    assert "--ignore seen" in refused(f"step,bs,step_s,seen\n{rows}")


NESTED = '{"epoch": %d, "train": {"loss": 0.9, "time_s": 12}, "val": {"loss": %g}}'
FRAME = {"a1": {"bs": 32, "epoch_s": 12.0}, "a2": {"bs": 64, "epoch_s": 9.0}}


def test_nested_json(tmp_path) -> None:
    text = "\n".join(NESTED % (n, 1 / n) for n in (1, 2, 3))
    found = imported(text, batch_size=64)
    assert len(found.measurements) == 1
    assert "val/loss → left out (a result): 1" in lines(found)
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    assert read_curve(path).validation == pytest.approx((1, 1 / 2, 1 / 3))
    assert read_curve(path).training == (0.9,) * 3
    path.write_text(json.dumps({"class": "History", "config": {"history": {"val_loss": [3, 2]}}}))
    assert read_curve(path).validation == (3, 2)


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        {str(n): row for n, row in enumerate(FRAME.values())},
        {name: {run: row[name] for run, row in FRAME.items()} for name in ("bs", "epoch_s")},
    ],
)
def test_a_frame_by_rows_or_by_columns(frame) -> None:
    found = imported(json.dumps(frame)).measurements
    assert [m.config.batch_size for m in found] == [32, 64]
    assert [m.step_seconds[0] for m in found] == pytest.approx([0.06, 0.09])


def test_a_scalar_of_tensorboard(tmp_path) -> None:
    path = tmp_path / "scalar.json"
    path.write_text("[[1767225600.1, 1, 0.9], [1767225601.1, 2, 0.8], [1767225602.1, 3, 0.7]]")
    assert read_curve(path, "Value", 1).validation == (0.9, 0.8, 0.7)


@pytest.mark.parametrize(
    "text",
    [
        "Epoch 1/3: 100%|███| 100/100 [00:31<00:00,  3.20it/s, loss=0.9]\n" * 3,
        "Train: 0 [ 0/12]  Loss: 6.9 (6.9)  Time: 2.1s,  121.62/s  (2.1s, 121.62/s) LR: 1e-6\n",
        "2024-01-01 10:00:00 - Epoch 1:\n2024-01-01 10:00:00 - Epoch 2:\n",
        "32,50.4\n64,80.1\n",
    ],
)
def test_lines_without_a_header_are_no_table(text: str) -> None:
    assert "the first line has no names of columns but values, such as" in refused(text)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("gpu", "A100 x2"),
        ("gpu", "2x A100"),
        ("gpu_ids", '"0,1"'),
        ("CUDA_VISIBLE_DEVICES", '"0,1"'),
        ("ReqTRES", '"billing=8,cpu=8,gres/gpu=2,mem=100G,node=1"'),
        ("AllocGRES", "gpu:a100:2"),
    ],
)
def test_devices_that_a_name_or_a_list_counts_are_asked(column: str, cell: str) -> None:
    text = f"bs,epoch_s,{column}\n32,3,{cell}\n"
    assert "are 2 devices, but world_size is 1" in refused(text, device=None)
    assert imported(text, devices=2).measurements[0].config.world_size == 2
    assert imported(text, devices=1).measurements[0].config.sizes == ()


def test_a_kind_is_no_device() -> None:
    text = "bs,epoch_s,device\n32,3,cuda:0\n"
    assert "say which it was with --device" in refused(text, device=None)
    assert imported(text).measurements[0].device.name == "NVIDIA A100"


def test_rows_of_another_phase_are_no_training() -> None:
    found = imported("split,epoch,epoch_s\ntrain,1,9\nval,1,2\ntrain,2,6\nval,2,2\n", batch_size=64)
    (m,) = found.measurements
    assert m.step_seconds == (pytest.approx(0.06),)
    assert "split → left out (of the job): train" in lines(found)


def test_advice_can_be_pasted_into_a_shell() -> None:
    asked = refused("bs,epoch_s,GPUs used\n32,3,4\n64,2,8\n")
    assert "--map 'world_size=GPUs used'" in asked
    assert "--ignore 'GPUs used'" in asked
    found = imported("Batch Size,n_gpu,epoch_s\n32,2,3\n")
    assert ("advice", "--map 'global_batch=Batch Size'") in found.warnings[-1].details


def test_commas_of_decimals_with_a_unit(tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("epoch;val_acc\n1;45,1%\n2;46,2 %\n")
    assert read_curve(path, "val_acc").validation == pytest.approx((0.451, 0.462))
    (m,) = imported("bs;epoch_time\n64;1,5s\n").measurements
    assert m.step_seconds == (pytest.approx(0.015),)
    (m,) = imported("bs,epoch_time\n64,0 days 00:01:20.5\n").measurements  # as pandas writes it
    assert m.step_seconds == (pytest.approx(0.805),)


def test_what_an_option_says_goes_before_a_column_and_the_import_says_so() -> None:
    found = imported("bs,epoch_s,GPU model,machine,torch,gpu_temp\n32,3,V100,node1,2.1.0,70\n")
    (m,) = found.measurements
    assert (m.device.name, m.config.sizes) == ("NVIDIA A100", ())
    assert "GPU model → device (an option says it): V100" in lines(found)
    (m,) = imported("bs,epoch_s,GPU model\n32,3,V100\n", device=None).measurements
    assert m.device.name == "V100"
