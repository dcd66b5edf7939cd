"""The machine's state from recorded trees, and of the machine that runs the test."""

import json
import os
import platform
from pathlib import Path

import numpy as np
import pytest

from edge.core.machine import ISA, state, usable_cores

X86 = {
    "proc/cpuinfo": "".join(
        f"processor\t: {i}\nmodel name\t: Some Xeon @ 2.10GHz\ncpu MHz\t\t: {2100 + i}.5\n"
        "flags\t\t: fpu avx avx2 avx512f avx512_vnni\n\n"
        for i in range(4)
    ),
    "proc/self/status": "Name:\tpython\nCpus_allowed:\tb\nCpus_allowed_list:\t0-1,3\n",
    "proc/self/cgroup": "0::/a/b\n",
    "sys/fs/cgroup/cpu.max": "max 100000",
    "sys/fs/cgroup/a/cpu.max": "150000 100000",
    "sys/fs/cgroup/a/b/cpu.max": "max 100000",
    "proc/loadavg": "0.52 1.04 2.00 3/456 789\n",
    "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable:    4000000 kB\n",
    "proc/sys/kernel/osrelease": "6.1.0-13-amd64\n",
}
ARM = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp\n\nprocessor\t: 1\nFeatures\t: fp asimd asimddp\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_an_x86_server(tmp_path: Path) -> None:
    found = state(tree(tmp_path, X86))
    assert found["cpu"] == "Some Xeon @ 2.10GHz" and found["isa"] == ["avx2", "avx512f", "avx512_vnni"]
    assert found["cores"] == {"visible": 4, "allowed": 3, "quota": 1.5}
    assert (found["governor"], found["mhz"], found["load"]) == (None, 2100.5, [0.52, 1.04, 2.0])
    assert found["memory_available_bytes"] == 4_000_000 * 1024 and found["kernel"] == "6.1.0-13-amd64"


def test_an_arm_board(tmp_path: Path) -> None:
    found = state(tree(tmp_path, ARM))
    assert found["cpu"] == "NVIDIA Jetson Orin Nano" and found["isa"] == ["asimddp"]
    assert (found["governor"], found["mhz"]) == ("schedutil", 1510.4)
    assert found["cores"] == {"visible": 2, "allowed": None, "quota": None}


def test_what_cannot_be_read_is_null(tmp_path: Path) -> None:
    found = state(tmp_path)
    assert found["cores"] == {"visible": None, "allowed": None, "quota": None}
    for name in ("cpu", "isa", "governor", "mhz", "load", "memory_available_bytes", "kernel"):
        assert found[name] is None
    assert found["python"] == platform.python_version() and found["runtimes"]["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("changed", "cores"),
    [
        ({}, 2),
        ({"sys/fs/cgroup/a/cpu.max": "max 100000"}, 3),
        ({"sys/fs/cgroup/a/b/cpu.max": "20000 100000"}, 1),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"proc/self/cgroup": "12:cpu:/x\n0::/../outside\n", "proc/self/status": "Cpus_allowed_list: 5\n"}, 1),
    ],
)
def test_cores_that_can_be_used(tmp_path: Path, changed: dict[str, str], cores: int) -> None:
    assert usable_cores(tree(tmp_path, X86 | changed)) == cores


def test_this_machine() -> None:
    found = state()
    json.dumps(found, allow_nan=False)
    assert found["kernel"] == platform.release() and set(found["isa"]) <= set(ISA)
    assert found["cores"]["allowed"] == len(os.sched_getaffinity(0))
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
