"""What holds the house: every room stands on a floor, a class's name is its own, functions stay readable."""

import ast
import collections
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
PACKAGES = ("compress", "export", "edge")
TREES = {
    path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def test_every_room_stands_on_a_floor() -> None:
    """A room that no layer names could be part of a circle that the import contracts do not see."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert all(len(layers) <= 16 for layers in layered)
    named = {room for layers in layered for layer in layers for room in layer.split(" | ")}
    rooms = {".".join(path.with_suffix("").parts[:2]) for path in TREES if path.parts[0] != "export"}
    rooms -= {"compress.__init__", "edge.__init__"}
    assert len(rooms) > 25 and rooms <= named
    assert not any(contract.get("ignore_imports") for contract in contracts)


def test_no_two_classes_share_a_name() -> None:
    places = collections.defaultdict(list)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path))
    assert len(places) > 300
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_functions_and_files_are_read_without_turning_pages() -> None:
    functions = [
        node.end_lineno - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    ]
    assert len(functions) > 2000
    assert sum(lines > 60 for lines in functions) <= len(functions) / 100
    assert {str(path) for path in TREES if (ROOT / path).read_text().count("\n") > 430} == set()
