"""From verdicts to the statement's predicate: figures, rows of attacks, agreement with the twin, the lineage, and which
parts of the attack protocol an attack set and this verification cover.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.runtimes.runner import CONTRACT, MODEL, Runner
from edge.statement.statement import (
    Agreed,
    Agreement,
    Ancestor,
    AttackRow,
    BoundSet,
    Differential,
    Figure,
    Figures,
    JudgedData,
    Predicate,
    ProtocolPart,
    ShippedArtifact,
    StatedThreat,
    Undecided,
)
from edge.validity import rules
from edge.validity.logits import chance_count, distributions
from edge.validity.rules import ValidityCheck
from edge.verify import alarms
from edge.verify.alarms import suspect
from edge.verify.attack_set import PROBABILITIES, AttackSet
from edge.verify.verdicts import FREE, Verdicts

#: Precisions of an artifact that is its own float network.
UNQUANTIZED = ("float32", "float64", "fp16", "bf16")
APPLIED_TO = "pixels in [0, 1] on the 8-bit grid, the model's own input; no resize or colour conversion comes after it"


def judge_artifact(
    exported: Stage,
    attacks: AttackSet,
    verdicts: Verdicts,
    checks: "Sequence[ValidityCheck]",
    config: Mapping[str, Any],
    runner: Runner,
) -> Predicate:
    """All of the statement's predicate that follows from verdicts; what is timed and written comes later.

    `checks` are those of the artifact's logits.
    """
    itself, twin = executed_in(exported, attacks, runner), twin_of(exported, attacks)
    agreed = agreement(attacks, verdicts, twin)
    protocol = coverage(
        attacks.about["attacks"],
        itself=attacks.label(itself),
        twin=attacks.label(twin),
        student=attacks.label(attacks.student),
        ran=list(verdicts.free),
        is_float=exported.metrics["precision"] in UNQUANTIZED,
        no_twin=None if itself is None else attacks.about["models"][itself].get("no_twin"),
    )

    def likeliest_fault() -> str:
        """Of an artifact that differs from its twin."""
        return "" if twin is None else suspect(runner.infer, attacks.clean, attacks.clean_logits[twin])

    models, payload = attacks.about["models"], attacks.stage.manifest["payload"]
    return Predicate(
        artifact=shipped_artifact(exported, runner),
        threat=StatedThreat(**attacks.about["threat"], applied_to=APPLIED_TO),
        data=JudgedData(**exported.data, n=len(verdicts.labels)),
        figures=judged_figures(verdicts, covered=all(part.covered for part in protocol), budget=config.get("budget")),
        protocol=protocol,
        attacks=attack_rows(attacks, verdicts, config),
        differential=differential(attacks, verdicts),
        agreement=agreed,
        alarms=alarms.raise_alarms(
            verdicts,
            agreed,
            likeliest_fault,
            [
                *known_probabilities(checks, {} if itself is None else models[itself], verdicts.clean_logits),
                *_gradient_checks(attacks, twin),
            ],
        ),
        runtime=runner.describe(),
        batch_size=runner.batch_size,
        seed=config["seed"],
        versions=artifact.versions(),
        lineage=lineage_of(exported),
        float_figures={model["label"]: model["float_figures"] for model in models if "float_figures" in model},
        attack_set=BoundSet(attacks.stage.identity, {name: entry["sha256"] for name, entry in payload.items()}),
    )


def known_probabilities(
    checks: "Sequence[ValidityCheck]", about: Mapping[str, Any], logits: "npt.NDArray[np.float32]"
) -> list[ValidityCheck]:
    """Probabilities flatter no figure where attacks know them; `about`: the model's entry in an attack set.

    Those with gradients take the values before the softmax of the twin. Those without take the logarithm, of `logits`
    (N,K) that are distributions.
    """
    if about.get("outputs") == PROBABILITIES:
        return rules.with_known_probabilities(checks)
    if about.get("twin") is None and distributions(logits).all():
        return rules.with_known_probabilities(checks, "the attacks ascend on their logarithm")
    return list(checks)


def _gradient_checks(attacks: AttackSet, twin: "int | None") -> list[ValidityCheck]:
    """What `compress attack` found of the gradients that the replayed images came from; nothing without a twin."""
    label = attacks.label(twin)
    rows = attacks.stage.metrics.get("checks", {}).get(label, ())
    return [
        ValidityCheck(**{**row, "text": f"of its twin {label}, {row['text']}"})
        for row in rows
        if row["name"] in (rules.ZERO, rules.RISING)
    ]


def shipped_artifact(exported: Stage, runner: Runner) -> ShippedArtifact:
    """The bytes that were executed; of an engine also the graph that it was built from."""
    graph = exported.manifest["payload"].get(MODEL)
    return ShippedArtifact(
        identity=exported.identity,
        file=runner.file,
        sha256=runner.sha256,
        bytes=runner.size,
        target=exported.config["target"],
        precision=exported.metrics["precision"],
        executed=True,
        onnx={"file": MODEL, **graph} if runner.file != MODEL and graph is not None else None,
        origin=runner.origin(),
    )


def executed_in(exported: Stage, attacks: AttackSet, runner: Runner) -> "int | None":
    """The artifact's place in the attack set, unless another engine of the same graph was attacked there."""
    place = attacks.place(exported.identity)
    known = None if place is None else attacks.about["models"][place].get("sha256")
    return place if known in (None, runner.sha256) else None


def twin_of(exported: Stage, attacks: AttackSet) -> "int | None":
    """The place of the artifact's twin: what the set's entry of the artifact names, else the model it was made from."""
    itself = attacks.place(exported.identity)
    if itself is not None:
        return attacks.labelled(attacks.about["models"][itself]["twin"])
    return attacks.place(exported.manifest["plan"]["inputs"].get("model"))


