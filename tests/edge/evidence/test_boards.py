"""Recorded boards read as live ones: each gives a full record, a damaged one what is left and a row for the rest."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.statement_check import schema_fault, statement_schema
from edge.evidence import Sampler, snapshot
from edge.evidence.warnings import machine_warnings
from tests.edge import boards

EXPECTED: dict[str, dict[str, Any]] = {
    "orin-nano": {
        "board": ("36.4.3", "6.2", "tegra234", "12.6.68"),
        "mode": {"id": 1, "name": "25W"},
        "held": False,
        "cores": 6,
        "clocks": {"gpu": 611.0},
        "power": {"VDD_IN": 5010.984, "VDD_CPU_GPU_CV": 1216.944, "VDD_SOC": 1457.328},
        "zones": {"cpu", "gpu", "soc0", "soc1", "soc2", "tj"},
        "busy": 0.142,
        "warnings": ["clocks-unlocked"],
        "unread": [*(f"temperature of cv{i}" for i in range(3)), "clock of the memory", "jetson_clocks"],
    },
    "orin-nx": {
        "board": ("36.4.7", "6.2.1", "tegra234", "12.6.68"),
        "mode": {"id": 0, "name": "MAXN_SUPER"},
        "held": True,
        "cores": 8,
        "clocks": {"gpu": 1173.0, "emc": 3199.0},
        "power": {"VDD_IN": 24738.048, "VDD_CPU_GPU_CV": 14048.768, "VDD_SOC": 3970.304},
        "zones": {"cpu", "gpu", "soc0", "soc1", "soc2", "tj"},
        "busy": 0.988,
        "warnings": ["throttled", "hot"],
        "unread": [f"temperature of cv{i}" for i in range(3)],
    },
    "agx-orin": {
        "board": ("36.5.0", "6.2.2", "tegra234", "12.6.68"),
        "mode": {"id": 0, "name": "MAXN"},
        "held": True,
        "cores": 12,
        "clocks": {"gpu": 1300.5, "emc": 3199.0},
        "power": {"VDD_GPU_SOC": 4800.0, "VDD_CPU_CV": 1200.0, "VIN_SYS_5V0": 4019.2, "VDDQ_VDD2_1V8AO": 753.6},
        "zones": {"cpu", "gpu", "soc0", "soc1", "soc2", "tj", "Tboard_tegra", "Tdiode_tegra"},
        "busy": 0.0,
        "warnings": [],
        "unread": [f"temperature of cv{i}" for i in range(3)],
    },
    "thor": {
        "board": ("39.2.0", "7.2", "tegra264", "13.2.0"),
        "mode": {"id": 1, "name": "120W"},
        "held": False,
        "cores": 14,
        "clocks": {"gpu": 1386.0, "emc": 4266.0},
        "power": {"VDD_GPU": 37938.04, "VDD_CPU_SOC_MSS": 12280.8, "VIN_SYS_5V0": 10176.0, "VIN": 87426.0},
        "zones": {"cpu", "gpu", "soc012", "soc345", "tj"},
        "busy": None,
        "warnings": ["clocks-unlocked"],
        "unread": ["jetson_clocks", "utilisation of the GPU"],
    },
}
SCHEMA = statement_schema()


@pytest.fixture(scope="module", params=boards.BOARDS)
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "tuple[str, Path]":
    return request.param, boards.unpack(request.param, tmp_path_factory.mktemp(request.param))


def checked(root: Path) -> dict[str, Any]:
    """The snapshot, of the form that a statement must have."""
    found = snapshot(root)
    json.dumps(found, allow_nan=False)
    assert schema_fault(found, "machine") is None
    return found


def test_every_board_gives_a_full_record(board: "tuple[str, Path]") -> None:
    name, root = board
    want, found = EXPECTED[name], checked(root)
    told = found["board"]
    assert (told["l4t"], told["jetpack"], told["soc"], told["cuda"]) == want["board"] and "Jetson" in told["model"]
    assert found["kind"] == "jetson" and found["power_mode"] == want["mode"] and found["jetson_clocks"] is want["held"]
    clocks = {key: clock["mhz"] for key, clock in found["clocks"].items() if not key.startswith("cpu")}
    assert clocks == want["clocks"]
    assert sum(key.startswith("cpu") for key in found["clocks"]) == want["cores"] == found["cores"]["allowed"]
    assert found["power_mw"] == pytest.approx(want["power"])
    assert set(found["temperatures_c"]) == want["zones"] and set(found["over_current"]) == {"oc1", "oc2", "oc3"}
    assert found["limits_c"]["tj"] in (99.0, 109.0) and "pwm-fan" not in found["throttled"]
    assert found["fans"]["pwmfan"]["pwm"] and found["fans"]["pwm_tach"]["rpm"] and found["ticks"]["busy"]
    assert found["gpu"]["busy"] == want["busy"] and found["memory"]["available_bytes"]
    assert [row["what"] for row in found["unreadable"]] == want["unread"]
    assert [row["name"] for row in machine_warnings(found, None, found, 0.01)] == want["warnings"]


def test_no_serial_number_is_kept(board: "tuple[str, Path]") -> None:
    _, root = board
    serial = root / "proc/device-tree/serial-number"
    serial.write_text("1420000000000")
    assert "1420000000000" not in json.dumps(checked(root))


def test_a_missing_rail_a_foreign_release_and_tools_that_fail(tmp_path: Path) -> None:
    root = boards.unpack("orin-nx", tmp_path)
    (root / "sys/class/hwmon/hwmon2/curr1_input").unlink()
    (root / "sys/class/hwmon/hwmon2/in2_input").write_text("five volts")
    (root / "etc/nv_tegra_release").write_text("# R99 (release), REVISION: 9.9")
    (root / "var/lib/dpkg/status").unlink()
    (root / "commands/nvpmodel-q.txt").write_text("NVPM ERROR: no device")
    (root / "commands/tegrastats.txt").unlink()
    found = checked(root)
    assert set(found["power_mw"]) == {"VDD_SOC"} and found["power_mode"] is None and found["board"]["jetpack"] is None
    told = {row["what"]: row for row in found["unreadable"]}
    assert {"power of VDD_CPU_GPU_CV", "JetPack", "nvpmodel", "tegrastats"} <= set(told)
    assert "'five volts', no number" in told["power of VDD_CPU_GPU_CV"]["why"]
    assert all(row["why"] and row["how"] for row in found["unreadable"])


def test_the_boards_tools_fill_what_its_files_do_not_tell(tmp_path: Path) -> None:
    root = boards.unpack("orin-nx", tmp_path)
    for pattern in ("sys/kernel/debug/**/rate", "sys/class/hwmon/hwmon2/*", "sys/class/devfreq/*/device/load"):
        for path in root.glob(pattern):
            path.unlink()
    found = checked(root)
    assert found["clocks"]["emc"]["override"] and found["clocks"]["emc"]["mhz"] == 3199.0
    assert found["power_mw"]["VDD_IN"] == 24738.0 and found["gpu"]["busy"] == 0.98


def test_a_sensor_without_power_gives_no_temperature(tmp_path: Path) -> None:
    root = boards.unpack("thor", tmp_path)
    (root / "sys/class/thermal/thermal_zone1/temp").write_text("-256000")
    assert "gpu" not in checked(root)["temperatures_c"]
    with Sampler(sysroot=root) as sampler:
        pass
    assert np.isnan(sampler.samples.values["celsius.gpu"]).all()
    assert sampler.samples.values["celsius.cpu"] == pytest.approx(58.25)


DAMAGES = st.sampled_from(["absent", "folder", "", "garbage", "\x00\xff", "-1", "9" * 30, "²"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_is_a_fault(board: "tuple[str, Path]", data: st.DataObject) -> None:
    """Any few files gone, folders, or with nonsense in them: a record, of the right form."""
    name, root = board
    contents = dict(boards.files(name))
    paths = st.sampled_from(sorted(contents))
    damages = data.draw(st.dictionaries(paths, DAMAGES, min_size=1, max_size=4))
    for path, damage in damages.items():
        (root / path).unlink()
        if damage == "folder":
            (root / path).mkdir()
        elif damage != "absent":
            (root / path).write_text(damage)
    try:
        checked(root)
    finally:
        for path in damages:
            if (root / path).is_dir():
                (root / path).rmdir()
            (root / path).write_text(contents[path])


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("proc/loadavg", "much more today"),
        ("proc/loadavg", "nan inf 1e400"),
        ("proc/meminfo", "MemTotal: lots kB\nMemAvailable: ² kB"),
        ("proc/meminfo", "MemTotal: 12 kB\nMemAvailable:"),
        ("proc/cpuinfo", "cpu MHz : fast\nFeatures"),
        ("proc/stat", "cpu 1 2 three 4 5 6 7 8"),
        ("proc/self/status", "Cpus_allowed_list: 0-,x"),
        ("proc/self/cgroup", "0::/../../etc\n::::\n4:cpu"),
        ("sys/fs/cgroup/user.slice/cpu.max", "² ³"),
        ("sys/fs/cgroup/user.slice/cpu.stat", "nr_throttled ²"),
        ("usr/local/cuda/version.json", '{"cuda": [1]}'),
        ("proc/device-tree/compatible", "\x00\x00nvidia,tegra"),
    ],
)
def test_nonsense_within_a_file_is_no_fault(tmp_path: Path, path: str, content: str) -> None:
    root = boards.unpack("orin-nano", tmp_path)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)
    checked(root)


READ_AS_NOBODY = """
import json, os, sys
from edge.evidence import snapshot
snapshot(sys.argv[1])  # imports everything while it may still read Python's own files
if os.getuid() == 0: os.setgid(65534); os.setuid(65534)
print(json.dumps(snapshot(sys.argv[1])))
"""


def test_what_only_root_may_read_is_said() -> None:
    """As another user, in earnest: root may read everything."""
    with tempfile.TemporaryDirectory() as folder:
        root = boards.unpack("orin-nx", Path(folder))
        root.chmod(0o755)
        for path in (root / "sys/kernel/debug", root / "sys/class/hwmon/hwmon2/curr3_input"):
            path.chmod(0)
        try:
            run = [sys.executable, "-c", READ_AS_NOBODY, folder]
            done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        finally:
            (root / "sys/kernel/debug").chmod(0o755)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    told = {row["what"]: row for row in found["unreadable"]}
    for what in ("clock of the memory", "power of VDD_SOC"):
        assert told[what]["why"].endswith("is readable for root alone") and "sudo" in told[what]["how"]
    assert "VDD_SOC" not in found["power_mw"] and found["clocks"]["emc"]["mhz"] == 3199.0  # as jetson_clocks showed


def test_a_recording_reads_as_what_was_recorded(board: "tuple[str, Path]", tmp_path: Path) -> None:
    _, root = board
    found = snapshot(root, record=tmp_path / "copy")
    again = snapshot(tmp_path / "copy")
    for state in (found, again):
        del state["monotonic_ns"]
    assert again == found


def test_this_machine_can_be_recorded(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "edge.evidence"]
    live = subprocess.run([*run, "--record", str(tmp_path / "copy")], capture_output=True, text=True)
    told = json.loads(live.stdout)
    assert told["kind"] in ("cpu", "gpu", "jetson") and told["kernel"] == os.uname().release
    again = snapshot(tmp_path / "copy")
    assert (again["cpu"], again["ticks"], again["memory"]) == (told["cpu"], told["ticks"], told["memory"])
    twice = subprocess.run([*run, "--record", str(tmp_path / "copy")], capture_output=True, text=True)
    assert twice.returncode == 2 and "exists already" in twice.stderr


def test_the_command_line_prints_a_record(tmp_path: Path) -> None:
    root = boards.unpack("agx-orin", tmp_path)
    run = [sys.executable, "-m", "edge.evidence", "--sysroot"]
    done = subprocess.run([*run, str(root)], capture_output=True, text=True)
    assert json.loads(done.stdout)["board"]["jetpack"] == "6.2.2"
    gone = subprocess.run([*run, str(root / "nowhere")], capture_output=True, text=True)
    assert gone.returncode == 2 and "no folder; give a recorded tree" in gone.stderr
