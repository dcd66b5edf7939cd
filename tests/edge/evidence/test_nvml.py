"""The driver's library through ctypes: a small library with its signatures, compiled here, stands for it."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from compress.statement_check import schema_fault
from edge.evidence import Sampler, nvml, snapshot
from edge.evidence.tree import Tree
from edge.evidence.warnings import machine_warnings

SOURCE = Path(__file__).with_name("nvml_stub.c")
Compile = Callable[..., str]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler; install gcc")
        pytest.skip("no C compiler here: the reader of NVIDIA's library was not tried")
    folder = tmp_path_factory.mktemp("nvml")

    def build(*defines: str) -> str:
        path = folder / f"lib{'-'.join(defines) or 'whole'}.so"
        if not path.exists():
            flags = [f"-D{name}" for name in defines]
            subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", str(path), str(SOURCE)], check=True)
        return str(path)

    return build


def test_everything_that_the_driver_tells(library: Compile) -> None:
    tree = Tree()
    with nvml.opened_nvml(library()) as (gpu, loaded):
        found = nvml.describe_gpu(tree, gpu, loaded)
        assert gpu.clock(nvml.MEMORY) == 10501 and gpu.energy() == 5_000_000_000_000
    assert (found["name"], found["compute_capability"]) == ("NVIDIA Stub 4090", "8.9")
    assert (found["driver"], found["cuda"]) == ("575.57.08", "12.9")
    assert found["clocks"] == {
        "gpu": {"mhz": 2520, "max_mhz": 3105},
        "gpu_memory": {"mhz": 10501, "max_mhz": 10502},
    }
    assert (found["temperature_c"], found["slowdown_c"]) == (71, 93)
    assert found["held_down_by"] == ["power cap", "heat (hardware)"]  # clocks that a user set are no fault
    assert (found["power_mw"], found["power_limit_mw"], found["energy_mj"]) == (312500, 450000, 5 * 10**12)
    assert found["memory"] == {"total_bytes": 25757220864, "used_bytes": 5757220864}
    assert (found["busy"], found["persistence"], found["ecc"]) == (0.97, True, False)
    assert (found["others"], found["hidden"]) == ([1], 1)  # init lives here, the other one is nowhere to be seen
    assert tree.unreadable == []


def test_our_own_processes_are_no_others(library: Compile) -> None:
    with nvml.opened_nvml(library()) as (gpu, loaded):
        assert nvml.describe_gpu(Tree(), gpu, loaded, own=(1,))["others"] == []


def test_an_older_driver_has_an_older_name(library: Compile) -> None:
    with nvml.opened_nvml(library("OLD")) as (gpu, _):
        assert nvml.words(gpu.reasons()) == ["power brake"]


def test_what_is_not_supported_is_null_and_said(library: Compile) -> None:
    tree = Tree()
    with nvml.opened_nvml(library("MEAGRE")) as (gpu, loaded):
        found = nvml.describe_gpu(tree, gpu, loaded)
    assert found["name"] is None and found["power_mw"] is None and found["others"] is None
    told = {row["what"]: row["why"] for row in tree.unreadable}
    assert told["power of the GPU"] == "nvmlDeviceGetPowerUsage: Not Supported" and len(told) == 17


def test_which_gpu(library: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    for visible in ("", "1", "GPU-1", "GPU-1,GPU-2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with nvml.opened_nvml(library()) as (gpu, _):
            assert gpu.temperature() == 71
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with (
        pytest.raises(nvml.NvmlError, match="nvmlDeviceGetHandleByIndex_v2: Invalid Argument"),
        nvml.opened_nvml(library()),
    ):
        pass
    with nvml.opened_nvml(library(), index=0) as (gpu, _):
        assert gpu.name()


def test_it_is_closed_again(library: Compile) -> None:
    with nvml.opened_nvml(library()) as (gpu, _):
        pass
    with pytest.raises(nvml.NvmlError):
        gpu.power()


def test_without_a_driver_one_sentence() -> None:
    with (
        pytest.raises(nvml.NvmlError, match=r"libnowhere\.so\.1 cannot be loaded"),
        nvml.opened_nvml("libnowhere.so.1"),
    ):
        pass


def test_a_desktop_gpu_in_a_snapshot_and_its_warnings(library: Compile) -> None:
    found = snapshot(library=library())
    assert schema_fault(found, "machine") is None
    assert found["kind"] == "gpu" and found["clocks"]["gpu"] == {"mhz": 2520, "max_mhz": 3105}
    assert found["temperatures_c"]["gpu"] == 71 and found["limits_c"]["gpu"] == 93
    assert found["power_mw"]["GPU"] == 312500 and found["energy_mj"]["GPU"] == 5 * 10**12
    rows = {row["name"]: row["found"] for row in machine_warnings(found, None, found, 0.0)}
    assert rows["throttled"].endswith("held down by power cap, heat (hardware)") and "process 1" in rows["shared-gpu"]


def test_a_gpu_is_sampled_through_the_driver_that_is_there(
    library: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampling process finds the library by its name, as it finds the real one."""
    shutil.copy(library(), tmp_path / nvml.LIBRARY)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with Sampler(interval_s=0.01) as sampler:
        assert sampler.measures_energy
    last = {name: row[-1] for name, row in sampler.samples.values.items()}
    want = {"mhz.gpu": 2520, "mhz.gpu_memory": 10501, "celsius.gpu": 71, "mw.GPU": 312500, "mj.GPU": 5e12}
    assert {name: last[name] for name in want} == want
    assert (last["share.gpu"], last["bits.gpu"]) == (0.97, 0x46)
    with Sampler(gpu=False) as blind:
        assert not any("gpu" in name.lower() for name in blind.channels)


def test_structures_have_the_sizes_of_the_header() -> None:
    assert (ctypes.sizeof(nvml._Memory), ctypes.sizeof(nvml._Utilization), ctypes.sizeof(nvml._Process)) == (24, 8, 24)
