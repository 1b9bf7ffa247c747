"""Readers of local copies: round trips through files, and every way in which files are bad."""

import gzip
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochcast.datasets import local
from epochcast.datasets.samples import StoredSamples, TokenWindows
from epochcast.errors import WorkloadError

RNG = np.random.default_rng(0)


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_mnist(folder, images, labels, prefix="train", mark="-", pack=lambda x: x, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}-images{mark}idx3-ubyte{end}").write_bytes(pack(idx(images)))
    (folder / f"{prefix}-labels{mark}idx1-ubyte{end}").write_bytes(pack(idx(labels)))


def mnist_arrays(count=5):
    images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, RNG.integers(0, 10, count, dtype=np.uint8)


def write_cifar(folder, count=3):
    folder.mkdir(parents=True, exist_ok=True)
    records = RNG.integers(0, 256, (6, count, 3073), dtype=np.uint8)
    records[:, :, 0] %= 10
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    for name, batch in zip(names, records, strict=True):
        (folder / name).write_bytes(batch.tobytes())
    return records


def refused(pattern):
    """Expect a WorkloadError of one line."""
    return pytest.raises(WorkloadError, match=rf"^(?!.*\n).*{pattern}")


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize(("pack", "end"), [(bytes, ""), (gzip.compress, ".gz")])
@pytest.mark.parametrize("place", [".", "MNIST/raw"])
def test_mnist_round_trip(tmp_path, train, mark, pack, end, place):
    images, labels = mnist_arrays()
    prefix = "train" if train else "t10k"
    write_mnist(tmp_path / place, images, labels, prefix, mark, pack, end)
    got_images, got_labels = local.read_mnist(tmp_path, train=train)
    assert np.array_equal(got_images, images[:, None])
    assert np.array_equal(got_labels, labels)


@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin"])
def test_cifar_round_trip(tmp_path, place):
    records = write_cifar(tmp_path / place)
    images, labels = local.read_cifar10(tmp_path, train=True)
    assert np.array_equal(labels, records[:5, :, 0].ravel())
    assert np.array_equal(images.reshape(15, -1), records[:5, :, 1:].reshape(15, -1))
    test_images, _ = local.read_cifar10(tmp_path, train=False)
    assert np.array_equal(test_images[0, 2], records[5, 0, 2049:].reshape(32, 32))  # blue, last


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_text_round_trip(text):
    tokens, vocabulary = local.encode(text)
    assert "".join(vocabulary[token] for token in tokens) == text
    assert list(vocabulary) == sorted(set(text))


def test_a_text_is_a_file_or_the_only_one_in_a_folder(tmp_path):
    (tmp_path / "input.txt").write_text("grüße\n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("other")
    assert local.read_text(tmp_path) == local.read_text(tmp_path / "input.txt") == "grüße\n"


def test_mnist_missing(tmp_path):
    with refused("does not exist or is no folder"):
        local.read_mnist(tmp_path / "nowhere", train=True)
    with refused("has no train-images-idx3-ubyte .*gz"):
        local.read_mnist(tmp_path, train=True)
    write_mnist(tmp_path, *mnist_arrays())
    with refused("has no t10k-images-idx3-ubyte"):
        local.read_mnist(tmp_path, train=False)


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (
            lambda content: b"\x00\x00\x0d" + content[3:],
            "must start with 00 00 08 03, but got 00 00",
        ),
        (lambda content: b"<htm" + content[4:], "no IDX file"),
        (lambda content: b"", "but got nothing"),
        (lambda content: content[:6], "promises .* but has 0"),
        (lambda content: content[:-1], "promises 5×28×28 bytes .* but has 3919"),
        (lambda content: content + b"x", "promises 5×28×28 bytes .* but has 3921"),
        (lambda content: content[:4] + b"\x00" * 4 + content[8:16], "promises 0×28×28"),
    ],
)
def test_mnist_damaged(tmp_path, damage, pattern):
    write_mnist(tmp_path, *mnist_arrays())
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with refused(pattern):
        local.read_mnist(tmp_path, train=True)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-9], lambda c: b"no gzip", lambda c: c[:20] + b"?" * 40]
)
def test_mnist_damaged_compression(tmp_path, damage):
    write_mnist(tmp_path, *mnist_arrays(), pack=gzip.compress, end=".gz")
    file = tmp_path / "train-labels-idx1-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with refused("cannot read .*train-labels"):
        local.read_mnist(tmp_path, train=True)


