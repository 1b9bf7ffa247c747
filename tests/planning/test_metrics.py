"""The direction of well-known metrics, by their names in the frameworks."""

import pytest

from epochcast.planning.metrics import mode_of


@pytest.mark.parametrize(
    "metric",
    ["val_accuracy", "val_acc", "acc", "eval/f1", "eval_bleu", "mAP", "map50", "val_mIoU",
     "val_binary_accuracy", "BinaryAccuracy", "top1", "top_5", "acc@1", "r2", "val_precision",
     "recall@10", "rouge1", "eval_rougeL", "val_dice", "psnr", "roc_auc"],
)  # fmt: skip
def test_larger_is_better(metric: str) -> None:
    assert mode_of(metric) == "max"


@pytest.mark.parametrize(
    "metric",
    ["val_loss", "loss", "mape", "mae", "rmse", "perplexity", "wer", "val_auc_loss", "top1_error",
     "Loss/valid", "fid", "whatever", ""],
)  # fmt: skip
def test_smaller_is_better(metric: str) -> None:
    assert mode_of(metric) == "min"
