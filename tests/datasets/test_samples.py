"""Synthetic data: item i depends on (seed, split, i) alone, and looks like the real thing."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from epochcast.datasets.catalogue import find
from epochcast.datasets.samples import SyntheticImages, SyntheticTokens
from epochcast.errors import WorkloadError

SEEDS = st.integers(0, 2**64 - 1)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
)


def images(samples=32, **options):
    return SyntheticImages(find("MNIST"), samples, **options)


def tokens(**options):
    return SyntheticTokens(**{"tokens": 1000, "vocabulary": 65, "context": 16} | options)


def same(a, b):
    return all(
        torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(a, b, strict=True)
    )


@given(SEEDS, SHAPES, st.integers(1, 1000), st.integers(0, 9))
def test_images_have_the_shape_type_and_range_of_the_data_set(seed, shape, classes, index):
    spec = replace(find("CIFAR-10"), shape=shape, classes=classes)
    image, label = SyntheticImages(spec, samples=10, seed=seed)[index]
    assert image.dtype == torch.uint8
    assert image.shape == (shape if len(shape) == 3 else (1, *shape))
    assert type(label) is int
    assert 0 <= label < classes


@given(SEEDS, st.integers(1, 2**24), st.integers(1, 40), st.data())
def test_windows_have_the_shape_type_and_range_of_the_text(seed, vocabulary, context, data):
    text = SyntheticTokens(1000, vocabulary, context, seed)
    inputs, targets = text[data.draw(st.integers(0, len(text) - 1))]
    assert inputs.shape == targets.shape == (context,)
    assert inputs.dtype == targets.dtype == torch.int64
    assert int(inputs.min()) >= 0
    assert int(targets.max()) < vocabulary


@pytest.mark.parametrize("build", [images, tokens])
@given(order=st.permutations(range(32)), seed=SEEDS)
def test_items_do_not_depend_on_the_order_of_access(build, order, seed):
    data, other = build(seed=seed), build(seed=seed)
    shuffled = {i: data[i] for i in order}
    assert all(same(shuffled[i], other[i]) for i in range(32))


@pytest.mark.parametrize("build", [images, tokens])
def test_items_do_not_depend_on_global_random_state_and_leave_it_alone(build):
    before = build()[7]
    torch.manual_seed(1)
    np.random.seed(1)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert same(before, build()[7])
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


@pytest.mark.parametrize("build", [images, tokens])
def test_items_do_not_depend_on_the_number_of_workers(build):
    alone = list(DataLoader(build(), batch_size=8))
    shared = list(DataLoader(build(), batch_size=8, num_workers=2))
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


@pytest.mark.parametrize("build", [images, tokens])
def test_a_pickled_copy_gives_the_same_items(build):
    data = build(seed=3)
    copy = pickle.loads(pickle.dumps(data))
    assert len(copy) == len(data)
    assert same(copy[5], data[5])


@pytest.mark.parametrize("build", [images, tokens])
def test_seeds_splits_and_indices_give_different_items(build):
    variants = [build()[0], build()[1], build(seed=1)[0], build(train=False)[0]]
    for i, a in enumerate(variants):
        assert not any(torch.equal(a[0], b[0]) for b in variants[:i])


def test_the_stream_is_the_same_on_every_machine_and_for_ever():
    image, label = images()[0]
    assert (image.flatten()[:6].tolist(), label) == ([177, 255, 62, 4, 193, 150], 3)
    assert tokens()[0][0][:6].tolist() == [14, 38, 1, 32, 14, 0]


def test_pixels_and_labels_are_uniform():
    data = images(400)
    pixels = torch.stack([image for image, _ in data]).flatten()
    counts = torch.bincount(pixels, minlength=256).double()
    expected = len(pixels) / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 255 - 5 * 510**0.5 < chi_square < 255 + 5 * 510**0.5  # mean k, variance 2k
    assert {label for _, label in data} == set(range(10))


def test_lengths_follow_the_data_set_unless_given():
    spec = find("CIFAR-10")
    assert len(SyntheticImages(spec)) == 50_000
    assert len(SyntheticImages(spec, train=False)) == 10_000
    assert len(SyntheticImages(spec, samples=7)) == 7


def test_a_transform_sees_the_image_and_makes_the_item():
    image, label = images(transform=lambda x: x.float() + 1)[3]
    plain, plain_label = images()[3]
    assert torch.equal(image, plain.float() + 1)
    assert label == plain_label


@pytest.mark.parametrize("build", [images, tokens])
@pytest.mark.parametrize("index", [-1, 10**6])
def test_an_index_outside_is_an_index_error(build, index):
    with pytest.raises(IndexError):
        build()[index]


@given(st.integers(2, 500), st.integers(1, 100))
def test_windows_tile_one_text(length, context):
    if length <= context:
        with pytest.raises(WorkloadError, match=f"needs at least {context + 1}"):
            SyntheticTokens(length, 65, context)
        return
    windows = list(SyntheticTokens(length, 65, context))
    assert len(windows) == (length - 1) // context
    text = torch.cat([inputs for inputs, _ in windows])
    following = torch.cat([targets for _, targets in windows])
    assert torch.equal(text[1:], following[:-1])


def test_nothing_of_the_size_of_the_data_set_is_allocated():
    data = SyntheticImages(find("CIFAR-10"), samples=2**50)
    assert same(data[2**50 - 1], data[2**50 - 1])
    assert len(pickle.dumps(data)) < 1000
    assert len(SyntheticTokens(2**50, 50_257, 1024)[2**39][0]) == 1024


@pytest.mark.parametrize("name", ["ImageNet-1k", "CelebA", "Iris", "LibriSpeech 960h"])
def test_what_is_no_labelled_image_of_one_size_is_refused(name):
    with pytest.raises(WorkloadError, match="labelled uint8 images of one size"):
        SyntheticImages(find(name))


def test_impossible_sizes_are_refused():
    with pytest.raises(WorkloadError, match="at least 1 sample, but got 0"):
        images(0)
    with pytest.raises(WorkloadError, match="vocabulary must be in"):
        tokens(vocabulary=0)
    with pytest.raises(WorkloadError, match="context must be at least 1, but got 0"):
        tokens(context=0)
