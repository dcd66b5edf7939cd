"""Encoded images (JPEG, PNG, BMP, WebP, PPM) into one uint8 array, through Pillow.

An image counts as grey by its mode, not by its pixels: only when every one is grey do the images have one channel.
Transparency is dropped. Samples of more than 8 bits are refused, since they lie off the 8-bit grid.
"""

import io
import itertools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from compress.data.files import FAULTS, reason
from edge.core.errors import CompressError
from edge.core.progress import Progress

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")
WINDOW = 512  # encoded images held at once
OPTION = "?size="


def split_option(kind: str, path: str) -> "tuple[str, int | None]":
    """`PATH?size=N` in its two parts, the size None where none is asked for."""
    base, mark, _ = path.partition("?")
    if not mark:
        return path, None
    option = path[len(base) :]
    number = option.removeprefix(OPTION)
    if number == option or not number.isascii() or not number.isdigit() or int(number) < 1:
        raise CompressError(f"data {kind}:{path}: unknown option {option!r}; write {kind}:{base}?size=32")
    return base, int(number)


def decode_images(entries: Iterable[tuple[int, str, bytes]], count: int, size: "int | None", where: str) -> np.ndarray:
    """Images uint8 (count,C,H,W) from (place, name, encoded bytes), in any order; the last one of a place counts.

    With `size` the shorter side is resized to it with antialiasing and the centre cut out; without it all images
    must be of one size. `where` is how a fault names the source.
    """
    rows: np.ndarray | None = None
    first, colour = "", False
    filled = np.zeros(count, bool)
    waiting = iter(entries)
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(f"decode {where}", count) as bar:
        while window := list(itertools.islice(waiting, WINDOW)):
            # Pillow lets go of the interpreter while it decodes, so threads share the larger images.
            decoded = pool.map(lambda entry: pixels(entry[2], entry[1], size), window)
            for (place, name, _), image in zip(window, decoded, strict=True):
                if rows is None:
                    rows, first = _room(where, count, image), name
                if image.shape[:2] != rows.shape[2:]:
                    raise CompressError(
                        f"{where}: images of different sizes: {_size(rows[0, 0])} ({first}) and {_size(image)} "
                        f"({name}); write {where}?size=N to resize and crop all to N×N"
                    )
                colour |= image.ndim == 3
                filled[place] = True
                rows[place] = image.transpose(2, 0, 1) if image.ndim == 3 else image
            bar.step(len(window))
    if rows is None or not filled.all():
        raise CompressError(f"{where}: only {filled.sum()} of {count} images were read; try again once it is complete")
    return rows if colour else np.ascontiguousarray(rows[:, :1])


def pixels(encoded: bytes, name: str, size: "int | None") -> np.ndarray:
    """One image: uint8 (H,W) when its mode is grey, else (H,W,3)."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.mode not in GREY + COLOUR:
                raise CompressError(f"{name}: samples of mode {image.mode}, not 8 bits; convert it to an 8-bit image")
            plain = image.convert("L" if image.mode in GREY else "RGB")
    except (*FAULTS, Image.DecompressionBombError) as fault:
        raise CompressError(f"{name}: not a readable image ({reason(fault)}); replace or remove it") from None
    return np.asarray(plain if size is None else _square(plain, size))


def _square(image: Image.Image, size: int) -> Image.Image:
    """The shorter side resized to `size` (bilinear over the whole source area), then the centre."""
    shorter = min(image.size)
    wide, high = (max(size, side * size // shorter) for side in image.size)
    if (wide, high) != image.size:
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return image.crop((left, top, left + size, top + size))


def _room(where: str, count: int, image: np.ndarray) -> np.ndarray:
    try:
        return np.empty((count, 3, *image.shape[:2]), np.uint8)
    except MemoryError:
        raise CompressError(
            f"{where}: {count} images of {_size(image)} do not fit in memory; write {where}?size=N with a smaller N"
        ) from None


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"
