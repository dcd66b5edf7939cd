"""One split of a dataset on the device that trains or attacks, and augmentation of its batches there.

Augmentation: float32 (B,C,H,W) in [0, 1] in and out, no loop over images. Every random number is drawn from a generator
on the CPU, so it is alike on every device and resumable. Lengths are those that the papers give for images of 32 pixels
and scale with the image. Black comes in where nothing is left. Colour operations compute what PIL's of the same names
do on 8-bit images, without rounding to 8 bit in between; strengths (B,) lie on the images' device.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from compress.data import find_source
from compress.data.dataset import Dataset


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]: k → k/255, as every runner does it."""
    return images.to(torch.float32) / 255


@dataclass(frozen=True)
class Split:
    """One split on the device: `images` uint8 (N,C,H,W), `labels` (N,)."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, data: Dataset, name: str, where: torch.device) -> "Split":
        images, labels = data.part(name)
        return cls(torch.from_numpy(images).to(where), torch.from_numpy(labels).to(where))

    def clean(self, size: int) -> "CleanImages":
        """Its float images, a batch at a time, as often as wanted."""
        return CleanImages(self, size)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Float images in [0, 1] and labels, in order, the last batch as small as it comes."""
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield to_float(images), labels


@dataclass(frozen=True)
class CleanImages:
    """The images of a split without labels, in batches; can be gone through again and again."""

    split: Split
    size: int

    def __iter__(self) -> Iterator[Tensor]:
        return (x for x, _ in self.split.batches(self.size))


#: images, random stream → images
Augmentation = Callable[[Tensor, torch.Generator], Tensor]

ERASED_AREA = (0.02, 0.33)  # share of the image
ERASED_ASPECT = (0.3, 3.3)  # height over width
ERASED_ATTEMPTS = 10
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of R, G, B


def named_augmentation(augment: str, data: str) -> "Augmentation | None":
    """The augmentation of that name for a dataset of kind `data`; None where images stay as they are."""
    return AUGMENTATIONS[find_source(data).augment if augment == "auto" else augment]


