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


def coverage(
    attacks: Sequence[Mapping[str, Any]], entry: "Mapping[str, Any] | None", student: str, ran: Sequence[str]
) -> list[dict[str, Any]]:
    """One record a part: covered or not, by which attacks, where.

    `entry` is the artifact's row among the attack set's models, None if it is not there; `student` the float
    student's label; `ran` the attacks without gradients that ran here.
    """
    twin = entry["twin"] if entry else None
    itself = entry["label"] if entry else None

    def of(kind: str, source: "str | None") -> list[Mapping[str, Any]]:
        return [attack for attack in attacks if attack["kind"] == kind and attack["source"] == source]

    here = [{"name": name, "where": "this device"} for name in GRADIENT_FREE if name in ran]
    found = {
        "a": of("white-box", twin),
        "b": of("white-box", student),
        "c": of("bpda", itself),
        "d": here if len(here) == len(GRADIENT_FREE) else [],
        "e": _both(of("margin", twin), of("temperature", twin)),
        "f": of("differential", twin),
    }
    parts = []
    for part, what in PARTS.items():
        same = part == "f" and twin is not None and twin == student
        where = "; ".join(sorted({str(attack["where"]) for attack in found[part]}))
        parts.append(
            {
                "part": part,
                "what": what,
                "covered": bool(found[part]) or same,
                "attacks": [str(attack["name"]) for attack in found[part]],
                "where": "not applicable: the artifact's twin is the float student" if same else where,
            }
        )
    return parts


def _both(one: list[Mapping[str, Any]], other: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [*one, *other] if one and other else []
