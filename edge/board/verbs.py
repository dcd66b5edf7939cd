"""What `edge.pyz` does for a person at the board: verify, bench, check, selftest."""

import argparse
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edge.board import selftesting, store
from edge.core import artifact
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.runtimes.runner import open_runner
from edge.statement import statement
from edge.statement.gate import GateJudgement, GateTerms
from edge.verify import golden
from edge.verify import verify as verification
from edge.verify.attack_set import AttackSet, about_of

DEFAULTS = "defaults.json"  # of a verification; the bundle holds what `compress verify` would use


def verify(options: argparse.Namespace) -> int:
    """The verified stage, as `compress verify` makes it."""
    terms = GateTerms.read(options.require)
    exported = artifact.read(options.exported, ("exported",))
    attacks = artifact.read(options.attack_set, ("attack-set",))
    # `compress verify`'s own defaults, the artifact's data, the attack set's threat, and what was given
    own = json.loads(_defaults())
    keys = ("batch_size", "threads", "square_queries", "decision_queries", "seed", "budget")
    asked = {key: getattr(options, key) for key in keys}
    threat = about_of(attacks)["threat"]
    known = {"data": exported.data["name"], "threat": {key: threat[key] for key in ("norm", "eps")}}
    config = {**own, **known, "device": options.device}
    config |= {key: value for key, value in asked.items() if value is not None}
    if options.samples is not None:
        config["latency"] = {**config["latency"], "samples": options.samples}
    out = options.out or exported.path.with_name(f"{exported.path.resolve().name}-{options.device}-verified")
    with store.Busy("verify", alone=True):
        stage = verification.run(config, verification.VerifyInputs(exported.path, attacks.path), out)
    say(f"no page is written here; `compress report {stage.path.name}` does it where that folder was copied to")
    judgement = GateJudgement.of(stage.path, terms)
    judged = [
        {"requirement": str(outcome.requirement), "passed": outcome.passed, "why": outcome.why}
        for outcome in judgement.outcomes
    ]
    result = {"folder": str(stage.path), "identity": stage.identity, "metrics": stage.metrics, "requirements": judged}
    _print(result, [f"verified  {stage.path}  {stage.identity:.12}", *judgement.lines()], options.json)
    return 3 if any(case.failed for case in judgement.cases()) else 0


def _defaults() -> str:
    try:
        return resources.files("edge.board").joinpath(DEFAULTS).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CompressError("verify runs from a bundle here; write one by `compress bundle edge.pyz`") from None


def bench(options: argparse.Namespace) -> int:
    """Latency alone, on noise: the scenarios of `compress bench`."""
    from edge.bench import run

    asked = {key: getattr(options, key) for key in ("fps", "samples", "seconds", "load", "preprocess", "frames")}
    asked |= {"scenarios": options.scenario, "batch_size": options.batch[0]}
    asked["sweep"] = options.batch if len(options.batch) > 1 else None
    config = json.loads(_defaults())["latency"]
    config |= {"device": options.device, "threads": options.threads, "seed": options.seed}
    config |= {"preprocess": None, "frames": None} | {key: value for key, value in asked.items() if value is not None}
    with store.Busy("bench", alone=True):
        result = run.run_bench(options.exported, config, out=options.out)
    _print(result, run.bench_lines(result), options.json)
    fired = any(alarm["fired"] for row in result["artifacts"] for alarm in row["alarms"])
    return 3 if fired else 0


def check(options: argparse.Namespace) -> int:
    """Whether an artifact still computes here what it computed when its attack set was made."""
    result = check_artifact(options.exported, options.attack_set, options.device)
    _print(result, check_lines(result), options.json)
    return 0 if result["passed"] else 3


def selftest(options: argparse.Namespace) -> int:
    """One JSON on stdout; what failed stands in it."""
    result = selftesting.run_selftest()
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if options.out is not None:
        artifact.write_atomic(Path(options.out), text + "\n")
    print(text)
    return 0 if result["passed"] else 3


def doctor(options: argparse.Namespace) -> int:
    """What is installed, what can be run, what does not go together; exit 3 with --strict when something is broken."""
    from edge.core import targets
    from edge.doctor import diagnose, examine
    from edge.doctor.diagnosis import diagnosis_lines

    result = diagnose(examine(), targets.on_board())
    _print(result.as_object(), diagnosis_lines(result), options.json)
    return 3 if options.strict and result.broken else 0


def _print(result: Mapping[str, Any], lines: "list[str]", as_json: bool) -> None:
    print(json.dumps(statement.as_json(result), ensure_ascii=False) if as_json else "\n".join(lines))


# --------------------------------------------------------------------------------------------------------------- check


FROZEN = 100
#: Share of frozen images whose prediction may differ: between machines a rounding may go the other way.
MOST_DIFFERENT = 0.01


def check_artifact(exported: "Path | str", attack_set: "Path | str", device: str = "cpu") -> dict[str, Any]:
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
        held = golden.check_golden(runner, attacks.stage, place)
        different = int((runner.infer(images).argmax(1) != expected).sum())
        sha256, described = runner.sha256, runner.describe()
    if held is None:
        raise CompressError(f"{attack_set}: holds another file of {stage.path}; make the attack set again")
    frozen = {"n": len(images), "different": different, "passed": different <= MOST_DIFFERENT * len(images)}
    return {
        "passed": frozen["passed"] and held.verdict in (golden.EQUAL, golden.NEAR),
        "artifact": stage.identity,
        "sha256": sha256,
        "runtime": described,
        "golden": held,
        "frozen": frozen,
    }


def check_lines(result: "dict[str, Any]") -> list[str]:
    """For a person: a line a check."""
    frozen = result["frozen"]
    return [
        f"hash    {result['sha256']:.12} is the manifest's",
        f"golden  {golden.golden_line(result['golden'])}",
        f"frozen  {frozen['different']} of {frozen['n']} predictions differ",
        "passed"
        if result["passed"]
        else "FAILED: this device computes something else; verify the artifact again there",
    ]


def _frozen(attacks: AttackSet, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n,C,H,W), clean ones and candidates of all attacks in turn, and what was predicted of them (n,)."""
    n, a = len(attacks.clean), len(attacks.adversarial)
    clean = np.arange(min(n, FROZEN // 2 if a else FROZEN))
    rows = np.arange(min(n * a, FROZEN - len(clean)))
    which, image = rows % max(a, 1), rows // max(a, 1)
    images = np.concatenate([attacks.clean[clean], attacks.adversarial[which, image]])
    predicted = [attacks.clean_logits[place, clean].argmax(1), attacks.predictions[which, place, image]]
    return images, np.concatenate(predicted)
