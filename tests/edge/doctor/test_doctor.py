"""The doctor: every rule fires where it holds and is silent beside it; what it sees of real and recorded machines."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tomllib

from compress.cli.execute import execute
from edge.core import targets
from edge.core.machine import jetpack
from edge.doctor import examination, examine
from edge.doctor.diagnosis import MachineDiagnosis, diagnose, diagnosis_lines
from edge.doctor.examination import MODULES
from edge.doctor.facts import Gpu, MachineFacts, Module, release
from edge.doctor.rules import MINIMA
from edge.doctor.rules import RULES as GENERAL

ROOT = Path(__file__).parents[3]
H100 = Gpu("580.65.06", "13.0", ({"name": "NVIDIA H100", "sm": "9.0", "memory_bytes": 80 << 30},))
OLD_DRIVER = Gpu("550.54", "12.4", H100.devices)
CPU_PROVIDER = {"providers": ["CPUExecutionProvider"]}
ORIN = {"model": "NVIDIA Jetson Orin Nano", "l4t": "36.4.3", "jetpack": "6.2", "packages": {}}

TARGETS = targets.every()
NAMES = targets.names()
RULES = (*(rule for target in TARGETS for rule in targets.doctor_of(target).rules), *GENERAL)


def machine(
    gpu: Gpu = H100, jetson: "dict[str, object] | None" = None, isa: str = "avx2 avx512_vnni", **installed: str
) -> MachineFacts:
    """A machine with these distributions (`_` for `-`); torch's local version says what it was built for."""
    versions = {name.replace("_", "-"): version for name, version in installed.items()}
    modules = {}
    for name, brought_by in MODULES.items():
        listed = next((one for one in brought_by if one in versions), None)
        if listed:
            modules[name] = Module(listed, versions[listed], works=True)
    if "torch" in modules:
        local = modules["torch"].version.partition("+")[2]
        cuda = f"{local[2:-1]}.{local[-1]}" if local.startswith("cu") else None
        modules["torch"] = replace(modules["torch"], facts={"cuda": cuda})
    return MachineFacts(
        python={"version": "3.12.3", "executable": "/usr/bin/python3", "environment": None, "pip": "pip"},
        host={
            "system": "Linux 6.8",
            "arch": "x86_64",
            "cpu": "A CPU",
            "isa": isa.split(),
            "cores": {"visible": 8, "allowed": 8, "quota": None},
            "memory_bytes": 1 << 35,
            "memory_available_bytes": 1 << 34,
            "disk_free_bytes": 1 << 36,
        },
        distributions=versions,
        modules=modules,
        gpu=gpu,
        jetson=jetson,
        tools={"g++": "/usr/bin/g++", "ssh": "/usr/bin/ssh", "nvidia-smi": None, "trtexec": None},
    )


def broken_import(name: str, **installed: str) -> MachineFacts:
    found = machine(**installed)
    module = replace(found.modules[name], works=False, fault="ImportError: libfoo.so.1: no such file")
    return replace(found, modules={**found.modules, name: module})


def without(tool: str, **installed: str) -> MachineFacts:
    found = machine(**installed)
    return replace(found, tools={**found.tools, tool: None})


def trt(version: str, jetpack: "str | None" = None) -> MachineFacts:
    return machine(jetson={**ORIN, "jetpack": jetpack} if jetpack else None, tensorrt=version)


