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
#: Parts that compare with a float student. A float artifact without one has nothing to be compared with.
OF_THE_STUDENT = ("b", "f")

Attack = Mapping[str, Any]


def coverage(
    attacks: Sequence[Attack],
    *,
    itself: "str | None",
    twin: "str | None",
    student: "str | None",
    ran: Sequence[str],
    is_float: bool = False,
    no_twin: "str | None" = None,
) -> list[dict[str, Any]]:
    """One record a part: covered or not, by which attacks, where; `where` says why not when it is not covered.

    `itself`, `twin` and `student` are labels of the attack set's models, None for one that is not there; `ran` names
    the attacks without gradients that ran here; `is_float`: the artifact is no quantized one; `no_twin` says why the
    attack set has no twin for an artifact that it holds.
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
        not_applicable = _not_applicable(part, twin, student, is_float)
        if part == "d":
            names, where = [name for name in GRADIENT_FREE if name in ran], "this device"
            lacking = [f"{name} did not run: its queries are 0" for name in GRADIENT_FREE if name not in ran]
        elif not_applicable:
            names, lacking, where = [], [], f"not applicable: {not_applicable}"
        elif part in OF_THE_STUDENT and student is None:
            names, lacking, where = [], ["the attack set was made without a float student"], ""
        else:
            found = [(need, _of(attacks, *need)) for need in needs[part]]
            lacking = [_why(part, *need, no_twin) for need, entries in found if not entries]
            entries = [entry for _, entries in found for entry in entries]
            names, where = [str(entry["name"]) for entry in entries], _places(entries)
        covered = not lacking
        record = {"part": part, "what": what, "covered": covered, "attacks": names if covered else []}
        records.append(record | {"where": where if covered else "; ".join(dict.fromkeys(lacking))})
    return records


def _not_applicable(part: str, twin: "str | None", student: "str | None", is_float: bool) -> "str | None":
    if part == "f" and twin is not None and twin == student:
        return "the artifact's twin is the float student"
    if part in OF_THE_STUDENT and student is None and is_float and twin is not None:
        return "the artifact is a float network itself, and no student was given"
    return None


def _of(attacks: Sequence[Attack], kind: str, source: "str | None") -> list[Attack]:
    return [attack for attack in attacks if attack["kind"] == kind and attack["source"] == source]


def _places(attacks: Sequence[Attack]) -> str:
    return "; ".join(sorted({str(attack["where"]) for attack in attacks}))


def _why(part: str, kind: str, source: "str | None", no_twin: "str | None") -> str:
    if no_twin is not None and part != "b":
        return f"no twin: {no_twin}"
    if source is None:
        return f"the attack set does not hold {'this artifact' if part == 'c' else 'the twin of this artifact'}"
    return f"the attack set has no {kind} attack on {source}"
