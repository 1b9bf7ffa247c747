"""Arrays in memory as torch data sets: what the readers in ``local`` return.

text        t0 t1 t2 t3 t4 t5 t6 t7 t8 t9          tokens = 10, context = 3
window 0    [t0 t1 t2] → [t1 t2 t3]                 windows = (tokens - 1) // context = 3,
window 1             [t3 t4 t5] → [t4 t5 t6]        for the last one needs a token to predict
window 2                       [t6 t7 t8] → [t7 t8 t9]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from epochcast.errors import WorkloadError

Transform = Callable[[Tensor], Any]


class StoredSamples(Dataset[tuple[Any, int]]):
    """Samples and their labels.

    Args:
        inputs: shape (samples, …).
        labels: whole numbers, shape (samples,).
        transform: applied to one sample; it must not write into it.
    """

    def __init__(
        self, inputs: NDArray[Any], labels: NDArray[Any], transform: Transform | None = None
    ) -> None:
        self.inputs = torch.from_numpy(inputs)
        self.labels: list[int] = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        sample = self.inputs[index]
        return (self.transform(sample) if self.transform else sample), self.labels[index]


class TokenWindows(Dataset[tuple[Tensor, Tensor]]):
    """A text cut into windows that do not overlap; targets are the inputs shifted by one.

    Args:
        tokens: shape (tokens,), of any integer type.
        context: tokens per window.

    Raises:
        WorkloadError: the text is shorter than one window and the token after it.
    """

    def __init__(self, tokens: NDArray[Any], context: int) -> None:
        self.tokens = tokens
        self.context = context
        self.windows = count_windows(len(tokens), context)

    def __len__(self) -> int:
        return self.windows

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = check_index(index, self.windows) * self.context
        window = self.tokens[start : start + self.context + 1].astype(np.int64)
        return split_window(torch.from_numpy(window))


def count_windows(tokens: int, context: int) -> int:
    """How many windows of ``context`` tokens a text holds, each with a token to predict after it.

    Raises:
        WorkloadError: not even one, or a context that is not positive.
    """
    if context < 1:
        raise WorkloadError(f"context must be at least 1, but got {context}")
    if tokens <= context:
        raise WorkloadError(
            f"the text (or its evaluation part) has {tokens:,} tokens, but a context of {context} "
            f"needs at least {context + 1:,}: use a longer text or a smaller context"
        )
    return (tokens - 1) // context


def split_window(window: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each of shape (context,), of a window of shape (context + 1,)."""
    return window[:-1], window[1:]


def check_index(index: int, length: int) -> int:
    """The index itself.

    Raises:
        IndexError: it is not in [0, length); plain iteration over a data set ends by it.
    """
    if not 0 <= index < length:
        raise IndexError(f"index {index} is outside a data set of {length} samples")
    return index
