"""README, CONTRIBUTING, docs and benchmarks speak of what is there: links, paths, imports and keys."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from compress.config.starter import json_schema

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]  # a changelog names what went, too
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def names_something(module: str, name: str) -> bool:
    """`from module import name` works."""
    return hasattr(importlib.import_module(module), name) or importlib.import_module(f"{module}.{name}") is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_paths_that_are_named_are_there() -> None:
    rooms, suffixes = "benchmarks|compress|configs|docs|edge|export|tests", "json|jsonl|md|png|py|txt|yaml"
    places = rf"(?<![\w/.-])((?:{rooms})/[\w./-]*\.(?:{suffixes}))\b"
    texts = [*NOW, *BENCHMARKS, *(ROOT / "benchmarks").glob("*.txt"), *(ROOT / "configs").glob("*.yaml")]
    texts += [path for package in ("compress", "edge", "export") for path in (ROOT / package).rglob("*.py")]
    named = {(path, name) for path in texts for name in re.findall(places, path.read_text()) if "NAME" not in name}
    written = "edge/board/defaults.json"  # in edge.pyz alone
    assert len(named) > 50
    assert {name for _, name in named if not (ROOT / name).exists()} == {written}


def test_what_the_snippets_import_is_there() -> None:
    blocks = [block for page in NOW for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)]
    imports = [
        (node.module, alias.name)
        for block in blocks
        if not block.startswith("    ")  # a quoted method
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]
    assert len(imports) > 8
    assert all(names_something(module, name) for module, name in imports)


def test_keys_that_commands_set_are_there() -> None:
    def keys(part: Any) -> set[str]:
        if isinstance(part, list):
            return set().union(*map(keys, part))
        if not isinstance(part, dict):
            return set()
        return {*part.get("properties", {})}.union(*map(keys, part.values()))

    known = keys(json_schema())
    named = {key for page in NOW for key in re.findall(r"--set [\"']?([a-z][\w.]*)=", page.read_text())}
    assert len(named) > 5
    stages = {key: [part for part in key.split(".") if part not in known] for key in named if "options." not in key}
    assert {key: missing for key, missing in stages.items() if missing} == {}


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda script: script.stem)
def test_what_benchmarks_import_of_ours_is_there(script: Path) -> None:
    """Also within functions, which `--help` does not reach."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("compress", "edge", "export"):
            assert all(names_something(str(node.module), alias.name) for alias in node.names)
