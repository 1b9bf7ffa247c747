"""Real data that needs no download: scikit-learn's 1,797 handwritten digits.

They are the test part of the UCI data set "Optical Recognition of Handwritten Digits" (Alpaydin,
Kaynak 1998): 8×8 images, each pixel a count from 0 to 16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIGITS_EVAL = 360  # of 1,797: the customary fifth, leaving 1,437 to train on
_DIGITS_MAXIMUM = 16.0  # pixels count the dark ones among 4×4 of the original scan


def load_digits(*, train: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels in [0, 1], shape (n, 64), and labels 0 … 9, shape (n,); n is 1,437 or 360.

    The split is drawn once, by a generator whose stream numpy promises never to change.
    """
    from sklearn import datasets  # imported here: it takes longer than everything else

    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    chosen = order[DIGITS_EVAL:] if train else order[:DIGITS_EVAL]
    pixels = (images[chosen] / _DIGITS_MAXIMUM).astype(np.float32)
    return pixels, labels[chosen].astype(np.int64)
