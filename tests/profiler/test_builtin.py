"""The built-in workloads: what they train, by closed forms; that they train; what they refuse."""

import gzip
import struct
from inspect import Parameter, signature

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from epochcast.errors import WorkloadError
from epochcast.profiler.builtin import BUILTIN, CharGpt, CifarResNet, Mlp, OneConvNet

TINY = {
    "mnist-mlp": {"width": 8, "depth": 2},
    "cifar10-cnn": {"width": 2, "image_size": 12},
    "cifar10-resnet": {"depth": 8, "width": 4},
    "char-gpt": {"layers": 1, "width": 8, "context": 16, "heads": 2},
    "digits-mlp": {"width": 8, "depth": 1},
}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def first_batch(data, size=4):
    return next(iter(DataLoader(data, size)))


def accuracy(model, data):
    inputs, targets = first_batch(data, len(data))
    return float((model(inputs).argmax(dim=1) == targets).double().mean())


@pytest.mark.parametrize("name", BUILTIN)
def test_one_real_step(name):
    torch.manual_seed(0)
    work = BUILTIN[name](**TINY[name])
    before = [p.clone() for p in work.model.parameters()]
    inputs, targets = first_batch(work.train_data)
    loss = work.loss(work.model(inputs), targets)
    loss.backward()
    work.optimizer.step()
    assert loss.ndim == 0
    assert bool(torch.isfinite(loss))
    assert all(p.grad is not None for p in work.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, work.model.parameters(), strict=True))


