"""PNG files from arrays: 8-bit grey and RGB, nothing else. numpy and the standard library only."""

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2}  # channels → PNG's colour type


def encode(image: "npt.NDArray[np.uint8]") -> bytes:
    """A PNG file of `image`, uint8 (C, H, W) with C = 1 (grey) or 3 (RGB). W3C PNG specification, filter 0."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] not in COLOUR_TYPES:
        raise ValueError(f"PNG takes uint8 (1 or 3, H, W), got {image.dtype} {image.shape}")
    channels, height, width = image.shape
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0)).reshape(height, width * channels)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each line starts with its filter, 0
    lines[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    return b"".join(
        [SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)), _chunk(b"IEND", b"")]
    )


def data_uri(image: "npt.NDArray[np.uint8]") -> str:
    """`image` as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(encode(image)).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
