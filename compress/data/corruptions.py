"""Common corruptions of images, after the kinds of Hendrycks & Dietterich (2019): what no attacker chose.

Each takes uint8 images (N,C,H,W), a severity from 1 to 5 and a NumPy generator, and gives uint8 images of that shape.
The scales are this project's own: chosen for small images, comparable between models, not with published tables.
"""

import io
from collections.abc import Callable

import numpy as np

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def noise(images: np.ndarray, severity: int, draw: np.random.Generator) -> np.ndarray:
    """Gaussian noise, deviation 0.02 to 0.1 of the full scale."""
    return _stored(_unit(images) + draw.normal(0, 0.02 * severity, images.shape))


def blur(images: np.ndarray, severity: int, draw: np.random.Generator) -> np.ndarray:
    """Gaussian blur, deviation 1/64 to 5/64 of the shorter side."""
    from scipy.ndimage import gaussian_filter

    sigma = severity * min(images.shape[2:]) / 64
    return _stored(gaussian_filter(_unit(images), (0, 0, sigma, sigma), mode="nearest"))


def jpeg(images: np.ndarray, severity: int, draw: np.random.Generator) -> np.ndarray:
    """JPEG coding at quality 80 to 10."""
    from PIL import Image

    quality = (80, 50, 30, 18, 10)[severity - 1]
    coded = np.empty_like(images)
    for number, image in enumerate(images):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality)
        decoded = np.asarray(Image.open(buffer))
        coded[number] = decoded[None] if len(image) == 1 else decoded.transpose(2, 0, 1)
    return coded


def brightness(images: np.ndarray, severity: int, draw: np.random.Generator) -> np.ndarray:
    """Brighter by 0.08 to 0.4 of the full scale, darker for every other image."""
    sign = np.where(np.arange(len(images)) % 2, -1, 1)[:, None, None, None]
    return _stored(_unit(images) + 0.08 * severity * sign)


def contrast(images: np.ndarray, severity: int, draw: np.random.Generator) -> np.ndarray:
    """Distance to the image's mean times 0.75 to 0.15."""
    unit = _unit(images)
    mean = unit.mean((1, 2, 3), keepdims=True)
    return _stored(mean + (0.9 - 0.15 * severity) * (unit - mean))


def fog(images: np.ndarray, severity: int, draw: np.random.Generator) -> np.ndarray:
    """A bright cloud over the image: smooth noise of several octaves, 0.15 to 0.75 opaque where it is densest."""
    from scipy.ndimage import zoom

    n, _, height, width = images.shape
    cloud = np.zeros((n, height, width))
    for octave in range(4):
        cells = 2 ** (octave + 1)
        coarse = draw.random((n, cells, cells))
        cloud += zoom(coarse, (1, height / cells, width / cells), order=1, mode="nearest", grid_mode=True) / cells
    cloud -= cloud.min((1, 2), keepdims=True)
    cloud /= cloud.max((1, 2), keepdims=True)
    opacity = 0.15 * severity * cloud[:, None]
    return _stored(_unit(images) * (1 - opacity) + opacity)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "jpeg": jpeg,
    "brightness": brightness,
    "contrast": contrast,
    "fog": fog,
}
SEVERITIES = (1, 3, 5)


def corrupted(images: np.ndarray, name: str, severity: int) -> np.ndarray:
    """uint8 images (N,C,H,W) under one corruption; the same for the same images whoever asks."""
    return CORRUPTIONS[name](images, severity, np.random.default_rng([severity, list(CORRUPTIONS).index(name)]))


def _unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64) / 255


def _stored(unit: np.ndarray) -> np.ndarray:
    return np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
