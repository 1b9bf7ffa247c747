"""Learning curves as people have them on disk."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from epochcast.errors import UsageError
from epochcast.importers.curves import find_columns, read_curve
from epochcast.planning.stopping import stop
from epochcast.records import LearningCurve, StopReason

EXPECTED = LearningCurve(
    epochs=(1.0, 2.0, 3.0), validation=(0.9, 0.7, 0.6), training=(0.8, 0.6, 0.4)
)
LIGHTNING = """epoch,step,train_loss,val_loss
0,3,1.0,
0,7,0.6,
0,9,,0.9
1,13,0.6,
1,19,,0.7
2,23,0.5,
2,27,0.3,
2,29,,0.6
"""
TRAINER = [
    {"epoch": 0, "step": 0, "eval_loss": 3.0},
    {"epoch": 0.5, "step": 10, "loss": 1.0, "learning_rate": 0.1},
    {"epoch": 1.0, "step": 20, "loss": 0.6},
    {"epoch": 1.0, "step": 20, "eval_loss": 0.9, "eval_runtime": 0.1},
    {"epoch": 2.0, "step": 40, "loss": 0.6},
    {"epoch": 2.0, "step": 40, "eval_loss": 0.7},
    {"epoch": 3.0, "step": 60, "loss": 0.4},
    {"epoch": 3.0, "step": 60, "eval_loss": 0.6},
    {"epoch": 3.0, "step": 60, "train_loss": 7.0, "train_runtime": 1.0},
]


def _written(folder: Path, text: str, name: str = "curve.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "epoch, train_loss ,val_loss,lr\n1,0.8,0.9,0.1\n,,,0.1\n2,0.6,0.7,\n3,0.4,0.6,"),
        ("semicolons.csv", "\ufeffEpoch;Loss;Val_Loss\n1;0.8;0.9\n\n2;0.6;0.7\n3;0.4;0.6\n"),
        (
            "text_nobody_asked_for.csv",
            'date,epoch,train/loss,val/loss,note\nMay,1,0.8,0.9,"a, b"\n-,2,0.6,0.7,\n-,3,0.4,0.6',
        ),
        ("not_in_order.csv", "epoch,loss,val_loss\n3,0.4,0.6\n1,0.8,0.9\n2,0.6,0.7\n2,0.6,0.7\n"),
        ("from_zero.csv", "epoch,loss,val_loss\n0,0.8,0.9\n1,0.6,0.7\n2,0.4,0.6\n"),
        ("lightning.csv", LIGHTNING),
        (
            "a.jsonl",
            '{"epoch": 1, "loss": 0.8, "eval_loss": 0.9, "name": "x", "tags": ["y"]}\n\n'
            '{"epoch": 2, "loss": 0.6, "eval_loss": 0.7}\n'
            '{"epoch": 3, "loss": 0.4, "eval_loss": 0.6, "lr": null}\n',
        ),
        (
            "array.json",
            '[{"loss": 0.8, "val_loss": 0.9},\n {"loss": 0.6, "val_loss": 0.7},\n'
            ' {"loss": 0.4, "val_loss": 0.6}]',
        ),
        ("history.json", '{"loss": [0.8, 0.6, 0.4],\n "val_loss": [0.9, 0.7, 0.6]}'),
        ("trainer_state.json", json.dumps({"epoch": 3.0, "log_history": TRAINER}, indent=2)),
    ],
)
def test_one_curve_as_many_loggers_write_it(tmp_path: Path, name: str, text: str) -> None:
    curve = read_curve(_written(tmp_path, text, name))
    assert curve.epochs == EXPECTED.epochs
    assert curve.validation == EXPECTED.validation
    assert curve.training == pytest.approx(EXPECTED.training)


def test_without_epochs_checks_are_counted(tmp_path: Path) -> None:
    curve = read_curve(_written(tmp_path, "accuracy\n0.1\n0.5\n"), "accuracy")
    assert curve == LearningCurve(epochs=(1.0, 2.0), validation=(0.1, 0.5))


def test_parts_of_epochs_stay_what_they_are(tmp_path: Path) -> None:
    """Training values count from the last check on, and an epoch 0 is before the training."""
    text = "epoch,loss,val_loss\n0,9,9\n0.25,4,\n0.5,2,1.5\n0.75,1,\n1,1,1\n"
    curve = read_curve(_written(tmp_path, text))
    assert curve == LearningCurve(epochs=(0.5, 1.0), validation=(1.5, 1.0), training=(3.0, 1.0))


def test_several_checks_in_an_epoch_are_parts_of_it_by_their_steps(tmp_path: Path) -> None:
    """As Lightning's ``val_check_interval=0.5`` logs them, under the number of the epoch."""
    text = "epoch,step,val_loss\n0,9,0.7\n0,4,0.9\n1,14,0.6\n1,19,0.5\n"
    curve = read_curve(_written(tmp_path, text))
    assert curve.epochs == (0.5, 1.0, 1.5, 2.0)
    assert curve.validation == (0.9, 0.7, 0.6, 0.5)
    steps = read_curve(_written(tmp_path, text), unit="step")
    assert (steps.epochs, steps.validation) == ((4, 9, 14, 19), curve.validation)


