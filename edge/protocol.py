"""Which parts of the attack protocol an attack set and this verification cover for one artifact."""

from collections.abc import Mapping, Sequence
from typing import Any

GRADIENT_FREE = ("square", "rays")
PARTS = {
    "a": "white box on the twin, replayed on the artifact",
    "b": "the float student's adversarial images, replayed",
    "c": "hybrid BPDA: forward on the artifact, backward through the twin",
    "d": "Square and a decision-based attack on the artifact itself",
    "e": "margin and temperature-scaled attacks on the twin, replayed",
    "f": "differential images: artifact wrong, float student right",
}

Attack = Mapping[str, Any]


def coverage(
    attacks: Sequence[Attack], *, itself: "str | None", twin: "str | None", student: str, ran: Sequence[str]
) -> list[dict[str, Any]]:
    """One record a part: covered or not, by which attacks, where; `where` says why not when it is not covered.

    `itself`, `twin` and `student` are labels of the attack set's models, None for one that is not there; `ran` names
    the attacks without gradients that ran here.
    """
    needs: dict[str, list[tuple[str, str | None]]] = {
        "a": [("white-box", twin)],
        "b": [("white-box", student)],
        "c": [("bpda", itself)],
        "e": [("margin", twin), ("temperature", twin)],
        "f": [("differential", twin)],
    }
    records = []
    for part, what in PARTS.items():
        if part == "d":
            names, where = [name for name in GRADIENT_FREE if name in ran], "this device"
            lacking = [f"{name} did not run: its queries are 0" for name in GRADIENT_FREE if name not in ran]
        elif part == "f" and twin == student:
            names, lacking, where = [], [], "not applicable: the artifact's twin is the float student"
        else:
            found = [(need, _of(attacks, *need)) for need in needs[part]]
            lacking = [_why(part, *need) for need, entries in found if not entries]
            entries = [entry for _, entries in found for entry in entries]
            names, where = [str(entry["name"]) for entry in entries], _places(entries)
        covered = not lacking
        record = {"part": part, "what": what, "covered": covered, "attacks": names if covered else []}
        records.append(record | {"where": where if covered else "; ".join(dict.fromkeys(lacking))})
    return records


def _of(attacks: Sequence[Attack], kind: str, source: "str | None") -> list[Attack]:
    return [attack for attack in attacks if attack["kind"] == kind and attack["source"] == source]


def _places(attacks: Sequence[Attack]) -> str:
    return "; ".join(sorted({str(attack["where"]) for attack in attacks}))


def _why(part: str, kind: str, source: "str | None") -> str:
    if source is None:
        return f"the attack set does not hold {'this artifact' if part == 'c' else 'the twin of this artifact'}"
    return f"the attack set has no {kind} attack on {source}"