#: Rule → machines that it holds of, machines beside them that it does not, and what its command must say.
CASES: "dict[str, tuple[list[MachineFacts], list[MachineFacts], str]]" = {
    "torch-tensorrt-pair": (
        [
            machine(torch="2.13.0+cpu", torch_tensorrt="2.13.0", tensorrt="11.0.0"),
            machine(torch="2.12.0+cu130", torch_tensorrt="2.13.0", tensorrt="11.0.0"),
            machine(torch="2.13.0+cu130", torch_tensorrt="2.13.0", tensorrt="10.13.3"),
            machine(torch="2.13.0+cu130", torch_tensorrt="2.13.0", torch_tensorrt_rtx="2.13.0", tensorrt="11.0.0"),
            machine(jetson=ORIN, torch="2.13.0+cu130", torch_tensorrt="2.13.0", tensorrt="11.0.0"),
        ],
        [
            machine(torch="2.13.0+cu130", torch_tensorrt="2.13.0", tensorrt="11.0.0.10"),
            machine(torch="2.13.0+cpu"),
        ],
        "torch",
    ),
    "torch-tensorrt-rtx-pair": (
        [machine(torch="2.13.0+cu130", torch_tensorrt_rtx="2.12.0", tensorrt_rtx="1.5.0")],
        [machine(torch="2.13.0+cu130", torch_tensorrt_rtx="2.13.0", tensorrt_rtx="1.5.0.114")],
        "torch-tensorrt-rtx~=2.13.0",
    ),
    "onnxruntime-twice": (
        [machine(onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")],
        [machine(onnxruntime="1.31.1"), machine(onnxruntime_gpu="1.31.1")],
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
    ),
    "onnxruntime-before-tensorrt-11": (
        [machine(onnxruntime_gpu="1.26.0", tensorrt="11.0.0")],
        [
            machine(onnxruntime_gpu="1.27.0", tensorrt="11.0.0"),
            machine(onnxruntime_gpu="1.26.0", tensorrt="10.16.1"),
            machine(onnxruntime="1.26.0", tensorrt="11.0.0"),
            machine(tensorrt="11.0.0"),
        ],
        "onnxruntime-gpu>=1.27",
    ),
    "onnxruntime-before-numpy-2": (
        [machine(onnxruntime="1.18.1", numpy="2.0.0")],
        [machine(onnxruntime="1.19.0", numpy="2.0.0"), machine(onnxruntime="1.18.1", numpy="1.26.4")],
        "pip install --upgrade onnxruntime",
    ),
    "torchvision-of-another-torch": (
        [machine(torch="2.13.0+cu130", torchvision="0.27.0+cu130")],
        [machine(torch="2.13.0+cu130", torchvision="0.28.1+cu130"), machine(torchvision="0.27.0")],
        "torchvision==0.28.*",
    ),
    "torchvision-of-another-build": (
        [
            machine(torch="2.13.0+cu130", torchvision="0.28.0+cpu"),
            machine(torch="2.13.0+cpu", torchvision="0.28.0+cu130"),
        ],
        [
            machine(torch="2.13.0+cpu", torchvision="0.28.0+cpu"),
            machine(torch="2.13.0+cu130", torchvision="0.28.0"),
            machine(torch="2.13.0+cpu"),
        ],
        "pip uninstall -y torchvision",
    ),
    "onnxscript-folds-int8": (
        [machine(onnxscript="0.5.4"), machine(onnxscript="0.6.1")],
        [machine(onnxscript="0.6.2"), machine(torch="2.13.0")],
        "onnxscript>=0.6.2",
    ),
    "tensorrt-too-old": (
        [trt("8.6.1"), trt("8.5.2", "5.1.2")],
        [trt("10.0.1"), machine()],
        "",
    ),
    "tensorrt-11-on-jetpack-6": (
        [trt("11.1.0", "6.2")],
        [trt("10.3.0", "6.2"), trt("11.1.0"), trt("11.4.1", "7.2.2")],
        "pip uninstall -y tensorrt && sudo apt-get install python3-libnvinfer",
    ),
    "tensorrt-11-on-jetpack-7": (
        [trt("11.4.0", "7.2.2"), trt("11.4.1", "7.1")],
        [trt("11.4.1", "7.2.2"), trt("10.16.1", "7.2"), trt("11.0.0"), trt("11.0.0", "7")],
        "sudo apt-get install python3-libnvinfer",
    ),
    "driver-behind-torch": (
        [machine(OLD_DRIVER, torch="2.13.0+cu130")],
        [
            machine(torch="2.13.0+cu130"),
            machine(OLD_DRIVER, torch="2.13.0+cu126"),
            machine(Gpu(), torch="2.13.0+cu130"),
        ],
        "nvidia-driver-580",
    ),
    "driver-behind-tensorrt": (
        [machine(OLD_DRIVER, tensorrt_cu13="11.0.0"), machine(OLD_DRIVER, tensorrt_rtx_cu13="1.7.1")],
        [
            machine(tensorrt_cu13="11.0.0"),
            machine(OLD_DRIVER, tensorrt_cu12="10.3.0"),
            machine(Gpu(), tensorrt_cu13="11.0.0"),
        ],
        "nvidia-driver-580",
    ),
    "torch-too-old": (
        [machine(torch="2.8.0")],
        [machine(torch="2.11.0"), machine(jetson=ORIN, torch="2.8.0")],
        "torch>=2.11",
    ),
    "onnx-too-old": ([machine(torch="2.13.0", onnx="1.17.0")], [machine(torch="2.13.0", onnx="1.18.0")], "onnx>=1.18"),
    "onnxruntime-too-old": (
        [machine(torch="2.13.0", onnxruntime="1.22.0")],
        [machine(torch="2.13.0", onnxruntime="1.23.2"), machine(onnxruntime="1.22.0")],
        "onnxruntime>=1.23",
    ),
    "import-fails": (
        [broken_import("onnxruntime", onnxruntime="1.31.1")],
        [machine(onnxruntime="1.31.1"), broken_import("onnxruntime", onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")],
        "pip install --force-reinstall --no-deps onnxruntime==1.31.1",
    ),
    "opset-20-at-most": ([trt("10.3.0"), trt("10.8.0")], [trt("10.9.0"), trt("11.0.0"), machine()], "--opset 20"),
    "tensorrt-untested": ([trt("12.0.0")], [trt("11.4.1"), machine()], "tensorrt<12"),
    "int8-saturates": (
        [machine(onnxruntime="1.31.1", isa="avx2"), machine(onnxruntime="1.31.1", isa="avx2 avx512f")],
        [
            machine(onnxruntime="1.31.1", isa="avx2 avx512f avx512_vnni"),
            machine(onnxruntime="1.31.1", isa="avx2 avx_vnni"),
            machine(onnxruntime="1.31.1", isa="asimddp"),
            machine(isa="avx2"),
        ],
        "--precision float32",
    ),
    "no-compiler": ([without("g++", torch="2.13.0")], [machine(torch="2.13.0"), without("g++")], "apt-get install g++"),
    "no-ssh": ([without("ssh", torch="2.13.0")], [machine(torch="2.13.0"), without("ssh")], "openssh-client"),
}
LIMITS = {"opset-20-at-most", "tensorrt-untested", "int8-saturates", "no-compiler", "no-ssh"}


def names_of(found: MachineFacts) -> list[str]:
    return [finding.name for finding in diagnose(found, TARGETS).findings]


def test_every_rule_has_its_cases() -> None:
    assert set(CASES) == {rule.name for rule in RULES}
    assert {rule.name for rule in RULES if rule.limit} == LIMITS


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_where_it_holds_and_is_silent_beside(name: str) -> None:
    fires, silent, command = CASES[name]
    for found in fires:
        (finding,) = [one for one in diagnose(found, TARGETS).findings if one.name == name]
        assert command in finding.fix and finding.fix and finding.says and "\n" not in finding.fix + finding.says
        assert finding.severity == ("limit" if name in LIMITS else "broken")
    for found in silent:
        assert name not in names_of(found)


def test_a_sound_workstation_has_nothing_to_be_told() -> None:
    sound = machine(
        numpy="2.4.6", torch="2.13.0+cu130", torchvision="0.28.0+cu130", onnx="1.23.2", onnxscript="0.7.2",
        onnxruntime_gpu="1.31.1", tensorrt="11.0.0.10", torch_tensorrt="2.13.0", nvidia_modelopt="0.47.0",
    )  # fmt: skip
    result = diagnose(sound, TARGETS)
    assert not result.findings
    assert {name for name, verbs in result.targets.items() if verbs["run"].can == "yes"} == {
        "onnx", "tensorrt", "torch-tensorrt"
    }  # fmt: skip


def test_the_minima_are_those_of_the_package() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {f"{name}>={least}" for name, least in MINIMA.items()} <= set(asked)


def test_every_target_is_answered() -> None:
    assert [target.name for target in TARGETS] == list(NAMES)


EXPORTER = {"torch": "2.13.0+cpu", "onnx": "1.23.2", "onnxscript": "0.7.2"}


def answers(found: MachineFacts, target: str) -> tuple[str, str]:
    verbs = diagnose(found, TARGETS).targets[target]
    return verbs["build"].can, verbs["run"].can


NO_GPU = Gpu(fault="no NVIDIA driver")


@pytest.mark.parametrize(
    ("found", "target", "want"),
    [
        (machine(NO_GPU, onnxruntime="1.31.1", **EXPORTER), "onnx", ("yes", "yes")),
        (machine(NO_GPU, onnxruntime="1.31.1"), "onnx", ("no", "yes")),
        (machine(NO_GPU, **EXPORTER), "onnx", ("yes", "no")),
        (machine(NO_GPU, **EXPORTER), "tensorrt", ("deferred", "no")),
        (machine(NO_GPU), "tensorrt", ("no", "no")),
        (machine(tensorrt="10.16.1", **EXPORTER), "tensorrt", ("yes", "yes")),
        (machine(jetson=ORIN, tensorrt="10.3.0"), "tensorrt", ("yes", "yes")),
        (machine(jetson=ORIN, tensorrt="11.0.0"), "tensorrt", ("yes", "no")),
        (machine(NO_GPU, tensorrt_rtx_cu13="1.7.1", **EXPORTER), "tensorrt-rtx", ("yes", "no")),
        (machine(tensorrt_rtx_cu13="1.7.1", **EXPORTER), "tensorrt-rtx", ("yes", "yes")),
        (machine(NO_GPU, **EXPORTER), "torch-tensorrt", ("no", "no")),
        (broken_import("onnxruntime", onnxruntime="1.31.1"), "onnx", ("no", "no")),
    ],
)
def test_what_can_be_built_and_run(found: MachineFacts, target: str, want: tuple[str, str]) -> None:
    assert answers(found, target) == want


def test_an_older_gpu_than_turing_runs_no_rtx_engine() -> None:
    volta = Gpu("580.1", "13.0", ({"name": "V100", "sm": "7.0", "memory_bytes": 1 << 34},))
    assert answers(machine(volta, tensorrt_rtx_cu13="1.7.1", **EXPORTER), "tensorrt-rtx") == ("yes", "no")


def test_the_text_holds_every_answer_and_every_fix() -> None:
    result = diagnose(machine(torch="2.13.0+cpu", torch_tensorrt="2.13.0", onnxscript="0.5.4"), TARGETS)
    text = "\n".join(diagnosis_lines(result))
    assert all(name in text for name in NAMES) and all(one.fix in text for one in result.findings)
    assert len(result.broken) == 2
    assert "nothing" in diagnosis_lines(diagnose(machine(), TARGETS))[-1]


# ---- recorded trees ----


STATUS = """Package: nvidia-jetpack
Status: install ok installed
Version: 6.2+b77
Description: JetPack
 Package: no-field

Package: python3-libnvinfer
Status: deinstall ok config-files
Version: 10.3.0.30-1+cuda12.5
"""


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """What a recorded Orin looks like."""
    tree = tmp_path / "orin"
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "var/lib/dpkg/status": STATUS,
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "proc/cpuinfo": "".join(f"processor\t: {core}\nFeatures\t: fp asimd asimddp\n\n" for core in range(2)),
        "proc/meminfo": "MemTotal:        7802140 kB\nMemAvailable:    5802140 kB\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n",
        "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}',
        "usr/lib/python3.10/dist-packages/tensorrt-10.3.0.dist-info/METADATA": "Name: tensorrt\nVersion: 10.3.0\n",
        "usr/local/lib/python3.10/dist-packages/torch-2.8.0.dist-info/METADATA": "Name: torch\nVersion: 2.8.0\n",
        "usr/local/lib/python3.10/dist-packages/torch/version.py": "cuda: Optional[str] = '12.6'\n",
    }
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


def test_a_recorded_jetson(orin: Path) -> None:
    found = examine(orin)
    assert found.recorded and found.host["arch"] == "aarch64" and found.host["isa"] == ["asimddp"]
    assert found.host["memory_bytes"] == 7802140 * 1024 and found.host["cores"]["visible"] == 2
    assert found.python["version"] == "3.10" and found.gpu.driver == "540.4.0"
    assert found.gpu.runtime == "12.6.68"
    assert found.jetson == {
        "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "packages": {"nvidia-jetpack": "6.2+b77"},
    }
    assert found.version("tensorrt") == (10, 3, 0) and found.modules["tensorrt"].works is None
    assert found.fact("torch", "cuda") == "12.6"
    result = diagnose(found, TARGETS)
    assert [finding.name for finding in result.findings] == ["opset-20-at-most"]
    assert result.targets["tensorrt"]["run"].can == "yes" and result.targets["onnx"]["run"].can == "no"
    assert "JetPack 6.2" in "\n".join(diagnosis_lines(result))


def test_an_empty_tree_is_no_jetson(tmp_path: Path) -> None:
    found = examine(tmp_path)
    assert found.jetson is None and not found.modules and found.host["arch"] is None
    assert {answer.can for verbs in diagnose(found, TARGETS).targets.values() for answer in verbs.values()} == {"no"}
    assert diagnosis_lines(diagnose(found, TARGETS))


@pytest.mark.parametrize(
    ("release_", "want"),
    [
        ("36.4.3", "6.2"),
        ("36.4.5", "6.2.1"),
        ("36.4.0", "6.1"),
        ("36.5.0", "6.2.2"),
        ("38.2.1", "7.0"),
        ("39.2.0", "7.2"),
        ("39.9", "7"),
        ("36.9.1", "6"),
        ("99.1", None),
        (None, None),
    ],
)
def test_jetpack_of_a_release(release_: "str | None", want: "str | None") -> None:
    assert jetpack(release_) == want


def test_release_numbers() -> None:
    assert release("2.13.0+cpu") == (2, 13, 0) and release("1.7.1.116") == (1, 7, 1, 116)
    assert release("") == () and release("of unknown version") == ()


# ---- this machine, by the command ----


def run(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = execute(args)
    out, err = capsys.readouterr()
    return code, out, err


def doctor(*arguments: str, **environment: str) -> "tuple[int, dict[str, object], str]":
    done = subprocess.run(
        [sys.executable, "-m", "compress", "doctor", "--json", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout), done.stderr


def test_this_machine() -> None:
    code, told, _ = doctor()
    assert code == 0
    modules = told["modules"]
    assert {"numpy", "torch", "onnx", "onnxscript", "onnxruntime"} <= set(modules)
    import onnxruntime
    import torch

    assert modules["torch"]["version"] == torch.__version__ and modules["torch"]["facts"] == {
        "cuda": torch.version.cuda
    }
    assert modules["onnxruntime"]["facts"]["providers"] == onnxruntime.get_available_providers()
    assert told["targets"]["onnx"]["run"]["can"] == "yes" == told["targets"]["onnx"]["build"]["can"]
    assert all(module["works"] in (True, None) for module in modules.values())


STUB = r"""
#include <cstring>
extern "C" {
int cuDriverGetVersion(int *v) { *v = 12040; return 0; }
int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *name, int n, int) { strncpy(name, "Stub GPU", n); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { *bytes = 1ull << 33; return 0; }
int cuDeviceGetAttribute(int *v, int a, int) { *v = a == 75 ? 8 : a == 76 ? 9 : -1; return 0; }
}
"""


def test_a_crashing_import_and_a_driver_are_seen_from_outside(tmp_path: Path) -> None:
    """An onnxruntime that aborts its process, and a CUDA driver made for the occasion."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++: the stub of the CUDA driver cannot be compiled")
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/__init__.py").write_text("import os\nprint('noise')\nos.abort()\n")
    (tmp_path / "stub.cpp").write_text(STUB)
    library = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "stub.cpp"], check=True)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    code, told, errors = doctor("--strict", PYTHONPATH=path, LD_LIBRARY_PATH=str(tmp_path))
    assert told["modules"]["onnxruntime"]["fault"] == "its process ended by SIGABRT"
    assert told["gpu"]["devices"] == [{"name": "Stub GPU", "sm": "8.9", "memory_bytes": 1 << 33}]
    assert told["gpu"]["cuda"] == "12.4" and told["gpu"]["fault"] is None
    assert told["targets"]["onnx"]["run"]["can"] == "no"
    assert code == 3 and "import-fails" in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("program", "want"),
    [
        ("raise ImportError('libfoo.so.1: no such file\\nand more')", "ImportError: libfoo.so.1: no such file"),
        ("try: 1 / 0\nexcept ZeroDivisionError as why: raise ImportError from why", "ImportError: division by zero"),
        ("raise RuntimeError", "RuntimeError: no message"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(7)", "its process ended with code 7"),
    ],
)
def test_a_failing_import_says_why(program: str, want: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert examination.probe_imports(["broken"])["broken"] == {"fault": want}


def test_an_import_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(examination, "TIMEOUT_S", 0.5)
    assert examination.probe_imports(["hanging"])["hanging"]["fault"].startswith("did not finish")


def test_a_recorded_tree_on_the_command_line(orin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["doctor", "--device", "jetson", "--sysroot", str(orin), "--strict"], capsys)
    assert code == 0 and not err
    assert "tensorrt-rtx" not in out and "Orin Nano" in out and "opset 20" in out
    code, out, err = run(["doctor", "--device", "jetson", "--sysroot", str(tmp_path / "nowhere")], capsys)
    assert (code, out) == (2, "") and "no such folder" in err and len(err.splitlines()) == 1
    (tmp_path / "empty").mkdir()
    code, out, err = run(["doctor", "--device", "jetson", "--sysroot", str(tmp_path / "empty")], capsys)
    assert (code, out) == (2, "") and "no Jetson" in err


def test_strict_fails_on_a_broken_pair_alone(orin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = orin / "usr/lib/python3.10/dist-packages/tensorrt-10.3.0.dist-info/METADATA"
    metadata.write_text("Name: tensorrt\nVersion: 11.1.0\n")
    code, out, err = run(["doctor", "--sysroot", str(orin), "--json"], capsys)
    assert code == 0 and [one["name"] for one in json.loads(out)["findings"]] == ["tensorrt-11-on-jetpack-6"]
    code, out, err = run(["doctor", "--sysroot", str(orin), "--json", "--strict"], capsys)
    assert code == 3 and json.loads(out)["findings"] and "tensorrt-11-on-jetpack-6" in err


def test_a_diagnosis_is_an_object() -> None:
    told = MachineDiagnosis(machine(), {}, ()).as_object()
    assert json.loads(json.dumps(told))["gpu"]["devices"][0]["name"] == "NVIDIA H100"
