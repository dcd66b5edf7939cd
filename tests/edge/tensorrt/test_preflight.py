"""Engines that cannot run here are told so before a byte of them is loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import CompressError
from edge.runtimes.tensorrt import preflight, recipe
from edge.runtimes.tensorrt.cuda import Device
from edge.runtimes.tensorrt.preflight import Unfit, check_fits, written_by
from tests.edge.tensorrt import fake, parts
from tests.edge.tensorrt.parts import ORIN, RTX_3090, recipe_of

FULL, ANEW = fake.plan(), "`compress verify` builds it anew from model.onnx, where it runs"


def about(
    content: bytes = FULL, version: str = "10.3.0", device: "Device | None" = ORIN, **changes: Any
) -> dict[str, Any]:
    return recipe.sidecar_of(content, b"onnx", recipe_of("tensorrt", **changes), fake.library(version), device)


def test_an_engine_runs_where_it_was_built() -> None:
    check_fits(FULL, about(), fake.library(), ORIN, "e")
    assert recipe.read_sidecar(recipe.sidecar_text(about()), "e") == about()


@pytest.mark.parametrize(
    ("here", "device", "reason"),
    [
        ("10.3.0", RTX_3090, r"here is NVIDIA GeForce RTX 3090 \(SM 8\.6\)"),
        ("10.3.1", ORIN, r"the plan is of version 10\.3\.0\.0, here is TensorRT 10\.3\.1"),
        ("11.4.0.106", ORIN, r"the plan is of version 10\.3\.0\.0, here is TensorRT 11\.4\.0\.106"),
    ],
    ids=["gpu", "patch", "major"],
)
def test_another_gpu_or_version_is_one_line_with_both_sides(here: str, device: Device, reason: str) -> None:
    with pytest.raises(
        Unfit, match=rf"e: built for Orin \(SM 8\.7\) by TensorRT 10\.3\.0 on .*; {reason}; {ANEW}"
    ) as fault:
        check_fits(FULL, about(), fake.library(here), device, "e")
    assert "\n" not in str(fault.value)


def test_another_system_is_refused() -> None:
    with pytest.raises(Unfit, match=r"on windows amd64; here is linux "):
        check_fits(FULL, about() | {"system": "windows", "machine": "amd64"}, fake.library(), ORIN, "e")


def test_the_header_counts_when_the_sidecar_says_otherwise() -> None:
    """An engine of another version, its sidecar edited so that it seems to fit."""
    other = fake.plan("10.4.0")
    with pytest.raises(Unfit, match=r"the plan is of version 10\.4\.0\.0, here is TensorRT 10\.3\.0"):
        check_fits(other, about(other), fake.library(), ORIN, "e")


def test_version_compatible_engines_run_on_later_versions_only() -> None:
    stated = about(version_compatible=True)
    for version in ("10.3.0", "10.16.1", "11.4.0"):
        check_fits(FULL, stated, fake.library(version), ORIN, "e")
    with pytest.raises(Unfit):
        check_fits(FULL, stated, fake.library("10.2.0"), ORIN, "e")


def test_ampere_compatible_engines_run_on_ampere_and_later(capsys: pytest.CaptureFixture[str]) -> None:
    stated = about(hardware_compatibility="ampere+")
    check_fits(FULL, stated, fake.library(), RTX_3090, "e")
    assert "built on Orin, runs on NVIDIA GeForce RTX 3090" in capsys.readouterr().err
    with pytest.raises(Unfit):
        check_fits(FULL, stated, fake.library(), replace(RTX_3090, sm="7.5"), "e")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (FULL[:20], "holds 20 bytes of 40; it was cut off or replaced, export it again"),
        (FULL[:-1] + b"x", r"has sha256 \w{12}, its sidecar says \w{12}; it is not loaded"),
    ],
    ids=["cut", "flipped"],
)
def test_bytes_that_are_not_the_sidecars_are_not_loaded(content: bytes, line: str) -> None:
    with pytest.raises(CompressError, match=line) as fault:
        check_fits(content, about(), fake.library(), ORIN, "e")
    assert not isinstance(fault.value, Unfit)  # damage; building it anew is not what to do by oneself


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            b"\x10\0\0\0{'task': 'classify', 'names': {}}" + FULL,
            "no TensorRT engine .* without a header of another tool",
        ),
        (b"ftrt", "no TensorRT engine"),
        (b"ftrt\x01\0\0\0" + FULL[8:], "a plan of serialization 01000000, unknown here"),
    ],
    ids=["prefixed", "cut", "serialization"],
)
def test_what_is_no_plan_is_refused(content: bytes, line: str) -> None:
    with pytest.raises(CompressError, match=line):
        written_by(content, "e")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "sha256": ""}'])
def test_what_is_no_sidecar_is_refused(content: str) -> None:
    with pytest.raises(CompressError, match="not readable as what an engine was built for; export the model again"):
        recipe.read_sidecar(content, "engine.json")


def test_an_engine_of_tensorrt_rtx_is_for_the_capabilities_that_it_names() -> None:
    from edge.runtimes.tensorrt.build import build_engine
    from tests.edge.tensorrt.graphs import graph

    rtx = parts.rtx()
    how = recipe_of(compute_capabilities=("8.9",))
    content = build_engine(graph("float32"), how, rtx).engine
    stated = recipe.sidecar_of(content, b"onnx", how, rtx, None)
    with pytest.raises(
        Unfit, match=r"built for SM 8\.9 by TensorRT-RTX .*; here is NVIDIA GeForce RTX 3090 \(SM 8\.6\)"
    ):
        check_fits(content, stated, rtx, RTX_3090, "e")
    with pytest.raises(Unfit, match=r"here is TensorRT 10\.3\.0"):
        check_fits(content, stated, fake.library(), RTX_3090, "e")
    if not Path("/proc/driver/nvidia").exists():  # the library itself is asked, and finds no driver
        with pytest.raises(Unfit, match=r"TensorRT-RTX .* finds it invalid here"):
            check_fits(content, stated, rtx, replace(RTX_3090, sm="8.9"), "e")


def test_the_line_names_what_is_on_both_sides() -> None:
    assert preflight.built_for(about()).startswith("built for Orin (SM 8.7) by TensorRT 10.3.0 on linux ")
