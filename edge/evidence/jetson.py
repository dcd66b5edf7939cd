"""What a Jetson's own files and tools tell beyond every Linux: board, power mode, clocks of GPU and memory.

Text of any kind goes into the parsers; what is not understood is left out. tegrastats: Jetson Linux Developer Guide,
"Tegrastats Utility" (r36, r38, r39). The line differs by release: JetPack 6 has `GR3D_FREQ 0%@[305,305]` and two powers
a rail (now/average), JetPack 7 on Thor may lack GR3D_FREQ, and prints a second value after the temperature and three
powers (now/average/peak).
"""

import json
import re
from typing import Any

from edge.core import machine
from edge.evidence import kernel
from edge.evidence.tree import Tree

MODEL = "proc/device-tree/model"
RELEASE = "etc/nv_tegra_release"
#: of devfreq's device or of nvgpu, in thousandths
GPU_LOADS = ("{}/device/load", "sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load")
TEGRASTATS_S = 1.0


def is_jetson(tree: Tree) -> bool:
    return machine.read_release(tree.root) is not None


def board(tree: Tree) -> dict[str, Any]:
    """{model, soc, l4t, jetpack, packages, cuda}; the serial number stays where it is."""
    release = machine.read_release(tree.root) or {}
    for key, what in (("model", "model of the board"), ("l4t", "version of Jetson Linux"), ("jetpack", "JetPack")):
        if release.get(key) is None:
            tree.lacks(what, f"/{MODEL} and /{RELEASE} do not tell", "name it beside the figures yourself")
    compatible = (tree.text("proc/device-tree/compatible") or "").split("\0")
    soc = next((part.partition(",")[2] for part in compatible if part.startswith("nvidia,tegra")), None)
    return {**release, "soc": soc, "cuda": _cuda(tree)}


def _cuda(tree: Tree) -> "str | None":
    path = "usr/local/cuda/version.json"
    text = tree.text(path, "version of CUDA", "sudo apt install nvidia-jetpack, or use the runtime alone")
    try:
        version = json.loads(text)["cuda"]["version"] if text else None
    except (ValueError, KeyError, TypeError):
        tree.lacks("version of CUDA", f"{path} has another form", "look into it")
        return None
    return str(version)[:20] if version else None


def power_mode(tree: Tree) -> "dict[str, Any] | None":
    """{id, name} of nvpmodel."""
    text = tree.command("nvpmodel-q", ["nvpmodel", "-q"])
    mode = None if text is None else parse_nvpmodel(text)
    if text is not None and mode is None:
        tree.lacks("nvpmodel", f"nvpmodel -q prints {text.strip()[:80]!r}, no power mode", "sudo nvpmodel -q")
    return mode


def shown_clocks(tree: Tree) -> kernel.Clocks:
    """What `jetson_clocks --show` shows; to root alone, so it only fills what the kernel's files left open."""
    text = tree.command("jetson_clocks-show", ["jetson_clocks", "--show"])
    shown = {} if text is None else parse_jetson_clocks(text)
    if text is not None and not shown:
        first = (text.strip().splitlines() or ["nothing"])[0]
        tree.lacks("jetson_clocks", f"jetson_clocks --show prints {first[:80]!r}", "sudo jetson_clocks --show")
    return shown


def tegrastats(tree: Tree) -> dict[str, Any]:
    """One line of tegrastats as values."""
    text = tree.command("tegrastats", ["tegrastats", "--interval", "200"], seconds=TEGRASTATS_S, endless=True)
    values = {} if text is None else parse_tegrastats(text)
    if text is not None and not values:
        tree.lacks("tegrastats", "prints no line that is understood", "tegrastats --interval 200")
    return values


def gpu_load(tree: Tree) -> "str | None":
    """The file of the GPU's utilisation, in thousandths."""
    device = kernel.gpu_device(tree)
    names = [name.format(device) for name in GPU_LOADS if device or "{}" not in name]
    return next((name for name in names if tree.has(name)), None)


def all_held(known_clocks: kernel.Clocks) -> "bool | None":
    """What jetson_clocks does: every clock of cores and GPU at one value. None where neither is known."""
    states = [kernel.held(clock) for name, clock in known_clocks.items() if name == "gpu" or name.startswith("cpu")]
    known = [state for state in states if state is not None]
    return all(known) if known else None


# ------------------------------------------------------------------------------------- what the tools print, as values


