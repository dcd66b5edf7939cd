"""Power by rail from INA monitors, energy counters of the processor (RAPL), over-current events, fans.

hwmon's units: in*_input mV, curr*_input mA, power*_input µW. Which rails hold others: Jetson Linux Developer Guide,
"Software-Based Power Consumption Modeling", and Jetson Thor's "Power Monitor".
"""

import re
from typing import NamedTuple

from edge.evidence.tree import Tree

HWMON = "sys/class/hwmon/hwmon*"
RAPL = "sys/class/powercap"
NOT_RAILS = re.compile(r"NC|sum of shunt voltages")
#: Rails that measure everything behind them, best first: the board's or module's input.
TOTALS = ("VIN", "VDD_IN", "POM_5V_IN")
#: Part of another rail: AGX Orin's memory is fed from VIN_SYS_5V0.
WITHIN = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}


class Rail(NamedTuple):
    """The files that give a rail's power: either µW alone, or mV and mA."""

    microwatts: "str | None"
    millivolts: str
    milliamperes: str


def rails(tree: Tree) -> dict[str, Rail]:
    """{rail: its files} of every INA power monitor; channels that no rail hangs on are left out."""
    files = {}
    for folder in tree.glob(HWMON):
        if not (tree.text(f"{folder}/name") or "").startswith("ina"):
            continue
        # {number of the channel: its file}
        whole, parts = (
            {re.sub(r"[^0-9]", "", path.rsplit("/", 1)[1]): path for path in tree.glob(f"{folder}/{kind}*_input")}
            for kind in ("power", "curr")
        )
        for number in {**whole, **parts}:
            label = tree.text(f"{folder}/in{number}_label") or tree.text(f"{folder}/label")
            if label and not NOT_RAILS.fullmatch(label):
                volts = f"{folder}/in{number}_input"
                files[label] = Rail(whole.get(number), volts, parts.get(number, f"{folder}/curr{number}_input"))
    return files


def milliwatts(tree: Tree) -> dict[str, float]:
    """mW by rail, now."""
    powers = {}
    for name, rail in rails(tree).items():
        if rail.microwatts is not None:
            whole = tree.number(rail.microwatts, f"power of {name}")
            value = None if whole is None else whole / 1000
        else:
            volts, amperes = (tree.number(path, f"power of {name}") for path in (rail.millivolts, rail.milliamperes))
            value = None if volts is None or amperes is None else volts * amperes / 1000
        if value is not None:
            powers[name] = value
    return powers


def summands(names: "list[str]") -> list[str]:
    """Of these rails those that together are the whole: the total alone, or all that are part of no other."""
    total = next((name for name in TOTALS if name in names), None)
    return [total] if total else [name for name in names if WITHIN.get(name) not in names]


def over_current(tree: Tree) -> dict[str, str]:
    """{event: its file} of soctherm's counters: oc1 is low voltage, oc2 average, oc3 instantaneous over-current."""
    files = {}
    for folder in tree.glob(HWMON):
        for path in tree.glob(f"{folder}/oc*_event_cnt"):
            files[path.rsplit("/", 1)[1].removesuffix("_event_cnt")] = path
    return files


def counters(tree: Tree) -> "dict[str, str]":
    """{domain: its folder} of the processor's energy counters that add up: packages, and memory, which none holds.

    Cores are a part of their package, and psys, where there is one, holds everything again.
    """
    folders = {}
    for folder in tree.glob(f"{RAPL}/*-rapl:*"):
        name, place = tree.text(f"{folder}/name") or "", folder.rsplit("/", 1)[1].split(":")[1:]
        if len(place) == 1 and name != "psys":
            folders[name or f"package-{place[0]}"] = folder
        elif name == "dram":
            folders[f"dram-{place[0]}"] = folder
    return folders


def counted_energy(tree: Tree) -> dict[str, float]:
    """mJ by package since some moment; the counters start again from 0 at their range."""
    read = {
        name: tree.number(f"{folder}/energy_uj", f"energy of {name}", "sudo chmod o+r /sys/class/powercap/*/energy_uj")
        for name, folder in counters(tree).items()
    }
    return {name: value / 1000 for name, value in read.items() if value is not None}


def fans(tree: Tree) -> dict[str, dict[str, "int | None"]]:
    """{hwmon's name: {pwm 0 to 255, rpm}}."""
    states = {}
    for folder in tree.glob(HWMON):
        pwm = next((path for path in [f"{folder}/pwm1"] if tree.has(path)), None)
        turns = next((path for path in [f"{folder}/fan1_input", f"{folder}/rpm"] if tree.has(path)), None)
        if pwm or turns:
            name = tree.text(f"{folder}/name") or "fan"
            states[name] = {
                "pwm": None if pwm is None else tree.number(pwm),
                "rpm": None if turns is None else tree.number(turns),
            }
    return states
