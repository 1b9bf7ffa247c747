"""Image transforms against written-out references, and the digits that come with scikit-learn."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochcast.datasets import local, transforms

SIZES = st.integers(1, 60)
CROP = transforms.RandomResizedCrop(16)


def image(height=32, width=32, channels=3):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=generator)


ALL = [
    transforms.Resize(16),
    CROP,
    transforms.PadCropFlip(),
    transforms.to_float,
    transforms.flatten,
    transforms.Compose((transforms.to_float, transforms.Normalize((0.5,) * 3, (0.5,) * 3))),
]


@pytest.mark.parametrize("transform", ALL)
def test_transforms_leave_their_input_alone_and_survive_pickling(transform):
    before = image()
    given_ = before.clone()
    torch.manual_seed(0)
    result = transform(given_)
    torch.manual_seed(0)
    again = pickle.loads(pickle.dumps(transform))(given_)
    assert torch.equal(given_, before)
    assert torch.equal(result, again)


@given(SIZES, SIZES, st.integers(0, 2**32))
def test_a_crop_lies_inside_and_keeps_to_its_ranges(height, width, seed):
    torch.manual_seed(seed)
    top, left, part_height, part_width = CROP.box(height, width)
    assert 0 <= top <= top + part_height <= height
    assert 0 <= left <= left + part_width <= width
    assert part_height > 0
    assert part_width > 0
    if (part_height, part_width) == CROP.central_box(height, width)[2:]:
        return
    # Rounding moves each side by at most half a pixel.
    low, high = transforms.CROP_RATIO
    assert (part_width + 0.5) / max(part_height - 0.5, 0.1) >= low
    assert (part_width - 0.5) / (part_height + 0.5) <= high
    assert (part_width + 0.5) * (part_height + 0.5) >= 0.08 * height * width


def test_the_crop_draws_area_and_ratio_as_documented():
    """Shares of the area average (0.08 + 1) / 2 before the attempts that do not fit are dropped."""
    torch.manual_seed(0)
    boxes = [transforms.RandomResizedCrop(8, scale=(0.1, 0.5)).box(500, 500) for _ in range(500)]
    areas = [h * w / 500**2 for _, _, h, w in boxes]
    logs = [math.log(w / h) for _, _, h, w in boxes]
    assert sum(areas) / 500 == pytest.approx(0.3, abs=5 * 0.4 / math.sqrt(12 * 500))
    assert sum(logs) / 500 == pytest.approx(0, abs=5 * math.log(16 / 9) / math.sqrt(12 * 500))


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (100, 100, (0, 0, 100, 100)),
        (100, 10, (43, 0, 13, 10)),  # ratio 1/10 < 3/4: height 10 / (3/4) = 13
        (10, 100, (0, 43, 10, 13)),  # ratio 10 > 4/3: width 10 · 4/3 = 13
    ],
)
def test_the_fallback_is_the_central_crop(height, width, box):
    assert CROP.central_box(height, width) == box


@pytest.mark.parametrize(("height", "width"), [(1000, 1), (1, 1000)])
def test_an_image_that_no_attempt_fits_gets_the_central_crop(height, width):
    assert CROP.box(height, width) == CROP.central_box(height, width)


@given(SIZES, SIZES, st.integers(2, 40))
def test_resizing_keeps_type_channels_and_constants(height, width, size):
    constant = torch.full((3, height, width), 137, dtype=torch.uint8)
    result = transforms.Resize(size)(constant)
    assert result.dtype == torch.uint8
    assert result.shape == (3, size, size)
    assert int((result.int() - 137).abs().max()) <= 1  # fixed-point arithmetic


def test_resizing_to_the_same_size_changes_nothing():
    assert torch.equal(transforms.Resize(32)(image()), image())


def test_halving_averages_with_the_antialiased_triangle():
    """Weights of the triangle filter at scale 2, inside the image: 1/8, 3/8, 3/8, 1/8."""
    row = torch.tensor([0.0, 8, 16, 40, 24, 0, 0, 0])
    got = transforms.Resize(4)(row.expand(1, 8, 8).clone())[0, 1]
    assert got[1] == pytest.approx((8 + 3 * 16 + 3 * 40 + 24) / 8)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12), st.integers(0, 4))
def test_pad_crop_flip_shows_a_window_of_the_padded_image(seed, height, width, pad):
    original = image(height, width)
    torch.manual_seed(seed)
    result = transforms.PadCropFlip(pad)(original)
    padded = np.pad(original.numpy(), ((0, 0), (pad, pad), (pad, pad)))
    windows = [
        padded[:, top : top + height, left : left + width]
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
    ]
    candidates = [*windows, *(window[:, :, ::-1] for window in windows)]
    assert any(np.array_equal(result.numpy(), candidate) for candidate in candidates)


def test_flips_are_even_and_offsets_reach_both_ends():
    marked = torch.zeros(1, 1, 2)
    marked[..., 0] = 1
    torch.manual_seed(0)
    left = sum(int(transforms.PadCropFlip(0)(marked)[0, 0, 0]) for _ in range(400))
    assert abs(left - 200) < 5 * math.sqrt(400 / 4)
    corners = torch.arange(1.0, 10).view(1, 3, 3)
    shown = {transforms.PadCropFlip(1)(corners).flatten()[4].item() for _ in range(300)}
    assert shown == set(range(1, 10))  # the middle of the result, over all 3 × 3 offsets


def test_to_float_and_normalize_by_formula():
    mean, std = transforms.IMAGENET_MEAN, transforms.IMAGENET_STD
    result = transforms.Compose((transforms.to_float, transforms.Normalize(mean, std)))(image())
    channels = [(image()[c].double() / 255 - mean[c]) / std[c] for c in range(3)]
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), torch.stack(channels), rtol=0, atol=1e-5)


def test_digits_are_split_once_and_completely():
    from sklearn.datasets import load_digits

    train, eval_ = local.load_digits(train=True), local.load_digits(train=False)
    assert train[0].shape == (1437, 64)
    assert eval_[0].shape == (360, 64)
    assert train[0].dtype == np.float32
    assert train[1].dtype == np.int64
    assert float(train[0].min()) == 0
    assert float(train[0].max()) == 1
    both = np.concatenate([train[0], eval_[0]])
    assert np.array_equal(
        np.unique(both, axis=0), np.unique(load_digits().data.astype(np.float32) / 16, axis=0)
    )
    assert np.array_equal(local.load_digits(train=False)[1], eval_[1])
    assert set(eval_[1].tolist()) == set(range(10))
