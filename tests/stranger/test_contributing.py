"""CONTRIBUTING.md quotes the stranger's package, and names files that are there."""

import importlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "package"
ROOT = PACKAGE.parent.parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"^```\w+\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
FILES = {path: path.read_text() for path in sorted(PACKAGE.rglob("*")) if path.suffix in (".py", ".toml")}


def test_there_are_blocks_of_every_kind_of_object() -> None:
    quoted = {path.name for path, text in FILES.items() for block in BLOCKS if block in text}
    objects = {"target.py", "dialect.py", "emission.py", "runner.py", "doctor.py"}
    assert quoted >= {"pyproject.toml", "saliency.py", "pebble.py", "rows.py", "stripes.py", "corners.py", *objects}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0][:40])
def test_what_it_quotes_is_what_the_package_does(block: str) -> None:
    assert any(block in text for text in FILES.values())


def test_the_places_that_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:compress|export|edge|tests|docs|configs)/[\w./-]+)`", TEXT))
    assert len(named) > 15
    missing = [
        name for name in sorted(named) if not re.search(r"NAME|FAMILY|KIND", name) and not (ROOT / name).exists()
    ]
    assert not missing
    for name in re.findall(r"`(\w+)` \(`(compress/[\w/]+\.py)`\)", TEXT):
        assert f"{name[0]} = " in (ROOT / name[1]).read_text() or f"{name[0]}:" in (ROOT / name[1]).read_text(), name


def test_the_rooms_of_the_house_are_those_of_the_tree() -> None:
    house = TEXT.partition("## The house")[2].partition("\n## ")[0]
    for package in ("compress", "edge"):
        rooms = {path.name for path in (ROOT / package).iterdir() if path.is_dir() and path.name != "__pycache__"}
        assert all(f"{room}/" in house for room in rooms), package


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".py"], ids=lambda path: path.stem)
def test_every_module_of_the_package_imports(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PACKAGE)
    importlib.import_module(".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"))
