"""The machine's state as a statement tells it to a person: energy, warnings, what it was. Standard library only."""

from collections.abc import Iterator, Mapping
from typing import Any

Predicate = Mapping[str, Any]


def lines(predicate: Predicate) -> list[str]:
    """For the summary: energy where it was measured, and each warning with what ends it."""
    found = energy(predicate)
    told = [f"energy      {found}"] if found else []
    return told + [f"warning     {row['name']}: {row['found']}; {row['fix']}" for row in predicate.get("warnings", ())]


def energy(predicate: Predicate) -> "str | None":
    """`12.3 mJ an image on VDD_IN, 8.1 mJ above idle`; None where it was not measured."""
    found = (predicate["machine"].get("during") or {}).get("energy") or {}
    if found.get("gross_mj") is None:
        return None
    net = "" if found["net_mj"] is None else f", {found['net_mj']:.3g} mJ above idle"
    return f"{found['gross_mj']:.3g} mJ an image on {' + '.join(found['rails'])}{net}"


def details(predicate: Predicate) -> list[str]:
    """Everything that was read, a line a matter; nothing for a statement without evidence."""
    before, during = predicate["machine"]["before"], predicate["machine"].get("during")
    return [] if "kind" not in before else [f"{name:<9} {said}" for name, said in _matters(before, during or {})]


def _matters(before: Predicate, during: Predicate) -> Iterator[tuple[str, str]]:
    board, mode, gpu = before["board"], before["power_mode"], before["gpu"] or {}
    if board:
        yield "board", f"{board['model']}, JetPack {board['jetpack'] or '?'}, L4T {board['l4t'] or '?'}"
    if gpu.get("name"):
        yield "gpu", f"{gpu['name']}, driver {gpu.get('driver')}, CUDA {gpu.get('cuda')}"
    if mode:
        held = {True: "clocks held", False: "clocks free", None: "clocks not known"}[before["jetson_clocks"]]
        yield "mode", f"{mode['name']} ({mode['id']}), {held}"
    if during.get("mhz"):
        yield "clocks", _levels(during["mhz"], "MHz")
    if during.get("celsius"):
        yield "heat", _levels(during["celsius"], "°C")
    if during.get("mw"):
        yield "power", _levels(during["mw"], "mW")
    why = during.get("energy", {}).get("why")
    if why:
        yield "energy", why
    if during.get("cores"):
        told = ", ".join(f"{name} {value:.2f}" for name, value in during["cores"].items())
        yield "cores", f"{told} (mean while timed)"
    if during:
        yield "watched", f"{during['n']} samples in {during['seconds']:.2f} s of {during['what']}"
    for row in before["unreadable"]:
        yield "unread", f"{row['what']}: {row['why']}; {row['how']}"


def _levels(found: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Means, with the range where there is one; cores that did the same together."""
    same: dict[str, list[str]] = {}
    for name, level in found.items():
        mean, low, high = (f"{level[key]:.0f}" for key in ("mean", "min", "max"))
        same.setdefault(mean if low == high else f"{mean} ({low} to {high})", []).append(name)
    return ", ".join(f"{_names(names)} {said} {unit}" for said, names in same.items())


def _names(names: "list[str]") -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
