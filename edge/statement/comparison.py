"""One verified artifact against another, image by image: what got better or worse, and by more than chance."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.core import artifact
from edge.core.errors import CompressError
from edge.core.proportions import PairedShares
from edge.statement.gate_formats import FAILED, PASSED, SKIPPED, GateCase
from edge.statement.statement import VERDICTS, Predicate, Statement, read_statement

ARRAYS = ("index", "labels", "clean_predictions", "attacks", "broken")
WORSE, NOT_WORSE, INCONCLUSIVE = "worse", "not worse", "inconclusive"
MARGIN_POINTS = 0.5

#: Which images stand, bool (N,) each: with every undecided one fallen, and with every one standing.
Bounds = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class JudgedArtifact:
    """A statement with the verdicts that belong to it; N images, A attacks."""

    name: str
    stated: Statement
    index: np.ndarray  # int64 (N,), places in the dataset
    labels: np.ndarray  # int64 (N,)
    right: np.ndarray  # bool (N,), when clean
    attacks: "list[str]"
    broken: np.ndarray  # bool (A,N)
    undecided: np.ndarray  # bool (N,): the budget ended before

    @classmethod
    def read(cls, where: "Path | str") -> "JudgedArtifact":
        """Of a verified folder or of its statement's file, beside which the verdicts lie."""
        path = Path(where)
        stated = read_statement(path)
        file = (path if path.is_dir() else path.parent) / VERDICTS
        bound = stated.predicate.verdicts.sha256 if stated.predicate.verdicts else None
        try:
            content = file.read_bytes()
            if artifact.bytes_sha256(content) != bound:
                raise CompressError(
                    f"{file}: has sha256 {artifact.bytes_sha256(content):.12}, the statement says {bound:.12}; "
                    "take both from the same verified folder"
                )
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                index, labels, predictions, attacks, broken = (arrays[name] for name in ARRAYS)
                undecided = arrays.get("undecided", np.zeros(len(labels), bool))
        except (OSError, ValueError, KeyError) as fault:
            raise CompressError(
                f"{file}: no table of verdicts ({fault}); a comparison by image needs the {VERDICTS} beside the "
                "statement"
            ) from None
        return cls(str(where), stated, index, labels, predictions == labels, attacks.tolist(), broken, undecided)

    @property
    def predicate(self) -> Predicate:
        return self.stated.predicate

    @property
    def stands(self) -> np.ndarray:
        """Right when clean and broken by nothing that ran, bool (N,)."""
        return self.right & ~self.broken.any(0)


def check_pairable(new: JudgedArtifact, old: JudgedArtifact) -> None:
    """Refuse what cannot be paired: another threat, other data, other images."""
    threats = [(side.predicate.threat.norm, side.predicate.threat.eps) for side in (new, old)]
    if threats[0] != threats[1]:
        phrases = [f"{norm} eps {eps}" for norm, eps in threats]
        _refuse(
            old, f"judged under {phrases[1]}, {new.name} under {phrases[0]}", "compare statements of one threat model"
        )
    for key in ("name", "fingerprint", "split", "n"):
        a, b = getattr(new.predicate.data, key), getattr(old.predicate.data, key)
        if a != b:
            what = {"n": "images", "fingerprint": "data fingerprint"}.get(key, key)
            _refuse(old, f"{what} {b!s:.12}, {new.name} has {a!s:.12}", "verify both with one attack set's images")
    if not (np.array_equal(new.index, old.index) and np.array_equal(new.labels, old.labels)):
        _refuse(old, f"other images or labels than {new.name}", "verify both with one attack set's images")


def _refuse(old: JudgedArtifact, why: str, fix: str) -> None:
    raise CompressError(f"{old.name}: {why}; {fix}")


