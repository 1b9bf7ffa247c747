"""Readers for data sets on this machine: copies on disk (``--data DIR``), scikit-learn's digits.

MNIST     train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], t10k-… (also ….idx3-…)
          IDX: 00 00 08 d, then d sizes as big-endian uint32, then the bytes
          (LeCun, yann.lecun.com/exdb/mnist)
CIFAR-10  data_batch_1.bin … data_batch_5.bin, test_batch.bin, perhaps in cifar-10-batches-bin/
          records of one label byte and 3 × 32 × 32 pixel bytes, red plane first
          (Krizhevsky, cs.toronto.edu/~kriz/cifar.html, "binary version")
text      one UTF-8 file, or a folder with exactly one .txt
digits    part of scikit-learn: 1,797 images of 8×8, each pixel a count from 0 to 16; the test part
          of "Optical Recognition of Handwritten Digits" (Alpaydin, Kaynak 1998, UCI)

Nothing is ever unpickled.
"""

from __future__ import annotations

import gzip
import math
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from epochcast.errors import WorkloadError

Bytes = NDArray[np.uint8]

_CLASSES = 10  # of MNIST (and its drop-in replacements) and of CIFAR-10
_IDX_BYTE = 0x08  # IDX type code of unsigned bytes
_MNIST_IMAGE = (28, 28)
_CIFAR_IMAGE = (3, 32, 32)
_CIFAR_RECORD = 1 + 3 * 32 * 32
_CIFAR_FOLDER = "cifar-10-batches-bin"
DIGITS_EVAL = 360  # of 1,797: the customary fifth, leaving 1,437 to train on
_DIGITS_MAXIMUM = 16.0  # pixels count the dark ones among 4×4 of the original scan


def read_mnist(folder: str | Path, *, train: bool) -> tuple[Bytes, Bytes]:
    """Images, shape (n, 1, 28, 28), and labels, shape (n,), of one split.

    Raises:
        WorkloadError: a file is missing, damaged, or not what MNIST's files hold.
    """
    root = _folder(folder)
    prefix = "train" if train else "t10k"
    images = read_idx(_find_idx(root, f"{prefix}-images", 3), dimensions=3)
    labels = read_idx(_find_idx(root, f"{prefix}-labels", 1), dimensions=1)
    if images.shape[1:] != _MNIST_IMAGE:
        raise WorkloadError(f"MNIST images are 28×28, but {root} has {images.shape[1:]}")
    if len(images) != len(labels):
        raise WorkloadError(
            f"{root} has {len(images)} {prefix} images but {len(labels)} labels: "
            "both files must come from the same download"
        )
    return images[:, None], _check_labels(labels, root)


def read_cifar10(folder: str | Path, *, train: bool) -> tuple[Bytes, Bytes]:
    """Images, shape (n, 3, 32, 32), and labels, shape (n,), of one split.

    Raises:
        WorkloadError: a file is missing or damaged, or the folder holds the pickled version.
    """
    root = _cifar_folder(_folder(folder))
    numbers = [f"data_batch_{i}.bin" for i in range(1, 6)] if train else ["test_batch.bin"]
    records = np.concatenate([_cifar_records(root / name) for name in numbers])
    labels = _check_labels(records[:, 0].copy(), root)
    return records[:, 1:].reshape(-1, *_CIFAR_IMAGE), labels


