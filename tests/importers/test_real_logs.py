"""Logs in the formats of other people's tools: read rightly, or refused with what to do.

The files in ``tests/inputs`` are small and rebuilt, with the columns, the order and the oddities
that each tool really writes.
"""

from pathlib import Path
from statistics import median

import pytest

from epochcast.errors import EpochcastError
from epochcast.importers import runs
from epochcast.importers.columns import ImportOptions
from epochcast.importers.curves import read_curve
from epochcast.importers.runs import Imported
from epochcast.report.text.probing import column_line

INPUTS = Path(__file__).parents[1] / "inputs"
LOGGED = ImportOptions(workload="cnn", device="NVIDIA A100", samples=1600, batch_size=16)


@pytest.mark.parametrize(
    ("name", "metric", "steps", "epochs", "last"),
    [
        ("keras_training.log", "val_loss", None, (2, 4, 6, 8), 0.436364),
        ("lightning_metrics.csv", "val_loss", None, (1, 2, 3, 4), 0.473684),
        ("yolo_results.csv", "metrics/mAP50-95(B)", None, range(1, 8), 0.35),
        ("timm_summary.csv", "val_loss", None, range(1, 6), 0.45),
        ("timm_summary.csv", "eval_top1", None, range(1, 6), 85.96),
        ("fastai_history.csv", "val_loss", None, range(1, 5), 0.26315789),
        ("detectron2_metrics.json", "bbox/AP", 100, (0.99, 1.99, 2.99, 3.99), 29.95),
        ("mmdetection_scalars.json", "coco/bbox_mAP", 1, range(1, 5), 0.21),
        ("nanogpt.log", "val_loss", 250, range(1, 5), 1.0376),
        ("wandb_export.csv", "val_loss", 100, [n + 0.99 for n in range(7)], 0.125156),
        ("mlflow/val_loss", "val_loss", 1, range(1, 6), 0.40909091),
    ],
)
def test_learning_curves(name, metric, steps, epochs, last) -> None:
    curve = read_curve(INPUTS / name, metric, steps)
    assert curve.epochs == pytest.approx(tuple(epochs))
    assert curve.validation[-1] == pytest.approx(last)
    assert curve.non_finite_epoch is None


def test_steps_order_the_state_of_the_trainer() -> None:
    """24 checks in 0.12 epochs, rounded to two decimals; the best, reloaded, is checked last."""
    curve = read_curve(INPUTS / "trainer_state.json")
    assert curve.epochs == pytest.approx([0.005 * n for n in range(1, 25)])
    assert curve.validation[-1] > min(curve.validation)
    assert len(curve.training) == 24


@pytest.mark.parametrize(
    ("name", "metric", "message"),
    [
        ("yolo_results.csv", "val_loss", r"it has: epoch, .*val/box_loss.* \(--metric\)"),
        ("detectron2_metrics.json", "bbox/AP", r"counts steps \('iteration'\).*--steps-per-epoch"),
        ("mmdetection_scalars.json", "coco/bbox_mAP", "1 if its steps are epochs"),
        ("carbontracker.log", "val_loss", "not a table: .*; write one row for each epoch under"),
    ],
)
def test_curves_that_are_refused_say_what_to_do(name: str, metric: str, message: str) -> None:
    with pytest.raises(EpochcastError, match=message):
        read_curve(INPUTS / name, metric)


def imported(name: str, **said) -> Imported:
    options = ImportOptions(**{f: getattr(LOGGED, f) for f in LOGGED.__slots__} | said)
    return runs.read(runs.text_of((INPUTS / name).read_bytes()), options)


@pytest.mark.parametrize(
    ("name", "said", "line", "start", "steady"),
    [
        (
            "yolo_results.csv",
            {},
            "time → epoch time (a time beside the epoch), s (assumed; --unit says otherwise): "
            "40.0867 s",
            40.0867 / 100,
            (48.8192 - 40.0867) / 100,
        ),
        (
            "fastai_history.csv",
            {},
            "time → epoch time (a time beside the epoch), as written: 01:12",
            0.72,
            0.41,
        ),
        (
            "detectron2_metrics.json",
            {"renamed": {"time": "step_seconds"}},
            "time → step time, s (assumed; --unit says otherwise): 0.2081 s",
            0.2081,
            0.2071,
        ),
        (
            "mmdetection_scalars.json",
            {"renamed": {"time": "step_seconds"}, "memory_unit": "MiB"},
            "memory → peak memory, MiB: 3388 MiB",
            0.381,
            0.381,
        ),
        (
            "nanogpt.log",
            {"renamed": {"time": "step_seconds"}},
            "time → step time, as written: 32455.42ms",
            32.45542,
            0.0218,
        ),
    ],
)
def test_times_of_one_run(name, said, line, start, steady) -> None:
    """The batch size is in none of them: ``--batch-size``; a bare ``time`` is asked."""
    found = imported(name, **said)
    (m,) = found.measurements
    assert line in map(column_line, found.columns)
    assert m.step_seconds[0] == pytest.approx(steady)
    usual = median(m.step_seconds)
    first = m.warmup_seconds[0]
    expected = start if "epoch" not in line else start * 100 - usual * 100 + usual
    assert first == pytest.approx(expected, rel=1e-3)
    assert m.config.sizes == ()


@pytest.mark.parametrize(
    "name",
    [
        "keras_training.log",
        "lightning_metrics.csv",
        "timm_summary.csv",
        "wandb_export.csv",
        "mlflow/val_loss",
        "detectron2_metrics.json",
        "mmdetection_scalars.json",
        "nanogpt.log",
    ],
)
def test_logs_without_a_clear_time_are_refused(name: str) -> None:
    with pytest.raises(EpochcastError, match=r"no column is epoch_seconds.*--map epoch_seconds="):
        imported(name)
    with pytest.raises(EpochcastError, match=r"no column is batch_size.*--batch-size"):
        imported(name, batch_size=None)


def test_the_summary_of_the_trainer_is_the_time_of_its_training() -> None:
    found = imported("trainer_state.json")
    (m,) = found.measurements
    assert m.step_seconds == (pytest.approx(1 / 1.308),)
    line = "train_steps_per_second → throughput, updates/s: 1.308 updates/s"
    assert line in map(column_line, found.columns)
    assert {warning.code for warning in found.warnings} == {"other-rows", "one-time"}
    with pytest.raises(EpochcastError, match=r"no column is batch_size.*--batch-size"):
        imported("trainer_state.json", batch_size=None)


def test_evaluations_between_the_lines_are_no_steps() -> None:
    """In mmdetection they have a ``time`` of their own, and count epochs as steps."""
    found = imported(
        "mmdetection_scalars.json", renamed={"time": "step_seconds"}, ignored={"memory"}
    )
    assert max(found.measurements[0].step_seconds) < 0.4
    assert min(found.measurements[0].step_seconds) > 0.3
    assert dict(found.warnings[0].details) == {"count": "4", "first": "line 3"}
