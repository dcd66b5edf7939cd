"""A server without a GPU: cpufreq, turbo, RAPL, coretemp, a control group's time limit, from a recorded tree."""

from pathlib import Path

import pytest

from edge.evidence import Sampler, snapshot
from edge.evidence.kernel import process_ticks, ticks
from edge.evidence.samples import timed_energy
from edge.evidence.warnings import machine_warnings

CPU = "sys/devices/system/cpu"
SERVER = {
    "proc/cpuinfo": "processor : 0\nmodel name : Xeon\nflags : avx2 avx512f\n\nprocessor : 1\nmodel name : Xeon\n",
    "proc/stat": "cpu  100 5 40 9000 60 3 2 17 50 0\ncpu0 50 2 20 4500 30 1 1 8 0 0\n",
    "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 600 kB\nSwapTotal: 500 kB\nSwapFree: 400 kB\n",
    "proc/self/cgroup": "0::/box\n",
    "sys/fs/cgroup/box/cpu.stat": "usage_usec 12\nnr_periods 40\nnr_throttled 3\nthrottled_usec 99\n",
    **{
        f"{CPU}/cpu{i}/cpufreq/{name}": value
        for i in range(2)
        for name, value in {
            "scaling_cur_freq": "3400000",
            "scaling_min_freq": "800000",
            "scaling_max_freq": "3600000",
            "scaling_governor": "powersave",
        }.items()
    },
    f"{CPU}/intel_pstate/no_turbo": "0",
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "5000000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:1/name": "package-1",
    "sys/class/powercap/intel-rapl:1/energy_uj": "7000000",
    "sys/class/powercap/intel-rapl:0:0/name": "core",  # a part of package 0
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "1000000",
    "sys/class/powercap/intel-rapl:0:1/name": "dram",  # no part of it
    "sys/class/powercap/intel-rapl:0:1/energy_uj": "2000000",
    "sys/class/powercap/intel-rapl:2/name": "psys",  # everything again
    "sys/class/powercap/intel-rapl:2/energy_uj": "9000000",
    "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",  # the same by another way
    "sys/class/powercap/intel-rapl-mmio:0/energy_uj": "1",
    "sys/class/hwmon/hwmon0/name": "coretemp",
    "sys/class/hwmon/hwmon0/temp1_input": "61000",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon1/name": "nvme",
    "sys/class/hwmon/hwmon1/temp1_input": "35000",
    "sys/class/thermal/thermal_zone0/type": "acpitz",
    "sys/class/thermal/thermal_zone0/temp": "27800",
    "sys/class/thermal/thermal_zone1/type": "acpitz",
    "sys/class/thermal/thermal_zone1/temp": "29800",
    "sys/class/thermal/cooling_device0/type": "Processor",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/thermal/cooling_device1/type": "Fan",
    "sys/class/thermal/cooling_device1/cur_state": "1",
    "sys/class/thermal/cooling_device2/type": "LCD",
    "sys/class/thermal/cooling_device2/cur_state": "70",
}


@pytest.fixture
def server(tmp_path: Path) -> Path:
    for name, content in SERVER.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    return tmp_path


def test_a_server(server: Path) -> None:
    found = snapshot(server)
    assert (found["kind"], found["board"], found["power_mode"], found["gpu"]) == ("cpu", None, None, None)
    assert found["clocks"]["cpu1"] == {"mhz": 3400.0, "min_mhz": 800.0, "max_mhz": 3600.0, "governor": "powersave"}
    assert (found["boost"], found["virtual"], found["limited"]) == (True, False, 3)
    assert found["temperatures_c"] == {"acpitz": 27.8, "acpitz-2": 29.8, "Package id 0": 61.0}
    assert (
        found["energy_mj"] == {"package-0": 5000.0, "package-1": 7000.0, "dram-0": 2000.0} and found["power_mw"] == {}
    )
    assert found["throttled"] == {"Processor": 0}  # a fan or a display cools by other means
    assert found["ticks"] == {"busy": 150, "steal": 17, "total": 9227}  # guests are in user already
    assert found["memory"]["swap_used_bytes"] == 100 * 1024
    rows = machine_warnings(found, None, found, 0.0)
    assert [(row["name"], row["found"]) for row in rows] == [("governor", "cores run under powersave")]
    assert "tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor" in rows[0]["fix"]


@pytest.mark.parametrize("others", ["cpufreq/boost", "intel_pstate/no_turbo"])
def test_without_boost(server: Path, others: str) -> None:
    (server / CPU / others).parent.mkdir(exist_ok=True)
    (server / CPU / others).write_text("0" if others.endswith("boost") else "1")
    assert snapshot(server)["boost"] is False


def test_its_energy_is_that_of_packages_and_memory(server: Path) -> None:
    with Sampler(interval_s=0.01, sysroot=server) as sampler:
        pass
    samples = sampler.samples
    assert {"mj.package-0", "mj.package-1"} <= set(sampler.channels) and not {"mj.core", "mj.psys"} & set(
        sampler.channels
    )
    assert samples.about["ranges"] == {"mj.package-0": 262143328.85}
    span = int(samples.times_ns[0]), int(samples.times_ns[-1])
    assert timed_energy(samples, span)["why"].startswith("2 samples of power")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 (a b) R) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20", 100),
        ("12 (python) S 1", None),
        ("", None),
        (None, None),
    ],
)
def test_a_process_with_any_name(text: "str | None", value: "int | None") -> None:
    assert process_ticks(text) == value
    assert ticks(text) == {}
