"""Reads the report's HTML and PNG back, independently of what wrote them."""

import base64
import struct
import zlib
from html.parser import HTMLParser

import numpy as np

VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Tables by caption, headings, texts, elements with attributes; fails on elements that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.caption = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, "str | None"]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if tag in ("td", "th"):
            self.tables[self.caption][-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")
        if tag == "small" and {"td", "th"} & set(self.open):
            self.tables[self.caption][-1][-1] += "|"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] == "style":
            return
        self.texts.append(data)
        if "caption" in self.open:
            self.caption += data
        elif {"td", "th"} & set(self.open):
            self.tables[self.caption][-1][-1] += data
        elif {"h1", "h2"} & set(self.open):
            self.headings[-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.texts).replace("\u202f", " ")

    def table(self, caption: str) -> list[list[str]]:
        """Rows of cells, header row first; what stands small below a cell's figure follows a `|`."""
        return [[cell.replace("\u202f", " ") for cell in row] for row in self.tables[caption]]

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """The attributes of each element of that name whose attributes hold the words wanted."""
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(set(v.split()) <= set(attributes.get(k, "").split()) for k, v in wanted.items())
        ]

    def pictures(self) -> list[np.ndarray]:
        return [decode(base64.b64decode(image["src"].partition("base64,")[2])) for image in self.all("img")]


def decode(file: bytes) -> np.ndarray:
    """A PNG file as uint8 (C, H, W): every chunk's length and CRC checked, filter 0 only."""
    assert file[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    at, chunks = 8, []
    while at < len(file):
        (length,) = struct.unpack(">I", file[at : at + 4])
        kind, content = file[at + 4 : at + 8], file[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", file[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + content)
        chunks.append((kind, content))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, rest) == (8, [0, 0, 0])
    channels = {0: 1, 2: 3}[colour]
    raw = zlib.decompress(chunks[1][1])
    assert len(raw) == height * (1 + width * channels)
    image = np.zeros((channels, height, width), np.uint8)
    for y in range(height):
        line = raw[y * (1 + width * channels) :]
        assert line[0] == 0
        for x in range(width):
            for c in range(channels):
                image[c, y, x] = line[1 + x * channels + c]
    return image