NOT_A_READING_C = -200.0  # a sensor of a part without power reads −256
_RAM = re.compile(r"\b(RAM|SWAP) ([0-9]{1,9})/([0-9]{1,9})MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\](?:@([0-9]{1,6}))?")
_CORE = re.compile(r"([0-9]{1,3})%(?:@([0-9]{1,6}))?")
_EMC = re.compile(r"\bEMC_FREQ (?:([0-9]{1,3})%)?(?:@([0-9]{1,6}))?")
_GPU = re.compile(r"\bGR3D_FREQ (?:([0-9]{1,3})%)?(?:@\[?([0-9,]{1,60})\]?)?")
_CELSIUS = re.compile(r"(?<![\w@])([A-Za-z][\w-]{0,30})@(-?[0-9]{1,4}(?:\.[0-9]{1,4})?)C\b")
_POWER = re.compile(r"\b([A-Z][A-Z0-9_]{1,40}) (-?[0-9]{1,7})mW(?=[/\s]|$)")
_SIZES = ("used_bytes", "total_bytes")
_CLOCK = re.compile(r"^(cpu[0-9]{1,3}|GPU|EMC)\b:?(.*)$")
_FIELD = re.compile(r"(Online|Governor|MinFreq|MaxFreq|CurrentFreq|FreqOverride)=(\S+)")


def parse_tegrastats(text: str) -> dict[str, Any]:
    """The last whole line: memory in bytes, clocks in MHz, °C, mW of now, shares in [0, 1]; {} where there is none.

    {"memory": {"RAM": {used_bytes, total_bytes}}, "cores": [{busy, mhz} | None where off], "emc": {busy, mhz},
    "gpu": {busy, mhz}, "temperatures_c": {}, "power_mw": {}}, each key where the line has it.
    """
    lines = [line for line in text.splitlines() if "RAM " in line]
    line, values = lines[-1] if lines else "", dict[str, Any]()
    memory = {name: (int(used) << 20, int(total) << 20) for name, used, total in _RAM.findall(line)}
    if memory:
        values["memory"] = {name: dict(zip(_SIZES, sizes, strict=True)) for name, sizes in memory.items()}
    if cpu := _CPU.search(line):
        values["cores"] = [_core(part.strip(), cpu[2]) for part in cpu[1].split(",") if part.strip()]
    if (emc := _EMC.search(line)) and any(emc.groups()):
        values["emc"] = {"busy": _share(emc[1]), "mhz": _number(emc[2])}
    if (gpu := _GPU.search(line)) and any(gpu.groups()):
        # one clock a cluster (GPC) of the GPU; a cluster without power reads 0
        clocks = [int(part) for part in (gpu[2] or "").split(",") if part]
        values["gpu"] = {"busy": _share(gpu[1]), "mhz": float(max(clocks)) if clocks else None}
    temperatures = {name: float(value) for name, value in _CELSIUS.findall(line) if float(value) > NOT_A_READING_C}
    if temperatures:
        values["temperatures_c"] = temperatures
    if rails := {name: float(value) for name, value in _POWER.findall(line)}:
        values["power_mw"] = rails
    return values


def _core(text: str, common_mhz: "str | None") -> "dict[str, Any] | None":
    match = _CORE.fullmatch(text)
    return {"busy": _share(match[1]), "mhz": _number(match[2] or common_mhz)} if match else None


def _share(percent: "str | None") -> "float | None":
    return None if percent is None else int(percent) / 100


def _number(text: "str | None") -> "float | None":
    return None if text is None else float(text)


def parse_nvpmodel(text: str) -> "dict[str, Any] | None":
    """`nvpmodel -q`: a line `NV Power Mode: NAME` and one with the mode's number; None without the name."""
    lines = [line.strip() for line in text.splitlines()]
    named = [line.partition(":")[2].strip() for line in lines if line.upper().startswith("NV POWER MODE")]
    numbers = [int(line) for line in lines if re.fullmatch(r"[0-9]{1,3}", line)]
    return {"id": numbers[0] if numbers else None, "name": named[0][:40]} if named and named[0] else None


def parse_jetson_clocks(text: str) -> dict[str, dict[str, Any]]:
    """`jetson_clocks --show`: {"cpu0" | "gpu" | "emc": {mhz, min_mhz, max_mhz, override?}}; {} where it shows none.

    CPU clocks are printed in kHz, the others in Hz; a core that is off is left out.
    """
    shown = {}
    for line in text.splitlines():
        name = _CLOCK.match(line.strip())
        fields = dict(_FIELD.findall(name[2])) if name else {}
        if name is None or fields.get("Online") == "0":
            continue
        per_mhz = 1e3 if name[1].startswith("cpu") else 1e6
        keys = {"mhz": "CurrentFreq", "min_mhz": "MinFreq", "max_mhz": "MaxFreq"}
        clock: dict[str, Any] = {
            key: int(fields[field]) / per_mhz
            for key, field in keys.items()
            if re.fullmatch(r"[0-9]{1,15}", fields.get(field, ""))
        }
        if len(clock) == len(keys):
            override = {"override": fields["FreqOverride"] == "1"} if "FreqOverride" in fields else {}
            shown[name[1].lower()] = clock | override
    return shown
