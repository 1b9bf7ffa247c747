"""Which way a metric is better, as its name tells it, or that the name does not tell.

    val_accuracy     val accuracy        max       MulticlassF1Score   multiclass f # score   max
    val_mean_io_u    val mean io u       max       val_brier_score     val brier score        min
    recall_loss      recall loss         min       neg_log_loss        neg log loss           max
    whatever         whatever            asked     1-accuracy, -loss   # accuracy             asked

A name is split into words, at capitals and digits too, and a number is ``#``. Whole words count
and never parts of them. A loss of what rises falls (``recall_loss``). ``neg`` before a whole name
turns it round (``neg_log_loss``); elsewhere it may be a class (``recall_neg``) and leaves it open,
as does a word that may turn it (``accuracy_drop``). Nothing is guessed: a rule that waits for an
improvement in the wrong direction stops a run that gets better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from epochcast.errors import UsageError
from epochcast.records import Mode

RISES = (
    "acc|accuracy|precision|recall|sensitivity|specificity|f #|f beta|f score|f measure|fbeta"
    "|fscore|fmeasure|auc|auroc|auprc|aucpr|rocauc|prauc|roc|ap|ar|map|mar|iou|io u|miou|jaccard"
    "|dice|top #|mcc|corrcoef|kappa|ndcg|dcg|mrr|hit #|hits|hit rate|pass #|pass rate|exact match"
    "|em|solved|bleu|sacrebleu|rouge|rougel|rougelsum|meteor|chrf|chr f|cider|cid er|bertscore"
    "|bert score|r #|r squared|explained variance|pearson|spearman|pearsonr|spearmanr|kendall"
    "|correlation|similarity|concordance|psnr|ssim|inception score|nmi|likelihood|elbo|reward"
    "|return|success|win rate|fitness|true positive|true positives|true negative|true negatives"
    "|tpr|tnr"
)
FALLS = (
    "loss|losses|error|errors|err|mse|rmse|mae|mape|smape|wmape|msle|rmsle|mase|nll|ppl"
    "|perplexity|bpb|bpc|bpd|bits per byte|bits per char|bits per dim|crossentropy|cross entropy"
    "|xent|bce|logloss|kl|kld|divergence|hinge|deviance|brier|crps|ece|wer|cer|ter|eer|fid|kid"
    "|lpips|distance|hausdorff|chamfer|regret|aic|bic|fpr|fnr|false positive|false positives"
    "|false negative|false negatives"
)
LOSS = "loss|losses|error|errors|err"  # of anything that rises, as in recall_loss
NEGATES = frozenset(("neg", "negative"))
LEAST_NEGATED = 2  # words: neg_log_loss is what scikit-learn calls it, neg_loss may be anything
SPLITS = frozenset(("train", "training", "val", "valid", "validation", "eval", "test", "dev"))
COUNTED_NEGATIVES = frozenset(("true", "false"))  # false_negative_rate negates nothing
MAY_TURN = "inverse|inv|minus|drop|delta|gap|diff|difference|change|improvement|reduction|free|std"
BEFORE = (  # torchmetrics and people write it before a word without a break: binaryauroc, valacc
    "binary|multiclass|multilabel|categorical|balanced|mean|macro|micro|weighted|train|test|valid"
    "|val|eval"
)
_RISES, _FALLS = (tuple(words.split("|")) for words in (RISES, FALLS))
_KNOWN = {phrase.split()[0] for phrase in (*_RISES, *_FALLS)}


def mode_of(metric: str) -> Mode:
    """The direction that a metric's name tells: val_accuracy → max, perplexity → min.

    Raises:
        UsageError: the name does not tell.
    """
    found = direction_of(metric)
    if found is None:
        raise UsageError(
            f"whether a larger or a smaller {metric!r} is better its name does not tell: say it "
            "with --mode max or --mode min (mode= in Python)"
        )
    return found


def direction_of(metric: str) -> Mode | None:
    """The direction that a metric's name tells; None if it does not tell."""
    words = words_of(metric)
    is_turned = metric.lstrip().startswith("-") or (len(words) > 1 and words[0] == "#")
    if is_turned or has_phrase(words, MAY_TURN.split("|")):
        return None
    falls, rises = has_phrase(words, _FALLS), has_phrase(words, _RISES)
    if falls and rises and not has_phrase(words, LOSS.split("|")):
        return None
    if not (falls or rises):
        return None
    if not NEGATES.intersection(words) or COUNTED_NEGATIVES.intersection(words):
        return "min" if falls else "max"
    named = [word for word in words if word not in SPLITS]
    turned = named[0] in NEGATES and len(named) > LEAST_NEGATED
    return ("max" if falls else "min") if turned else None


def has_phrase(words: Iterable[str], phrases: Iterable[str]) -> bool:
    """Whether one of the phrases is among the words, whole and in its order."""
    text = f" {' '.join(words)} "
    return any(f" {phrase} " in text for phrase in phrases)


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, divided as programs write them; a number is ``#``."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return [word for part in parts for word in _divided(part)]


def _divided(part: str) -> list[str]:
    word = "#" if part.isdigit() else part.lower()
    if word in _KNOWN:
        return [word]
    for before in BEFORE.split("|"):
        rest = word.removeprefix(before)
        if rest != word and rest in _KNOWN:
            return [before, rest]
    return [word]
