"""Whether a larger or a smaller metric is better, told by its name as Keras's ``mode="auto"`` does.

"val_accuracy"  →  val, accuracy  →  max          "val_loss", "mape", "perplexity"  →  min
"""

from __future__ import annotations

import re

from epochcast.records import Mode

LARGER_IS_BETTER = frozenset((
    "acc", "accuracy", "precision", "recall", "sensitivity", "specificity", "fbeta",
    "auc", "auroc", "auprc", "ap", "map", "miou", "iou", "jaccard", "dice", "top", "mcc", "kappa",
    "ndcg", "mrr", "hits", "bleu", "sacrebleu", "rouge", "rougel", "meteor", "chrf", "cider",
    "f", "r", "fmeasure",
    "pearson", "spearman", "correlation", "psnr", "ssim", "score", "reward", "return",
))  # fmt: skip
ENDINGS = ("accuracy", "precision", "recall", "auc", "iou")  # of BinaryAccuracy, MeanIoU
SMALLER_IS_BETTER = frozenset(("loss", "error", "err"))  # of anything, as in recall_loss


def mode_of(metric: str) -> Mode:
    """The direction that a metric's name tells, numbers at the ends of words aside: f1, map50.

    An unknown one is a loss.
    """
    words = [w.rstrip("0123456789") or w for w in re.split(r"[^a-z0-9]+", metric.lower()) if w]
    if SMALLER_IS_BETTER.intersection(words):
        return "min"
    known = any(word in LARGER_IS_BETTER or word.endswith(ENDINGS) for word in words)
    return "max" if known else "min"
