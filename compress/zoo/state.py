"""From a checkpoint's content to plain weights: unwrapped, prefixes stripped, input normalisation set apart."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge.core.errors import CompressError

#: What wrappers put before every key; stripped only where every key has it, again and again.
PREFIXES = (
    "module.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "_orig_mod.",
    "_module.",
    "encoder.",
    "student.",
    "teacher.",
    "attacker.model.",
)
#: Counters of weight averaging, beside the weights.
COUNTERS = ("n_averaged", "num_updates", "epoch", "step")
_CONSTANT = re.compile(r"(?:^|.*\.)(mu|sigma|mean|std)$")


@dataclass(frozen=True)
class State:
    """Weights by their own names, and the constants of input normalisation if the file has them, (C,) each."""

    weights: dict[str, Tensor]
    mean: "Tensor | None" = None
    std: "Tensor | None" = None


def extract(content: Any, path: Path, key: "str | None" = None) -> State:
    """The weights in a checkpoint: the only mapping of tensors in it, or the one named `key` (dotted when nested)."""
    found = dict(_mappings(content))
    if key is not None:
        if key not in found:
            raise CompressError(f"{path}: no weights under {key!r} (there are: {_listed(found)}); give another --key")
        chosen = found[key]
    elif not found:
        kind = type(content).__name__
        raise CompressError(f"{path}: holds no weights (a {kind}); give a state_dict, or a mapping that contains one")
    elif len(found) > 1:
        raise CompressError(f"{path}: holds several sets of weights ({_listed(found)}); choose one with --key NAME")
    else:
        (chosen,) = found.values()
    state = plain(chosen)
    _finite(state.weights, path)
    return state


def _mappings(content: Any, at: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping whose tensors make up a network's weights, under its dotted place. Optimizer state is none."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if any(value.ndim >= 2 for value in tensors.values()):
        yield at or "the file itself", tensors
        return
    for name, value in content.items():
        if "optim" not in str(name).lower():
            yield from _mappings(value, f"{at}.{name}" if at else str(name))


def _listed(found: Mapping[str, Any]) -> str:
    return ", ".join(found) or "none"


def plain(tensors: Mapping[str, Tensor]) -> State:
    """One mapping of tensors without counters and prefixes, the constants of input normalisation set apart."""
    weights = {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in COUNTERS}
    constants = {name: value for name, value in weights.items() if _is_constant(name, value)}
    weights = _stripped({name: value for name, value in weights.items() if name not in constants})
    by_role = {name.rpartition(".")[2]: value.flatten() for name, value in constants.items()}
    return State(weights, by_role.get("mu", by_role.get("mean")), by_role.get("sigma", by_role.get("std")))


def _is_constant(name: str, value: Tensor) -> bool:
    """Mean or deviation by channel: a handful of numbers, unlike a layer's own `mean`."""
    return _CONSTANT.match(name) is not None and 1 <= value.numel() <= 4


def _stripped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while weights:
        prefix = next((p for p in (*PREFIXES, _number(weights)) if p and all(k.startswith(p) for k in weights)), None)
        if prefix is None:
            break
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _number(weights: Mapping[str, Tensor]) -> str:
    """`1.` where all keys begin so: a Sequential of input normalisation and network."""
    first = next(iter(weights)).partition(".")[0]
    return f"{first}." if first.isdigit() else ""


def _finite(weights: Mapping[str, Tensor], path: Path) -> None:
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise CompressError(
                f"{path}: {bad} of {value.numel()} values of {name} are NaN or infinite; training diverged or the file "
                f"is damaged, take another checkpoint"
            )