def test_training_values_within_an_epoch_go_with_the_check_after_them(tmp_path: Path) -> None:
    """Four checks an epoch of 100 steps, 2.5 epochs, a training loss every 25 steps before it."""
    rows = [
        f"{s // 100},{s},{1 / (s + 1)},\n{s // 100},{s},,{2 / (s + 1)}" for s in range(24, 260, 25)
    ]
    text = "epoch,step,train_loss_step,val_loss\n" + "\n".join(rows)
    curve = read_curve(_written(tmp_path, text))
    assert curve.epochs == pytest.approx([k / 4 for k in range(1, 11)])
    assert curve.training == pytest.approx([v / 2 for v in curve.validation])


def test_a_second_epoch_that_was_left_early_is_no_whole_one(tmp_path: Path) -> None:
    text = "epoch,step,val_loss\n0,50,0.9\n0,100,0.8\n1,150,0.7\n"
    assert read_curve(_written(tmp_path, text)).epochs == (0.5, 1.0, 1.5)


def test_one_check_an_epoch_stays_at_its_end(tmp_path: Path) -> None:
    text = "epoch,step,val_loss\n0,99,0.5\n1,199,0.4\n2,250,0.3\n"
    assert read_curve(_written(tmp_path, text)).epochs == (1.0, 2.0, 3.0)


def test_a_run_that_ended_in_nan_is_no_success(tmp_path: Path) -> None:
    """Where a value is not finite a followed run stops, whatever comes after it."""
    text = "epoch,val_loss\n1,0.9\n2,nan\n3,0.6\n4,0.5\n5,0.4\n6,0.4\n7,inf\n8,nan\n"
    curve = read_curve(_written(tmp_path, text))
    assert curve.epochs == (1, 3, 4, 5, 6)
    assert curve.non_finite_epoch == 2
    assert stop((), curve) == (2, StopReason.NON_FINITE)
    text = "epoch,val_loss\n1,0.9\n2,0.8\n2,nan\n"  # a row of training alone
    assert read_curve(_written(tmp_path, text)).non_finite_epoch is None


def test_a_pilot_that_diverged_early_is_said_to_have(tmp_path: Path) -> None:
    file = _written(tmp_path, "epoch,val_loss\n0,0.9\n1,0.7\n2,nan\n3,nan\n")
    message = r"'val_loss' is not finite from epoch 3 on: the run diverged; .* before that: 2,"
    with pytest.raises(UsageError, match=message):
        read_curve(file)
    with pytest.raises(UsageError, match=r"from epoch 1 on: the run diverged; .* before that: 0"):
        read_curve(_written(tmp_path, "val_loss\nnan\n"))


def test_training_values_must_be_complete(tmp_path: Path) -> None:
    text = "epoch,train_loss,val_loss\n1,,0.9\n2,0.6,0.7\n"
    assert read_curve(_written(tmp_path, text)).training == ()