def test_mnist_inconsistent(tmp_path):
    images, labels = mnist_arrays()
    write_mnist(tmp_path / "length", images, labels[:-1])
    with refused("5 train images but 4 labels"):
        local.read_mnist(tmp_path / "length", train=True)
    labels[2] = 10
    write_mnist(tmp_path / "label", images, labels)
    with refused("labels must be 0 to 9, but .* has a label 10"):
        local.read_mnist(tmp_path / "label", train=True)
    write_mnist(tmp_path / "shape", images[:, :27], labels)
    with refused("28×28"):
        local.read_mnist(tmp_path / "shape", train=True)


def test_cifar_missing(tmp_path):
    with refused("has no data_batch_1.bin"):
        local.read_cifar10(tmp_path, train=True)
    write_cifar(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with refused("cannot read .*data_batch_4.bin"):
        local.read_cifar10(tmp_path, train=True)


@pytest.mark.parametrize("place", [".", "cifar-10-batches-py"])
def test_the_pickled_cifar_is_refused_unopened(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "data_batch_1").write_bytes(pickle.dumps({b"data": [], b"labels": []}))
    with refused("python version, a pickle, .* get cifar-10-binary.tar.gz"):
        local.read_cifar10(tmp_path, train=True)


@pytest.mark.parametrize("content", [b"", b"x" * 3072, b"x" * 3074])
def test_cifar_truncated(tmp_path, content):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with refused(f"whole records of 3073 bytes, but has {len(content)}"):
        local.read_cifar10(tmp_path, train=True)


def test_cifar_label_out_of_range(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072))
    with refused("labels must be 0 to 9, but .* has a label 10"):
        local.read_cifar10(tmp_path, train=False)


def test_bad_texts(tmp_path):
    with refused("must hold exactly one .txt file, but has none"):
        local.read_text(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with refused("is not UTF-8 text"):
        local.read_text(tmp_path)
    (tmp_path / "b.txt").write_text("")
    with refused("must hold exactly one .txt file, but has a.txt, b.txt"):
        local.read_text(tmp_path)
    with refused("b.txt is empty"):
        local.read_text(tmp_path / "b.txt")
    with refused("cannot read .*c.txt"):
        local.read_text(tmp_path / "c.txt")


@given(st.integers(1, 60), st.integers(1, 20))
def test_windows_of_a_stored_text(length, context):
    tokens = np.arange(length, dtype=np.uint32)
    if length <= context:
        with refused(
            f"has {length} tokens, but a context of {context} needs at least {context + 1}"
        ):
            TokenWindows(tokens, context)
        return
    windows = list(TokenWindows(tokens, context))
    assert len(windows) == (length - 1) // context
    for i, (inputs, targets) in enumerate(windows):
        assert inputs.dtype == torch.int64
        assert inputs.tolist() == list(range(i * context, (i + 1) * context))
        assert torch.equal(targets, inputs + 1)


def test_stored_samples():
    images, labels = mnist_arrays()
    data = StoredSamples(images[:, None], labels)
    halved = StoredSamples(images[:, None], labels, transform=lambda image: image // 2)
    assert len(data) == 5
    assert data[3][0].shape == (1, 28, 28)
    assert data[3][1] == labels[3]
    assert torch.equal(halved[3][0], data[3][0] // 2)
    assert len(list(data)) == 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary() | st.binary().map(lambda rest: bytes((0, 0, 8, 1)) + rest),
    packed=st.booleans(),
    cut=st.integers(0, 30),
)
def test_any_file_is_read_or_refused_in_one_line(tmp_path, content, packed, cut):
    file = tmp_path / f"train-labels-idx1-ubyte{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(content)[: -cut or None] if packed else content)
    for read in (lambda: local.read_idx(file, dimensions=1), lambda: local.read_text(file)):
        try:
            message = "" if len(read()) else "\n"
        except WorkloadError as error:
            message = str(error)
        assert "\n" not in message
