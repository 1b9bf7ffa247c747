"""Learning curves as people have them on disk."""

from pathlib import Path

import pytest

from epochcast.curve_files import read_curve
from epochcast.errors import UsageError
from epochcast.planning.stopping import stop
from epochcast.records import LearningCurve, StopReason

EXPECTED = LearningCurve(
    epochs=(1.0, 2.0, 3.0), validation=(0.9, 0.7, 0.6), training=(0.8, 0.6, 0.4)
)


def test_comma_separated(tmp_path: Path) -> None:
    """As pandas or Lightning's CSVLogger write it: empty cells where nothing was logged."""
    file = tmp_path / "metrics.csv"
    file.write_text(
        "epoch, train_loss ,val_loss,lr\n1,0.8,0.9,0.1\n,,,0.1\n2,0.6,0.7,\n3,0.4,0.6,0.1\n"
    )
    assert read_curve(file) == EXPECTED


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(
        '{"epoch": 1, "loss": 0.8, "val_loss": 0.9, "name": "x"}\n\n'
        '{"epoch": 2, "loss": 0.6, "val_loss": 0.7}\n{"epoch": 3, "loss": 0.4, "val_loss": 0.6}\n'
    )
    assert read_curve(file) == EXPECTED


def test_without_epochs_checks_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "curve.csv"
    file.write_text("accuracy\n0.1\n0.5\n")
    curve = read_curve(file, "accuracy")
    assert curve == LearningCurve(epochs=(1.0, 2.0), validation=(0.1, 0.5))


def test_a_run_that_ended_in_nan_is_no_success(tmp_path: Path) -> None:
    """In between, a value that is not finite is one that is missing; at the end the run failed."""
    file = tmp_path / "curve.csv"
    file.write_text("epoch,val_loss\n1,0.9\n2,nan\n3,0.6\n4,inf\n5,nan\n")
    curve = read_curve(file)
    assert curve == LearningCurve(epochs=(1, 3), validation=(0.9, 0.6), non_finite_epoch=4)
    assert stop((), curve) == (4, StopReason.NON_FINITE)
    file.write_text("epoch,val_loss\n1,0.9\n2,0.8\n2,nan\n")  # a row of training alone
    assert read_curve(file).non_finite_epoch is None
    file.write_text("val_loss\nnan\n")
    with pytest.raises(UsageError, match="no value of 'val_loss' is finite"):
        read_curve(file)


def test_training_values_must_be_complete(tmp_path: Path) -> None:
    file = tmp_path / "curve.csv"
    file.write_text("epoch,train_loss,val_loss\n1,,0.9\n2,0.6,0.7\n")
    assert read_curve(file).training == ()


def test_a_tensorboard_event_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    from tensorboard.compat.proto.event_pb2 import Event  # isort: skip

    writer = EventFileWriter(str(tmp_path))
    for step, (training, validation) in enumerate(
        zip(EXPECTED.training, EXPECTED.validation, strict=True), start=1
    ):
        for tag, value in (("train_loss", training), ("val_loss", validation)):
            summary: Summary = scalar_pb(tag, value)
            writer.add_event(Event(step=step, wall_time=0.0, summary=summary))
    writer.close()
    (file,) = tmp_path.glob("events.out.tfevents.*")
    curve = read_curve(file)
    assert curve.epochs == EXPECTED.epochs
    assert curve.validation == pytest.approx(EXPECTED.validation)
    assert curve.training == pytest.approx(EXPECTED.training)


def test_torch_writes_event_files_too(tmp_path: Path) -> None:
    """``SummaryWriter.add_scalar`` stores a simple value instead of a tensor."""
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tmp_path))
    value = Summary(value=[Summary.Value(tag="val_loss", simple_value=0.5)])
    writer.add_event(Event(step=4, wall_time=0.0, summary=value))
    writer.close()
    (file,) = tmp_path.glob("events.out.tfevents.*")
    assert read_curve(file) == LearningCurve(epochs=(4.0,), validation=(0.5,))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "epoch,loss\n1,2\n", "no metric 'val_loss'; it has: epoch, loss"),
        ("a.csv", "epoch,val_loss\n1,high\n", "could not convert string to float: 'high'"),
        ("a.csv", "epoch,val_loss\n2,1\n1,1\n", "epochs of a learning curve must increase"),
        ("a.csv", "", "it has: nothing"),
        ("a.jsonl", "[1, 2]\n", "one JSON object a line"),
        ("a.jsonl", "{\n", "not a learning curve"),
    ],
)
def test_what_is_no_curve_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_curve(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no learning curve at"):
        read_curve(tmp_path / "nothing.csv")
