"""Whether figures of latency and energy can be trusted: named warnings where the machine's state says no."""

from collections.abc import Iterator, Mapping
from typing import Any

from edge.evidence.kernel import held

UNSTEADY_CV = 0.025  # trtexec's limit as well: a larger spread is called unstable there
STEAL_CORES = 0.01
OTHERS_CORES = 0.2
CLOCK_MOVES = 0.02
MARGIN_C = 5.0
LEAST_HZ = 10.0
LEAST_S = 1.0  # a shorter part says little of heat, load and power

MachineState = Mapping[str, Any]
Row = dict[str, str]
#: every name, and what it means
WARNINGS = {
    "not-a-jetson": "a Jetson was asked for, and this machine is none",
    "clocks-unlocked": "clocks could move",
    "governor": "the governor of the processor's clock lowers it",
    "power-mode-changed": "the power mode was another one afterwards",
    "throttled": "something was made slower: heat, power, a time limit",
    "over-current": "the supply could not follow",
    "hot": "near the temperature from which on it throttles",
    "shared-gpu": "another process computed on the GPU",
    "background-load": "other processes took processor time",
    "steal": "the host gave this machine's time to others",
    "unsteady": "latency spreads widely",
    "few-samples": "the machine was not watched closely enough",
}


def machine_warnings(
    before: MachineState,
    during: "MachineState | None",
    after: MachineState,
    spread: "float | None" = None,
    load: "Mapping[str, Any] | None" = None,
) -> list[Row]:
    """[{name, found, fix}] in the order of `WARNINGS`; `snapshot` gives two of the three, `sample_summary` `during`.

    `spread` is the coefficient of variation of latency, `load` what was asked to run beside it. What could not be read
    raises no warning: `unreadable` says it.
    """
    watched = during if during is not None and during.get("n") else None
    rows = [
        *_of_clocks(before, watched, after),
        *_of_slowing(before, watched, after),
        *_of_heat(before, watched, after),
        *_of_company(before, watched, after, load),
        *_of_samples(during, spread),
    ]
    return sorted(rows, key=lambda row: list(WARNINGS).index(row["name"]))


def _row(name: str, found: str, fix: str) -> Row:
    return {"name": name, "found": found, "fix": fix}


def _of_clocks(before: MachineState, during: "MachineState | None", after: MachineState) -> Iterator[Row]:
    """A Jetson's by their bounds; elsewhere by what they did, since a driver does not tell whether it holds them."""
    on_jetson = before["kind"] == "jetson"
    # NVML gives a GPU's memory no lower bound, and off a Jetson the GPU none either: only cores can be told there
    bounded = [name for name in before["clocks"] if name.startswith("cpu") or (on_jetson and name != "gpu_memory")]
    free = {name: before["clocks"][name] for name in bounded if held(before["clocks"][name]) is False}
    cores = [name for name in free if name.startswith("cpu")]
    if on_jetson:  # with its bounds at one value any governor holds the clock
        # one core stands for all
        named = cores[:1] + [name for name in free if name not in cores]
        if named:
            bounds = [f"{name} {free[name]['min_mhz']:.0f} to {free[name]['max_mhz']:.0f} MHz" for name in named]
            yield _row("clocks-unlocked", f"free to move: {', '.join(bounds)}", "sudo jetson_clocks")
    else:
        level = (during["mhz"] if during else {}).get("gpu")
        if level and level["max"] - level["min"] > CLOCK_MOVES * level["max"]:
            top = before["clocks"].get("gpu", {}).get("max_mhz") or level["max"]
            reason = f"the GPU's clock went from {level['min']:.0f} to {level['max']:.0f} MHz"
            fix = f"sudo nvidia-smi -lgc {top:.0f} (less where it throttles), afterwards -rgc"
            yield _row("clocks-unlocked", reason, fix)
        governors = {free[name].get("governor") for name in cores} - {None, "performance"}
        if governors:
            fix = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
            yield _row("governor", f"cores run under {', '.join(sorted(governors))}", fix)
    first, last = before["power_mode"], after["power_mode"]
    if first and last and first != last:
        fix = f"sudo nvpmodel -m {first['id']}, then verify again"
        yield _row("power-mode-changed", f"{first['name']} before, {last['name']} after", fix)