def compare_verified(
    new: JudgedArtifact,
    old: JudgedArtifact,
    *,
    margin_points: float = MARGIN_POINTS,
    allow: "frozenset[str]" = frozenset(),
) -> dict[str, Any]:
    """`new` against the baseline `old`, for JSON; a difference is new minus old, in shares.

    A share is *worse* when its whole interval lies below the margin, *not worse* when none of it does, otherwise
    *inconclusive*; the verdict is the worst of clean and robust. Undecided images make the interval that of both ways.
    The same bytes that lose no image are not worse, whatever n: it is the same classifier.
    """
    check_pairable(new, old)
    same = new.predicate.artifact.sha256 == old.predicate.artifact.sha256
    now, before = ((side.stands & ~side.undecided, side.stands) for side in (new, old))
    clean = _judged((new.right, new.right), (old.right, old.right), margin_points / 100, same, [])
    # Why the new figure may be better than the artifact, so that it can not be called not worse
    doubts = [f"alarm fired: {name}" for name in new.predicate.fired if name not in allow]
    here, there = ({part.part for part in side.predicate.protocol if part.covered} for side in (new, old))
    lacking = sorted(there - here)
    if lacking:
        doubts.append(f"parts of the protocol run on the baseline alone: {', '.join(lacking)}")
    robust = _judged(now, before, margin_points / 100, same, doubts)
    verdicts = {clean["verdict"], robust["verdict"]}
    # Images that stood on the baseline, and what breaks them now; no attack where one is wrong already when clean.
    fallen = [
        {
            "index": int(new.index[place]),
            "class": int(new.labels[place]),
            "by": [name for name, row in zip(new.attacks, new.broken, strict=True) if row[place]],
        }
        for place in np.flatnonzero(old.stands & ~new.stands)
    ]
    return {
        "baseline": {"name": old.name, "sha256": old.predicate.artifact.sha256, "kind": _kind(old)},
        "artifact": {"name": new.name, "sha256": new.predicate.artifact.sha256, "kind": _kind(new)},
        "same_bytes": same,
        "same_attack_set": new.predicate.attack_set == old.predicate.attack_set,
        "margin_points": margin_points,
        "verdict": next(word for word in (WORSE, INCONCLUSIVE, NOT_WORSE) if word in verdicts),
        "clean": clean,
        "robust": robust,
        "attacks": _by_attack(new, old),
        "classes": _by_class(new, old),
        "images": {
            "clean_lost": new.index[old.right & ~new.right].tolist(),
            "fallen": fallen,
            "recovered": new.index[new.stands & ~old.stands].tolist(),
        },
        "latency": {"p50_ms": [float(side.predicate.times.p50_ms) for side in (new, old)], "tested": False},
    }


def _kind(side: JudgedArtifact) -> str:
    figures = side.predicate.figures
    if figures.robust:
        return "robust"
    return "inconclusive" if figures.inconclusive else "upper_bound"


def _judged(new: Bounds, old: Bounds, margin: float, same: bool, doubts: "list[str]") -> dict[str, Any]:
    """The paired difference and its verdict; its interval reaches from the worst case of what is undecided to the best.

    `same`: the two are the same bytes.
    """
    difference = _pairs(new[1], old[1]).as_dict()
    worst, best = _pairs(new[0], old[1]).as_dict()["interval"][0], _pairs(new[1], old[0]).as_dict()["interval"][1]
    difference["interval"] = [worst, best]
    held = worst >= -margin or (same and not (old[1] & ~new[0]).any())
    verdict = WORSE if best < -margin else NOT_WORSE if held and not doubts else INCONCLUSIVE
    return {
        "verdict": verdict,
        "shares": [float(new[1].mean()), float(old[1].mean())],
        **difference,
        "doubts": doubts,
    }


def _pairs(new: np.ndarray, old: np.ndarray) -> PairedShares:
    return PairedShares(int((old & ~new).sum()), int((new & ~old).sum()), len(new))


def _by_attack(new: JudgedArtifact, old: JudgedArtifact) -> list[dict[str, Any]]:
    """Every attack that both were under, the one that got worst first."""
    rows = []
    for a, name in enumerate(new.attacks):
        if name in old.attacks:
            stands, stood = new.right & ~new.broken[a], old.right & ~old.broken[old.attacks.index(name)]
            rows.append({"name": name, "shares": [float(stands.mean()), float(stood.mean())], **_change(stands, stood)})
    return sorted(rows, key=lambda row: row["difference"])


