"""Small real image files, and folders and archives of them."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress import data
from edge.core.errors import CompressError

#: One letter for each container that imagefolder reads.
CONTAINERS = ("folder", "tar", "tar.gz", "tar.xz", "zip")


def pixels(key: int, shape: tuple[int, ...] = (6, 6, 3)) -> np.ndarray:
    """Random uint8 pixels of that shape, the same for the same key."""
    return np.random.default_rng(key).integers(0, 256, shape, np.uint8)


def encoded(image: np.ndarray, kind: str = "png") -> bytes:
    """The image as the bytes of a file."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, {"jpg": "jpeg", "pgm": "ppm"}.get(kind, kind))
    return out.getvalue()


def tree(classes: "tuple[str, ...]" = ("ant", "bee"), train: int = 10, test: int = 3) -> dict[str, bytes]:
    """`train/CLASS/K.png` and `test/CLASS/K.png` of random colour images, by name."""
    parts = {"train": train, "test": test}
    names = [f"{part}/{name}/{k}.png" for part, count in parts.items() for name in classes for k in range(count)]
    return {name: encoded(pixels(key)) for key, name in enumerate(names)}


def pack(files: dict[str, bytes], path: Path, container: str) -> Path:
    """The files in a container of that kind at `path`, plus the kind's suffix."""
    if container == "folder":
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path
    target = path.with_name(f"{path.name}.{container}")
    if container == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return target
    with tarfile.open(target, f"w:{container[4:]}") as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target


def refusal(name: str) -> str:
    """The one line with which `data.load(name)` is refused."""
    with pytest.raises(CompressError) as fault:
        data.load_dataset(name)
    line = str(fault.value)
    assert "\n" not in line and len(line) < 600
    return line