def load_digits(*, train: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels in [0, 1], shape (n, 64), and labels 0 … 9, shape (n,); n is 1,437 or 360.

    The split is drawn once, by a generator whose stream numpy promises never to change.
    """
    spec = find_spec("sklearn")  # found, not imported: that takes longer than everything else
    assert spec is not None, "scikit-learn is one of our dependencies"
    file = Path(str(spec.origin)).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, np.int64, delimiter=",")
    order = np.random.RandomState(0).permutation(len(rows))
    chosen = rows[order[DIGITS_EVAL:] if train else order[:DIGITS_EVAL]]
    pixels = (chosen[:, :-1] / _DIGITS_MAXIMUM).astype(np.float32)
    return pixels, chosen[:, -1]


def read_text(path: str | Path) -> str:
    """The text of a file, or of the only ``.txt`` in a folder.

    Raises:
        WorkloadError: there is no such file, or several, or it is empty or not UTF-8.
    """
    file = _text_file(Path(path))
    try:
        text = _read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{file} is not UTF-8 text: {error.reason} at {error.start}") from error
    if not text:
        raise WorkloadError(f"{file} is empty: a text to train on needs characters")
    return text


def encode(text: str) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
    """Every character's position in the vocabulary, shape (characters,), and the vocabulary.

    The vocabulary is the distinct characters in the order of their code points.
    """
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    distinct, tokens = np.unique(points, return_inverse=True)
    return tokens.astype(np.uint32), tuple(chr(point) for point in distinct)


def read_idx(file: Path, *, dimensions: int) -> Bytes:
    """An array of unsigned bytes from an IDX file, plain or compressed (``.gz``).

    Raises:
        WorkloadError: the file cannot be read, or its header and its length do not agree.
    """
    content = _read_bytes(file)
    expected = bytes((0, 0, _IDX_BYTE, dimensions))
    start = len(expected) + 4 * dimensions
    if content[:4] != expected:
        raise WorkloadError(
            f"{file} is no IDX file of bytes in {dimensions} dimensions: it must start with "
            f"{expected.hex(' ')}, but got {content[:4].hex(' ') or 'nothing'}"
        )
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    count = math.prod(shape)
    if len(content) - start != count or count == 0:
        raise WorkloadError(
            f"{file} promises {'×'.join(map(str, shape))} bytes after its header of {start}, "
            f"but has {max(0, len(content) - start)}: download it again"
        )
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=start).reshape(shape)


def _find_idx(root: Path, stem: str, dimensions: int) -> Path:
    names = [f"{stem}{mark}idx{dimensions}-ubyte" for mark in "-."]
    for folder in (root, root / "MNIST" / "raw"):  # torchvision keeps its copy in the latter
        for name in (*names, *(f"{name}.gz" for name in names)):
            if (folder / name).is_file():
                return folder / name
    raise WorkloadError(f"{root} has no {names[0]} (or {names[1]}, or either with .gz)")


def _cifar_folder(root: Path) -> Path:
    for folder in (root, root / _CIFAR_FOLDER):
        if (folder / "data_batch_1.bin").is_file() or (folder / "test_batch.bin").is_file():
            return folder
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "data_batch_1").is_file():
            raise WorkloadError(
                f"{folder} is CIFAR-10's python version, a pickle, which epochcast never loads: "
                "get cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"
            )
    raise WorkloadError(
        f"{root} has no data_batch_1.bin, and no {_CIFAR_FOLDER} with one: unpack "
        "cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html there"
    )


def _cifar_records(file: Path) -> Bytes:
    content = _read_bytes(file)
    if not content or len(content) % _CIFAR_RECORD:
        raise WorkloadError(
            f"{file} must hold whole records of {_CIFAR_RECORD} bytes, but has "
            f"{len(content)} bytes: unpack cifar-10-binary.tar.gz again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, _CIFAR_RECORD)


def _check_labels(labels: Bytes, root: Path) -> Bytes:
    if labels.max() >= _CLASSES:
        raise WorkloadError(
            f"labels must be 0 to {_CLASSES - 1}, but {root} has a label {labels.max()}: "
            "is this another data set?"
        )
    return labels


def _text_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.txt"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:3]) or "none"
        raise WorkloadError(f"{path} must hold exactly one .txt file, but has {names}: name a file")
    return found[0]


def _folder(path: str | Path) -> Path:
    root = Path(path)
    if not root.is_dir():
        raise WorkloadError(f"the data folder {root} does not exist or is no folder")
    return root


def _read_bytes(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if file.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise WorkloadError(f"cannot read {file}: {error}") from error
