"""Attack plans by name: AutoAttack's standard and randomised ensembles (Croce & Hein 2020b), a quick one, and lists."""

import re
from collections.abc import Callable, Sequence

from compress.attacks import adaptive
from compress.attacks.apgd import APGD
from compress.attacks.contract import EnsembleAttack
from compress.attacks.fab import FAB
from compress.attacks.square import Square
from compress.attacks.transfer import PGD, MarginPGD, MomentumDiverse, RayS
from compress.names import with_installed
from edge.core import plugins
from edge.core.errors import CompressError

TARGETS = 9
EOT = 20

#: Attacks that see logits or labels but no gradient; in a plan as `NAME` or `NAME-QUERIES`.
GRADIENT_FREE = ("square", "rays")

#: name → what it makes of the number behind it (None: its default) and the number of wrong classes
SINGLE: dict[str, Callable[["int | None", int], EnsembleAttack]] = {
    "apgd-ce": lambda steps, wrong: APGD("ce", steps=steps or 100),
    "apgd-dlr": lambda steps, wrong: APGD("dlr", steps=steps or 100),
    "apgd-t": lambda steps, wrong: APGD("dlr-targeted", steps=steps or 100, targets=min(TARGETS, wrong)),
    "fab-t": lambda steps, wrong: FAB(targets=min(TARGETS, wrong), steps=steps or 100),
    "square": lambda queries, wrong: Square(queries=queries or 5000),
    "pgd": lambda steps, wrong: PGD(steps=steps or 20),
    "pgd-margin": lambda steps, wrong: MarginPGD(steps=steps or 20),
    "mi-di": lambda steps, wrong: MomentumDiverse(steps=steps or 20),
    "rays": lambda queries, wrong: RayS(queries=queries or 1000),
}

#: name → plan, given the number of wrong classes
PRESETS: dict[str, Callable[[int], tuple[EnsembleAttack, ...]]] = {
    "standard": lambda wrong: tuple(SINGLE[name](None, wrong) for name in ("apgd-ce", "apgd-t", "fab-t", "square")),
    "rand": lambda wrong: (APGD("ce", eot=EOT), APGD("dlr", eot=EOT)),
    "quick": lambda wrong: (APGD("ce", steps=20), APGD("dlr-targeted", steps=20, targets=min(3, wrong))),
}


def attack_plan(names: "str | Sequence[str]", classes: int) -> tuple[EnsembleAttack, ...]:
    """The attacks of a preset, or of a list like `["pgd-20", "apgd-ce", "square", "my_attack:run"]`, in that order.

    A number behind a name is its steps or queries; `module:function` is a user's own, any further name an installed
    package's (`compress.attacks.adaptive`); a preset in a list stands for its attacks.
    """
    plan: list[EnsembleAttack] = []
    wrong = classes - 1
    for name in [names] if isinstance(names, str) else names:
        if name in PRESETS:
            plan += PRESETS[name](wrong)
            continue
        known = ", ".join(with_installed("attacks", [*PRESETS, *SINGLE]))
        if ":" in name:
            plan.append(adaptive.load_user_attack(name))
        elif name in plugins.installed("attacks"):
            plan.append(adaptive.load_packaged_attack(name))
        else:
            base, number = name, None
            if name not in SINGLE and (parts := re.fullmatch(r"(.+)-([1-9]\d*)", name)):
                base, number = parts[1], int(parts[2])
            if base not in SINGLE:
                raise CompressError(f"attack {name!r}: not known ({known}; a number may follow, as in pgd-20)")
            plan.append(SINGLE[base](number, wrong))
    return tuple(plan)


def gradient_free(name: str) -> bool:
    """Whether the attack of that name asks for no gradient."""
    return re.sub(r"-\d+$", "", name) in GRADIENT_FREE


def users(name: str) -> bool:
    """Whether the attack of that name is a user's own or an installed package's: what it asks for is not known."""
    return ":" in name or name in plugins.installed("attacks")


def cost(attack: EnsembleAttack) -> int:
    """Model passes for one image, roughly (a backward pass counts as two); for the time left, nothing else."""
    if users(attack.name):
        return 300
    fields = attack.parameters()
    passes = int(fields.get("queries") or 3 * fields.get("steps", 100) * fields.get("eot", 1))
    return passes * int(fields.get("restarts", 1)) * int(fields.get("targets", 1))
