"""What NVIDIA's own tools print on a Jetson, as values. Text of any kind goes in; what is not understood is left out.

tegrastats: Jetson Linux Developer Guide, "Tegrastats Utility" (r36, r38, r39). The line differs by release: JetPack 6
has `GR3D_FREQ 0%@[305,305]` and two powers a rail (now/average), JetPack 7 on Thor may lack GR3D_FREQ, and prints a
second value after the temperature and three powers (now/average/peak).
"""

import re
from typing import Any

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


def tegrastats(text: str) -> dict[str, Any]:
    """The last whole line: memory in bytes, clocks in MHz, °C, mW of now, shares in [0, 1]; {} where there is none.

    {"memory": {"RAM": {used_bytes, total_bytes}}, "cores": [{busy, mhz} | None where off], "emc": {busy, mhz},
    "gpu": {busy, mhz}, "temperatures_c": {}, "power_mw": {}}, each key where the line has it.
    """
    lines = [line for line in text.splitlines() if "RAM " in line]
    line, found = lines[-1] if lines else "", dict[str, Any]()
    memory = {name: (int(used) << 20, int(total) << 20) for name, used, total in _RAM.findall(line)}
    if memory:
        found["memory"] = {name: dict(zip(_SIZES, sizes, strict=True)) for name, sizes in memory.items()}
    if cpu := _CPU.search(line):
        found["cores"] = [_core(part.strip(), cpu[2]) for part in cpu[1].split(",") if part.strip()]
    if (emc := _EMC.search(line)) and any(emc.groups()):
        found["emc"] = {"busy": _share(emc[1]), "mhz": _number(emc[2])}
    if (gpu := _GPU.search(line)) and any(gpu.groups()):
        # one clock a cluster (GPC) of the GPU; a cluster without power reads 0
        clocks = [int(part) for part in (gpu[2] or "").split(",") if part]
        found["gpu"] = {"busy": _share(gpu[1]), "mhz": float(max(clocks)) if clocks else None}
    temperatures = {name: float(value) for name, value in _CELSIUS.findall(line) if float(value) > NOT_A_READING_C}
    if temperatures:
        found["temperatures_c"] = temperatures
    if rails := {name: float(value) for name, value in _POWER.findall(line)}:
        found["power_mw"] = rails
    return found


def _core(text: str, common_mhz: "str | None") -> "dict[str, Any] | None":
    found = _CORE.fullmatch(text)
    return {"busy": _share(found[1]), "mhz": _number(found[2] or common_mhz)} if found else None


def _share(percent: "str | None") -> "float | None":
    return None if percent is None else int(percent) / 100


def _number(text: "str | None") -> "float | None":
    return None if text is None else float(text)


def nvpmodel(text: str) -> "dict[str, Any] | None":
    """`nvpmodel -q`: a line `NV Power Mode: NAME` and one with the mode's number; None without the name."""
    lines = [line.strip() for line in text.splitlines()]
    named = [line.partition(":")[2].strip() for line in lines if line.upper().startswith("NV POWER MODE")]
    numbers = [int(line) for line in lines if re.fullmatch(r"[0-9]{1,3}", line)]
    return {"id": numbers[0] if numbers else None, "name": named[0][:40]} if named and named[0] else None


def jetson_clocks(text: str) -> dict[str, dict[str, Any]]:
    """`jetson_clocks --show`: {"cpu0" | "gpu" | "emc": {mhz, min_mhz, max_mhz, override?}}; {} where it shows none.

    CPU clocks are printed in kHz, the others in Hz; a core that is off is left out.
    """
    found = {}
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
            found[name[1].lower()] = clock | override
    return found
