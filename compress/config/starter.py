"""The starter config and the JSON schema, both made from the models of compress.config, so never out of date."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from compress import config
from compress.data import source_names
from compress.methods import registry

DATA = next(iter(source_names()))
EXAMPLES = {"baselines": "normal: {method: normal}"}


def json_schema() -> dict[str, Any]:
    """The schema of a run's YAML file. The radius is not required there: it comes with the dataset."""
    schema = config.Run.model_json_schema()
    schema["required"].remove("threat")
    schema["$defs"]["Threat"]["required"].remove("eps")
    for teacher in (schema["properties"][name] for name in ("teacher", "clean_teacher")):
        trained, imported = teacher.pop("oneOf")
        teacher |= {"if": {"required": ["source"]}, "then": imported, "else": trained}
    for section in (schema["properties"][name] for name in ("student", "quantize")):
        present, null = section.pop("anyOf")  # an editor then finds the key of a fault, not the whole section
        section |= {"if": {"not": null}, "then": present}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def starter(file: Path, schema: "Path | None" = None) -> str:
    """A YAML file with every key at its default and its meaning above it; it names `schema` to editors if given."""
    lines = [f"# compress run {file}", "# Every key at its default; whatever you delete keeps that default."]
    if schema:
        lines.append(f"# yaml-language-server: $schema={os.path.relpath(schema, file.parent)}")
    defaults = config.parse(config.Run, {"data": DATA}, "the starter config")
    return "\n".join([*lines, *_section(defaults, "")]) + "\n"


def _section(section: BaseModel, indent: str) -> Iterator[str]:
    kind = type(section)
    choices = kind.model_json_schema()["properties"]
    own = [] if kind is config.Run else [name for name in kind.__annotations__ if name in kind.model_fields]
    for name in dict.fromkeys([*own, *kind.model_fields]):  # what is a section's own before what sections share
        value = getattr(section, name)
        if not indent:
            yield ""
        yield f"{indent}# {kind.model_fields[name].description}{_offered(choices[name])}"
        method = getattr(section, "method", None) if name == "options" else None
        if method is not None:
            value = registry.options_of(method)(**value)  # a default is one name
        if isinstance(value, BaseModel):
            inner = list(_section(value, indent + "  "))
            yield f"{indent}{name}:" if inner else f"{indent}{name}: {{}}"
            yield from inner
        else:
            yield f"{indent}{name}: {_scalar(value)}"
        if name in EXAMPLES:
            yield f"{indent}#   {EXAMPLES[name]}"


def _offered(schema: dict[str, Any]) -> str:
    offered = schema.get("enum") or schema.get("items", {}).get("enum")
    return f" ({', '.join(offered)})" if offered else ""


def _scalar(value: Any) -> str:
    """`value` on one line of YAML, a string without quotes where it stays one."""
    plain = isinstance(value, str) and yaml.safe_load(value) == value
    return value if plain else json.dumps(value, ensure_ascii=False)
