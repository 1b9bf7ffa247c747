"""Which column of a learning curve is which, whatever its logger calls it.

    metric     as asked for, in upper or lower case; for val_loss also eval/loss, Loss/valid, …
    training   what the metric is called without val, with train: train_loss, train/loss, loss
    epoch      epoch, Epoch, train/epoch
    step       step, global_step, trainer/global_step, iteration

Names are compared as sets of their words in lower case, without the ``epoch`` that Lightning and
Keras add to means of an epoch: ``train_loss_epoch``, ``epoch_loss``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DEFAULT_METRIC = "val_loss"
VALIDATION = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev"})
TRAINING = (("train",), ("training",), ("train", "step"), ())  # the first that is there
EPOCH, PASSED = ("epoch", "epochs"), ("train epoch", "training epoch")  # PASSED: never from 0
STEP = ("step", "steps", "global step", "trainer global step", "iteration", "iterations", "iter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names in the file; None where there is none.

    Attributes:
        from_zero: whether ``epoch`` may number epochs from 0, and not say how many have passed.
    """

    metric: str
    training: str | None
    epoch: str | None
    step: str | None
    from_zero: bool = True


def find_columns(names: Sequence[str], metric: str) -> Columns:
    """What is used of the columns with these names.

    Raises:
        ValueError: the metric is not among them, or two have one meaning.
    """
    shown = _metric(names, metric)
    epoch, passed = _named(names, EPOCH), _named(names, PASSED)
    return Columns(
        metric=shown,
        training=_training(names, shown),
        epoch=epoch or passed,
        step=_named(names, STEP),
        from_zero=epoch is not None,
    )


def _metric(names: Sequence[str], metric: str) -> str:
    alike = [
        [name for name in names if name == metric],
        [name for name in names if name.casefold() == metric.casefold()],
    ]
    if metric == DEFAULT_METRIC:
        losses = [{"loss", word} for word in VALIDATION]
        alike.append([name for name in names if _words(name) in losses])
    found = next(filter(None, alike), [])
    if not found:
        listed = ", ".join(names) or "nothing"
        raise ValueError(f"no metric {metric!r}; it has: {listed} (--metric)")
    return _only(found, f"{metric!r}: name one with --metric")


def _training(names: Sequence[str], metric: str) -> str | None:
    rest = _words(metric) - VALIDATION
    for words in TRAINING if rest != _words(metric) else TRAINING[:-1]:
        for name in names:
            if name != metric and _words(name) == rest | set(words):
                return name
    return None


def _named(names: Sequence[str], known: Iterable[str]) -> str | None:
    for one in known:
        found = [name for name in names if " ".join(_split(name)) == one]
        if found:
            return _only(found, f"the {one}: leave one out")
    return None


def _only(found: Sequence[str], what: str) -> str:
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} may each be {what}")
    return found[0]


def _words(name: str) -> frozenset[str]:
    return frozenset(_split(name)) - {"epoch"}


def _split(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())
