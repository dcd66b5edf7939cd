"""Whether a value has the form that a JSON schema describes: what `statement.schema.json` uses of draft 2020-12."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

Schema = Mapping[str, Any]
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
FILES = {1: "statement-1.schema.json", 2: "statement.schema.json"}


def load(version: int) -> dict[str, Any]:
    """The schema of statements of that version."""
    return dict(json.loads(resources.files("edge.statement").joinpath(FILES[version]).read_text(encoding="utf-8")))


def fault(value: Any, schema: Schema) -> "str | None":
    """The first place that breaks the schema, and how: `predicate.data.n: 0 is less than 1`; None where none does."""
    return next(_faults(value, schema, schema, ""), None)


def _faults(value: Any, schema: Any, root: Schema, at: str) -> Iterator[str]:
    if schema is True:
        return
    if schema is False:
        yield f"{at or 'the whole'}: is not foreseen"
        return
    if "$ref" in schema:
        yield from _faults(value, _find(root, schema["$ref"]), root, at)
    for check in (_kind, _value, _text, _number):
        yield from (f"{at or 'the whole'}: {said}" for said in check(value, schema))
    if isinstance(value, dict):
        yield from _object(value, schema, root, at)
    if isinstance(value, list):
        yield from _array(value, schema, root, at)
    yield from _combined(value, schema, root, at)


def _find(root: Schema, reference: str) -> Any:
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[kind])


def _kind(value: Any, schema: Schema) -> Iterator[str]:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{_short(value)} is no {' or '.join(kinds)}"


def _value(value: Any, schema: Schema) -> Iterator[str]:
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and not any(_same(value, one) for one in allowed):
        yield f"{_short(value)} is not {' or '.join(_short(one) for one in allowed)}"


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _text(value: Any, schema: Schema) -> Iterator[str]:
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{_short(value)} is not of the form {schema['pattern']}"


def _number(value: Any, schema: Schema) -> Iterator[str]:
    if not _is(value, "number"):
        return
    if value < schema.get("minimum", value):
        yield f"{value} is less than {schema['minimum']}"
    if value > schema.get("maximum", value):
        yield f"{value} is more than {schema['maximum']}"


def _object(value: dict[str, Any], schema: Schema, root: Schema, at: str) -> Iterator[str]:
    here = at or "the whole"
    if missing := [name for name in schema.get("required", []) if name not in value]:
        yield f"{here}: {', '.join(missing)} missing"
    if len(value) < schema.get("minProperties", 0):
        yield f"{here}: is empty"
    known = schema.get("properties", {})
    for name, item in value.items():
        inner = known.get(name, schema.get("additionalProperties", True))
        yield from _faults(item, inner, root, f"{at}.{name}" if at else name)


def _array(value: list[Any], schema: Schema, root: Schema, at: str) -> Iterator[str]:
    here, count = at or "the whole", len(value)
    if not schema.get("minItems", 0) <= count <= schema.get("maxItems", count):
        yield f"{here}: {count} items"
    first = schema.get("prefixItems", [])
    for i, item in enumerate(value):
        inner = first[i] if i < len(first) else schema.get("items", True)
        yield from _faults(item, inner, root, f"{at}.{i}" if at else str(i))


def _combined(value: Any, schema: Schema, root: Schema, at: str) -> Iterator[str]:
    for part in schema.get("allOf", []):
        yield from _faults(value, part, root, at)
    if "anyOf" in schema:
        yield from _chosen(value, schema["anyOf"], root, at, least=1)
    if "oneOf" in schema:
        yield from _chosen(value, schema["oneOf"], root, at, least=1, most=1)
    if "if" in schema:
        branch = "else" if any(_faults(value, schema["if"], root, at)) else "then"
        yield from _faults(value, schema.get(branch, True), root, at)


def _chosen(
    value: Any, parts: "list[Any]", root: Schema, at: str, *, least: int, most: "int | None" = None
) -> Iterator[str]:
    faults = [next(_faults(value, part, root, at), None) for part in parts]
    fitting = faults.count(None)
    if fitting < least:
        yield max((said for said in faults if said), key=lambda said: len(said.partition(":")[0]))  # the closest miss
    elif most is not None and fitting > most:
        yield f"{at or 'the whole'}: fits {fitting} descriptions that exclude each other"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
