"""Names of tensors without what wrappers put around them: training in parallel, compilers, trainers, containers."""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

#: Modules that hold one other and compute nothing: off wherever they stand in a name.
WRAPPERS = {
    "module",
    "_module",
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
}
#: What trainers call the network in them: off at the head of names, where most tensors have it.
HEADS = (
    "model",
    "net",
    "network",
    "backbone",
    "encoder",
    "student",
    "teacher",
    "attacker.model",
)
#: Networks that one mapping may hold side by side: which one is meant is asked.
SIDES = ("student", "teacher", "model_s", "model_t", "student_model", "teacher_model")


def unwrapped(tensors: "Mapping[str, Value]") -> "dict[str, Value]":
    """The tensors by the names that their network gives them. A wrapper whose removal would merge two names stays."""
    names = dict(tensors)
    for wrapper in sorted(WRAPPERS):
        names = _renamed(names, {name: _without(name, wrapper) for name in names})
    while names:
        head = next((head for head in _heads(names) if _is_wrapper(head, names)), None)
        if head is None:
            return names
        shorter = _renamed(names, {name: name.removeprefix(f"{head}.") for name in names})
        if shorter.keys() == names.keys():
            return names
        names = shorter
    return names


def side_by_side(tensors: "Mapping[str, Value]") -> "dict[str, dict[str, Value]]":
    """The networks of a mapping that holds several (`student.…` and `teacher.…`), by their names; else none."""
    parts = {side: part for side in SIDES if (part := under(tensors, side))}
    return parts if len(parts) > 1 else {}


def under(tensors: "Mapping[str, Value]", head: str) -> "dict[str, Value]":
    """The tensors whose names begin with `head`, wrappers aside, by what follows it."""
    inside = {}
    for name, value in tensors.items():
        first, *rest = [part for part in name.split(".") if part not in WRAPPERS] or [name]
        if first == head and rest:
            inside[".".join(rest)] = value
    return inside


def _without(name: str, wrapper: str) -> str:
    parts = [part for part in name.split(".") if part != wrapper]
    return ".".join(parts) if parts else name


def _heads(names: "Mapping[str, Value]") -> "list[str]":
    first = next(iter(names)).partition(".")[0]
    return [*HEADS, *([first] if first.isdigit() else [])]  # `1.`: a Sequential of input normalisation and network


def _is_wrapper(head: str, names: "Mapping[str, Value]") -> bool:
    """All tensors have it; one that trainers use may have strangers beside it, a loss or a second head."""
    having = sum(name.startswith(f"{head}.") for name in names)
    return having == len(names) or (head in HEADS and 2 * having >= len(names))


def _renamed(tensors: "dict[str, Value]", names: "Mapping[str, str]") -> "dict[str, Value]":
    """By the new names, or as they were where two would become one."""
    if len(set(names.values())) < len(names):
        return tensors
    return {names[name]: value for name, value in tensors.items()}