def _of_slowing(before: MachineState, during: "MachineState | None", after: MachineState) -> Iterator[Row]:
    states = [during["throttled"] if during else {}, before["throttled"], after["throttled"]]
    names = sorted({name for state in states for name, value in state.items() if value > 0})
    if names:
        yield _row("throttled", f"cooled by slowing down: {', '.join(names)}", "cool it, or take a lower power mode")
    held_down = [(state or {}).get("held_down_by") or [] for state in (before["gpu"], during, after["gpu"])]
    reasons = list(dict.fromkeys(word for words in held_down for word in words))
    if reasons:
        fix = "cool it, raise its power limit (sudo nvidia-smi -pl WATTS), or lock a lower clock"
        yield _row("throttled", f"the GPU's clock was held down by {', '.join(reasons)}", fix)
    # How much each counter grew while timed; between the two states where nothing was sampled.
    if during:
        grown = dict(during["events"])
    else:
        first, last = ({**state["over_current"], "limited": state["limited"]} for state in (before, after))
        grown = {name: last[name] - count for name, count in first.items() if None not in (count, last.get(name))}
    periods = grown.get("limited", 0)
    if periods > 0:
        reason = f"the control group's time limit stopped the process in {periods:.0f} periods"
        yield _row("throttled", reason, "raise its limit (docker run --cpus), or give --threads")
    events = [f"{name} {count:.0f}×" for name, count in grown.items() if name.startswith("oc") and count > 0]
    if events:
        fix = "a stronger supply or cable, or a lower power mode: sudo nvpmodel -m ID"
        yield _row("over-current", f"{', '.join(events)} (oc1: low voltage, oc2: average, oc3: peak current)", fix)


def _of_heat(before: MachineState, during: "MachineState | None", after: MachineState) -> Iterator[Row]:
    """The zone that came nearest to its limit."""
    levels = {name: level["max"] for name, level in (during["celsius"] if during else {}).items()}
    near = []
    for name, limit in before["limits_c"].items():
        read = [before["temperatures_c"].get(name), after["temperatures_c"].get(name), levels.get(name)]
        highest = max([value for value in read if value is not None], default=None)
        if highest is not None and highest > limit - MARGIN_C:
            near.append((highest - limit, name, highest, limit))
    if near:
        _, name, highest, limit = max(near)
        reason = f"{name} reached {highest:.1f} °C, it throttles from {limit:.1f} °C"
        yield _row("hot", reason, "cool it, then verify again")


def _of_company(before: MachineState, during: "MachineState | None", after: MachineState, wanted: Any) -> Iterator[Row]:
    """`wanted`: what was asked to run beside the measurement; nothing else can then be told from it."""
    first, last = before["gpu"] or {}, after["gpu"] or {}
    others = sorted({*(first.get("others") or []), *(last.get("others") or [])})
    hidden = max(first.get("hidden") or 0, (last.get("hidden") or 0) - 1)  # one of them is this process afterwards
    if others or hidden > 0:
        processes = f"process {', '.join(map(str, others))}" if others else f"{hidden} in another container"
        fix = "end it (nvidia-smi lists it), or another GPU"
        yield _row("shared-gpu", f"computes on the GPU as well: {processes}", fix)
    cores = during["cores"] if during else None
    if not during or not cores or during["seconds"] < LEAST_S:
        return
    if wanted is None and cores.get("others", 0.0) > OTHERS_CORES:
        yield _row("background-load", f"other processes kept {cores['others']:.2f} cores busy", "end them: top -o %CPU")
    if cores.get("steal", 0.0) > STEAL_CORES:
        reason = f"the host took {cores['steal']:.2f} cores' time from this virtual machine"
        yield _row("steal", reason, "measure on a machine of its own, or with dedicated cores")


def _of_samples(during: "MachineState | None", spread: "float | None") -> Iterator[Row]:
    if spread is not None and spread > UNSTEADY_CV:
        reason = f"coefficient of variation {100 * spread:.1f} %, more than {100 * UNSTEADY_CV:g} %"
        yield _row("unsteady", reason, "lock the clocks, end what else runs, take more samples")
    if during is None:
        return
    if during.get("fault"):
        fix = "look why the process does not run: python3 -m edge.evidence.channels"
        yield _row("few-samples", str(during["fault"]), fix)
    elif during["seconds"] < LEAST_S:
        reason = f"the timed part lasted {during['seconds']:.2f} s"
        yield _row("few-samples", reason, f"take more, for {LEAST_S:g} s at least: --samples")
    elif during["hz"] < LEAST_HZ:
        yield _row("few-samples", f"{during['hz']:.1f} samples a second, {LEAST_HZ:g} are wanted", "end what else runs")