def _by_class(new: JudgedArtifact, old: JudgedArtifact) -> list[dict[str, Any]]:
    """Every class by its label, the one whose robust share got worst first."""
    rows = []
    for label in np.unique(new.labels):
        of = new.labels == label
        clean, robust = _change(new.right[of], old.right[of]), _change(new.stands[of], old.stands[of])
        rows.append({"class": int(label), "n": int(of.sum()), "clean": clean, "robust": robust})
    return sorted(rows, key=lambda row: (row["robust"]["difference"], row["clean"]["difference"]))


def _change(new: np.ndarray, old: np.ndarray) -> dict[str, Any]:
    pairs = _pairs(new, old)
    return {"difference": pairs.difference, "lost": pairs.lost, "gained": pairs.gained}


# ---------------------------------------------------------------------------------------- for a person, and for a gate


SHOWN = 5  # rows of attacks, classes and images

Comparison = Mapping[str, Any]


def comparison_lines(compared: Comparison) -> list[str]:
    """Verdict, both shares, latency, and the first few of what got worse."""
    p50 = compared["latency"]["p50_ms"]
    worse_attacks = [row for row in compared["attacks"] if row["difference"] < 0]
    worse_classes = [row for row in compared["classes"] if row["robust"]["difference"] < 0]
    fallen = compared["images"]["fallen"]
    new, old = (compared[side]["sha256"][:12] for side in ("artifact", "baseline"))
    same = f"same bytes, {new}" if compared["same_bytes"] else f"bytes differ, {new} was {old}"
    attacks = "same attack set" if compared["same_attack_set"] else "another attack set of the same images"

    def broken_by(row: Comparison) -> str:
        return ", ".join(row["by"]) or "wrong when clean"

    return [
        f"against     {compared['baseline']['name']}: {same}, {attacks}",
        f"  verdict   {compared['verdict']}, margin {compared['margin_points']:g} points",
        *(f"  {name:<9} {difference_phrase(compared[name])}" for name in ("clean", "robust")),
        f"  latency   p50 {p50[0]:.3f} ms, was {p50[1]:.3f} ms (side by side, not tested)",
        *_few("attacks", worse_attacks, lambda row: f"{row['name']} {_points(row['difference'])}"),
        *_few("classes", worse_classes, lambda row: f"{row['class']} {_points(row['robust']['difference'])}"),
        *_few("images", fallen, lambda row: f"{row['index']} (class {row['class']}, {broken_by(row)})"),
    ]


def difference_phrase(row: Comparison) -> str:
    """`73.5% was 75.2%: -1.7 points (95% interval -3.6 to 0.1; lost 8, gained 2, McNemar p 0.109): inconclusive`."""
    low, high = (100 * end for end in row["interval"])
    now, before = row["shares"]
    phrase = (
        f"{now:.1%}, was {before:.1%}: {_points(row['difference'])} points ({row['level']:.0%} interval {low:+.2f} to "
        f"{high:+.2f}; lost {row['lost']}, gained {row['gained']}, McNemar p {row['p']:.3g}): {row['verdict']}"
    )
    return "; ".join([phrase, *row["doubts"]])


def comparison_cases(compared: Comparison, *, strict: bool, of: str = "") -> list[GateCase]:
    """Clean and robust accuracy as one case each, `of` before its name; inconclusive fails only where `strict`."""
    results = {WORSE: FAILED, INCONCLUSIVE: FAILED if strict else SKIPPED}
    return [
        GateCase(
            "comparison",
            f"{of}{name} not worse than {compared['baseline']['name']} by {compared['margin_points']:g} points",
            results.get(compared[name]["verdict"], PASSED),
            difference_phrase(compared[name]),
        )
        for name in ("clean", "robust")
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _few(what: str, rows: Sequence[Comparison], phrase: Any) -> list[str]:
    if not rows:
        return []
    more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return [f"  worse     {what}: {'; '.join(phrase(row) for row in rows[:SHOWN])}{more}"]
