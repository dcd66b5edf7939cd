"""Installed packages whose objects are wrong: each answers with one line that names it, and exit code 2.

The packages lie on the path as pip leaves them. Commands that need no torch run in processes of their own.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import export.stage
from compress import data
from compress.cli.execute import execute
from compress.config import ExportConfig, parse
from compress.methods import registry
from compress.quantization import grids
from edge.core import plugins, targets
from edge.core.artifact import Work
from edge.core.errors import CompressError
from export import contract

ROOT = Path(__file__).parent.parent.parent

MODULE = '''
"""Objects of a careless package."""
from compress.data import DatasetSource
from edge.core.targets import Target

CODE = dict(
    runtime="floats",
    emitter="export.targets.onnx.emission:emit_onnx",
    opener="edge.runtimes.onnxruntime.runner:open_stage",
    doctor="edge.runtimes.onnxruntime.doctor:ONNX",
)
FLOATS = Target("floats", "floats alone", **CODE)
GRIDLESS = Target("gridless", "a dialect that raises", **CODE, dialect="gridless", grid="careless_grid:GRID")
UNREADABLE = DatasetSource("unreadable", "its file raises", "careless_grid:GRID", path="none")
RAISING = DatasetSource("raising", "its function raises", lambda path: [][0], path="none")
CALLING = DatasetSource("calling", "it calls wrongly", lambda path: __import__("json").loads("{"), path="none")
NOTHING = {}
'''
GRID = '''
"""A module that raises what nobody expects."""
GRID = {}["missing"]
'''
#: A command that asks for an object of the group by NAME.
COMMANDS = {
    "targets": "doctor",
    "methods": "distill --out out --data digits --student cnn --method NAME",
    "networks": "distill --out out --data digits --method normal --student NAME",
    "datasets": "distill --out out --student cnn --method normal --data NAME",
}
CLASSES = {"targets": "Target", "methods": "Method", "networks": "Network", "datasets": "DatasetSource"}
OURS = {"targets": "onnx", "methods": "rslad", "networks": "cnn", "datasets": "digits", "attacks": "apgd-ce"}


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Path]:
    """install(group, name, object): the folder of a package `careless` with that entry point in its metadata."""

    def installed(group: str, name: str, value: str) -> Path:
        site = tmp_path / "site"
        folder = site / "careless-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: careless\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[robust_compress.{group}]\n{name} = {value}\n")
        (site / "careless.py").write_text(MODULE)
        (site / "careless_grid.py").write_text(GRID)
        return site

    return installed


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """here(site): the packages of that folder are installed for this process."""

    def forget() -> None:
        importlib.invalidate_caches()
        plugins.installed.cache_clear()
        for name in ("careless", "careless_grid"):
            sys.modules.pop(name, None)

    def put(site: Path) -> None:
        monkeypatch.syspath_prepend(site)
        forget()

    yield put
    monkeypatch.undo()
    forget()


def fault(site: Path, command: str) -> str:
    """The one line with which a command is refused where the packages of `site` are installed."""
    paths = {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    args = [sys.executable, "-m", "compress", *command.split()]
    done = subprocess.run(args, env=os.environ | paths, cwd=site, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    *usage, line = done.stderr.strip().splitlines()
    assert line.startswith("compress: ") and len(usage) <= 3 and not (site / "out").exists()
    return line


@pytest.mark.parametrize("group", [group for group in COMMANDS if group != "targets"])
@pytest.mark.parametrize("value", ["careless.nowhere:OBJECT", "careless:NOTHING"])
def test_an_object_that_cannot_be_had_or_is_none_of_its_kind(
    install: Callable[..., Path], group: str, value: str
) -> None:
    line = fault(install(group, "mine", value), COMMANDS[group].replace("NAME", "mine"))
    assert f"{group} 'mine': {value}" in line and "uninstall it" in line
    assert ("dict" in line and CLASSES[group] in line) if "NOTHING" in value else "cannot be imported" in line


@pytest.mark.parametrize("value", ["careless.nowhere:OBJECT", "careless:NOTHING"])
def test_a_broken_target_is_left_out_of_what_lists_targets(install: Callable[..., Path], value: str) -> None:
    site = install("targets", "mine", value)
    paths = {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    args = [sys.executable, "-m", "compress", "doctor"]
    done = subprocess.run(args, env=os.environ | paths, cwd=site, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"left out: targets 'mine': {value}") and line.endswith("uninstall it")
    assert done.returncode == 0 and "onnx" in done.stdout and "mine" not in done.stdout


def test_a_module_that_ends_the_process_is_one_that_cannot_be_imported(install: Callable[..., Path]) -> None:
    site = install("datasets", "mine", "leaving:NOTHING")
    (site / "leaving.py").write_text("print('goodbye')\nraise SystemExit(0)\n")
    line = fault(site, COMMANDS["datasets"].replace("NAME", "mine"))
    assert "datasets 'mine': leaving:NOTHING cannot be imported (SystemExit: 0); uninstall it" in line


@pytest.mark.parametrize(("name", "said"), [("raising", "IndexError: "), ("calling", "JSONDecodeError: ")])
def test_what_a_packages_own_code_raises_bears_its_name(install: Callable[..., Path], name: str, said: str) -> None:
    site = install("datasets", name, f"careless:{name.upper()}")
    line = fault(site, COMMANDS["datasets"].replace("NAME", name) + " --eps 8/255")
    assert f"the installed package careless: raised {said}" in line and " at careless.py:" in line


@pytest.mark.parametrize("group", COMMANDS)
def test_a_name_that_is_ours(install: Callable[..., Path], group: str) -> None:
    name = OURS[group]
    line = fault(install(group, name, "careless:NOTHING"), COMMANDS[group].replace("NAME", name))
    assert f"{group} '{name}': careless:NOTHING has the name of one of ours; uninstall it" in line


@pytest.mark.parametrize("name", ["mine", OURS["attacks"]])
def test_the_same_of_an_attack(
    install: Callable[..., Path],
    here: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    chain: SimpleNamespace,
    name: str,
) -> None:
    here(install("attacks", name, "careless:NOTHING"))
    capsys.readouterr()
    assert execute(["evaluate", str(chain.student), "--attack", name, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"'{name}': careless:NOTHING" in line and "uninstall it" in line


def test_a_target_without_a_dialect_is_asked_for_int8(
    install: Callable[..., Path], here: Callable[[Path], None], tmp_path: Path, chain: SimpleNamespace
) -> None:
    here(install("targets", "floats", "careless:FLOATS"))
    config = parse(ExportConfig, {"data": "digits", "target": "floats"}, "test")
    with pytest.raises(
        CompressError, match=r"is quantized, and the target floats has no INT8; export .*student"
    ) as raised:
        export.stage.run(config, export.stage.ExportInputs(chain.quantized), tmp_path / "out")
    assert raised.value.exit_code == 2 and not (tmp_path / "out").exists()


def test_an_emitter_that_leaves_something_out(tmp_path: Path) -> None:
    work = Work(tmp_path)
    with pytest.raises(CompressError, match=r"^target onnx: .* gave NoneType; it must give an .*Emission$"):
        contract.check_emission(targets.get("onnx"), work, None)
    emission = contract.Emission({"bytes": 1, "precision": "int8", "parity": {}}, "model.flat", "flat")
    with pytest.raises(CompressError) as raised:
        contract.check_emission(targets.get("onnx"), work, emission)
    assert "left out the file model.onnx, the file model.flat, metrics['executed'];" in str(raised.value)
    work.add_payload("model.onnx"), work.add_payload("model.flat")
    contract.check_emission(targets.get("onnx"), work, replace(emission, metrics=emission.metrics | {"executed": True}))


def test_a_dialect_that_raises(install: Callable[..., Path], here: Callable[[Path], None]) -> None:
    here(install("targets", "gridless", "careless:GRIDLESS"))
    with pytest.raises(
        CompressError, match=r"^target 'gridless': its grid careless_grid:GRID cannot be had here \(.*KeyError"
    ):
        grids.dialect("gridless")


def test_a_stage_whose_method_is_no_longer_installed() -> None:
    """Fine-tuning asks for the student's own method."""
    with pytest.raises(CompressError, match=r"^unknown method 'saliency' \(known: normal, .*\)$"):
        registry.needs_teacher("saliency", {})


def test_a_row_whose_file_raises(install: Callable[..., Path], here: Callable[[Path], None]) -> None:
    here(install("datasets", "unreadable", "careless:UNREADABLE"))
    with pytest.raises(CompressError, match=r"^careless_grid:GRID cannot be imported \(KeyError"):
        data.load_dataset("unreadable")
