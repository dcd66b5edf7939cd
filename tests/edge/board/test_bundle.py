"""`edge.pyz`: the same bytes every time, everything that it imports inside, and nothing that a board lacks."""

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edge
from compress import __version__
from compress.cli.execute import execute
from compress.remote import bundle

HEAVY = {"torch", "onnx", "pydantic", "yaml", "click", "scipy", "sklearn", "modelopt", "safetensors"}


def names() -> "dict[str, bytes]":
    with zipfile.ZipFile(io.BytesIO(bundle.bundle_bytes())) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_its_bytes_are_a_function_of_the_sources() -> None:
    first = bundle.bundle_bytes()
    bundle.bundle_bytes.cache_clear()
    assert bundle.bundle_bytes() == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {entry.date_time for entry in archive.infolist()} == {bundle.EARLIEST}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_it_is_the_folder_edge_which_imports_nothing_of_ours_and_nothing_heavy() -> None:
    files = names()
    home = Path(edge.__file__).parent
    sources = {
        path.relative_to(home.parent).as_posix() for path in home.rglob("*.py") if "__pycache__" not in path.parts
    }
    assert {"edge/statement/statement.schema.json", "edge/board/network.onnx", bundle.DEFAULTS} <= set(files)
    assert {name for name in files if name.startswith("edge/") and name.endswith(".py")} == sources
    assert {name.partition("/")[0] for name in files} == {
        "__main__.py",
        "edge",
        f"robust_compress-{__version__}.dist-info",
    }
    for name, source in files.items():
        for node in ast.walk(ast.parse(source)) if name.endswith(".py") else ():
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for module in modules:
                assert module.partition(".")[0] not in HEAVY | {"compress", "export"}, f"{name} imports {module}"


ADDED = {
    "strange/__init__.py": "",
    "strange/added.py": (
        "from edge.core.targets import Target\n"
        "TARGET = Target('strange', 'odd', runtime='odd', emitter='strange.heavy:emit', doctor='strange.device:DOCTOR',"
        " opener='strange.device.runner:opened', device_package='strange.device')\n"
    ),
    "strange/heavy.py": "import torch\n",
    "strange/device/__init__.py": "",
    "strange/device/runner.py": "ANSWER = 42\n",
    "strange_target-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: strange-target\nVersion: 1.5\n",
    "strange_target-1.5.dist-info/entry_points.txt": (
        "[robust_compress.targets]\nstrange = strange.added:TARGET\n\n"
        "[robust_compress.methods]\nodd = strange.heavy:METHOD\n"
    ),
}
ASKED = """
from importlib.metadata import entry_points
from edge.core import plugins, targets
print(targets.get("strange").device_package, sorted(plugins.installed("methods")))
from strange.device.runner import ANSWER
print(ANSWER)
"""


def test_a_package_that_adds_a_target_goes_along_and_is_found_inside(tmp_path: Path) -> None:
    for name, text in ADDED.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text)
    home = Path(edge.__file__).parents[1]
    script = "from pathlib import Path; from compress.remote import bundle; bundle.write_bundle(Path('edge.pyz'))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(home)])}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=env)
    with zipfile.ZipFile(tmp_path / "edge.pyz") as archive:
        added = {name for name in archive.namelist() if name.startswith("strange")}
    assert added == set(ADDED) - {"strange/heavy.py"}
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "edge.pyz")}
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, cwd=tmp_path / "..", env=env)
    assert done.stdout.splitlines() == ["strange.device []", "42"], done.stderr


def test_its_defaults_are_those_of_compress_verify() -> None:
    from compress.config import VerifyConfig, parse

    expected = parse(VerifyConfig, {"data": "digits"}, "verify").semantic()
    assert json.loads(names()[bundle.DEFAULTS]) == expected


def test_the_command_writes_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bundle", str(tmp_path / "new" / "edge.pyz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    path = Path(found["file"])
    assert path.read_bytes() == bundle.bundle_bytes() and found["bytes"] == path.stat().st_size
    assert os.access(path, os.X_OK)
    done = subprocess.run([sys.executable, "-I", path, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == f"robust-compress {__version__}"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for wrong, said in ((tmp_path, "is a folder"), (tmp_path / "file" / "edge.pyz", "cannot be written")):
        assert execute(["bundle", str(wrong)]) == 2
        assert said in capsys.readouterr().err


def test_a_python_without_numpy_is_one_line(tmp_path: Path) -> None:
    bundle.write_bundle(tmp_path / "edge.pyz")
    done = subprocess.run([sys.executable, "-I", "-S", tmp_path / "edge.pyz", "--help"], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("compress: Python 3.") and "has no numpy; there: sudo apt install python3-numpy" in line


@pytest.mark.parametrize("name", ["edge/__main__.py", "__main__.py"])
def test_its_first_file_is_read_by_any_python_3(name: str) -> None:
    """No syntax younger than the oldest Python that could meet it."""
    if name == "__main__.py":
        ast.parse(names()[name], feature_version=(3, 4))
    ast.parse(names()[name], feature_version=(3, 10))
