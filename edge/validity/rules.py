"""The one list of validity checks: what each looks for, what it needs, when it fires, and which verbs ask it.

Standard library only. `docs/validity.md` holds the table that `rules_table` makes of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge.core.progress import say

#: Verbs that measure, in the order of the chain.
VERBS = ("teacher import", "teacher train", "distill", "quantize", "evaluate", "export", "attack", "verify", "bench")
#: Verbs that hold a network with its gradients.
TORCH = ("teacher import", "teacher train", "distill", "quantize", "evaluate", "attack")

FINITE = "logits not finite"
RANDOM = "randomised model"
UNSTEADY = "predictions differ between calls"
BATCH = "predictions depend on the batch"
PROBABILITIES = "probabilities in place of logits"
CHANCE = "chance level"
ZERO = "zero gradients"
EXPLODING = "exploding gradients"
RISING = "loss not rising"
FREE = "attacks without gradients win"
MASKING = "masking"
TWIN = "twin disagrees"
TIMED = "timed logits differ"
FREE_POINTS, FREE_IMAGES = 0.002, 3


@dataclass(frozen=True)
class ValidityCheck:
    """One check of one model: `fired` says that its accuracies are not to be trusted as they stand.

    `value` is compared with `threshold`; of `n` images, 0 where none were counted. `text`: what was seen, what to do.
    """

    name: str
    fired: bool
    value: float
    threshold: float
    text: str
    n: int = 0

    @property
    def seen(self) -> str:
        """The text without what to do."""
        return self.text.partition(": ")[0]


@dataclass(frozen=True)
class ValidityRule:
    """A row of the list. `needs`: logits, labels, gradients, or the outcome of attacks or of timing."""

    name: str
    looks_for: str
    needs: str
    fires: str
    verbs: "tuple[str, ...]"


RULES = (
    ValidityRule(
        FINITE,
        "a logit that is NaN or infinite",
        "logits",
        "on any image; of an artifact the runner ends the verb there, exit 3",
        VERBS,
    ),
    ValidityRule(
        RANDOM,
        "dropout left on, noise, a state that calls change",
        "logits",
        "when a second call moves any image's logits by more than 1e-4 of their spread",
        VERBS,
    ),
    ValidityRule(
        UNSTEADY,
        "another class, asked twice; in verify other bits of any image's logits",
        "logits",
        "on any image",
        VERBS,
    ),
    ValidityRule(
        BATCH,
        "batch statistics (BatchNorm in training mode), a place in the batch: images asked alone, beside bright and "
        "dark noise, and in another order",
        "logits",
        "when one image moves by more than 25 % of its logits' spread, or 20 % of images by more than rounding "
        "(1e-3 in float32, 1e-2 on a GPU, 5 % in fewer bits)",
        VERBS,
    ),
    ValidityRule(
        PROBABILITIES,
        "a softmax or a sigmoid inside the network",
        "logits",
        "when every row is a distribution or the same multiple of one, or lies in [0, 1] with about one class an "
        "image, near 0.5 throughout, or reaching both ends (all that counts below 4 classes)",
        VERBS,
    ),
    ValidityRule(
        CHANCE,
        "a constant classifier, foreign pixels or classes",
        "logits and labels",
        "when the share of the largest class lies above the lower end of clean accuracy's 95 % interval",
        tuple(verb for verb in VERBS if verb != "bench"),
    ),
    ValidityRule(
        ZERO,
        "saturated softmax, rounding inside: gradients that attacks cannot follow",
        "gradients",
        "when the cross-entropy's is exactly 0 on more than 5 % of images",
        (*TORCH, "verify"),
    ),
    ValidityRule(
        EXPLODING,
        "logits scaled up, gradients that are not finite",
        "gradients",
        "when the margin's slope is more than 2,000 logits across the ball (median)",
        TORCH,
    ),
    ValidityRule(
        RISING,
        "an attack that does not climb",
        "gradients",
        "when 10 steps of APGD raise the cross-entropy on less than 80 % of images; of a graph that ONNX Runtime "
        "executes, when 10 random ones lower the margin on as few",
        (*TORCH, "verify"),
    ),
    ValidityRule(
        FREE,
        "masked gradients",
        "outcome of an ensemble with and without gradients",
        "when more than 0.2 % of images, and more than 3, fall to attacks without gradients alone",
        ("teacher import", "evaluate"),
    ),
    ValidityRule(
        MASKING,
        "masked gradients, on the artifact itself",
        "outcome of replayed attacks, Square and RayS",
        "when more than 0.2 % of images, and more than 3, fall to attacks without gradients alone",
        ("verify",),
    ),
    ValidityRule(
        TWIN,
        "gradients of another network than the artifact",
        "logits of artifact and twin",
        "when more than 1 % of predictions differ",
        ("attack", "verify"),
    ),
    ValidityRule(
        TIMED,
        "answers that timing changes",
        "outcome of timing",
        "when any sampled answer is other bits when asked again",
        ("verify", "bench"),
    ),
)


def free_threshold(n: int) -> float:
    """Of `n` images more than so many, by attacks without gradients alone, show masked gradients."""
    return max(FREE_POINTS * n, FREE_IMAGES)


def record_checks(checks: "Sequence[ValidityCheck]", of: str) -> "list[dict[str, Any]]":
    """The checks as a stage's metrics hold them; those that fired are told once, a line each. `of`: of what."""
    for check in checks:
        if check.fired:
            say(f"ALARM {of}: {check.name}: {check.text}")
    return [asdict(check) for check in checks]


def fired_checks(metrics: "Mapping[str, Any]") -> "list[str]":
    """Names of the checks that fired on a stage with these metrics, once each; of a verified one its alarms."""
    checks = metrics.get("checks")
    if checks is None:
        return list(metrics.get("alarms", ()))
    rows = [row for each in checks.values() for row in each] if isinstance(checks, Mapping) else checks
    twins = [TWIN] if metrics.get("alarms") else []  # of an attack set, told beside its checks
    return list(dict.fromkeys([*twins, *(row["name"] for row in rows if row["fired"])]))


def with_known_probabilities(
    checks: "Sequence[ValidityCheck]", why: str = "the attacks ascend on the values before the softmax"
) -> "list[ValidityCheck]":
    """The checks where outputs that are probabilities flatter no figure; `why` says so."""
    return [
        replace(check, fired=False, text=f"{check.seen}; {why}")
        if check.name == PROBABILITIES and check.fired
        else check
        for check in checks
    ]


def rules_of(verb: str) -> "tuple[ValidityRule, ...]":
    """What a verb asks, in the order of the list."""
    assert verb in VERBS
    return tuple(rule for rule in RULES if verb in rule.verbs)


def rules_table() -> str:
    """Two Markdown tables: what each check is, and which verb asks which."""
    about = ["| check | looks for | needs | fires |", "|---|---|---|---|"]
    about += [f"| {rule.name} | {rule.looks_for} | {rule.needs} | {rule.fires} |" for rule in RULES]
    asked = [f"| check | {' | '.join(VERBS)} |", f"|---|{':-:|' * len(VERBS)}"]
    asked += [f"| {rule.name} | {' | '.join('×' if v in rule.verbs else '' for v in VERBS)} |" for rule in RULES]
    return "\n".join([*about, "", *asked]) + "\n"
