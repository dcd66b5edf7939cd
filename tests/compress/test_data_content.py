"""What decoded images say about a dataset, and what their files hold beside the pixels that are taken."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from compress import data
from compress.data import content
from compress.data.content import content_notes, equal_images
from compress.data.dataset import assemble_dataset
from compress.data.decode import decode_images
from edge.core.errors import CompressError
from tests.compress.data_files import encoded, pack, pixels, tree

PARTS = {"train": np.arange(4), "val": np.arange(4, 6), "test": np.arange(6, 10)}
LABELS = np.arange(10) % 2


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()


def saved(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


COLOUR = Image.fromarray(pixels(1))
CLEAR = Image.fromarray(np.dstack([pixels(1), np.full((6, 6), 9, np.uint8)]), "RGBA")
OPAQUE = Image.fromarray(np.dstack([pixels(1), np.full((6, 6), 255, np.uint8)]), "RGBA")
PALETTE = COLOUR.quantize(8)
TURNED = Image.Exif()
TURNED[0x0112] = 6


# ------------------------------------------------------------------------------------------------ equal images


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=30))
def test_equal_images_are_those_of_the_same_bytes(rows: list[tuple[int, int, int]]) -> None:
    images = np.array(rows, np.uint8).reshape(len(rows), 1, 1, 3)
    first: dict[bytes, int] = {}
    assert equal_images(images).tolist() == [first.setdefault(image.tobytes(), k) for k, image in enumerate(images)]


def test_images_that_share_a_checksum_alone_are_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "checksums", lambda images: np.zeros(len(images), np.uint64))
    assert equal_images(pixels(3, (5, 1, 4, 4))).tolist() == [0, 1, 2, 3, 4]


def test_equal_images_across_parts_and_under_two_labels_are_counted_and_named() -> None:
    images = pixels(1, (10, 3, 4, 4))
    assert content_notes(images, LABELS, PARTS, "ab") == []
    images[[6, 8, 9]] = images[[0, 4, 1]]
    assert content_notes(images, LABELS, PARTS, "ab") == [
        "2 of 4 test images are training images too, pixel for pixel (image 6 = image 0)",
        "1 of 4 test images are validation images too, pixel for pixel (image 8 = image 4)",
    ]
    images[5] = images[0]
    names = [f"{k}.png" for k in range(10)]
    assert content_notes(images, LABELS, PARTS, "ab", names)[2:] == [
        "1 of 2 validation images are training images too, pixel for pixel (5.png = 0.png)",
        "3 images are there under more than one label, pixel for pixel (0.png as 'a', 5.png as 'b')",
    ]


def test_classes_without_a_test_image_and_dark_images_are_said() -> None:
    parts = {**PARTS, "test": np.array([6, 8])}
    assert content_notes(pixels(1, (10, 1, 4, 4)) // 16, LABELS, parts, "ab") == [
        "1 of 2 classes have no test image ('b')",
        "the brightest pixel is 15 of 255; are these 8-bit images?",
    ]


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(CompressError, match="two classes are called 'a'"):
        assemble_dataset("npz", "here", pixels(1, (40, 1, 4, 4)), np.arange(40) % 2, {}, ["a", "a"])


def test_an_image_that_stands_in_two_parts_is_named_by_its_file(tmp_path: Path) -> None:
    files = tree()
    files |= {"test/bee/1.png": files["train/bee/3.png"], "test/ant/2.png": files["train/bee/4.png"]}
    notes = data.load_dataset(f"imagefolder:{pack(files, tmp_path / 'd', 'zip')}").notes
    twice = "2 of 6 test images are training images too, pixel for pixel (test/ant/2.png = train/bee/4.png)"
    labels = "2 images are there under more than one label, pixel for pixel (train/bee/4.png as 'bee', test/ant/2.png"
    assert notes[1:] == (twice, f"{labels} as 'ant')")


# --------------------------------------------------------------------------------------- what files hold besides


@pytest.mark.parametrize(
    ("content", "size", "says"),
    [
        (
            saved(COLOUR.convert("CMYK"), "jpeg"),
            None,
            "CMYK, converted to RGB without a color profile: 1 image (1.png)",
        ),
        (saved(CLEAR), None, "in part transparent, taken without the transparency: 1 image (1.png)"),
        (saved(PALETTE, transparency=0), None, "in part transparent, taken without the transparency: 1 image (1.png)"),
        (saved(CLEAR.convert("LA")), None, "in part transparent, taken without the transparency: 1 image (1.png)"),
        (
            saved(COLOUR, save_all=True, append_images=[CLEAR]),
            None,
            "of several frames, the first taken: 1 image (1.png)",
        ),
        (saved(COLOUR, "webp", save_all=True, append_images=[COLOUR.transpose(0)]), None, "of several frames"),
        (saved(COLOUR, "jpeg", exif=TURNED), None, "with an EXIF orientation, which is not applied: 1 image"),
        (saved(COLOUR, exif=TURNED), None, "with an EXIF orientation"),
        (saved(COLOUR.convert("L")), None, "grey among images in color, given three equal channels: 1 image (1.png)"),
        (saved(COLOUR.resize((5, 9))), 6, "smaller than the size asked for, enlarged to it: 1 image"),
        (saved(OPAQUE), None, ""),
        (saved(PALETTE), None, ""),
        (saved(COLOUR, "jpeg"), None, ""),
        (saved(COLOUR.resize((9, 7))), 6, ""),
    ],
)
def test_what_a_file_holds_beside_its_pixels_is_said(content: bytes, size: "int | None", says: str) -> None:
    entries = [(0, "0.png", encoded(pixels(2))), (1, "1.png", content)]
    images, notes = decode_images(entries, 2, size, "here")
    assert images.shape == (2, 3, 6, 6)
    if size is None:
        with Image.open(io.BytesIO(content)) as opened:
            np.testing.assert_array_equal(images[1].transpose(1, 2, 0), np.asarray(opened.convert("RGB")))
    assert [note for note in notes if says in note] if says else notes == []
    assert len(notes) <= 2  # a transparent grey image is grey too


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.fromarray(pixels(1, (6, 6)).astype(np.uint16))),
        b"P6 2 2 65535\n" + bytes(24),
        b"P5 2 2 65535\n" + bytes(8),
    ],
)
def test_samples_of_more_than_8_bits_are_refused(content: bytes) -> None:
    with pytest.raises(CompressError, match=r"here: x: (samples of mode I(;16)?, not 8|has more than 8) bits"):
        decode_images([(0, "x", content)], 1, None, "here")


def test_a_colour_image_of_16_bits_is_not_cut_to_8(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(2))
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    image += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.mode == "RGB"  # what Pillow says of it
    with pytest.raises(CompressError, match="x: has more than 8 bits a sample"):
        decode_images([(0, "x", image)], 1, None, "here")
