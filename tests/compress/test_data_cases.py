"""Folders of digits as they were met in public reports, each read as its owner meant it.

`.ipynb_checkpoints` beside the classes (pytorch/vision#2831, facebookresearch/DomainBed#90) and inside them
(open-mmlab/mmpretrain#507); Synology's `@eaDir`; `training/` and `testing/` (fastai/fastai#1129, mnist_png).
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress import data

CLASSES = tuple(f"c{k}" for k in range(10))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_COMPRESS_CACHE", str(tmp_path / "cache"))
    data.load_dataset.cache_clear()


def digits(root: Path, parts: tuple[str, ...], each: int) -> str:
    """`each` images of a class in every part, `PART/cK/NUMBER.png`."""
    whole = data.load_dataset("digits")
    for label in range(10):
        for k, number in enumerate(np.flatnonzero(whole.labels == label)[: each * len(parts)]):
            folder = root / parts[k % len(parts)] / f"c{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(whole.images[number, 0]).save(folder / f"{number:04}.png")
    return f"imagefolder:{root}"


def copies(folder: Path, into: Path, count: int) -> None:
    into.mkdir()
    for file in sorted(folder.glob("*.png"))[:count]:
        shutil.copy(file, into / f"{file.stem}-checkpoint.png")


@pytest.mark.parametrize(
    ("parts", "each", "images", "test", "aside"),
    [
        (("train", "test"), 8, 160, 80, "6 files (.ipynb_checkpoints 6)"),  # beside the classes
        (("",), 12, 120, 20, "120 files (.ipynb_checkpoints 120)"),  # inside them
        (("train", "test"), 8, 160, 80, "20 files (@eaDir 20)"),
    ],
)
def test_folders_of_tools_are_no_classes_and_no_images(
    tmp_path: Path, parts: tuple[str, ...], each: int, images: int, test: int, aside: str
) -> None:
    name, root = digits(tmp_path / "d", parts, each), tmp_path / "d"
    clean = data.load_dataset(name)
    for part in parts:
        if "(.ipynb_checkpoints 6)" in aside:
            copies(root / part / "c3", root / part / ".ipynb_checkpoints", 3)
            continue
        for folder in sorted((root / part).glob("c?")):
            copies(
                folder, folder / ("@eaDir" if "@eaDir" in aside else ".ipynb_checkpoints"), each if part == "" else 1
            )
    data.load_dataset.cache_clear()
    made = data.load_dataset(name)
    assert made.as_plan() == clean.as_plan() and made.classes == CLASSES
    assert (len(made.images), len(made.splits["test"])) == (images, test)
    assert f"left out, hidden or of a tool: {aside}" in made.notes
    assert not any("pixel for pixel" in note for note in made.notes)


def test_training_and_testing_are_parts_with_ten_classes(tmp_path: Path) -> None:
    made = data.load_dataset(digits(tmp_path / "m", ("training", "testing"), 8))
    assert made.classes == CLASSES and [len(made.splits[part]) for part in ("train", "val", "test")] == [70, 10, 80]
    assert made.as_plan() == data.load_dataset(digits(tmp_path / "d", ("train", "test"), 8)).as_plan()