def crop_flip(x: Tensor, draw: torch.Generator) -> Tensor:
    """A black border of an eighth of the side (4 of 32), a crop of the old size anywhere in it, half of them mirrored.

    Lee et al. 2015, as all of the field since.
    """
    rows, cols = _grid(x)
    top, left = (_below(2 * (size // 8) + 1, draw, len(x)) - size // 8 for size in x.shape[2:])
    return _take(x, rows + top, _mirrored(cols, x, draw) + left)


def crop_shift(x: Tensor, draw: torch.Generator, below: int = 11) -> Tensor:
    """Flip and CropShift (Li & Spratling 2023): a rectangle from anywhere in the image, pasted anywhere on black.

    A strength of 0 … `below` − 1 pixels (of 32), shared out at random, is what the rectangle lacks in width and height.
    """
    rows, cols = _grid(x)
    strength = _below(max(1, round(below * min(x.shape[2:]) / 32)), draw, len(x))
    narrower = _below(strength + 1, draw, len(x))
    rows = _pasted(rows, x.shape[2], strength - narrower, draw)
    cols = _pasted(cols, x.shape[3], narrower, draw)
    return _take(x, rows, _mirrored(cols, x, draw))


def cutout(x: Tensor, draw: torch.Generator) -> Tensor:
    """Cutout (DeVries & Taylor 2017): a black square of half the side (16 of 32) around any pixel, cut off outside."""
    sides = [torch.full((len(x), 1, 1), size // 2) for size in x.shape[2:]]
    top, left = (_below(size, draw, len(x)) - size // 4 for size in x.shape[2:])
    return _blackened(x, top, left, *sides)


def erase(x: Tensor, draw: torch.Generator, share: float = 0.5) -> Tensor:
    """Random Erasing (Zhong et al. 2020): a black rectangle inside the image, in a random `share` of the images.

    Area uniform in 2 to 33 % of the image, logarithm of the aspect uniform in that of 0.3 to 3.3; of ten such draws the
    first that fits, and nothing where none does.
    """
    pixels = x.shape[2] * x.shape[3]
    area = _between(*ERASED_AREA, torch.rand(len(x), ERASED_ATTEMPTS, generator=draw)) * pixels
    low, high = (math.log(value) for value in ERASED_ASPECT)
    aspect = _between(low, high, torch.rand(len(x), ERASED_ATTEMPTS, generator=draw)).exp()
    height, width = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (height < x.shape[2]) & (width < x.shape[3])
    first = fits.int().argmax(1, keepdim=True)
    wanted = fits.any(1, keepdim=True) & (torch.rand(len(x), 1, generator=draw) < share)
    sides = [torch.where(wanted, side.gather(1, first), 0)[:, :, None] for side in (height, width)]
    top, left = (_below(size - side + 1, draw, len(x)) for size, side in zip(x.shape[2:], sides, strict=True))
    return _blackened(x, top, left, *sides)


def shear(x: Tensor, slope: Tensor, horizontal: Tensor) -> Tensor:
    """Sheared about the centre by `slope` pixels a pixel, (B,), sideways where `horizontal` (B,), else up and down."""
    rows, cols = _grid(x)
    y, z = rows - (x.shape[2] - 1) / 2, cols - (x.shape[3] - 1) / 2
    slope, sideways = slope[:, None, None], horizontal[:, None, None]
    return _take(x, (rows - torch.where(sideways, 0, slope) * z).round(), (cols - sideways * slope * y).round())


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotated about the centre by `degrees` (B,), each pixel from the nearest one."""
    rows, cols = _grid(x)
    top, left = (x.shape[2] - 1) / 2, (x.shape[3] - 1) / 2
    cos, sin = (wave(torch.deg2rad(degrees))[:, None, None] for wave in (torch.cos, torch.sin))
    y, z = rows - top, cols - left
    return _take(x, (cos * y + sin * z + top).round(), (cos * z - sin * y + left).round())


def recolour(x: Tensor, draw: torch.Generator) -> Tensor:
    """One of eight operations an image, equally likely, of random strength: IDBH's colour-biased space (its ranges)."""
    chosen, roll = _below(8, draw, len(x)).flatten(), torch.rand(len(x), generator=draw)
    sign, horizontal = (_below(2, draw, len(x)).flatten() for _ in range(2))
    sign = 2 * sign - 1
    result = x.clone()
    for number, operation in enumerate(_OPERATIONS):
        where = torch.nonzero(chosen == number)[:, 0]
        if len(where):
            there = where.to(x.device)
            result[there] = operation(x[there], roll[where], sign[where], horizontal[where].bool())
    return result


#: images, strength in [0, 1), sign, a coin (each (B,), on the CPU) → images
_OPERATIONS: tuple[Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], ...] = (
    lambda x, roll, sign, coin: adjust_saturation(x, _between(0.1, 1.9, roll).to(x)),
    lambda x, roll, sign, coin: adjust_brightness(x, _between(0.5, 1.9, roll).to(x)),
    lambda x, roll, sign, coin: adjust_contrast(x, _between(0.5, 1.9, roll).to(x)),
    lambda x, roll, sign, coin: adjust_sharpness(x, _between(0.1, 1.9, roll).to(x)),
    lambda x, roll, sign, coin: autocontrast(x),
    lambda x, roll, sign, coin: equalize(x),
    lambda x, roll, sign, coin: shear(x, sign * _between(0.05, 0.15, roll).tan(), coin),
    lambda x, roll, sign, coin: rotate(x, sign * (1 + (10 * roll).floor())),
)


def _then(*steps: Augmentation) -> Augmentation:
    def all_of(x: Tensor, draw: torch.Generator) -> Tensor:
        for step in steps:
            x = step(x, draw)
        return x

    return all_of


#: by the names of `compress.names.AUGMENTATIONS` but "auto"
AUGMENTATIONS: "dict[str, Augmentation | None]" = {
    "none": None,
    "crop-flip": crop_flip,
    "crop-flip-cutout": _then(crop_flip, cutout),
    "cropshift": crop_shift,
    "idbh-weak": _then(crop_shift, recolour, erase),
}


# ---------------------------------------------------------------------------------------------- indices, on the CPU


def _grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column numbers (1,H,1), (1,1,W)."""
    return torch.arange(x.shape[2])[None, :, None], torch.arange(x.shape[3])[None, None, :]


def _take(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """out[b,c,i,j] = x[b, c, rows[b,i,j], cols[b,i,j]], black where that is no pixel; both broadcast to (B,H,W)."""
    batch, channels, height, width = x.shape
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    index = (rows.clamp(0, height - 1) * width + cols.clamp(0, width - 1)).long()
    flat = index.to(x.device).reshape(batch, 1, -1).expand(batch, channels, -1)
    return x.flatten(2).gather(2, flat).view(x.shape).masked_fill(~inside.to(x.device)[:, None], 0)


def _blackened(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """A black rectangle an image, each (B,1,1) in pixels; what lies outside the image is cut off."""
    rows, cols = _grid(x)
    hole = ((rows >= top) & (rows < top + height)) & ((cols >= left) & (cols < left + width))
    return x.masked_fill(hole.to(x.device)[:, None], 0)


def _mirrored(cols: Tensor, x: Tensor, draw: torch.Generator) -> Tensor:
    """Column numbers mirrored in half of the images; what was outside stays outside."""
    return torch.where(_below(2, draw, len(x)) == 1, x.shape[3] - 1 - cols, cols)


def _pasted(index: Tensor, size: int, less: Tensor, draw: torch.Generator) -> Tensor:
    """Where a stretch of `size` − `less` pixels (B,1,1) comes from when pasted elsewhere; −1 beside it."""
    source, target = (_below(less + 1, draw, len(less)) for _ in range(2))
    kept = (index >= target) & (index < target + size - less)
    return torch.where(kept, index - target + source, -1)


def _below(bound: "int | Tensor", draw: torch.Generator, count: int) -> Tensor:
    """Uniform integers in [0, bound), (count,1,1)."""
    return (torch.rand(count, 1, 1, generator=draw) * bound).long()


def _between(low: float, high: float, roll: Tensor) -> Tensor:
    return low + (high - low) * roll


def grey(x: Tensor) -> Tensor:
    """Luminance of three channels, else the channels' mean; (B,1,H,W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def adjust_saturation(x: Tensor, strength: Tensor) -> Tensor:
    """Grey at 0, x at 1; images of one channel have no saturation and stay."""
    return _blend(grey(x), x, strength)


def adjust_brightness(x: Tensor, strength: Tensor) -> Tensor:
    """Black at 0, x at 1."""
    return _blend(torch.zeros_like(x), x, strength)


def adjust_contrast(x: Tensor, strength: Tensor) -> Tensor:
    """The mean luminance everywhere at 0, x at 1."""
    return _blend(grey(x).mean((2, 3), keepdim=True), x, strength)


def adjust_sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Smoothed at 0, x at 1: 3×3, weight 5 in the middle and 1 around it, the outermost pixels as they are."""
    if min(x.shape[2:]) < 3:
        return x
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = (9 * functional.avg_pool2d(x, 3, 1) + 4 * x[:, :, 1:-1, 1:-1]) / 13
    return _blend(smooth, x, strength)


def autocontrast(x: Tensor) -> Tensor:
    """Each channel stretched to [0, 1]; a channel of one value stays as it is."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (x - low) / torch.where(span > 0, span, 1), x)


def equalize(x: Tensor) -> Tensor:
    """Each channel's histogram flattened, as PIL does it on 256 levels; a channel too uneven for that stays."""
    levels = (x * 255).round().long().flatten(2)
    counts = torch.zeros(*x.shape[:2], 256, dtype=torch.long, device=x.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255).to(x.dtype) / 255
    return torch.where(step[..., None] > 0, table.gather(2, levels).view(x.shape), x)


def _blend(other: Tensor, x: Tensor, strength: Tensor) -> Tensor:
    """`other` at strength 0, x at 1, past x above 1; clipped to [0, 1]."""
    weight = strength[:, None, None, None]
    return (other * (1 - weight) + x * weight).clamp(0, 1)
