"""What a value of the configuration may be, with its part of the JSON schema; what every section shares; what is wrong
with a configuration, a line each."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from compress import names, networks
from compress.data import source_names, split_name
from compress.methods import registry
from edge.core import errors, targets
from edge.core.errors import CompressError


def _fraction(value: Any) -> str:
    """A number as people write it, kept as written: `8/255`, `0.03`."""
    text = re.sub(r"\s", "", str(value))
    try:
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{value!r} is not a number; write it like 8/255 or 0.03") from None
    if not 0 < number < 1:
        raise ValueError(f"{text} is outside (0, 1); pixels are in [0, 1], so write 8/255, not 8")
    return text


def _from_zero(value: Any) -> str:
    """As `_fraction`, or 0: no perturbation."""
    text = re.sub(r"\s", "", str(value))
    return "0" if re.fullmatch(r"0(\.0*)?", text) else _fraction(text)


def _written(check: Callable[[str], object]) -> Callable[[str], str]:
    """A validator of text whose form `check` knows."""

    def validate(text: str) -> str:
        try:
            check(text)
        except CompressError as fault:
            raise ValueError(str(fault)) from None
        return text

    return validate


def checked_by(check: Callable[[str], object]) -> AfterValidator:
    """A validator of text whose form `check` knows, a CompressError of it."""
    return AfterValidator(_written(check))


def one_of(kind: str, known: "dict[str, str] | tuple[str, ...] | Callable[[], tuple[str, ...]]") -> AfterValidator:
    """A validator of names out of those known, which are asked for at each check where they are a function."""
    return AfterValidator(
        _written(lambda name: errors.known_name(kind, name, tuple(known() if callable(known) else known)))
    )


def _image_size(value: Any) -> "int | str":
    """Height and width as people write them: 32, or 48x64, height first."""
    sides = re.fullmatch(r"\s*([1-9]\d*)\s*(?:[x×]\s*([1-9]\d*)\s*)?", str(value))
    if sides is None:
        raise ValueError(f"{value!r} is no size; write it like 32, or 48x64, height first")
    height, width = int(sides[1]), int(sides[2] or sides[1])
    return height if height == width else f"{height}x{width}"


def seconds(value: "str | None") -> "float | None":
    """A span as people write it: 90s, 20m, 2h, or a number of seconds."""
    if value is None:
        return None
    span = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip())
    if span is None or float(span[1]) == 0:
        raise ValueError(f"{value!r} is no time; write it like 90s, 20m or 2h")
    return float(span[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[span[2]]


def _time(value: str) -> str:
    seconds(value)
    return value


def _method(written: Any) -> "str | list[str]":
    try:
        return registry.checked_method(written)
    except CompressError as fault:
        raise ValueError(str(fault)) from None


def enumerated(known: "dict[str, str] | tuple[str, ...]") -> WithJsonSchema:
    """What an editor offers for a name."""
    return WithJsonSchema(_enum(known))


def _enum(known: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(known)}


def _several(known: Iterable[str]) -> dict[str, Any]:
    return {"type": "array", "items": _enum(known), "minItems": 1}


Radius = Annotated[str, BeforeValidator(_fraction), WithJsonSchema({"type": ["string", "number"]})]
FromZero = Annotated[str, BeforeValidator(_from_zero), WithJsonSchema({"type": ["string", "number"]})]
Data = Annotated[
    str,
    AfterValidator(_written(split_name)),
    names.SchemaOnDemand(lambda: {"type": "string", "pattern": f"^({'|'.join(source_names())})(:.+)?$"}),
]
Model = Annotated[
    str,
    AfterValidator(_written(networks.checked_model)),
    names.SchemaOnDemand(
        lambda: {
            "anyOf": [{"enum": list(networks.model_names())}, {"type": "string", "pattern": networks.model_pattern()}]
        }
    ),
]
Method = Annotated[
    str | list[str],
    BeforeValidator(_method),
    names.SchemaOnDemand(lambda: {"anyOf": [_enum(names.method_names()), _several(names.method_names())]}),
]
TeacherMethod = Annotated[
    str,
    one_of("method", registry.teacher_methods),
    names.SchemaOnDemand(lambda: _enum(registry.teacher_methods())),
]
Target = Annotated[str, AfterValidator(_written(targets.get)), names.SchemaOnDemand(lambda: _enum(targets.names()))]
Dialect = Annotated[str, one_of("runtime", targets.dialects), names.SchemaOnDemand(lambda: _enum(targets.dialects()))]
Device = Annotated[str, one_of("device", targets.DEVICES), enumerated(targets.DEVICES)]
Count = Annotated[int, Field(ge=1)]
ImageSize = Annotated[int | str, BeforeValidator(_image_size), WithJsonSchema({"type": ["integer", "string"]})]
Time = Annotated[str, AfterValidator(_time)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

#: Keys of any section that change no result.
WITHOUT_EFFECT = {"checkpoint_minutes", "tensorboard", "keep_epochs", "diagnose"}
#: Keys that came after stages were made without them → what these stages are; so they keep their identity.
LATER: Mapping[str, Any] = MappingProxyType(
    {
        "optimizer": "sgd",
        "features": None,
        "adopt": {
            "normalize": "none",
            "layout": "auto",
            "range": "auto",
            "channels": "rgb",
            "output": None,
            "labels": None,
        },
    }
)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Threat(Strict):
    """What the attacker may do to an image in [0, 1]."""

    norm: Literal["linf"] = Field("linf", description="the norm that bounds the perturbation: its largest pixel change")
    eps: Radius = Field(description="radius of the perturbation, on pixels in [0, 1], e.g. 8/255")

    @property
    def radius(self) -> float:
        return float(Fraction(self.eps))


class Common(Strict):
    """What every stage shares."""

    data: Data = Field(description=f"the dataset, KIND or KIND:PATH ({', '.join(source_names())})")
    threat: Threat = Field(description="what the attacker may do; the radius follows from the dataset if not given")
    seed: int = Field(0, ge=0, description="seeds initial weights, batch order and attack starts, never the split")

    def semantic(self) -> dict[str, Any]:
        """What decides the result, as a manifest records it: of the dataset its kind, not where it lies here."""
        described = {**self.model_dump(mode="json", exclude=WITHOUT_EFFECT), "data": split_name(self.data)[0]}
        if "weights" in described and described.pop("weights") is None:  # else the plan has the file's content
            del described["key"]
        without_later_keys(described)
        if described["threat"] is None:
            del described["threat"]
        if described.get("extra"):
            described["extra"]["path"] = split_name(described["extra"]["path"])[0]
        return described


def without_later_keys(described: dict[str, Any]) -> None:
    """Take out of a stage's description, in place, the keys of `LATER` that say what all stages were before."""
    for key, before in LATER.items():
        if key in described and described[key] == before:
            del described[key]


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
    elif detail["type"] == "missing" and detail["loc"][0] == "threat":
        yield "threat.eps: missing, and this dataset brings none; give --eps 8/255, or another radius (threat.eps)"
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
