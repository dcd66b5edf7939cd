"""Images: what the attacks made of some of them, and what the artifact said; as PNG files that stand in the page."""

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.report.markup import Html, badge, element, join, section

BROKEN, HELD = 8, 4


def choose_images(evidence: Mapping[str, Any], broken: int = BROKEN, held: int = HELD) -> list[dict[str, Any]]:
    """The first images that an attack broke and the first that none did, of those the artifact has right when clean.

    `evidence` holds index, labels and clean_predictions, each int (N,); clean, uint8 (N, C, H, W); attacks, A names;
    adversarial, uint8 (A, N, C, H, W); broken, bool (A, N); predictions, int (A, N), −1 where none was kept. A broken
    image is shown with the first attack that broke it. Images that are neither grey nor RGB are not shown. `classes`,
    where it holds as many names as there are classes, names them.
    """
    if evidence["clean"].shape[1] not in COLOUR_TYPES:
        return []
    right = evidence["clean_predictions"] == evidence["labels"]
    fell = evidence["broken"].any(0)
    chosen = [*np.flatnonzero(right & fell)[:broken], *np.flatnonzero(right & ~fell)[:held]]
    return [_tile(evidence, int(i), int(evidence["broken"][:, i].argmax())) for i in chosen]


def _tile(evidence: Mapping[str, Any], i: int, attack: int) -> dict[str, Any]:
    is_broken = bool(evidence["broken"][attack, i])
    label, predicted = int(evidence["labels"][i]), int(evidence["predictions"][attack, i])
    if not is_broken:
        predicted = label  # an admissible candidate that breaks nothing is classified right
    known = predicted >= 0 and is_broken == (predicted != label)
    return {
        "index": int(evidence["index"][i]),
        "label": label,
        "clean_prediction": int(evidence["clean_predictions"][i]),
        "adversarial_prediction": predicted if known else None,
        "broken": is_broken,
        "attack": str(evidence["attacks"][attack]),
        "classes": evidence.get("classes", ()),
        "clean": evidence["clean"][i],
        "adversarial": evidence["adversarial"][attack, i],
    }


def images(document: Mapping[str, Any]) -> "Html | None":
    """The chosen images of the shipped artifact: clean, adversarial, and their difference amplified."""
    shipped = next(iter(document.get("verified", ())), None)
    if shipped is None or not shipped["images"]:
        return None
    radius = shipped["predicate"]["threat"]["grid_radius"]
    gain = 127 / max(1, radius)
    text = (
        f"Images that {shipped['label']} has right when clean: first some that an attack broke, then some that none "
        f"did. In the difference grey is no change; it is amplified {gain:.1f} ×, so that a change by {radius} of 255 "
        "grey levels, the largest allowed, is black or white."
    )
    return section(
        "images", "Images", element("p", text), element("div", *_figures(shipped["images"], gain), class_="tiles")
    )


def _figures(tiles: Sequence[Mapping[str, Any]], gain: float) -> Iterator[Html]:
    for tile in tiles:
        label, clean = (_class(tile, tile[key]) for key in ("label", "clean_prediction"))
        predicted = tile["adversarial_prediction"]
        other = "another class" if predicted is None else _class(tile, predicted)
        moved = difference(tile["clean"], tile["adversarial"], gain)
        pictures = [
            _picture(tile["clean"], "clean", f"Clean image {tile['index']} of {label}"),
            _picture(tile["adversarial"], "adversarial", f"The same image after {tile['attack']}, taken for {other}"),
            _picture(moved, "difference", "Their difference, amplified"),
        ]
        caption = element(
            "figcaption",
            badge("broken", "bad") if tile["broken"] else badge("held", "good"),
            f" image {tile['index']}, truly {label}: clean → {clean}, adversarial → {other}",
            element(
                "small", tile["attack"] if tile["broken"] else f"held against every attack; shown: {tile['attack']}"
            ),
        )
        yield element("figure", element("div", join(pictures), class_="pictures"), caption, class_="tile")


def _class(tile: Mapping[str, Any], number: int) -> str:
    """By its name, where it has one that is no number."""
    names = tile["classes"]
    return names[number] if number < len(names) and not names[number].isdigit() else f"class {number}"


def difference(
    clean: "npt.NDArray[np.uint8]", adversarial: "npt.NDArray[np.uint8]", gain: float
) -> "npt.NDArray[np.uint8]":
    """`adversarial − clean` times `gain` around middle grey (128), uint8 (C, H, W)."""
    moved = 128 + gain * (adversarial.astype(np.float64) - clean)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def _picture(pixels: "npt.NDArray[np.uint8]", name: str, alt: str) -> Html:
    image = element("img", src=data_uri(pixels), alt=alt, width=pixels.shape[2], height=pixels.shape[1])
    return element("div", image, element("small", name))


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
    """`image` as an address that holds the picture itself; of other than one or three channels their mean."""
    if image.shape[0] not in COLOUR_TYPES:
        image = image.mean(0, keepdims=True).round().astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(encode(image)).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