@pytest.mark.parametrize(
    ("names", "metric", "found", "training"),
    [
        ("loss val_loss", "val_loss", "val_loss", "loss"),
        ("val_loss eval_loss", "val_loss", "val_loss", None),
        ("Val_Loss Train_Loss", "val_loss", "Val_Loss", "Train_Loss"),
        ("Loss/train Loss/valid", "val_loss", "Loss/valid", "Loss/train"),
        ("training_loss validation_loss", "val_loss", "validation_loss", "training_loss"),
        (
            "train_loss_step train_loss_epoch val_loss_epoch",
            "val_loss",
            "val_loss_epoch",
            "train_loss_epoch",
        ),
        ("train_loss_step val_loss", "val_loss", "val_loss", "train_loss_step"),
        ("acc Val_Acc val_loss", "val_acc", "Val_Acc", "acc"),
        ("train/accuracy accuracy", "accuracy", "accuracy", "train/accuracy"),
        ("accuracy", "Accuracy", "accuracy", None),
    ],
)
def test_names_in_any_case_and_the_usual_ones(
    names: str, metric: str, found: str, training: str | None
) -> None:
    columns = find_columns(names.split(), metric)
    assert (columns.metric, columns.training) == (found, training)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "epoch,loss\n1,2\n", "no metric 'val_loss'; it has: epoch, loss"),
        ("a.csv", "eval_acc\n1\n", "no metric 'val_loss'; it has: eval_acc"),
        ("a.csv", "eval_loss,valid_loss\n1,2", "eval_loss and valid_loss may each be 'val_loss'"),
        ("a.csv", "val_loss,val_loss\n1,2\n", "val_loss and val_loss may each be 'val_loss'"),
        ("a.csv", "epoch,Epoch,val_loss\n1,2,3\n", "epoch and Epoch may each be the epoch"),
        ("a.csv", "epoch,val_loss\n1,high\n", "line 2, column 'val_loss': expected a number"),
        ("a.csv", "epoch,val_loss\n1,1\n,1\n", "line 3, column 'epoch': .* got nothing"),
        ("a.csv", "epoch,val_loss\n-1,1\n", "line 2, column 'epoch': .* got -1"),
        (
            "a.csv",
            "epoch,val_loss\n1,1\n2,1\n1,2\n",
            "line 4, column 'val_loss': 2, but line 2 has 1 for the same epoch",
        ),
        (
            "a.csv",
            "epoch,val_loss\n1,1\n1e15,1\n",
            r"line 3, column 'epoch': expected at most 1,000,000 epochs, but got 1e\+15",
        ),
        (
            "a.csv",
            "epoch,val_loss\n1,1\n2,-1e200\n",
            r"line 3, column 'val_loss': expected at most 1e\+100, but got -1e\+200",
        ),
        ("a.csv", "epoch,val_loss\n1,1,5\n", "line 2: 3 cells, but the header has 2"),
        ("a.csv", 'epoch,val_loss\n1,"1\n', "unexpected end of data"),
        ("a.csv", "epoch,val_loss\n1,\n", "no value of 'val_loss' in it"),
        ("a.csv", "step,val_loss\n100,1\n", r"counts steps \('step'\) .* --steps-per-epoch"),
        ("a.csv", "", "it has: nothing"),
        ("a.jsonl", '{"val_loss": 1}\n[1, 2]\n', "line 2: expected a JSON object"),
        ("a.jsonl", '{"val_loss": 1}\n{"val_loss"}\n', "line 2: not JSON"),
        ("a.jsonl", '{"val_loss": true}\n', "line 1, column 'val_loss': .* got True"),
        ("a.json", "[1, 2]", "entry 1: expected a JSON object, but got 1"),
        ("a.json", '[\n{"val_loss": 1},\n', "line 3: not JSON"),
        ("a.json", '{"loss": [1, 2], "val_loss": [1]}', "equally long: loss 2, val_loss 1"),
    ],
)
def test_what_is_no_curve_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = _written(tmp_path, text, name)
    with pytest.raises(UsageError, match=f"cannot use {file} as a learning curve: .*{message}"):
        read_curve(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no learning curve at"):
        read_curve(tmp_path / "nothing.csv")
    with pytest.raises(UsageError, match="which is a folder"):
        read_curve(tmp_path)


def test_steps_are_epochs_only_if_somebody_says_so(tmp_path: Path) -> None:
    file = _written(tmp_path, "global_step,val_loss\n0,9\n50,0.9\n100,0.7\n")
    curve = read_curve(file, steps_per_epoch=100)
    assert curve == LearningCurve(epochs=(0.5, 1.0), validation=(0.9, 0.7))
    assert read_curve(file, steps_per_epoch=1).epochs == (1, 51, 101)
    with pytest.raises(UsageError, match="steps_per_epoch must be at least 1"):
        read_curve(file, steps_per_epoch=0)
    epochs = _written(tmp_path, "epoch,step,val_loss\n1,100,0.9\n")
    assert read_curve(epochs, steps_per_epoch=7).epochs == (1,)


def _event_file(folder: Path, steps: Mapping[int, Mapping[str, float]], simple: bool) -> Path:
    """``simple`` values as torch's ``SummaryWriter`` writes them; tensors as TensorFlow does."""
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step, scalars in steps.items():
        for tag, value in scalars.items():
            one = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(
                Event(step=step, wall_time=0.0, summary=one if simple else scalar_pb(tag, value))
            )
    writer.close()
    (file,) = folder.glob("events.out.tfevents.*")
    return file


def _both(names: Sequence[str], *values: Sequence[float]) -> list[dict[str, float]]:
    return [dict(zip(names, row, strict=True)) for row in values]


@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize(
    ("names", "zero"),
    [(("epoch", "train_loss", "val_loss"), 0), (("train/epoch", "train/loss", "eval/loss"), 1)],
)
def test_event_files_of_lightning_and_of_the_trainer(
    tmp_path: Path, names: Sequence[str], zero: int, simple: bool
) -> None:
    rows = _both(names, (zero, 0.8, 0.9), (zero + 1, 0.6, 0.7), (zero + 2, 0.4, 0.6))
    file = _event_file(tmp_path, {100 * n: row for n, row in enumerate(rows)}, simple)
    curve = read_curve(file)
    assert curve.epochs == EXPECTED.epochs
    assert curve.validation == pytest.approx(EXPECTED.validation)
    assert curve.training == pytest.approx(EXPECTED.training)


def test_event_files_without_epochs(tmp_path: Path) -> None:
    file = _event_file(tmp_path, {4: {"Loss/val": 0.5}, 8: {"Loss/val": 0.25}}, simple=True)
    with pytest.raises(UsageError, match="--steps-per-epoch; 1 if its steps are epochs"):
        read_curve(file)
    assert read_curve(file, steps_per_epoch=4).epochs == (1.0, 2.0)
    assert read_curve(file, steps_per_epoch=1).epochs == (4.0, 8.0)