def judged_figures(verdicts: Verdicts, *, covered: bool, budget: "float | None" = None) -> Figures:
    """Clean accuracy, and the worst case over all attacks: `robust` when the protocol is covered, else a bound.

    A bound too where the `budget` ended before every image was decided; `inconclusive` then holds it from both sides.
    """
    n, right, undecided = len(verdicts.labels), verdicts.right, int(verdicts.undecided.sum())
    standing = int((right & ~verdicts.broken.any(0)).sum())
    worst, decided = Figure.of(standing, n), covered and not undecided
    left_open = Undecided(budget, undecided, Figure.of(standing - undecided, n), worst) if undecided else None
    clean, chance = Figure.of(int(right.sum()), n), Figure.of(chance_count(verdicts.labels), n)
    return Figures(clean, worst if decided else None, None if decided else worst, left_open, chance)


def attack_rows(attacks: AttackSet, verdicts: Verdicts, config: Mapping[str, Any]) -> list[AttackRow]:
    """One row an attack; `alone` counts the images that no other attack breaks."""
    keys = ("name", "kind", "source", "parameters", "where")
    about = [{key: entry[key] for key in keys} for entry in attacks.about["attacks"]]
    for name in verdicts.free:
        kind, _, budget = FREE[name]
        parameters = {"queries": config[budget], "seed": config["seed"]}
        about.append(dict(zip(keys, (name, kind, "artifact", parameters, "this device"), strict=True)))
    broken = verdicts.broken
    return [
        AttackRow(
            **entry,
            n=len(row),
            broken=int(row.sum()),
            robust_accuracy=float((verdicts.right & ~row).mean()),
            alone=int((row & (broken.sum(0) == 1)).sum()),
        )
        for entry, row in zip(about, broken, strict=True)
    ]


def differential(attacks: AttackSet, verdicts: Verdicts) -> Differential:
    """Candidates that break the artifact and leave the float student right, of all; both right on the clean image.

    Of none where the set has no float student.
    """
    student = attacks.student
    if student is None:
        return Differential(0, 0)
    student_right = attacks.clean_logits[student].argmax(1) == attacks.labels
    stays = (attacks.predictions[:, student] == attacks.labels) & student_right
    return Differential(int((verdicts.replayed & verdicts.right & stays).sum()), int(verdicts.replayed.size))


def agreement(attacks: AttackSet, verdicts: Verdicts, twin: "int | None") -> "Agreement | None":
    """The artifact against its twin, on clean images and on every candidate; None where the set does not hold it."""
    if twin is None:
        return None
    want, got = attacks.clean_logits[twin], verdicts.clean_logits
    same, replayed = want.argmax(1) == got.argmax(1), attacks.predictions[:, twin] == verdicts.predictions
    return Agreement(
        Agreed(len(got), float(same.mean()), float(np.abs(want - got).max())),
        Agreed(int(verdicts.predictions.size), float(replayed.mean())),
    )


def class_names(exported: Stage) -> list[str]:
    """What its contract calls the classes, in the order of the logits; none where that does not lie beside it."""
    path = exported.file(CONTRACT)
    labels = json.loads(path.read_text(encoding="utf-8")).get("labels") if path.is_file() else None
    return [str(label) for label in labels or ()]


def lineage_of(stage: Stage) -> list[Ancestor]:
    """The chain from the artifact back to the teacher, as far as its folders are found unchanged."""
    chain = [Ancestor(stage.kind, stage.identity)]
    if original := stage.config.get("adopted"):  # the sha256 of another tool's file
        return [*chain, Ancestor("original", original)]
    for role in ("model", "student", "teacher"):
        identity = stage.manifest["plan"]["inputs"].get(role)
        if identity is None:
            continue
        above = None
        if role in stage.manifest["lineage"]:
            with contextlib.suppress(CompressError):
                above = artifact.read(stage.input_path(role))
        if above is None or above.identity != identity:
            return [*chain, Ancestor(role, identity)]
        return [*chain, *lineage_of(above)]
    return chain


# -------------------------------------------------------------------------------------------------------- the protocol


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

AttackEntry = Mapping[str, Any]


def coverage(
    attacks: Sequence[AttackEntry],
    *,
    itself: "str | None",
    twin: "str | None",
    student: "str | None",
    ran: Sequence[str],
    is_float: bool = False,
    no_twin: "str | None" = None,
) -> list[ProtocolPart]:
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
            by_need = [
                (need, [attack for attack in attacks if (attack["kind"], attack["source"]) == need])
                for need in needs[part]
            ]
            lacking = [_lacking(part, *need, no_twin) for need, entries in by_need if not entries]
            entries = [entry for _, entries in by_need for entry in entries]
            names = [str(entry["name"]) for entry in entries]
            where = "; ".join(sorted({str(entry["where"]) for entry in entries}))
        covered = not lacking
        why = where if covered else "; ".join(dict.fromkeys(lacking))
        records.append(ProtocolPart(part, what, covered, names if covered else [], why))
    return records


def _not_applicable(part: str, twin: "str | None", student: "str | None", is_float: bool) -> "str | None":
    if part == "f" and twin is not None and twin == student:
        return "the artifact's twin is the float student"
    if part in OF_THE_STUDENT and student is None and is_float and twin is not None:
        return "the artifact is a float network itself, and no student was given"
    return None


def _lacking(part: str, kind: str, source: "str | None", no_twin: "str | None") -> str:
    if no_twin is not None and part != "b":
        return f"no twin: {no_twin}"
    if source is None:
        return f"the attack set does not hold {'this artifact' if part == 'c' else 'the twin of this artifact'}"
    return f"the attack set has no {kind} attack on {source}"
