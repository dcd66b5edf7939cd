"""Everything that is found out about an artifact by executing it on an attack set; each success checked on its own."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.attacks import checks
from edge.attacks.rays import rays
from edge.attacks.search import QueryAttackResult
from edge.attacks.square import square
from edge.core.progress import Progress
from edge.runtimes.runner import Runner
from edge.validity.logits import AskLogits, distributions
from edge.verify.attack_set import AttackSet

#: name → kind, function, key of its budget in the config
FREE: dict[str, tuple[str, Callable[..., QueryAttackResult], str]] = {
    "square": ("score-based", square, "square_queries"),
    "rays": ("decision-based", rays, "decision_queries"),
}


@dataclass(frozen=True)
class FreeVerdicts:
    """What an attack without gradients came to on the artifact itself."""

    adversarial: np.ndarray  # uint8 (N,C,H,W)
    predictions: np.ndarray  # int (N,), of these images
    broken: np.ndarray  # bool (N,): admissible and misclassified
    queries: np.ndarray  # int64 (N,)
    unfinished: np.ndarray  # bool (N,): time was up before it broke or its queries were spent


@dataclass(frozen=True)
class Verdicts:
    """Of N images and A replayed attacks."""

    labels: np.ndarray  # int64 (N,)
    clean_logits: np.ndarray  # float32 (N,K)
    unsteady: int  # images whose logits differed in a second pass
    predictions: np.ndarray  # int16 (A,N), of every replayed candidate
    replayed: np.ndarray  # bool (A,N): admissible and misclassified
    free: Mapping[str, FreeVerdicts]

    @property
    def right(self) -> np.ndarray:
        """Which clean images are classified right, bool (N,)."""
        return ~checks.wrong(self.clean_logits, self.labels)

    @property
    def broken(self) -> np.ndarray:
        """bool (attacks, images), clean errors not counted: replayed attacks first, then those without gradients."""
        return np.array([*self.replayed, *(free.broken for free in self.free.values())], bool) & self.right

    @property
    def undecided(self) -> np.ndarray:
        """bool (N,): images that stand, and that an attack without gradients had no time to search to its end."""
        unfinished = np.array([free.unfinished for free in self.free.values()], bool).reshape(-1, len(self.labels))
        return self.right & ~self.broken.any(0) & unfinished.any(0)

    @property
    def all_predictions(self) -> np.ndarray:
        """int16 (attacks, images), in the order of `broken`."""
        return np.array([*self.predictions, *(free.predictions for free in self.free.values())], np.int16)


def execute_attacks(runner: Runner, attacks: AttackSet, config: Mapping[str, Any]) -> Verdicts:
    """Clean pass twice, every candidate replayed, then the attacks that need no gradient, on the artifact itself.

    `config` gives `seed` and the budgets `square_queries` and `decision_queries`; an attack of budget 0 does not run.
    `budget`, where given, is the time in seconds for those attacks together, shared out evenly among those to come.
    Probabilities are attacked by their logarithm, where no margin is lost to saturation.
    """
    clean = runner.infer(attacks.clean)
    unsteady = int((runner.infer(attacks.clean) != clean).any(1).sum())
    predictions = np.empty(attacks.adversarial.shape[:2], np.int16)
    replayed = np.empty(predictions.shape, bool)
    with Progress("replay", len(predictions)) as bar:
        for a, images in enumerate(attacks.adversarial):
            predictions[a], replayed[a] = _judge(runner, images, attacks)
            bar.step(1)
    ask = logarithm(runner.infer) if distributions(clean).all() else runner.infer
    wanted = [name for name, (_, _, budget) in FREE.items() if config[budget]]
    end = time.monotonic() + (config.get("budget") or math.inf)
    free = {}
    for left, name in zip(range(len(wanted), 0, -1), wanted, strict=True):
        now = time.monotonic()
        free[name] = _attack(name, runner, ask, attacks, config, now + (end - now) / left)
    return Verdicts(attacks.labels, clean, unsteady, predictions, replayed, free)


def logarithm(infer: AskLogits) -> AskLogits:
    """Probabilities as logits, which they are but for a constant an image."""
    return lambda x: np.log(np.maximum(infer(x), np.finfo(np.float32).tiny))


def _judge(runner: Runner, images: np.ndarray, attacks: AttackSet) -> tuple[np.ndarray, np.ndarray]:
    """What the artifact says of candidates, and which are admissible and misclassified."""
    logits = runner.infer(images)
    allowed = checks.admissible(images, attacks.clean, float(attacks.eps))
    return logits.argmax(1), allowed & checks.wrong(logits, attacks.labels)


def _attack(
    name: str, runner: Runner, ask: AskLogits, attacks: AttackSet, config: Mapping[str, Any], deadline: float
) -> FreeVerdicts:
    _, attack, budget = FREE[name]
    attacked = attack(
        ask,
        attacks.clean,
        attacks.labels,
        eps=float(attacks.eps),
        queries=config[budget],
        seed=config["seed"],
        ids=attacks.index,
        batch_size=runner.batch_size,
        deadline=deadline,
    )
    predictions, broken = _judge(runner, attacked.adversarial, attacks)
    unfinished = ~attacked.broken & (attacked.queries < config[budget])
    return FreeVerdicts(attacked.adversarial, predictions, broken, attacked.queries, unfinished)
