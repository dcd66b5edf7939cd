"""Which library is here and what it can, from versions and classes; and the fix where it is missing or broken."""

import sys
from pathlib import Path

import pytest

from edge.core.errors import CompressError
from edge.runtimes.tensorrt import library as module
from edge.runtimes.tensorrt.build import build_engine
from edge.runtimes.tensorrt.library import load_library, numbers, remedy, wrap_library
from tests.edge.tensorrt import fake, parts
from tests.edge.tensorrt.parts import recipe_of


@pytest.mark.parametrize(("version", "flags", "levels"), [("10.3.0", 2, 1), ("10.14.1", 2, 2), ("11.4.0.106", 0, 2)])
def test_the_dialect_follows_from_what_the_classes_have(version: str, flags: int, levels: int) -> None:
    """10.x is weakly typed unless asked, 11 has no other networks; 10.3 does not know one of the levels."""
    found = fake.library(version)
    assert found.network_flags == flags and found.weakly_typed == bool(flags)
    assert len(found.hardware_levels) == levels and not found.ahead_of_time and not found.validity
    assert found.name == f"TensorRT {version}" and found.compute_capabilities == {}
    network, _ = _built(found)
    assert network.flags == flags


def test_tensorrt_rtx_builds_ahead_of_time() -> None:
    rtx = parts.rtx()
    assert rtx.ahead_of_time and rtx.validity and rtx.network_flags == 0 and rtx.hardware_levels == {}
    assert {"7.5", "8.6", "8.9", "12.0"} <= set(rtx.compute_capabilities)
    assert "7.5" not in rtx.capabilities(()) and rtx.capabilities(("7.5",)) == ("7.5",)
    assert load_library("tensorrt-rtx") is rtx


def test_a_level_that_a_version_lacks_is_refused() -> None:
    _, config = _built(fake.library("10.14.1"), hardware_compatibility="same-compute-capability")
    assert config.hardware_compatibility_level == 2
    with pytest.raises(CompressError, match=r"TensorRT 10\.3\.0 knows ampere\+; choose another"):
        _built(fake.library("10.3.0"), hardware_compatibility="same-compute-capability")


@pytest.mark.parametrize(
    ("version", "cores", "line"),
    [
        ("10.3.0", 0, "dla 0: this device has none; leave --dla out"),
        ("10.16.1", 0, "dla 0: TensorRT 10.16.1 has no DLA: 10.7 was the last that did until 11.4.1 on AGX Orin"),
        ("11.4.0.106", 0, "dla 0: TensorRT 11.4.0.106 has no DLA"),
        ("11.4.1.20", 0, "dla 0: this device has none"),
        ("10.3.0", 2, "dla 2: this device has 2 cores, 0 to 1"),
    ],
)
def test_a_dla_that_is_not_there_is_refused_with_the_reason(version: str, cores: int, line: str) -> None:
    library = fake.library(version, dla_cores=cores)
    with pytest.raises(CompressError, match=line):
        _built(library, precision="fp16", batch=(1, 1, 1), dla=2 if cores else 0)


def test_a_dla_that_is_there_is_used_with_the_gpu_for_the_rest() -> None:
    found = fake.library("10.3.0", dla_cores=2)
    _, config = _built(found, precision="fp16", batch=(1, 1, 1), dla=1)
    assert config.DLA_core == 1 and config.default_device_type == found.module.DeviceType.DLA
    assert found.module.BuilderFlag.GPU_FALLBACK in config.flags


def test_every_setting_of_a_recipe_reaches_the_builder() -> None:
    found = fake.library("10.14.1")
    how = {
        "workspace_mib": 64,
        "optimization_level": 5,
        "hardware_compatibility": "ampere+",
        "version_compatible": True,
    }
    _, config = _built(found, batch=(1, 4, 16), **how)
    trt = found.module
    assert config.limits == {trt.MemoryPoolType.WORKSPACE: 64 << 20} and config.builder_optimization_level == 5
    assert config.hardware_compatibility_level == trt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.flags == {trt.BuilderFlag.VERSION_COMPATIBLE}
    assert config.cleared == {trt.BuilderFlag.TF32}  # float32 is IEEE single precision
    assert config.profile.shapes == tuple((size, *fake.SHAPE) for size in (1, 4, 16))
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED


def test_a_timing_cache_is_read_extended_and_set_aside_when_it_is_of_another_device(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = fake.library()
    how = recipe_of("tensorrt")
    assert build_engine(b"onnx", how, found, device=parts.ORIN, timing_cache=b"old").timing_cache == b"old+timed"
    assert build_engine(b"onnx", how, found, device=parts.ORIN, timing_cache=b"other device").timing_cache == b"+timed"
    assert "the timing cache is of another device or version" in capsys.readouterr().err


def test_the_layers_are_the_inspectors_where_the_engine_can_be_loaded() -> None:
    made = build_engine(b"onnx", recipe_of("tensorrt"), fake.library(), device=parts.ORIN)
    assert made.layers is not None and made.layers["weighted"] == {"fc": "fp16"}


def test_a_builder_that_needs_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(listener: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(
        CompressError, match=r"TensorRT 10.3.0 cannot build here .*`compress export --deferred` leaves it"
    ):
        build_engine(b"onnx", recipe_of("tensorrt"), fake.library(Builder=fails))


def test_too_old_is_refused_and_too_new_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CompressError, match=r"tensorrt 8\.6\.1 is too old, 10\.0 or newer is needed; pip install"):
        wrap_library("tensorrt", fake._module("8.6.1"))
    assert wrap_library("tensorrt", fake._module("12.0.1")).version == "12.0.1"
    assert capsys.readouterr().err == "tensorrt 12.0.1 is newer than 11.x, which this was written for; going on\n"


def test_absent_and_broken_libraries_have_the_fix_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MODULES", {"tensorrt": "a_tensorrt_that_is_not_there"})
    monkeypatch.setattr(module, "_loaded", {})
    with pytest.raises(CompressError, match="a_tensorrt_that_is_not_there is not installed here; pip install tensorrt"):
        load_library("tensorrt")
    (tmp_path / "a_broken_tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open\\nmore')")
    monkeypatch.setattr(module, "MODULES", {"tensorrt": "a_broken_tensorrt"})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(
        CompressError, match=r"installed but does not load \(libnvinfer.so.10: cannot open\); pip install"
    ):
        load_library("tensorrt")


def test_the_remedy_is_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / module.JETSON).touch()
    assert remedy("tensorrt", tmp_path).startswith("it is part of JetPack: sudo apt install python3-libnvinfer")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    assert remedy("tensorrt-rtx", tmp_path) == "pip install tensorrt-rtx-cu13"
    monkeypatch.setattr(module.platform, "machine", lambda: "aarch64")
    assert "exists for x86-64 only, this is aarch64: choose the target tensorrt" in remedy("tensorrt-rtx", tmp_path)


def test_versions_compare_as_numbers() -> None:
    assert numbers("10.3.0") < numbers("10.14.1") < numbers("11.4.0.106") and numbers("1.7.1.116") == (1, 7, 1, 116)
    assert numbers("10.4.0b1") == (10, 4) and numbers("dev") == (0,)


def _built(found: module.Library, **changes: object) -> "tuple[fake.Any, fake.Config]":
    fake.BUILT.clear()
    build_engine(b"onnx", recipe_of("tensorrt", **changes), found, device=parts.ORIN)
    (entry,) = fake.BUILT
    return entry
