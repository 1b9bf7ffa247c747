"""The data sets that built-in workloads train on: arrays in memory, random data of any size.

text        t0 t1 t2 t3 t4 t5 t6 t7 t8 t9          tokens = 10, context = 3
window 0    [t0 t1 t2] → [t1 t2 t3]                 windows = (tokens - 1) // context = 3,
window 1             [t3 t4 t5] → [t4 t5 t6]        for the last one needs a token to predict
window 2                       [t6 t7 t8] → [t7 t8 t9]

Of random data item i depends on (seed, split, i) alone, and nothing is stored:

    stream(i) = SHAKE-128(seed ‖ split ‖ i)        FIPS 202: as many bytes as asked for
    image i:  stream(i) = [ 8 bytes: label │ C·H·W bytes: pixels ]
    window i: stream(i) = [ context draws of 4 bytes ], then the first draw of stream(i + 1)

A hash reaches any item directly. So neither the order of access, nor worker processes, nor the
state of torch's or numpy's global generators change an item. It is cheap, so that a loader that is
timed with this data spends its time where a real one does: 784 bytes took 7 µs, 3,072 bytes 12 µs
on a 2-core CPU machine, where creating a numpy Philox generator alone took 10 µs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from epochcast.errors import WorkloadError
from epochcast.records import DatasetSpec

_LABEL_BYTES = 8  # 64 bits modulo any number of classes: biased by less than 2⁻⁴⁰
_DRAW_BYTES = 4
_LARGEST_VOCABULARY = 2**24  # draws of 32 bits then favour no token by more than 2⁻⁸ = 0.4 %

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
        self.windows = _count_windows(len(tokens), context)

    def __len__(self) -> int:
        return self.windows

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = _check_index(index, self.windows) * self.context
        window = self.tokens[start : start + self.context + 1].astype(np.int64)
        return _split_window(torch.from_numpy(window))


class SyntheticImages(Dataset[tuple[Any, int]]):
    """Images of independent uniform bytes, with uniform labels, shaped like a known data set.

    Args:
        spec: the data set to imitate, of bytes and of a fixed shape (H, W) or (C, H, W).
        samples: how many; as in ``spec`` if not given.
        seed: of all items.
        transform: applied to one uint8 image of shape (C, H, W).
        train: the training split, or else the evaluation split, whose items differ.

    Raises:
        WorkloadError: ``spec`` does not describe labelled images of one size, or no samples.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        samples: int | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        train: bool = True,
    ) -> None:
        default = spec.samples if train else spec.eval_samples
        self.samples = default if samples is None else samples
        self.shape = _image_shape(spec)
        self.classes = spec.classes
        self.transform = transform
        self._pixels = math.prod(self.shape)
        self._prefix = _prefix(seed, train)
        if self.samples < 1:
            raise WorkloadError(f"{spec.name} needs at least 1 sample, but got {self.samples}")

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Any, int]:
        _check_index(index, self.samples)
        stream = bytearray(_stream(self._prefix, index, _LABEL_BYTES + self._pixels))
        label = int.from_bytes(stream[:_LABEL_BYTES], "little") % self.classes
        pixels = torch.frombuffer(stream, dtype=torch.uint8, offset=_LABEL_BYTES)
        image = pixels.view(self.shape)
        return (self.transform(image) if self.transform else image), label


class SyntheticTokens(Dataset[tuple[Tensor, Tensor]]):
    """Windows of one long random text; targets are the inputs shifted by one.

    Args:
        tokens: length of the text; an epoch has ``(tokens - 1) // context`` windows.
        vocabulary: tokens are uniform in [0, vocabulary).
        context: tokens per window; items are two int64 tensors of shape (context,).
        seed: of the text, which is another one for every context.
        train: the training text, or else the evaluation text, which differs.

    Raises:
        WorkloadError: the text is shorter than one window, or the vocabulary out of range.
    """

    def __init__(
        self, tokens: int, vocabulary: int, context: int, seed: int = 0, train: bool = True
    ) -> None:
        if not 1 <= vocabulary <= _LARGEST_VOCABULARY:
            raise WorkloadError(f"vocabulary must be in [1, 2²⁴], but got {vocabulary}")
        self.vocabulary = vocabulary
        self.context = context
        self.windows = _count_windows(tokens, context)
        self._prefix = _prefix(seed, train)

    def __len__(self) -> int:
        return self.windows

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        _check_index(index, self.windows)
        window = _stream(self._prefix, index, _DRAW_BYTES * self.context)
        following = _stream(self._prefix, index + 1, _DRAW_BYTES)
        draws = np.frombuffer(window + following, dtype="<u4").astype(np.uint64)
        tokens = (draws * np.uint64(self.vocabulary)) >> np.uint64(32)  # [0, 2³²) to [0, V)
        return _split_window(torch.from_numpy(tokens.astype(np.int64)))


def _count_windows(tokens: int, context: int) -> int:
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


def _split_window(window: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each of shape (context,), of a window of shape (context + 1,)."""
    return window[:-1], window[1:]


def _check_index(index: int, length: int) -> int:
    """The index itself.

    Raises:
        IndexError: it is not in [0, length); plain iteration over a data set ends by it.
    """
    if not 0 <= index < length:
        raise IndexError(f"index {index} is outside a data set of {length} samples")
    return index


def _image_shape(spec: DatasetSpec) -> tuple[int, ...]:
    if spec.dtype != "uint8" or spec.classes < 1 or len(spec.shape) not in (2, 3):
        raise WorkloadError(
            f"synthetic images need a data set of labelled uint8 images of one size, but "
            f"{spec.name} has dtype {spec.dtype}, shape {spec.shape}, {spec.classes} classes"
        )
    return spec.shape if len(spec.shape) == 3 else (1, *spec.shape)


def _prefix(seed: int, train: bool) -> bytes:
    return (seed % 2**64).to_bytes(8, "little") + (b"train" if train else b"eval ")


def _stream(prefix: bytes, index: int, size: int) -> bytes:
    return hashlib.shake_128(prefix + index.to_bytes(8, "little")).digest(size)
