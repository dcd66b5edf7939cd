"""Attacks of others: a user's own, named `module:function`, and those of installed packages, under one set of checks.

    def attack(model, x, y, eps, norm, generator):
        ...
        return candidates

`model` gives logits (B,K) for images (B,C,H,W) in [0, 1]; `x`, `y` are the batch, `eps` the radius in `norm` ("linf" or
"l2"), `generator` a CPU stream of the batch's own; `candidates` are float32 like `x`. A candidate that leaves the ball
or [0, 1] does not count. A package gives one object, an `EnsembleAttack`, as the entry point of its name in the group
`robust_compress.attacks`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.attacks import judge
from compress.attacks.contract import EnsembleAttack, Model, Task
from compress.numerics.seeds import generator
from edge.core import artifact, plugins
from edge.core.errors import CompressError
from edge.core.user_code import in_words, load_function, user_code

UserFunction = Callable[[Model, Tensor, Tensor, float, str, torch.Generator], Tensor]


@dataclass(frozen=True)
class AdaptiveAttack:
    """A function of a user's as an attack; `sha256` is of the source it came from."""

    name: str
    function: UserFunction
    sha256: str

    def parameters(self) -> dict[str, Any]:
        return {"function": self.name, "sha256": self.sha256}

    def run(self, task: Task) -> Tensor:
        draw = generator(task.seed, self.name, *task.ids.tolist())
        x, y = task.x.clone(), task.y.clone()  # it may write into its arguments
        return _checked(self.name, task, lambda: self.function(task.model, x, y, task.eps, task.norm, draw))


@dataclass(frozen=True)
class PackagedAttack:
    """An attack of an installed package; `package` is what it comes from, like some-attacks 1.2."""

    name: str
    attack: EnsembleAttack
    package: str

    @property
    def norms(self) -> "tuple[str, ...]":
        """Those that it says it works in; all where it says nothing."""
        return tuple(getattr(self.attack, "norms", judge.NORMS))

    def parameters(self) -> dict[str, Any]:
        return {**self.attack.parameters(), "package": self.package}

    def run(self, task: Task) -> Tensor:
        own = replace(task, x=task.x.clone(), y=task.y.clone())
        return _checked(self.name, task, lambda: self.attack.run(own))


def _checked(name: str, task: Task, call: Callable[[], Tensor]) -> Tensor:
    """The candidates that code of others makes for a task; CompressError, of one line, where it makes none."""
    before = _state(task.model)
    with user_code(f"attack {name}", "mend the attack"), torch.enable_grad():
        candidates = call()
    if not isinstance(candidates, Tensor):
        raise CompressError(
            f"attack {name}: returned a {type(candidates).__name__}; return the candidates, a tensor like x"
        )
    if candidates.shape != task.x.shape:
        raise CompressError(
            f"attack {name}: returned shape {tuple(candidates.shape)} for images {tuple(task.x.shape)}; "
            f"return one candidate an image"
        )
    if _state(task.model) != before:
        raise CompressError(f"attack {name}: changed the model (weights, buffers or mode); leave it as it is")
    if candidates.is_complex() or candidates.layout != torch.strided:
        raise CompressError(f"attack {name}: returned a complex or sparse tensor; return real pixels, one dense tensor")
    return candidates.detach()


def load_packaged_attack(name: str) -> PackagedAttack:
    """The object that an installed package adds as the attack `name`: an `EnsembleAttack`, parameters as in JSON."""
    attack: EnsembleAttack = plugins.load("attacks", name, EnsembleAttack)  # type: ignore[type-abstract]
    point = plugins.installed("attacks")[name]
    if isinstance(attack, type):
        raise CompressError(f"attack {name!r}: {point.value} is a class; give the entry point an object of it")
    try:
        json.dumps(dict(attack.parameters()))
    except Exception as fault:  # whatever a package's own code raises
        raise CompressError(
            f"attack {name!r}: parameters() of {point.value} give no table for a report ({in_words(fault)}); "
            f"mend the package"
        ) from fault
    return PackagedAttack(name, attack, f"{point.dist.name} {point.dist.version}" if point.dist else point.value)


def load_user_attack(spec: str) -> AdaptiveAttack:
    """The attack `module:function`, the module imported with the working directory on the path."""
    module, function = load_function(spec, f"attack {spec!r}")
    path = getattr(module, "__file__", None)
    return AdaptiveAttack(spec, function, artifact.file_sha256(Path(path)) if path else "")


def _state(model: Model) -> Any:
    """Changes when a module's mode changes or anything is written into its weights or buffers."""
    if not isinstance(model, nn.Module):
        return None
    tensors = [*model.parameters(), *model.buffers()]
    return [(id(t), t._version) for t in tensors], [part.training for part in model.modules()]
