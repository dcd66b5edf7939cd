"""What `edge/tensorrt` touches of TensorRT exists in both majors, with the arguments it is called with.

TensorRT's own Python bindings of 10.3.0 (JetPack 6.2) and 11.4 are looked at: they import without the libraries that
they belong to once small shared objects bear these libraries' names. TensorRT-RTX is looked at as it is installed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.edge.tensorrt import parts
from tests.slow.tensorrt_programs.used import RTX_ONLY, Use, arities, uses

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
#: What the bindings call while they are imported.
STUBS = """
extern "C" {
int getNvOnnxParserVersion() { return 0; }
int getInferLibVersion() { return 0; }
int getInferLibBuildVersion() { return 0; }
void* getPluginRegistry() { return 0; }
void* getBuilderPluginRegistry(int) { return 0; }
bool initLibNvInferPlugins(void*, const char*) { return true; }
void* createInferBuilder_INTERNAL(void*, int) { return 0; }
void* createInferRuntime_INTERNAL(void*, int) { return 0; }
void* createInferRefitter_INTERNAL(void*, void*, int) { return 0; }
void* createNvOnnxParser_INTERNAL(void*, void*, int) { return 0; }
void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int) { return 0; }
}
"""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
MAJORS = {
    "10": {
        "version": "10.3.0",
        "weakly_typed": True,
        "network_flags": 2,
        "hardware_levels": ["ampere+"],
        "ahead_of_time": False,
        "validity": False,
    },
    "11": {
        "version": "11.4.0.106",
        "weakly_typed": False,
        "network_flags": 0,
        "hardware_levels": ["ampere+", "same-compute-capability"],
        "ahead_of_time": False,
        "validity": False,
    },
}
USED = uses()


@pytest.fixture(scope="module", params=MAJORS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process says that has imported the bindings of a major version."""
    major = request.param
    packages = ROOT / ".venv-trt" / major
    if not (packages / "tensorrt_bindings").is_dir():
        missing = f"{packages} has no bindings of TensorRT {major}; `make test-slow` installs them"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    stubs = tmp_path_factory.mktemp(f"stubs{major}")
    source = stubs / "stubs.cpp"
    source.write_text(STUBS)
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.fail("g++ is missing") if os.environ.get("CI") else pytest.skip("no g++ here to compile the stand-ins")
    for name in LIBRARIES:
        soname = f"lib{name}.so.{major}"
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", stubs / soname, source], check=True
        )
    place = {"LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": os.pathsep.join(map(str, (packages, ROOT)))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.slow.tensorrt_programs.bindings"],
        input=json.dumps([use.name for use in USED if not use.rtx_only]),
        env={**os.environ, **place},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {"major": major, **json.loads(done.stdout)}


def test_the_dialect_is_read_off_the_real_classes(real: dict[str, Any]) -> None:
    assert real["library"] == MAJORS[real["major"]]


def test_every_name_is_there(real: dict[str, Any]) -> None:
    missing = sorted(name for name, doc in real["names"].items() if doc is None)
    assert missing == []


def test_every_call_has_a_number_of_arguments_that_some_signature_takes(real: dict[str, Any]) -> None:
    assert _wrong(lambda name: real["names"][name], [use for use in USED if not use.rtx_only]) == []


def test_tensorrt_rtx_has_it_all_and_what_is_its_own() -> None:
    module = parts.rtx().module

    def doc(name: str) -> "str | None":
        found: Any = module
        for part in name.split("."):
            if not hasattr(found, part):
                return None
            found = getattr(found, part)
        return str(found.__doc__)

    assert [use.name for use in USED if doc(use.name) is None] == []
    assert _wrong(doc, USED) == []
    assert sum(use.rtx_only for use in USED) >= 5 and RTX_ONLY.search("IBuilderConfig.num_compute_capabilities")


def test_the_list_is_read_off_the_source() -> None:
    """A name added to the code is in it; these are from each of the files and of each of the kinds."""
    names = {use.name for use in USED}
    assert len(names) > 60
    assert names >= {
        "IExecutionContext.execute_async_v3",
        "BuilderFlag.VERSION_COMPATIBLE",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "IBuilderConfig.progress_monitor",
        "OnnxParser.parse",
        "EngineInspector.get_engine_information",
        "ITimingCache.serialize",
        "Runtime.engine_host_code_allowed",
        "Runtime.get_engine_validity",
    }
    assert arities("f(self: t.C, a: list[int, str] = None, b: int) -> bool\n") == [(1, 2)]
    assert arities("f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: t.C, a: int) -> None\n") == [(1, 1)]


def _wrong(doc: Any, asked: list[Use]) -> list[str]:
    """Calls that no signature takes; classes are called as their `__init__` says, which pybind11 puts elsewhere."""
    found = []
    for use in asked:
        text = doc(use.name) or ""
        counted = arities(text)
        if use.arguments is None or "." not in use.name or not counted:
            continue
        if not any(low <= use.arguments <= high for low, high in counted):
            found.append(f"{use.where}: {use.name} with {use.arguments}: {text.splitlines()[0]}")
    return found
