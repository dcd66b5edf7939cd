"""Attacks of others: a user's own, named `module:function`, and those of installed packages, under one set of checks.

    def attack(model, x, y, eps, norm, generator):
        ...
        return candidates

`model` gives logits (B,K) for images (B,C,H,W) in [0, 1]; `x`, `y` are the batch, `eps` the radius in `norm` ("linf" or
"l2"), `generator` a CPU stream of the batch's own; `candidates` are float32 like `x`. A candidate that leaves the ball
or [0, 1] does not count. A package gives one object, an `EnsembleAttack`, as the entry point of its name in the group
`robust_compress.attacks`.
"""

import contextlib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.attacks.contract import EnsembleAttack, Model, Task
from compress.numerics.seeds import generator
from edge.core import artifact, plugins
from edge.core.errors import CompressError

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

    def parameters(self) -> dict[str, Any]:
        return {**self.attack.parameters(), "package": self.package}

    def run(self, task: Task) -> Tensor:
        own = replace(task, x=task.x.clone(), y=task.y.clone())
        return _checked(self.name, task, lambda: self.attack.run(own))


def _checked(name: str, task: Task, call: Callable[[], Tensor]) -> Tensor:
    """The candidates that code of others makes for a task; CompressError, of one line, where it makes none."""
    before = _state(task.model)
    try:
        with _working_directory(), torch.enable_grad():
            candidates = call()
    except (Exception, SystemExit) as fault:
        # where it was raised, in the last frame that has a source of the user's
        frames = [frame for frame in traceback.extract_tb(fault.__traceback__) if frame.filename != __file__]
        own = [frame for frame in frames if "site-packages" not in frame.filename]
        where = f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
        raise CompressError(f"attack {name}: raised {_in_words(fault)}{where}; mend the attack") from fault
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
            f"attack {name!r}: parameters() of {point.value} give no table for a report ({_in_words(fault)}); "
            f"mend the package"
        ) from fault
    return PackagedAttack(name, attack, f"{point.dist.name} {point.dist.version}" if point.dist else point.value)


def load_user_attack(spec: str) -> AdaptiveAttack:
    """The attack `module:function`, the module imported with the working directory on the path."""
    module_name, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise CompressError(f"attack {spec!r}: not of the form module:function, like my_attack:run")
    with _working_directory():
        importlib.invalidate_caches()
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as fault:  # whatever a user's module raises, a script's exit too
            missing = fault.name if isinstance(fault, ModuleNotFoundError) else None
            if missing and f"{module_name}.".startswith(f"{missing}."):
                raise CompressError(
                    f"attack {spec!r}: no module {missing} in {os.getcwd()} or installed; "
                    f"run where {missing.split('.')[0]}.py lies"
                ) from None
            raise CompressError(
                f"attack {spec!r}: importing {module_name} raised {_in_words(fault)}; mend the module"
            ) from fault
    function = getattr(module, name, None)
    if not callable(function):
        here = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        offered = f"it has {', '.join(sorted(here)[:5])}" if here else "it has none"
        raise CompressError(f"attack {spec!r}: {module_name} has no function {name} ({offered})")
    path = getattr(module, "__file__", None)
    return AdaptiveAttack(spec, function, artifact.file_sha256(Path(path)) if path else "")


@contextlib.contextmanager
def _working_directory() -> Iterator[None]:
    """The working directory first on the path, for the module and for what it imports while it runs."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have taken it off itself
            sys.path.remove(here)


def _state(model: Model) -> Any:
    """Changes when a module's mode changes or anything is written into its weights or buffers."""
    if not isinstance(model, nn.Module):
        return None
    tensors = [*model.parameters(), *model.buffers()]
    return [(id(t), t._version) for t in tensors], [part.training for part in model.modules()]


def _in_words(fault: BaseException) -> str:
    """The exception's type and message on one line."""
    message = " ".join(str(fault).split())[:200]
    return f"{type(fault).__name__}: {message}" if message else type(fault).__name__
