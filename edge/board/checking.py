"""`check`, for a fleet after an update: whether an artifact still is and does what its attack set says. Seconds."""

from pathlib import Path
from typing import Any

import numpy as np

from edge.core import artifact
from edge.core.errors import CompressError
from edge.runtimes.runner import open_runner
from edge.verify import golden
from edge.verify.attack_set import AttackSet

FROZEN = 100
#: Share of frozen images whose prediction may differ: between machines a rounding may go the other way.
MOST_DIFFERENT = 0.01


def check(exported: "Path | str", attack_set: "Path | str", device: str = "cpu") -> dict[str, Any]:
    """Hash, golden logits and the predictions on 100 frozen images, half of them adversarial.

    {"passed", "artifact", "sha256", "golden", "frozen": {"n", "different", "passed"}}. Damage is a CompressError.
    """
    stage = artifact.read(exported, ("exported",))
    attacks = AttackSet.read(artifact.read(attack_set, ("attack-set",)))
    place = attacks.place(stage.identity)
    if place is None:
        raise CompressError(f"{attack_set}: does not hold {stage.path}; make it with --exported {stage.path}")
    batch_size = attacks.about["golden"]["batch_size"][place]
    images, expected = _frozen(attacks, place)
    with open_runner(stage.path, batch_size=batch_size or 1, device=device) as runner:
        held = golden.check(runner, attacks.stage, place)
        different = int((runner.infer(images).argmax(1) != expected).sum())
        sha256, described = runner.sha256, runner.describe()
    if held is None:
        raise CompressError(f"{attack_set}: holds another file of {stage.path}; make the attack set again")
    frozen = {"n": len(images), "different": different, "passed": different <= MOST_DIFFERENT * len(images)}
    return {
        "passed": frozen["passed"] and held["verdict"] in (golden.EQUAL, golden.NEAR),
        "artifact": stage.identity,
        "sha256": sha256,
        "runtime": described,
        "golden": held,
        "frozen": frozen,
    }


def lines(found: "dict[str, Any]") -> list[str]:
    """For a person: a line a check."""
    frozen = found["frozen"]
    return [
        f"hash    {found['sha256']:.12} is the manifest's",
        f"golden  {golden.line(found['golden'])}",
        f"frozen  {frozen['different']} of {frozen['n']} predictions differ",
        "passed" if found["passed"] else "FAILED: this device computes something else; verify the artifact again there",
    ]


def _frozen(attacks: AttackSet, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n,C,H,W), clean ones and candidates of all attacks in turn, and what was predicted of them (n,)."""
    n, a = len(attacks.clean), len(attacks.adversarial)
    clean = np.arange(min(n, FROZEN // 2 if a else FROZEN))
    rows = np.arange(min(n * a, FROZEN - len(clean)))
    which, image = rows % max(a, 1), rows // max(a, 1)
    images = np.concatenate([attacks.clean[clean], attacks.adversarial[which, image]])
    said = [attacks.clean_logits[place, clean].argmax(1), attacks.predictions[which, place, image]]
    return images, np.concatenate(said)
