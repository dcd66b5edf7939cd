"""Temperatures by zone, where they start to throttle, and what the kernel throttles now."""

import re

from edge.evidence.tree import OFF, Tree

ZONES = "sys/class/thermal/thermal_zone*"
COOLERS = "sys/class/thermal/cooling_device*"
CHIPS = ("coretemp", "k10temp", "zenpower")
#: Cooling by making something slower. A fan's or a display's state says nothing of speed.
THROTTLES = re.compile(r"throttle|alert|cpufreq|devfreq|^Processor")
OFF_MC = -200_000  # a sensor of a part without power reads −256 °C


def zones(tree: Tree) -> "dict[str, str]":
    """{zone: its folder}; a name that comes twice gets a number."""
    found: dict[str, str] = {}
    for folder in tree.glob(ZONES):
        kind = tree.text(f"{folder}/type", f"name of {folder.rsplit('/', 1)[1]}")
        if kind is not None:
            found[_free(found, kind.removesuffix("-thermal"))] = folder
    return found


def sensors(tree: Tree) -> "dict[str, str]":
    """{sensor: its file} of the processor's own chips, on machines without thermal zones for them."""
    found: dict[str, str] = {}
    for folder in tree.glob("sys/class/hwmon/hwmon*"):
        if tree.text(f"{folder}/name") in CHIPS:
            for path in tree.glob(f"{folder}/temp*_input"):
                label = tree.text(path.replace("_input", "_label"))
                found[_free(found, label or "cpu")] = path
    return found


def temperatures(tree: Tree) -> dict[str, float]:
    """°C by zone and sensor."""
    files = {name: f"{folder}/temp" for name, folder in zones(tree).items()}
    for name, path in sensors(tree).items():
        files[_free(files, name)] = path
    read = {name: tree.number(path, f"temperature of {name}", OFF) for name, path in files.items()}
    if not files:
        tree.lacks("temperatures", "no thermal zone here", "nothing to do in a virtual machine")
    return {name: value / 1000 for name, value in read.items() if value is not None and value > OFF_MC}


def limits(tree: Tree) -> dict[str, float]:
    """°C from which on each zone throttles: its lowest passive trip point, else the hot, else the critical one."""
    found = {}
    for name, folder in zones(tree).items():
        trips: dict[str, list[int]] = {}
        for path in tree.glob(f"{folder}/trip_point_*_type"):
            kind, value = tree.text(path), tree.number(path.replace("_type", "_temp"))
            if kind is not None and value is not None and value > 0:
                trips.setdefault(kind, []).append(value)
        lowest = next((min(trips[kind]) for kind in ("passive", "hot", "critical") if kind in trips), None)
        if lowest is not None:
            found[name] = lowest / 1000
    return found


def coolers(tree: Tree) -> dict[str, str]:
    """{cooling device that throttles: its folder}."""
    found: dict[str, str] = {}
    for folder in tree.glob(COOLERS):
        kind = tree.text(f"{folder}/type")
        if kind is not None and THROTTLES.search(kind):
            found[_free(found, kind)] = folder
    return found


def throttles(tree: Tree) -> dict[str, int]:
    """{cooling device: its state}, 0 where it does not throttle."""
    read = {name: tree.number(f"{folder}/cur_state", name) for name, folder in coolers(tree).items()}
    return {name: state for name, state in read.items() if state is not None}


def _free(taken: "dict[str, str]", name: str) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
