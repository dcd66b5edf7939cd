"""A NumPy archive: x_train, y_train, x_test, y_test (as Keras keeps them; x_val, y_val too), or images and labels.

With `images` an array `split` of "train", "val", "test" may say where each belongs. An array `classes` names them.
Images are uint8 (N,H,W,C), (N,C,H,W) or (N,H,W), or floats k/255.
"""

from collections.abc import Mapping

import numpy as np

from compress.data.cache import cached_dataset
from compress.data.dataset import SPLITS, Dataset, assemble_dataset
from compress.data.files import existing_path, read_safely
from edge.core.errors import CompressError

KIND = "npz"
CHANNELS = (1, 3)
CHUNK = 1024  # images compared with the grid at once


def npz(path: str) -> Dataset:
    """The dataset of `npz:PATH`."""
    root, where = existing_path(KIND, path), f"{KIND}:{path}"

    def make() -> Dataset:
        with read_safely(where), open(root, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise CompressError(f"{where}: one array, not an archive of several; write it with np.savez")
            arrays = dict(archive)
        return _build(arrays, where)

    return cached_dataset(KIND, "", root, [root], make)


def _build(arrays: Mapping[str, np.ndarray], where: str) -> Dataset:
    official: dict[str, np.ndarray] = {}
    if "images" in arrays and "labels" in arrays:
        images, labels = arrays["images"], arrays["labels"]
        if "split" in arrays:
            official = _named(arrays["split"], len(images), where)
    else:
        missing = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in arrays]
        if missing:
            raise CompressError(
                f"{where}: has {', '.join(arrays) or 'nothing'}, no {missing[0]}; write x_train, y_train, x_test, "
                f"y_test, or images and labels"
            )
        parts = [part for part in SPLITS if f"x_{part}" in arrays and f"y_{part}" in arrays]
        images = _joined([arrays[f"x_{part}"] for part in parts], "x", where)
        labels = _joined([arrays[f"y_{part}"] for part in parts], "y", where)
        ends = np.cumsum([len(arrays[f"x_{part}"]) for part in parts])
        for part, end in zip(parts, ends, strict=True):
            count, numbers = len(arrays[f"x_{part}"]), len(arrays[f"y_{part}"])
            if numbers != count:
                raise CompressError(f"{where}: y_{part} has {numbers} labels for {count} images; give one an image")
            official[part] = np.arange(end - count, end)
    classes = [str(name) for name in arrays["classes"].ravel()] if "classes" in arrays else None
    images = np.ascontiguousarray(channels_first(as_levels(images, where), where))
    return assemble_dataset(KIND, where, images, labels, official, classes)


def as_levels(images: np.ndarray, where: str) -> np.ndarray:
    """uint8 images; floats only when each is exactly k/255 in its own type, so that nothing is rounded."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise CompressError(f"{where}: images are {images.dtype}; save them as uint8, 0…255")
    levels = np.empty(images.shape, np.uint8)
    for begin in range(0, len(images), CHUNK):
        part = images[begin : begin + CHUNK]
        near = np.nan_to_num(part.astype(np.float64) * 255).round().clip(0, 255)
        if not np.array_equal((near / 255).astype(images.dtype), part):
            raise CompressError(
                f"{where}: {images.dtype} images that are not all k/255, k = 0…255 (found {part.min():.6g} to "
                f"{part.max():.6g}); save the original uint8 pixels"
            )
        levels[begin : begin + CHUNK] = near
    return levels


def channels_first(images: np.ndarray, where: str) -> np.ndarray:
    """(N,C,H,W) from that, (N,H,W,C) or (N,H,W), C being 1 or 3; a view, nothing is copied."""
    if images.ndim == 3:
        return images[:, None]
    last, first = images.ndim == 4 and images.shape[3] in CHANNELS, images.ndim == 4 and images.shape[1] in CHANNELS
    if last == first:
        what = "either end could be the channels" if last else "neither (N,H,W,C) nor (N,C,H,W) nor (N,H,W), C = 1 or 3"
        raise CompressError(f"{where}: images of shape {images.shape}: {what}; save them as (N,H,W,C)")
    return images.transpose(0, 3, 1, 2) if last else images


def _joined(arrays: list[np.ndarray], letter: str, where: str) -> np.ndarray:
    if len({(array.shape[1:], array.dtype) for array in arrays}) > 1:
        shapes = " and ".join(f"{array.dtype} {array.shape}" for array in arrays)
        raise CompressError(f"{where}: {letter}_train and {letter}_test differ: {shapes}; save both alike")
    return np.concatenate(arrays)


def _named(split: np.ndarray, count: int, where: str) -> dict[str, np.ndarray]:
    odd = sorted({str(name) for name in split.ravel()} - set(SPLITS))
    if odd or split.shape != (count,):
        problem = f"holds {odd[0]!r}" if odd else f"has shape {split.shape}"
        raise CompressError(f"{where}: split {problem}; give one of {', '.join(SPLITS)} for each of {count} images")
    return {part: np.flatnonzero(split.astype(str) == part) for part in SPLITS}
