"""scikit-learn's digits: 1,797 real handwritten digits of 8×8 pixels with 17 grey levels."""

import numpy as np

from compress.data.dataset import SHARES, Dataset, stratified_split
from edge.core.errors import CompressError


def digits(path: None = None) -> Dataset:
    """The whole dataset, which has no path; its 0…16 levels put on the 8-bit grid (level 16 is 255)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise CompressError("data digits: scikit-learn is not installed; run: pip install scikit-learn") from None
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    return Dataset("digits", images, labels, stratified_split(images, labels, SHARES), tuple("0123456789"))
