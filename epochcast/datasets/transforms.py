"""The usual image transforms in plain torch: no torchvision, no PIL.

Each is a small callable that takes an image of shape (C, H, W), returns a new tensor, and survives
pickling (for workers started by spawn). Randomness comes from torch's global generator, as in
torchvision, so a loader seeds its workers in the usual way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Channel means and standard deviations of pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # docs.pytorch.org/vision, "Models and pre-trained weights"
IMAGENET_STD = (0.229, 0.224, 0.225)
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)  # over the 50,000 training images
CIFAR10_STD = (0.2470, 0.2435, 0.2616)

CROP_SCALE = (0.08, 1.0)  # share of the area: Szegedy et al. 2014, arXiv:1409.4842, section 6
CROP_RATIO = (3 / 4, 4 / 3)  # width to height: the same place
_CROP_ATTEMPTS = 10  # as torchvision's RandomResizedCrop documents


@dataclass(frozen=True)
class Compose:
    """One transform after the other."""

    steps: tuple[Callable[[Tensor], Tensor], ...]

    def __call__(self, image: Tensor) -> Tensor:
        for step in self.steps:
            image = step(image)
        return image


@dataclass(frozen=True)
class Resize:
    """The whole image at ``size`` × ``size`` pixels, bilinear and antialiased.

    ``size`` is at least 2: at 1, torch 2.13 fails on bytes (INTERNAL ASSERT, AVX kernel).
    """

    size: int

    def __call__(self, image: Tensor) -> Tensor:
        return functional.interpolate(
            image[None],
            size=(self.size, self.size),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )[0]


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image at ``size`` × ``size`` pixels, as torchvision documents it.

    Args:
        size: of the result.
        scale: range of the part's share of the area.
        ratio: range of the part's width to height, drawn uniformly on the log scale.
    """

    size: int
    scale: tuple[float, float] = CROP_SCALE
    ratio: tuple[float, float] = CROP_RATIO

    def __call__(self, image: Tensor) -> Tensor:
        top, left, height, width = self.box(image.shape[-2], image.shape[-1])
        part = image[..., top : top + height, left : left + width]
        return Resize(self.size)(part)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of a random part of an image of that size, in pixels."""
        logs = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(_CROP_ATTEMPTS):
            area = height * width * _uniform(*self.scale)
            ratio = math.exp(_uniform(*logs))
            part = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < part[0] <= height and 0 < part[1] <= width:
                return _below(height - part[0]), _below(width - part[1]), *part
        return self.central_box(height, width)

    def central_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The largest central part whose ratio is allowed: the fallback after ten attempts."""
        if width < self.ratio[0] * height:
            part = round(width / self.ratio[0]), width
        elif width > self.ratio[1] * height:
            part = height, round(height * self.ratio[1])
        else:
            part = height, width
        return (height - part[0]) // 2, (width - part[1]) // 2, *part


@dataclass(frozen=True)
class PadCropFlip:
    """Pad with zeros, crop at random to the old size, mirror with probability one half.

    He et al. 2015, arXiv:1512.03385, section 4.2, with ``pad`` 4 on CIFAR-10.
    """

    pad: int = 4

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        padded = functional.pad(image, [self.pad] * 4)
        top, left = _below(2 * self.pad), _below(2 * self.pad)
        crop = padded[..., top : top + height, left : left + width]
        return crop.flip(-1) if _below(1) else crop


class Normalize:
    """``(image - mean) / std`` by channel, for images of floats."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        return (image - self.mean).div_(self.std)


def to_float(image: Tensor) -> Tensor:
    """Bytes 0 … 255 as floats in [0, 1]."""
    return image / 255  # promotes bytes to torch's default type, float32, in one pass


def flatten(image: Tensor) -> Tensor:
    """All numbers of the image in one dimension."""
    return image.flatten()


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _below(largest: int) -> int:
    """A whole number from 0 to ``largest``, both included."""
    return int(torch.randint(0, largest + 1, ()))
