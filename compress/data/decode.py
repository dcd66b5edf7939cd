"""Encoded images (JPEG, PNG, BMP, WebP, PPM) into one uint8 array, through Pillow.

An image counts as grey by its mode, not by its pixels: only when every one is grey do the images have one channel.
Samples of more than 8 bits are refused, since they lie off the 8-bit grid. What a file holds beside the pixels that are
taken (transparency, further frames, an orientation) is dropped and counted.
"""

import io
import itertools
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from compress.data.files import FAULTS
from compress.data.listing import counted
from edge.core.errors import CompressError, first_line
from edge.core.foreign_messages import disguise
from edge.core.progress import Progress

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")
WINDOW = 512  # encoded images held at once
PNG_DEPTH = 24  # the byte of a PNG that holds the bits of a sample
#: Where Pillow finds an orientation; asking every image costs as much as decoding a small one.
EXIF = {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"}
#: What is said of images, by what was seen in them.
REMARKS = {
    "cmyk": "CMYK, converted to RGB without a color profile",
    "alpha": "in part transparent, taken without the transparency",
    "frames": "of several frames, the first taken",
    "turned": "with an EXIF orientation, which is not applied",
    "mixed": "grey among images in color, given three equal channels",
    "enlarged": "smaller than the size asked for, enlarged to it",
}


def split_option(kind: str, path: str, *others: str) -> "tuple[str, dict[str, str]]":
    """`PATH?size=N&NAME=VALUE` in its path and its options; `others` are those, NAME=VALUE, that exist beside size."""
    base, mark, text = path.partition("?")
    options: dict[str, str] = {}
    for option in text.split("&") if mark else ():
        name, _, value = option.partition("=")
        sized = name == "size" and value.isascii() and value.isdigit() and int(value) >= 1
        if name in options or not (sized or option in others):
            known = " or ".join(f"{kind}:{base}?{known}" for known in ("size=32", *others))
            raise CompressError(f"data {kind}:{path}: unknown option {f'?{option}'!r}; write {known}")
        options[name] = value
    return base, options


def size_option(options: "dict[str, str]") -> "int | None":
    """The side that images are brought to; None where they stay as they are."""
    return int(options["size"]) if "size" in options else None


def decode_images(
    entries: Iterable[tuple[int, str, bytes]], count: int, size: "int | None", where: str
) -> "tuple[np.ndarray, list[str]]":
    """Images uint8 (count,C,H,W) from (place, name, encoded bytes), in any order, and what is odd about them.

    With `size` the shorter side is resized to it with antialiasing and the centre cut out; without it all images
    must be of one size. `where` is how a fault names the source. The last image of a place counts.
    """
    rows: np.ndarray | None = None
    first = ""
    filled = np.zeros(count, bool)
    seen, example = Counter[str](), dict[str, str]()
    waiting = iter(entries)
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(f"decode {where}", count) as bar:
        while window := list(itertools.islice(waiting, WINDOW)):
            # Pillow lets go of the interpreter while it decodes, so threads share the larger images.
            decoded = pool.map(lambda entry: pixels(entry[2], f"{where}: {entry[1]}", size), window)
            for (place, name, _), (image, remarks) in zip(window, decoded, strict=True):
                if rows is None:
                    rows, first = _room(where, count, image), name
                if image.shape[:2] != rows.shape[2:]:
                    raise CompressError(
                        f"{where}: images of different sizes: {_size(rows[0, 0])} ({first}) and {_size(image)} "
                        f"({name}); write {where}?size=N to resize and crop all to N×N"
                    )
                for remark in (*remarks, "colour" if image.ndim == 3 else "grey"):
                    seen[remark] += 1
                    example.setdefault(remark, name)
                filled[place] = True
                rows[place] = image.transpose(2, 0, 1) if image.ndim == 3 else image
            bar.step(len(window))
    if rows is None or not filled.all():
        raise CompressError(f"{where}: only {filled.sum()} of {count} images were read; try again once it is complete")
    if seen["grey"] and seen["colour"]:
        seen["mixed"], example["mixed"] = seen["grey"], example["grey"]
    notes = [f"{said}: {counted(seen[key], 'image')} ({example[key]})" for key, said in REMARKS.items() if seen[key]]
    return (rows if seen["colour"] else np.ascontiguousarray(rows[:, :1])), notes


def pixels(encoded: bytes, name: str, size: "int | None") -> "tuple[np.ndarray, list[str]]":
    """One image, uint8 (H,W) when its mode is grey, else (H,W,3); and what of `REMARKS` holds for it."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.mode not in GREY + COLOUR:
                raise CompressError(f"{name}: samples of mode {image.mode}, not 8 bits; convert it to an 8-bit image")
            if _more_than_8_bits(encoded, image):
                raise CompressError(f"{name}: has more than 8 bits a sample; convert it to an 8-bit image")
            plain = image.convert("L" if image.mode in GREY else "RGB")
            holds = {
                "cmyk": image.mode == "CMYK",
                "alpha": image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255,
                "frames": getattr(image, "n_frames", 1) > 1,
                "turned": bool(EXIF & image.info.keys()) and image.getexif().get(ExifTags.Base.Orientation, 1) != 1,
                "enlarged": size is not None and min(image.size) < size,
            }
    except UnidentifiedImageError:  # Pillow's own message is the address of a buffer
        if encoded and (other := disguise(encoded)) is not None:
            raise CompressError(f"{name}: {other}") from None
        what = f"begins with {encoded[:8]!r}, none of {', '.join(FORMATS)}" if encoded else "empty, 0 bytes"
        raise CompressError(f"{name}: not a readable image ({what}); replace or remove it") from None
    except (*FAULTS, Image.DecompressionBombError) as fault:
        raise CompressError(f"{name}: not a readable image ({first_line(fault, 160)}); replace or remove it") from None
    return np.asarray(plain if size is None else _square(plain, size)), [key for key, true in holds.items() if true]


def _more_than_8_bits(encoded: bytes, image: Image.Image) -> bool:
    """Whether the file's samples have more bits than Pillow keeps of them: a colour image loses the rest."""
    if image.format == "PNG":
        return encoded[PNG_DEPTH] > 8
    coded = getattr(image, "tile", ()) if image.format == "PPM" else ()  # raw, or with the largest sample behind it
    return any(isinstance(tile.args, tuple) and tile.args[-1] > 255 for tile in coded)


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
