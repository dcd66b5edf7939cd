"""Which versions go together: told in one line, from package metadata alone."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edge.core.errors import CompressError
from export.targets.torch_tensorrt import versions
from export.targets.torch_tensorrt.versions import PAIRS, TORCH_TENSORRT, TORCH_TENSORRT_RTX, InstalledVersions

GOOD = {
    TORCH_TENSORRT: InstalledVersions("2.13.0+cu130", True, "2.13.0", None, "11.0.0.114"),
    TORCH_TENSORRT_RTX: InstalledVersions("2.13.0", True, "2.13.0", None, "1.5.0.114"),
}


@pytest.mark.parametrize("target", GOOD)
def test_what_belongs_together_passes(target: str) -> None:
    assert versions.version_fault(target, GOOD[target]) is None


@pytest.mark.parametrize("row", PAIRS, ids=lambda row: row.torch)
def test_every_row_passes_as_it_stands_and_fails_with_another_rows_library(row: versions.Pair) -> None:
    for target in GOOD:
        wanted = row.library(target)
        if wanted is None:
            continue
        fits = InstalledVersions(f"{row.torch}.1", True, f"{row.torch}.0", None, f"{wanted}.3.9")
        assert versions.version_fault(target, fits) is None
        for other in PAIRS:
            if other is not row and other.library(target):
                line = str(versions.version_fault(target, replace(fits, library=f"{other.library(target)}.0")))
                assert f"built for {wanted}" in line and f"{target}~={row.torch}.0" in line


#: What is wrong, and what the line must say of it: what was found, and the command that mends it.
WRONG = {
    "no torch": ({"torch": None}, ["not installed", "pip install torch~=2.14.0 torch-tensorrt~=2.14.0"]),
    "old torch": ({"torch": "2.7.1"}, ["torch 2.7.1 is older", "pip install torch~=2.14.0"]),
    "no cuda": (
        {"cuda": False, "torch": "2.13.0+cpu"},
        ["torch 2.13.0+cpu is built without CUDA", "pip uninstall -y torch && pip install torch~=2.13.0"],
    ),
    "no wheel": (
        {"wheel": None},
        ["torch-tensorrt is not installed", "pip install torch~=2.13.0 torch-tensorrt~=2.13.0"],
    ),
    "another minor": ({"wheel": "2.12.1"}, ["torch-tensorrt 2.12.1 beside torch 2.13.0", "torch-tensorrt~=2.13.0"]),
    "both wheels": ({"other_wheel": "2.13.0"}, ["share one package folder", "pip uninstall -y torch-tensorrt-rtx"]),
    "no library": ({"library": None}, ["no TensorRT beside", "built for 11.0"]),
    "another library": ({"library": "10.16.1.11"}, ["TensorRT 10.16.1.11 beside", "built for 11.0"]),
    "jetpack 6": ({"jetpack": 6}, ["JetPack 6 has TensorRT 10.3", "--target tensorrt"]),
    "jetpack 5": ({"jetpack": 5}, ["JetPack 5", "update the board"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_one_line_with_its_command(name: str) -> None:
    changes, words = WRONG[name]
    fault = versions.version_fault(TORCH_TENSORRT, replace(GOOD[TORCH_TENSORRT], **changes))
    assert fault is not None
    line = str(fault)
    assert "\n" not in line and line == f"{fault.what}; {fault.fix}"
    assert line.count("; ") == 1  # the doctor shows what is wrong and what mends it apart
    for word in words:
        assert word in line, line


def test_a_release_without_an_rtx_variant_is_named() -> None:
    line = str(versions.version_fault(TORCH_TENSORRT_RTX, InstalledVersions("2.10.0", True, None, None, None)))
    assert "no torch-tensorrt-rtx was released for torch 2.10.0" in line


def test_a_release_newer_than_the_table_is_held_to_its_own_minor_only() -> None:
    newer = InstalledVersions("2.15.0", True, "2.15.0", None, "11.6.0")
    assert versions.version_fault(TORCH_TENSORRT, newer) is None
    line = str(versions.version_fault(TORCH_TENSORRT, replace(newer, wheel="2.14.0")))
    assert "torch-tensorrt~=2.15.0" in line


def test_a_board_with_jetpack_7_follows_the_table() -> None:
    assert versions.version_fault(TORCH_TENSORRT, replace(GOOD[TORCH_TENSORRT], jetpack=7)) is None


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025", 6),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 2023", 5),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, DATE: Fri Aug 22 2025", 7),
        ("# something else", None),
    ],
)
def test_jetpack_is_read_from_the_boards_release_file(tmp_path: Path, text: str, major: "int | None") -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text(text + "\n")
    assert versions.jetpack_major(tmp_path) == major


def test_this_machines_torch_is_read_right_without_importing_it() -> None:
    assert versions.torch_has_cuda() == (torch.version.cuda is not None)
    assert versions.names_cuda("debug = False\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n")
    assert not versions.names_cuda("cuda: Optional[str] = None\nhip: Optional[str] = '7.0'\n")


def test_int8_is_refused_where_the_builder_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, refused in (("1.5.0.114", True), ("1.6.1.120", True), ("1.7.1.116", False), ("1.10.0", False)):
        found = replace(GOOD[TORCH_TENSORRT_RTX], library=library)
        monkeypatch.setattr(versions, "installed_versions", lambda target, found=found: found)
        versions.check_int8(TORCH_TENSORRT)
        if refused:
            with pytest.raises(CompressError, match=f"TensorRT-RTX {library} builds no INT8 .* --target tensorrt-rtx"):
                versions.check_int8(TORCH_TENSORRT_RTX)
        else:
            versions.check_int8(TORCH_TENSORRT_RTX)


def test_the_table_needs_the_standard_library_alone() -> None:
    heavy = "{'torch', 'numpy', 'onnx', 'pydantic'}"
    code = f"import sys, export.targets.torch_tensorrt.versions; print(*({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
