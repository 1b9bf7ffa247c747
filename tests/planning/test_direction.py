"""Which way a metric is better: told by whole words of its name, or asked."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.errors import UsageError
from epochcast.planning.direction import FALLS, RISES, direction_of, mode_of

RISING = (
    "val_accuracy val_acc acc eval/f1 eval_bleu mAP map50 val_mIoU val_binary_accuracy top1 top_5 "
    "BinaryAccuracy acc@1 r2 val_precision recall@10 rouge1 eval_rougeL val_dice psnr roc_auc "
    "val_mean_io_u binary_io_u cosine_similarity MulticlassF1Score eval_exact_match fitness pass@1 "
    "MeanIoU meaniou valacc CIDEr chrF++ neg_mean_squared_error metrics/mAP50-95(B) bbox_mAP_50 "
    "coco/bbox_mAP bbox/AP eval_top1 multiclassf1score binaryauroc R2Score ROC-AUC neg_log_loss "
    "true_negative_rate"
)
FALLING = (
    "val_loss loss mape mae rmse perplexity wer val_auc_loss top1_error Loss/valid fid fid_score "
    "val_brier_score crps_score negative_log_likelihood MSELoss val_crossentropy cls_loss valloss "
    "false_negative_rate IoULoss eval_loss bits_per_byte"
)
OPEN = (
    "whatever",
    "",
    "1-accuracy",
    "-loss",
    "1 - iou",
    "score",
    "val_score",
    "accuracy_drop",
    "r",
    "loss_gap",
)
OPEN += (
    "mapping",
    "retopology",
    "lossy",
    "distance_correlation",
    "recalled",
    "accurate",
)  # parts of words


@pytest.mark.parametrize("metric", RISING.split())
def test_larger_is_better(metric: str) -> None:
    assert mode_of(metric) == "max"


@pytest.mark.parametrize("metric", FALLING.split())
def test_smaller_is_better(metric: str) -> None:
    assert mode_of(metric) == "min"


@pytest.mark.parametrize("metric", OPEN)
def test_what_the_name_does_not_tell_is_asked(metric: str) -> None:
    assert direction_of(metric) is None
    with pytest.raises(UsageError, match="--mode max or --mode min"):
        mode_of(metric)


@given(
    phrase=st.sampled_from([*RISES.split("|"), *FALLS.split("|")]),
    before=st.sampled_from(["", "val_", "eval/", "test-", "metrics/"]),
    written=st.sampled_from([str.lower, str.upper]),
)
def test_the_spelling_changes_nothing(
    phrase: str, before: str, written: Callable[[str], str]
) -> None:
    """Divided by any sign, in capitals or not; only a loss turns what rises."""
    name = before + written(phrase.replace(" ", "_").replace("#", "1"))
    falls = phrase in FALLS.split("|")
    assert direction_of(name) == ("min" if falls else "max")
    assert direction_of(f"{name}_loss") == "min"
    part = phrase.replace(" ", "_").replace("#", "1")
    assert direction_of(f"zz{part}zz") is None


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("neg_log_loss", "max"),
        ("val_neg_mean_squared_error", "max"),
        ("negative_log_likelihood", "min"),
        ("false_negative_rate", "min"),
        ("recall_neg", None),
        ("acc_neg", None),
        ("neg_loss", None),
        ("loss_negative", None),
    ],
)
def test_neg_turns_a_whole_name_and_is_a_class_elsewhere(metric: str, mode: str | None) -> None:
    assert direction_of(metric) == mode
