"""The built-in workloads, by the names of the command line: ``epochcast probe mnist-mlp``.

    mnist-mlp      60,000 images 28×28     784 → 512 → 10, RMSprop, batches of 128
    cifar10-cnn    50,000 images 32×32     resized to 224×224 by the loader; one convolution, Adam
    cifar10-resnet 50,000 images 32×32     ResNet-20 of He et al. 2015, SGD, batches of 128
    char-gpt       1,115,394 characters    a GPT of 4 layers, AdamW, batches of 32 windows
    digits-mlp     1,437 images 8×8        real data (scikit-learn's digits), 64 → 128 → 128 → 10

Keyword arguments are the knobs of ``--set``, except ``data``: a folder (``--data``) with a copy of
the data set. Without one the data is synthetic: equal in number, shape and type, so the cost is
the same, but there is nothing to learn in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from epochcast.datasets import local, transforms
from epochcast.datasets.catalogue import find
from epochcast.datasets.stored import StoredSamples, TokenWindows, Transform
from epochcast.datasets.synthetic import SyntheticImages, SyntheticTokens
from epochcast.errors import WorkloadError
from epochcast.profiler.builtin.models import CharGpt, CifarResNet, Mlp, OneConvNet
from epochcast.profiler.workload import Workload, knobs_of
from epochcast.records.validation import is_integer

SYNTHETIC = "synthetic"

_Reader = Callable[..., tuple[NDArray[Any], NDArray[Any]]]
_Split = tuple[Dataset[Any], Dataset[Any]]  # to train on, to evaluate on

_TRAIN_SHARE = 0.9  # of the characters: nanoGPT, data/shakespeare_char/prepare.py
_GPT_DROPOUT = 0.1  # Radford et al. 2018, section 4.1


def mnist_mlp(width: int = 512, depth: int = 1, *, data: str | None = None) -> Workload:
    """Flattened 28×28 images through ``depth`` ReLU layers of ``width`` to 10 classes.

    Args:
        width: neurons of each hidden layer.
        depth: hidden layers.
        data: a folder with a copy of MNIST; None makes synthetic images of the same number and
            shape.
    """
    _require_positive(width=width, depth=depth)
    flat = transforms.Compose((transforms.to_float, transforms.flatten))
    train, evaluation = _images("MNIST", data, local.read_mnist, flat, flat)
    model = Mlp(28 * 28, width, depth, classes=10)
    return Workload(
        model=model,
        train_data=train,
        eval_data=evaluation,
        optimizer=torch.optim.RMSprop(model.parameters(), lr=1e-3),
        loss=functional.cross_entropy,
        batch_size=128,
        data_source=_source(data),
    )


def cifar10_cnn(width: int = 32, image_size: int = 224, *, data: str | None = None) -> Workload:
    """One padded 3×3 convolution on images that the loader crops and enlarges: loader-heavy.

    Args:
        width: channels of the convolution.
        image_size: pixels along each side of what the loader makes of the 32×32 images.
        data: a folder with a copy of CIFAR-10; None makes synthetic images of the same number and
            shape.

    Raises:
        WorkloadError: ``image_size`` is below 2, which ``transforms.Resize`` cannot make.
    """
    _require_positive(width=width, image_size=image_size)
    if image_size < 2:
        raise WorkloadError(f"image_size must be at least 2, but got {image_size}")
    normalize = transforms.Normalize(transforms.IMAGENET_MEAN, transforms.IMAGENET_STD)
    crop, resize = transforms.RandomResizedCrop(image_size), transforms.Resize(image_size)
    train, evaluation = _images(
        "CIFAR-10",
        data,
        local.read_cifar10,
        transforms.Compose((crop, transforms.to_float, normalize)),
        transforms.Compose((resize, transforms.to_float, normalize)),
    )
    model = OneConvNet(width, image_size, classes=10)
    return Workload(
        model=model,
        train_data=train,
        eval_data=evaluation,
        optimizer=torch.optim.Adam(model.parameters()),
        loss=functional.cross_entropy,
        batch_size=32,
        data_source=_source(data),
    )


def cifar10_resnet(depth: int = 20, width: int = 16, *, data: str | None = None) -> Workload:
    """The residual network of He et al. 2015, arXiv:1512.03385, section 4.2, trained as there.

    Args:
        depth: layers with weights, 6n + 2.
        width: channels of the first of three stages; each further one has twice as many.
        data: a folder with a copy of CIFAR-10; None makes synthetic images of the same number and
            shape.

    Raises:
        WorkloadError: ``depth`` is not 6n + 2, n being the blocks of each of three stages.
    """
    _require_positive(depth=depth, width=width)
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise WorkloadError(
            f"cifar10-resnet has 6n + 2 layers, but got depth={depth}: use 8, 14, 20, 32, 44, 56, …"
        )
    normalize = transforms.Normalize(transforms.CIFAR10_MEAN, transforms.CIFAR10_STD)
    plain = (transforms.to_float, normalize)
    train, evaluation = _images(
        "CIFAR-10",
        data,
        local.read_cifar10,
        transforms.Compose((transforms.PadCropFlip(), *plain)),
        transforms.Compose(plain),
    )
    model = CifarResNet(blocks, width, classes=10)
    return Workload(
        model=model,
        train_data=train,
        eval_data=evaluation,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4),
        loss=functional.cross_entropy,
        batch_size=128,
        data_source=_source(data),
    )


def char_gpt(
    layers: int = 4,
    width: int = 128,
    context: int = 128,
    heads: int = 4,
    *,
    data: str | None = None,
) -> Workload:
    """A small GPT on characters; synthetic text is sized like tiny Shakespeare.

    An epoch visits every character once, in windows of ``context`` that do not overlap:
    ``(characters - 1) // context`` samples, 7,842 for the 1,003,854 training characters.

    Args:
        layers: transformer blocks.
        width: features of each token; a multiple of ``heads``.
        context: tokens of a window, which is one sample.
        heads: of attention in each block.
        data: a text file, or a folder with exactly one ``.txt``; None makes synthetic text.

    Raises:
        WorkloadError: ``width`` is not a multiple of ``heads``, or the text is too short.
    """
    _require_positive(layers=layers, width=width, context=context, heads=heads)
    if width % heads:
        raise WorkloadError(f"width must be a multiple of heads, but got {width} and {heads}")
    (train, evaluation), vocabulary = _text(data, context)
    model = CharGpt(
        vocabulary=vocabulary,
        context=context,
        layers=layers,
        width=width,
        heads=heads,
        dropout=_GPT_DROPOUT,
    )
    return Workload(
        model=model,
        train_data=train,
        eval_data=evaluation,
        optimizer=torch.optim.AdamW(model.parameters()),
        loss=token_cross_entropy,
        batch_size=32,
        data_source=_source(data),
    )


def digits_mlp(width: int = 128, depth: int = 2, *, data: str | None = None) -> Workload:
    """Real handwritten digits in a network that learns them to 97 % in seconds.

    Args:
        width: neurons of each hidden layer.
        depth: hidden layers.
        data: None alone is allowed; the digits come with scikit-learn.

    Raises:
        WorkloadError: ``data`` was given; this workload brings its own.
    """
    _require_positive(width=width, depth=depth)
    if data is not None:
        raise WorkloadError(f"digits-mlp brings its own data, but got data={data!r}: leave it out")
    model = Mlp(8 * 8, width, depth, classes=10)
    return Workload(
        model=model,
        train_data=StoredSamples(*local.load_digits(train=True)),
        eval_data=StoredSamples(*local.load_digits(train=False)),
        optimizer=torch.optim.Adam(model.parameters()),
        loss=functional.cross_entropy,
        batch_size=32,
        data_source="scikit-learn digits (real)",
    )


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all tokens; logits (B, T, V), targets (B, T)."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _images(
    name: str,
    folder: str | None,
    read: _Reader,
    train_transform: Transform,
    eval_transform: Transform,
) -> _Split:
    if folder is None:
        spec = find(name)
        return (
            SyntheticImages(spec, transform=train_transform),
            SyntheticImages(spec, transform=eval_transform, train=False),
        )
    return (
        StoredSamples(*read(folder, train=True), transform=train_transform),
        StoredSamples(*read(folder, train=False), transform=eval_transform),
    )


def _text(folder: str | None, context: int) -> tuple[_Split, int]:
    if folder is None:
        spec = find("tiny Shakespeare")
        train = SyntheticTokens(spec.samples, spec.classes, context)
        evaluation = SyntheticTokens(spec.eval_samples, spec.classes, context, train=False)
        return (train, evaluation), spec.classes
    tokens, vocabulary = local.encode(local.read_text(folder))
    cut = int(_TRAIN_SHARE * len(tokens))
    split = TokenWindows(tokens[:cut], context), TokenWindows(tokens[cut:], context)
    return split, len(vocabulary)


def _source(folder: str | None) -> str:
    return SYNTHETIC if folder is None else f"local files in {folder}"


def _require_positive(**knobs: object) -> None:
    for name, value in knobs.items():
        if not (is_integer(value) and value >= 1):
            raise WorkloadError(f"{name} must be a whole number of at least 1, but got {value!r}")


BUILTIN: Mapping[str, Callable[..., Workload]] = MappingProxyType(
    {
        "mnist-mlp": mnist_mlp,
        "cifar10-cnn": cifar10_cnn,
        "cifar10-resnet": cifar10_resnet,
        "char-gpt": char_gpt,
        "digits-mlp": digits_mlp,
    }
)


def descriptions() -> list[dict[str, Any]]:
    """Name, description and knobs of each built-in workload."""
    return [
        {
            "name": name,
            "description": (function.__doc__ or "").strip().splitlines()[0],
            "knobs": dict(knobs_of(function)[0]),
        }
        for name, function in BUILTIN.items()
    ]
