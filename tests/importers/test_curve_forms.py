"""The same learning curve in the forms that people have it in, and what loggers put between."""

import json
from pathlib import Path

import pytest

from epochcast.errors import UsageError
from epochcast.importers.curves import counts_steps, read_curve

TRAINING, VALIDATION = (0.8, 0.6, 0.4), (0.9, 0.7, 0.6)
LISTS = {"loss": TRAINING, "val_loss": VALIDATION}
ROWS = [{"loss": t, "val_loss": v} for t, v in zip(TRAINING, VALIDATION, strict=True)]
FRAME = {name: {str(n): v for n, v in enumerate(values)} for name, values in LISTS.items()}
SPLIT = {"columns": list(LISTS), "index": [0, 1, 2], "data": [list(r.values()) for r in ROWS]}
PRINTED = [str({**row, "epoch": float(n)}) for n, row in enumerate(ROWS, start=1)]
FORMS = {
    "resumed": "epoch,loss,val_loss\n1,0.8,0.9\n2,9,9\nepoch,loss,val_loss\n2,0.6,0.7\n3,0.4,0.6",
    "remarks": "# of May\nepoch,loss,val_loss\n1,0.8,0.9\n# half\n2,0.6,0.7\n3,0.4,0.6",
    "numpy": "# epoch,loss,val_loss\n1,0.8,0.9\n2,0.6,0.7\n3,0.4,0.6\n",
    "savetxt": "# epoch loss val_loss\n1 0.8 0.9\n2 0.6 0.7\n3 0.4 0.6\n",
    "aligned": "epoch  loss  val_loss\n    1   0.8       0.9\n    2   0.6   0.7\n    3 0.4 0.6",
    "bars": "epoch|loss|val_loss|\n1|0.8|0.9|\n2|0.6|0.7|\n3|0.4|0.6|\n",
    "commas": "epoch;loss;val_loss\n1;0,8;0,9\n2;0,6;0,7\n3;0,4;0,6\n",
    "per cent": "epoch,loss,val_loss\n1,80%,90%\n2,60 %,70%\n3,40%,60%\n",
    "history": json.dumps({"history": LISTS, "params": {"epochs": 3}, "epoch": [0, 1, 2]}),
    "frame": json.dumps(FRAME),
    "split": json.dumps(SPLIT, indent=1),
    "pretty": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "printed": "\n".join((PRINTED[0], "saved", *PRINTED[1:])),
    "words": "\n".join(
        f"Epoch {n}/3 - loss: {row['loss']} - val_loss: {row['val_loss']}"
        for n, row in enumerate(ROWS, start=1)
    ),
}
FOLLOWED = [{"event": "started", "process": 1}, {"event": "epoch", "values": [["val_loss", 9]]}]
FOLLOWED += [{"event": "started", "process": n} for n in (1, 2)]
FOLLOWED[3:3] = [  # of the last run; its next process goes on from epoch 1
    {"event": "epoch", "position": {"epoch": n, "steps": 9 * n}, "values": [["val_loss", v]]}
    for n, v in ((1, 0.9), (2, 7.0))
]
FOLLOWED += [
    {"event": "notice", "position": {"epoch": 1, "steps": 9}},
    *(
        {"event": "epoch", "position": {"epoch": n, "steps": 9 * n}, "values": [["val_loss", v]]}
        for n, v in ((2, 0.7), (3, 0.6))
    ),
]


def test_the_log_of_a_followed_run_is_a_curve(tmp_path: Path) -> None:
    """The last run of it; an epoch that was trained again counts once. Segments count steps."""
    file = written(tmp_path, "\n".join(map(json.dumps, FOLLOWED)))
    curve = read_curve(file)
    assert (curve.epochs, curve.validation) == ((1, 2, 3), VALIDATION)
    assert read_curve(file, unit="step").epochs == (9, 18, 27)
    segments = [event | {"segment_steps": 9} for event in FOLLOWED]
    written(tmp_path, "\n".join(map(json.dumps, segments)))
    assert counts_steps(file)
    assert read_curve(file, unit="step").epochs == (9, 18, 27)


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "curve.txt"
    file.write_bytes(text.encode(encoding))
    return file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_curve_in_every_form(tmp_path: Path, form: str, encoding: str) -> None:
    curve = read_curve(written(tmp_path, FORMS[form], encoding))
    assert curve.epochs == (1, 2, 3)
    assert curve.validation == pytest.approx(VALIDATION)
    assert curve.training == pytest.approx(TRAINING)


