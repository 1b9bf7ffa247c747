"""The built-in workloads, by the names of the command line: ``epochcast probe mnist-mlp``.

    mnist-mlp      60,000 images 28×28     784 → 512 → 10, RMSprop, batches of 128
    cifar10-cnn    50,000 images 32×32     resized to 224×224 by the loader; one convolution, Adam
    cifar10-resnet 50,000 images 32×32     ResNet-20 of He et al. 2015, SGD, batches of 128
    char-gpt       1,115,394 characters    a GPT of 4 layers, AdamW, batches of 32 windows
    digits-mlp     1,437 images 8×8        real data (scikit-learn's digits), 64 → 128 → 128 → 10

Keyword arguments are the knobs of ``--set``, except ``data``: a folder (``--data``) with a copy of
the data set. Without one the data is synthetic: equal in number, shape and type, so the cost is
the same, but there is nothing to learn in it.

Their models are below, small enough to read:

    Mlp            depth ≥ 1 hidden ReLU layers of one width
    OneConvNet     conv 3×3 → ReLU → linear
    CifarResNet    He et al. 2015, arXiv:1512.03385, section 4.2: 6n + 2 layers, 0.27 M for n = 3
    CharGpt        decoder-only transformer with pre-normalisation (Radford et al. 2019)

Shapes: B batch, C channels, T context (tokens), W width (features), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from epochcast.datasets import local, transforms
from epochcast.datasets.catalogue import find
from epochcast.datasets.samples import (
    StoredSamples,
    SyntheticImages,
    SyntheticTokens,
    TokenWindows,
    Transform,
)
from epochcast.errors import WorkloadError
from epochcast.profiler.workload import Workload, knobs_of
from epochcast.records.validation import is_integer

SYNTHETIC = "synthetic"

_Reader = Callable[..., tuple[NDArray[Any], NDArray[Any]]]
_Split = tuple[Dataset[Any], Dataset[Any]]  # to train on, to evaluate on

_GPT_INIT_STD = 0.02  # Radford et al. 2018, "Improving language understanding", section 4.1
_GPT_EXPANSION = 4  # feed-forward width over model width: Vaswani et al. 2017, section 3.3
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


# -- models ---------------------------------------------------------------------------------------


class Mlp(nn.Sequential):
    """(B, inputs) → (B, classes), through ``depth`` hidden ReLU layers of ``width``."""

    def __init__(self, inputs: int, width: int, depth: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for fan_in in (inputs, *[width] * (depth - 1)):
            layers += [nn.Linear(fan_in, width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(width, classes))


class OneConvNet(nn.Sequential):
    """(B, 3, size, size) → (B, classes), through one 3×3 convolution to ``width`` channels."""

    def __init__(self, width: int, size: int, classes: int) -> None:
        super().__init__(
            # Unpadded, 224 × 224 would become 222 × 222 and not fit the linear layer.
            nn.Conv2d(3, width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * size * size, classes),
        )


class _ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; halves the image where it doubles the channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if channels == width else 2
        self.extra = width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        # Option A of the paper: subsample, and zeros for the new channels; no parameters.
        if self.stride == 1:
            return x
        halved = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(halved, (0, 0, 0, 0, 0, self.extra))


class CifarResNet(nn.Module):
    """(B, 3, H, W) → (B, classes): three stages of ``blocks`` blocks, of 1, 2 and 4 × ``width``."""

    def __init__(self, blocks: int, width: int, classes: int) -> None:
        super().__init__()
        widths = [stage * width for stage in (1, 2, 4) for _ in range(blocks)]
        pairs = zip([width, *widths], widths, strict=False)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(_ResidualBlock(before, after) for before, after in pairs))
        self.head = nn.Linear(4 * width, classes)
        self.apply(_he_init)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem(images))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class _Attention(nn.Module):
    """Causal self-attention, (B, T, W) → (B, T, W)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        heads = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, T, W / heads)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True
        )
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return projected


class _GptBlock(nn.Module):
    """Attention, then a feed-forward network, each around a residual: (B, T, W) → (B, T, W)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, _GPT_EXPANSION * width),
            nn.GELU(),
            nn.Linear(_GPT_EXPANSION * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        mixed: Tensor = x + self.dropout(self.feed(self.norm2(x)))
        return mixed


class CharGpt(nn.Module):
    """(B, T) tokens → (B, T, V) logits; the output layer shares the token embedding's weight."""

    def __init__(
        self, *, vocabulary: int, context: int, layers: int, width: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(_GptBlock(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.apply(_gpt_init)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(positions))
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight)


def _he_init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):  # He et al. 2015, arXiv:1502.01852
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _gpt_init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_GPT_INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
