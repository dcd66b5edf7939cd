"""Where a stage came from, back to the teacher, as far as the folders are where they lay."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError


def ancestors(stage: Stage, depth: int = 1, listed: "set[str] | None" = None) -> Iterator[dict[str, Any]]:
    """The stages that this one was made from, each followed by its own, which are told once; and the files of data.

    {"role", "depth", "path", "state": found, absent, changed or damaged, "kind", "identity", "what", "why"}. Hashes of
    every folder that is found are checked; `changed`: another stage stands there now.
    """
    listed = set() if listed is None else listed
    wanted = stage.manifest["plan"]["inputs"]
    for role in sorted(stage.manifest["lineage"], key=lambda role: role in wanted):
        path = stage.input_path(role)
        row: dict[str, Any] = {"role": role, "depth": depth, "path": str(path)}
        if role not in wanted:
            if str(path) in listed:
                continue
            listed.add(str(path))
            yield {**row, "state": "found" if path.exists() else "absent", "kind": None, "identity": None, "what": ""}
            continue
        row["identity"] = wanted[role]
        parent = _read(path, row)
        if parent is not None and parent.identity != wanted[role]:
            row |= {"state": "changed", "why": f"holds {parent.identity:.12} now"}
            parent = None
        yield {**row, "kind": parent.kind if parent else None, "what": _what(parent) if parent else ""}
        if parent is not None and parent.identity not in listed:
            listed.add(parent.identity)
            yield from ancestors(parent, depth + 1, listed)


def nearest(stage: Stage, name: str) -> "Stage | None":
    """The closest stage, itself first, that holds a file of that name and is where it lay."""
    if stage.file(name).is_file():
        return stage
    for role in stage.manifest["plan"]["inputs"]:
        path = stage.input_path(role) if role in stage.manifest["lineage"] else None
        parent = None if path is None else _read(path, {})
        holder = None if parent is None else nearest(parent, name)
        if holder is not None:
            return holder
    return None


def _read(path: Path, row: dict[str, Any]) -> "Stage | None":
    """The stage there; why not is put into `row`."""
    if not path.exists():
        row["state"] = "absent"
        return None
    try:
        row["state"] = "found"
        return artifact.read(path)
    except CompressError as fault:
        row |= {"state": "damaged", "why": str(fault)}
        return None


def _what(stage: Stage) -> str:
    """Model and method, or where its weights are from."""
    config = stage.config
    method = config.get("method")
    words = [config.get("model"), "+".join([method] if isinstance(method, str) else method or []), config.get("source")]
    return ", ".join(str(word) for word in words if word)
