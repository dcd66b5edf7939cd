"""What a target is stands in its object and its folders: nobody else compares a target's name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.core import targets

ROOT = Path(targets.__file__).parents[2]
REGISTRY = "edge/core/targets.py"
#: Where a target's name may stand. Those of TensorRT share one library and the names of its distributions.
OF_TENSORRT = (
    "edge/runtimes/tensorrt/",
    "export/targets/tensorrt/",
    "export/targets/torch_tensorrt/",
)
FOLDERS = {
    "onnx": ("edge/runtimes/onnxruntime/", "export/targets/onnx/"),
    "tensorrt": OF_TENSORRT,
    "tensorrt-rtx": OF_TENSORRT,
    "torch-tensorrt": OF_TENSORRT,
    "torch-tensorrt-rtx": OF_TENSORRT,
}
#: Words that are spelled as a target and are none.
OTHERWISE = {
    ("compress/networks/network_files.py", "onnx"): "the architecture of a network that is nothing but a graph",
    ("edge/runtimes/tensorrt/engines.py", "onnx"): "what an engine was built from, in the plan that names its folder",
}


def literals(source: str) -> Iterator[ast.Constant]:
    """Strings that are a target's name, but the defaults of settings."""
    tree = ast.parse(source)
    defaults = {
        id(node)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Field" and call.args
        for node in ast.walk(call.args[0])
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in FOLDERS and id(node) not in defaults:
            yield node


def test_names_of_targets_stand_in_the_registry_and_in_their_folders_alone() -> None:
    assert {*FOLDERS} == {target.name for target in targets.OURS}
    stray, met = [], set()
    for path in sorted(path for package in ("compress", "export", "edge") for path in (ROOT / package).rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for node in literals(path.read_text()) if where != REGISTRY else ():
            if (where, node.value) in OTHERWISE:
                met.add((where, node.value))
            elif not where.startswith(FOLDERS[str(node.value)]):
                stray.append(f"{where}:{node.lineno}: {node.value!r}")
    assert not stray, "ask edge.core.targets in its place:\n" + "\n".join(stray)
    assert met == {*OTHERWISE}, "an exception that nobody needs any more"


@pytest.mark.parametrize("where", sorted({folder for folders in FOLDERS.values() for folder in folders}))
def test_every_folder_of_a_target_is_there(where: str) -> None:
    assert [*(ROOT / where).glob("*.py")]


def test_the_reader_sees_comparisons_and_tables_and_lets_defaults_be() -> None:
    lines = (
        'a = target == "onnx"',
        'b = {"tensorrt": 1}',
        'c: str = Field("onnx")',
        'd = "onnx torch"',
    )
    source = "\n".join(lines)
    assert [node.lineno for node in literals(source)] == [1, 2]