def test_commas_that_may_be_thousands_are_refused(tmp_path: Path) -> None:
    for text in ("val_loss;a\n1,234;2\n", "val_loss;a\n0,9;2.5\n"):
        with pytest.raises(UsageError, match=r"line 2, column 'val_loss': .* without commas"):
            read_curve(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [{"x": 1}], "b": [{"x": 1}]}', "several tables in it: a, b; write one of them"),
        ("[" * 100_000, "line 1: not JSON: nested too deeply"),
        ('{"val_loss": 1}\n' + "9" * 5000, "line 2: not JSON: a number of too many digits"),
        ('{"val_loss": 1e999}\n{"val_loss": ' + "9" * 400 + "}", "line 2, column 'val_loss'"),
        ("val_loss\n1\n\0\n", "line 3: not text: there is a NUL"),
        ("the loss is now very low\nand that is fine\n", "not a table: its lines are not divided"),
        ("a\x1b[31m,b\n1,2\n", r"no metric 'val_loss'; it has: a\[31m, b"),
        (",".join(f"column_{n}" for n in range(99)) + "\n", "column_29 and 69 more"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read_curve(written(tmp_path, text))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700


# -- what loggers put between ---------------------------------------------------------------------


def test_a_final_check_of_the_best_is_not_the_last_epoch(tmp_path: Path) -> None:
    """Evaluated once more after it was reloaded, at the last step."""
    text = "epoch,step,val_loss\n0,10,0.9\n1,20,0.5\n2,30,0.7\n2,30,0.5\n"
    assert read_curve(written(tmp_path, text)).validation == (0.9, 0.5, 0.7)


def test_rounded_epochs_are_told_apart_by_their_steps(tmp_path: Path) -> None:
    log = [{"epoch": round(0.004 * n, 2), "step": 80 * n, "eval_loss": 1 / n} for n in range(1, 26)]
    curve = read_curve(written(tmp_path, json.dumps(log)))
    assert curve.epochs == pytest.approx([0.004 * n for n in range(1, 26)])
    checks = [{"epoch": 0.0, "step": 8 * n, "eval_loss": 1 / n} for n in (1, 2, 3)]
    state = {"epoch": 0.0012, "global_step": 24, "log_history": checks}
    curve = read_curve(written(tmp_path, json.dumps(state)))
    assert curve.epochs == pytest.approx((0.0004, 0.0008, 0.0012))


@pytest.mark.parametrize("nothing", ["NA", "nan", "", "null", "-"])
def test_epochs_without_a_check_are_no_failure(tmp_path: Path, nothing: str) -> None:
    """Keras's ``validation_freq=2``, the last epoch without a check."""
    rows = [f"{e},{1 / e},{1 / e if e % 2 == 0 else nothing}" for e in range(1, 8)]
    curve = read_curve(written(tmp_path, "epoch,loss,val_loss\n" + "\n".join(rows)))
    assert (curve.epochs, curve.non_finite_epoch) == ((2, 4, 6), None)


def test_a_run_that_went_on_after_a_check_was_due_has_failed(tmp_path: Path) -> None:
    values = ["nan", "0.9", "nan", "0.8", "nan", "0.7", "nan", "0.6", "nan", "0.5", "nan", "nan"]
    text = "val_loss\n" + "\n".join(values)
    assert read_curve(written(tmp_path, text)).non_finite_epoch == 12


def test_checks_at_several_steps_of_one_rounded_epoch_need_the_steps_of_an_epoch(tmp_path):
    """Nine checks of a trainer_state.json without a header were read as one, after epoch 1."""
    checks = [{"epoch": 0.0, "step": s, "eval_loss": 2 - s / 400} for s in range(10, 100, 10)]
    file = tmp_path / "trainer_state.json"
    file.write_text(json.dumps({"log_history": checks}))
    with pytest.raises(UsageError, match="--steps-per-epoch"):
        read_curve(file)
    assert counts_steps(file)
    curve = read_curve(file, steps_per_epoch=200)
    assert curve.epochs == pytest.approx([s / 200 for s in range(10, 100, 10)])


BAR = "\u2501" * 20


@pytest.mark.parametrize(
    "text",
    [
        "[2026-12-01 08:00:00] epoch 5 val_loss 0.9\n[2026-12-01 08:01:00] epoch 10 val_loss 0.8\n",
        "2026-12-01 08:00:00,123 - INFO - epoch: 5 - val_loss: 0.9\n"
        "2026-12-01 08:01:00,456 - INFO - epoch: 10 - val_loss: 0.8\n",
        "INFO:root:epoch: 5, val_loss: 0.9\nINFO:root:epoch: 10, val_loss: 0.8\n",
        "[Epoch 5] val_loss: 0.9, lr: 0.1\n[Epoch 10] val_loss: 0.8, lr: 0.01\n",
        "Epoch [5/20], val_loss: 0.9\nEpoch [10/20], val_loss: 0.8\n",
        "| epoch | val_loss |\n|------:|:---------|\n| 5 | 0.9 |\n| 10 | 0.8 |\n",
        "epoch,val_loss\n5,0.9\n7,\u2014\n10,0.8\n",
        "epoch;val_loss\n5;0,9\n7;#N/A\n10;0,81\n".replace("0,81", "0,8"),
    ],
)
def test_logs_with_stamps_and_tables_in_markdown(tmp_path: Path, text: str) -> None:
    curve = read_curve(written(tmp_path, text))
    assert (curve.epochs, curve.validation) == ((5, 10), (0.9, 0.8))


@pytest.mark.parametrize("bar", ["[==============================] - ", f"{BAR} "])
def test_progress_bars_of_keras(tmp_path: Path, bar: str) -> None:
    """What a bar has written over itself, line by line, counts as it stood in the end."""
    lines = [
        f"Epoch {e}/2\n 50/100 {bar}ETA: 1s - loss: 9.0\r100/100 {bar}3s 5ms/step - loss: {2 / e} "
        f"- val_loss: {1 / e}"
        for e in (1, 2)
    ]
    curve = read_curve(written(tmp_path, "\n".join(lines)))
    assert (curve.validation, curve.training) == ((1.0, 0.5), (2.0, 1.0))


def test_several_runs_in_a_file_are_told_apart_by_the_user(tmp_path: Path) -> None:
    text = "seed,epoch,val_loss\n0,1,0.9\n0,2,0.8\n1,1,0.95\n"
    with pytest.raises(UsageError, match="where these are several runs, give a file of each"):
        read_curve(written(tmp_path, text))


def test_a_curve_of_steps_counts_its_own_or_is_told_how_many(tmp_path: Path) -> None:
    """For a plan of steps; mlflow's ``step`` may count epochs, which nobody but the user knows."""
    steps = written(tmp_path, "epoch,step,val_loss\n0,100,0.9\n0,200,0.8\n1,300,0.7\n")
    assert read_curve(steps, unit="step").epochs == (100, 200, 300)
    with pytest.raises(UsageError, match=r"it counts steps itself \('step'\): leave --steps"):
        read_curve(steps, steps_per_epoch=50, unit="step")
    epochs = written(tmp_path, "epoch,val_loss\n0,0.9\n1,0.8\n")
    assert read_curve(epochs, steps_per_epoch=50, unit="step").epochs == (50, 100)
    with pytest.raises(UsageError, match="it counts no steps, as a plan of steps does"):
        read_curve(epochs, unit="step")
    with pytest.raises(UsageError, match="counts neither steps nor epochs"):
        read_curve(written(tmp_path, "val_loss\n0.9\n0.8\n"), unit="step")
