"""What is wrong with a configuration, all of it, a line each."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edge.core import errors

Tags = Mapping[str, type[BaseModel]]
NONE: Tags = MappingProxyType({})


def fault_lines(error: ValidationError, kind: type[BaseModel], tags: Tags = NONE) -> list[str]:
    """One line a fault: where, what, got, and the nearest known key. `tags`: which model a union's tag stands for."""
    details = error.errors()
    if any(detail["loc"] == ("data",) for detail in details):  # the radius would have come with the dataset
        details = [detail for detail in details if detail["type"] != "missing" or detail["loc"][0] != "threat"]
    return [line for detail in details for line in _lines(detail, kind, tags)]


def _lines(detail: ErrorDetails, kind: type[BaseModel], tags: Tags) -> Iterator[str]:
    where = ".".join(str(part) for part in detail["loc"] if part not in ("[key]", *tags))
    if detail["type"] == "extra_forbidden":
        known = _keys(kind, detail["loc"][:-1], tags)
        yield f"{where}: unknown key{errors.nearest_name(str(detail['loc'][-1]), known)} (known: {', '.join(known)})"
    elif detail["type"] == "missing":
        yield f"{where}: missing; it has no default"
    elif detail["type"] == "value_error":
        for line in str(detail["ctx"]["error"]).splitlines():
            of_section = not where  # what keys of it are together
            yield line if of_section else f"{where}.{line}" if detail["loc"][-1] == "options" else f"{where}: {line}"
    else:
        yield f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"


def _keys(kind: type[BaseModel], loc: "tuple[int | str, ...]", tags: Tags) -> list[str]:
    """The keys known at a place of the config."""
    at: Any = kind
    for part in loc:
        at = tags.get(str(part), at)
        fields = getattr(at, "model_fields", {})
        if part in fields:
            at = model_in(fields[part].annotation)
    return list(getattr(at, "model_fields", {}))


def model_in(annotation: Any) -> Any:
    """The model inside `X`, `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        model = model_in(part)
        if model is not None:
            return model
    return None
