"""From YAML and overrides to a checked configuration; every fault of a file reported at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from compress.config.run import OBTAINED, Run
from compress.config.values import fault_lines
from compress.data import find_source, source_names
from edge.core.errors import CompressError

HOME = Path(__file__).parent.parent
BUILT_IN = [HOME / "configs", HOME.parent / "configs"]  # of the installed package, of a checkout

Settled = TypeVar("Settled", bound=BaseModel)


def load_run(path: "Path | str", overrides: "Mapping[str, Any] | None" = None) -> Run:
    """The run that a YAML file describes, with dotted `overrides` (`teacher.epochs`) on top of it."""
    return parse(Run, merged(read_yaml(path), overrides or {}), str(path))


def read_yaml(path: "Path | str") -> dict[str, Any]:
    """The mapping in a YAML file; a built-in config may be named without its folder: `quickstart`."""
    file = _find(Path(path))
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError) as fault:
        raise CompressError(f"{path}: cannot be read ({fault})") from None
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise CompressError(f"{path}:{where} is not YAML ({getattr(fault, 'problem', fault)})") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise CompressError(f"{path}: holds a {type(content).__name__}; a mapping of sections is needed")
    return content


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a repeated key is a fault, not a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in BUILT_IN:
        for candidate in (folder / path.name, folder / f"{path.name}.yaml"):
            if str(path.parent) in (".", "configs") and candidate.is_file():
                return candidate
    known = sorted({file.stem for folder in BUILT_IN for file in folder.glob("*.yaml")})
    raise CompressError(f"{path}: no such config; `compress init` writes one, built in are: {', '.join(known)}")


def merged(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the dotted keys of `overrides` set, sections made where they are missing."""
    result = _copy(content)
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        at = result
        for parent in parents:
            if not isinstance(at.get(parent), dict):
                at[parent] = {}
            at = at[parent]
        at[last] = value
    return result


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def parse(kind: type[Settled], content: Mapping[str, Any], where: str) -> Settled:
    """`content` as a model; every fault in it in one error, a line each."""
    content = _with_default_eps(content)
    try:
        return kind(**content)
    except ValidationError as fault:
        lines = fault_lines(fault, kind, OBTAINED)
        head = f"{where}: {len(lines)} fault{'s' if len(lines) > 1 else ''}"
        raise CompressError("\n  ".join([head, *lines]) if len(lines) > 1 else f"{where}: {lines[0]}") from None


def _with_default_eps(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A dataset brings the radius that the field uses with it, unless the config names one."""
    kind = str(content.get("data")).partition(":")[0]
    default = find_source(kind).eps if kind in source_names() else None
    threat = content.get("threat") or {}
    if default is None or not isinstance(threat, Mapping) or "eps" in threat:
        return content
    return {**content, "threat": {**threat, "eps": default}}
