"""The network that a board tests itself with: small, quantized as TensorRT wants it, and computed here by numpy alone.

Images 3×8×8 in [0, 1] → S8 → convolution 3×3 → ReLU → S8 → convolution 3×3, added to what it began with → ReLU → S8 →
mean over the image → S8 → 10 logits. Weights are S8 per output channel, biases float, zero points 0. All of it follows
from formulas, so that neither side copies from the other; `network.onnx` beside this file is the same network,
written by `export/reference_network.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FILE = "network.onnx"
INPUT_SHAPE, WIDTH, CLASSES = (3, 8, 8), 8, 10
IMAGES = 16
#: Of the largest logit: how far a runtime may be off, where a rounding may go the other way in each layer.
TOLERANCE = 0.03

Array = npt.NDArray[Any]

SCALES: Mapping[str, float] = {"image": 1 / 127, "first": 1 / 32, "second": 1 / 16, "mean": 1 / 64}


def weights(name: str) -> tuple[Array, Array, Array]:
    """`first`, `second` or `last`: int8 weights (K,C,3,3) or (K,C), float32 scales (K,), float32 biases (K,)."""
    shape = {"first": (WIDTH, 3, 3, 3), "second": (WIDTH, WIDTH, 3, 3), "last": (CLASSES, WIDTH)}[name]
    start = {"first": 11, "second": 5, "last": 8}[name]
    count = int(np.prod(shape))
    spread = (np.arange(count, dtype=np.int64) * 7919 + start) % 127 - 63  # 7919 is prime: no row like another
    scale = (1 + np.arange(shape[0]) % 3).astype(np.float32) / np.float32(32 if name == "last" else 256)
    bias = ((np.arange(shape[0]) * 5 % 7) - 3).astype(np.float32) / np.float32(16)
    return spread.reshape(shape).astype(np.int8), scale, bias


def images(count: int = IMAGES) -> Array:
    """uint8 (count,3,8,8), each with brightness and stripes of its own."""
    n, c, i, j = np.ogrid[:count, :3, :8, :8]
    level = (n * 67 + c * (41 + 29 * n)) % 192
    stripes = (i * (n % 5) + j * (n % 3 + c)) * 16 % 64
    return (level + stripes).astype(np.uint8)


def logits(x: Array) -> Array:
    """Of uint8 images (N,3,8,8): float64 (N,10), every quantization as ONNX defines it, halves to even."""
    image = _on_grid(x / 255, "image")
    first = _on_grid(np.maximum(_convolution(image, "first"), 0), "first")
    second = _on_grid(np.maximum(_convolution(first, "second") + first, 0), "second")
    mean = _on_grid(second.mean((2, 3)), "mean")
    kernel, scale, bias = weights("last")
    return np.asarray(mean @ (kernel * scale[:, None].astype(np.float64)).T + bias)


def _on_grid(x: Array, name: str) -> Array:
    return np.asarray(np.clip(np.rint(x / SCALES[name]), -128, 127) * SCALES[name])


def _convolution(x: Array, name: str) -> Array:
    """3×3, one zero around the image."""
    kernel, scale, bias = weights(name)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))  # (N,C,8,8,3,3)
    full = kernel.astype(np.float64) * scale[:, None, None, None]
    return np.asarray(np.einsum("nchwij,kcij->nkhw", windows, full) + bias[:, None, None])