@pytest.mark.parametrize("name", BUILTIN)
def test_evaluation_batches_look_like_training_batches(name):
    work = BUILTIN[name](**TINY[name])
    train, evaluation = first_batch(work.train_data), first_batch(work.eval_data)
    for a, b in zip(train, evaluation, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.parametrize("name", BUILTIN)
def test_knobs_are_plain_values_and_data_is_no_knob(name):
    for parameter in signature(BUILTIN[name]).parameters.values():
        if parameter.name == "data":
            assert parameter.default is None
            assert parameter.kind is Parameter.KEYWORD_ONLY
        else:
            assert type(parameter.default) is int


@pytest.mark.parametrize(
    ("name", "samples", "eval_samples", "batch_size", "optimizer", "source"),
    [
        ("mnist-mlp", 60_000, 10_000, 128, torch.optim.RMSprop, "synthetic"),
        ("cifar10-cnn", 50_000, 10_000, 32, torch.optim.Adam, "synthetic"),
        ("cifar10-resnet", 50_000, 10_000, 128, torch.optim.SGD, "synthetic"),
        ("char-gpt", 1_003_853 // 16, 111_539 // 16, 32, torch.optim.AdamW, "synthetic"),
        ("digits-mlp", 1_437, 360, 32, torch.optim.Adam, "scikit-learn digits (real)"),
    ],
)
def test_what_is_trained(name, samples, eval_samples, batch_size, optimizer, source):
    work = BUILTIN[name](**TINY[name])
    assert (len(work.train_data), len(work.eval_data)) == (samples, eval_samples)
    assert work.batch_size == batch_size
    assert type(work.optimizer) is optimizer
    assert work.data_source == source
    assert not work.loader_options


@pytest.mark.parametrize(("width", "depth"), [(512, 1), (8, 1), (8, 3)])
def test_mlp_parameters(width, depth):
    hidden = (depth - 1) * (width * width + width)
    expected = (784 * width + width) + hidden + (width * 10 + 10)
    assert parameters(Mlp(784, width, depth, 10)) == expected


@pytest.mark.parametrize(("width", "size"), [(32, 32), (3, 7)])
def test_one_conv_net_parameters(width, size):
    expected = (3 * 9 * width + width) + (width * size * size * 10 + 10)
    assert parameters(OneConvNet(width, size, 10)) == expected


@pytest.mark.parametrize(("blocks", "width"), [(1, 4), (3, 16), (2, 8)])
def test_resnet_parameters(blocks, width):
    n, w = blocks, width
    stem = 9 * 3 * w
    stages = 9 * w**2 * (2 * n + (2 + 4 * (2 * n - 1)) + (8 + 16 * (2 * n - 1)))
    norms = 2 * w * (1 + 2 * n * (1 + 2 + 4))
    assert parameters(CifarResNet(n, w, 10)) == stem + stages + norms + (4 * w * 10 + 10)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_resnet_parameters_of_the_paper(depth, millions):
    """He et al. 2015, table 6."""
    count = parameters(CifarResNet((depth - 2) // 6, 16, 10))
    digits = 1 if depth == 110 else 2
    assert round(count / 1e6, digits) == millions


def test_resnet_20_exactly():
    assert parameters(CifarResNet(3, 16, 10)) == 269_722


def test_resnet_has_the_layers_of_its_name_and_pools_8_by_8_features():
    model = CifarResNet(3, 16, 10)
    weights = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weights) == 20
    features = model.blocks(model.stem(torch.zeros(2, 3, 32, 32)))
    assert features.shape == (2, 64, 8, 8)


@pytest.mark.parametrize(("layers", "width", "context"), [(1, 8, 16), (4, 128, 128)])
def test_gpt_parameters(layers, width, context):
    w = width
    block = (4 * w * w + 4 * w) + (8 * w * w + 5 * w) + 4 * w  # attention, feed-forward, two norms
    expected = 65 * w + context * w + layers * block + 2 * w  # the output shares the embedding
    model = CharGpt(vocabulary=65, context=context, layers=layers, width=w, heads=2, dropout=0.1)
    assert parameters(model) == expected


def test_gpt_sees_no_future_token():
    torch.manual_seed(0)
    model = CharGpt(vocabulary=11, context=8, layers=2, width=8, heads=2, dropout=0.1).eval()
    tokens = torch.randint(0, 11, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 11
    same = torch.isclose(model(tokens), model(changed), atol=1e-6).all(dim=-1)[0]
    assert same[:5].all()
    assert not same[5:].any()


def test_gpt_attention_by_its_definition():
    """softmax(QKᵀ / √d) V with future tokens masked: Vaswani et al. 2017, section 3.2."""
    torch.manual_seed(0)
    layer = CharGpt(vocabulary=5, context=6, layers=1, width=8, heads=2, dropout=0.0).blocks[0]
    x = torch.randn(3, 6, 8)
    query, key, value = layer.attention.qkv(x).split(8, dim=-1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 2
        scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(dim=-1) @ value[..., part])
    expected = layer.attention.out(torch.cat(heads, dim=-1))
    torch.testing.assert_close(layer.attention(x), expected)


def test_an_untrained_gpt_is_about_as_good_as_guessing():
    torch.manual_seed(0)
    work = BUILTIN["char-gpt"](**TINY["char-gpt"])
    inputs, targets = first_batch(work.train_data, 64)
    assert work.loss(work.model(inputs), targets).item() == pytest.approx(np.log(65), rel=0.02)


def test_digits_are_learned():
    torch.manual_seed(0)
    work = BUILTIN["digits-mlp"]()
    for _ in range(20):
        for inputs, targets in DataLoader(work.train_data, work.batch_size, shuffle=True):
            work.loss(work.model(inputs), targets).backward()
            work.optimizer.step()
            work.optimizer.zero_grad()
    assert accuracy(work.model, work.eval_data) > 0.95


def test_mnist_from_local_files(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    labels = np.arange(6, dtype=np.uint8)
    for prefix in ("train", "t10k"):
        for kind, array in (("images", images), ("labels", labels)):
            header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            file = tmp_path / f"{prefix}-{kind}-idx{array.ndim}-ubyte.gz"
            file.write_bytes(gzip.compress(header + array.tobytes()))
    work = BUILTIN["mnist-mlp"](data=str(tmp_path))
    assert work.data_source == f"local files in {tmp_path}"
    inputs, label = work.train_data[4]
    assert label == 4
    assert torch.equal(inputs, torch.from_numpy(images[4]).flatten() / 255)


@pytest.mark.parametrize("name", ["cifar10-cnn", "cifar10-resnet"])
def test_cifar_from_local_files(tmp_path, name):
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for label, file in enumerate(names):
        (tmp_path / f"{file}.bin").write_bytes(bytes([label]) + bytes(3072))
    work = BUILTIN[name](**TINY[name], data=str(tmp_path))
    assert [label for _, label in work.train_data] == [0, 1, 2, 3, 4]
    inputs, targets = first_batch(work.eval_data, 1)
    assert targets.tolist() == [5]
    assert work.model(inputs).shape == (1, 10)


def test_text_from_a_local_file(tmp_path):
    (tmp_path / "input.txt").write_text("to be or not to be, " * 50)  # 1,000 characters
    work = BUILTIN["char-gpt"](**TINY["char-gpt"], data=str(tmp_path))
    assert len(work.train_data) == (900 - 1) // 16
    assert len(work.eval_data) == (100 - 1) // 16
    inputs, targets = work.train_data[0]
    assert torch.equal(inputs[1:], targets[:-1])
    assert work.model(inputs[None]).shape == (1, 16, len(set("to be or not to be, ")))


def test_the_cnn_resizes_and_normalizes():
    work = BUILTIN["cifar10-cnn"](**TINY["cifar10-cnn"])
    raw, _ = type(work.eval_data)(_cifar(), train=False)[0]
    resized = functional.interpolate(
        raw[None].float(), size=(12, 12), mode="bilinear", antialias=True
    )[0]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = (resized / 255 - mean) / std
    torch.testing.assert_close(work.eval_data[0][0], expected, rtol=0, atol=2 / 255 / 0.224)


def _cifar():
    from epochcast.datasets.catalogue import find

    return find("CIFAR-10")


@pytest.mark.parametrize("depth", [2, 7, 19, 21, 1])
def test_resnet_depths_that_do_not_exist(depth):
    with pytest.raises(WorkloadError, match=f"6n \\+ 2 layers, but got depth={depth}"):
        BUILTIN["cifar10-resnet"](depth=depth)


def test_the_cnn_needs_images_of_at_least_2_pixels():
    with pytest.raises(WorkloadError, match="image_size must be at least 2, but got 1"):
        BUILTIN["cifar10-cnn"](image_size=1)


def test_width_must_be_a_multiple_of_heads():
    with pytest.raises(WorkloadError, match="width must be a multiple of heads, but got 128 and 3"):
        BUILTIN["char-gpt"](heads=3)


def test_a_text_shorter_than_the_context(tmp_path):
    (tmp_path / "input.txt").write_text("x" * 300)
    with pytest.raises(WorkloadError, match="has 30 tokens, but a context of 128"):
        BUILTIN["char-gpt"](data=str(tmp_path))


def test_digits_take_no_data():
    with pytest.raises(WorkloadError, match="digits-mlp brings its own data"):
        BUILTIN["digits-mlp"](data="somewhere")


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize("value", [0, -1, 1.5, "wide", True])
def test_knobs_must_be_positive_whole_numbers(name, value):
    with pytest.raises(WorkloadError, match="must be a whole number of at least 1, but got"):
        BUILTIN[name](width=value)
