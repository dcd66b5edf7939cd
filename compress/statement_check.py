"""Whether a verified folder still says what was found: its files, its statement, the bytes that it speaks of."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edge.core import artifact
from edge.core.errors import CheckFailed, CompressError
from edge.statement import statement
from edge.statement.statement import OtherVersion, Statement
from edge.validity.logits import chance_count

MOST_SAID = 300  # characters of what is wrong


@dataclass(frozen=True)
class CheckedPart:
    """What was compared, in order: a name and what was found; `skipped` where there was nothing to compare with."""

    name: str
    found: str
    skipped: bool = False


def check_verified(
    folder: "Path | str", *, shipped: "Path | None" = None, attack_set: "Path | None" = None
) -> tuple[Statement, list[CheckedPart]]:
    """Compare everything in a verified folder with everything that states it; the first difference: CheckFailed.

    `shipped` is the artifact, a file or its exported folder, `attack_set` a folder; by default both are looked for
    where they lay when the folder was made. Returns the statement and what was compared.
    """
    path = Path(folder)
    manifest = _manifest(path)
    rows = [_files(path, manifest)]
    content = _content(path / statement.STATEMENT)
    try:
        stated = statement.parse_statement(content, str(path / statement.STATEMENT))
    except OtherVersion:
        raise
    except CompressError as fault:
        raise CheckFailed(str(fault)) from None
    if broken := schema_fault(stated):
        raise CheckFailed(f"{path / statement.STATEMENT}: breaks the schema of version {statement.VERSION} at {broken}")
    rows.append(CheckedPart("schema", f"{statement.STATEMENT} has the form of version {statement.VERSION}"))
    predicate = stated["predicate"]
    _origin(path, manifest, stated)
    rows.append(_subject(path, manifest, predicate, shipped))
    rows.append(_verdicts(path, predicate))
    rows.append(_attack_set(path, manifest, predicate, attack_set))
    return Statement.of(stated, str(path / statement.STATEMENT)), rows


def statement_schema() -> dict[str, Any]:
    """The JSON schema of statements, draft 2020-12."""
    file = resources.files("edge.statement").joinpath("statement.schema.json")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def schema_fault(stated: Any, part: "str | None" = None) -> "str | None":
    """The place that breaks the schema, and how: `predicate.data.n: 0 is less than the minimum of 1`; None for none.

    `part` names the definition of the schema that `stated` has to have the form of, instead of a whole statement.
    """
    import jsonschema

    form = statement_schema()
    validator = jsonschema.Draft202012Validator(form if part is None else {**form, **form["$defs"][part]})
    fault = jsonschema.exceptions.best_match(validator.iter_errors(stated))
    if fault is None:
        return None
    return f"{'.'.join(map(str, fault.absolute_path)) or 'the whole'}: {' '.join(fault.message.split())[:MOST_SAID]}"


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as fault:
        raise CheckFailed(f"{file}: cannot be read ({fault.strerror}); verify the artifact again") from None


def _manifest(path: Path) -> dict[str, Any]:
    file = path / artifact.MANIFEST
    if not file.is_file():
        raise CompressError(f"{path}: no {artifact.MANIFEST} there; give a verified folder")
    try:
        manifest = json.loads(file.read_bytes())
        plan, payload = manifest["plan"], manifest["payload"]
        identity = artifact.digest(
            {"plan": plan, "payload": {name: entry["sha256"] for name, entry in payload.items()}}
        )
        stage, inputs, _ = plan["stage"], plan["inputs"], manifest["records"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckFailed(f"{file}: not readable as a manifest; verify the artifact again") from None
    if identity != manifest.get("identity"):
        raise CheckFailed(f"{file}: does not match its own identity; verify the artifact again")
    if stage != "verified" or "exported" not in inputs:
        raise CompressError(f"{path}: is a stage of kind {stage}; give a verified folder")
    return dict(manifest)


def _files(path: Path, manifest: Mapping[str, Any]) -> CheckedPart:
    listed = {**manifest["payload"], **manifest["records"]}
    for name, entry in listed.items():
        _same(path / name, artifact.bytes_sha256(_content(path / name)), entry["sha256"], artifact.MANIFEST)
    return CheckedPart("files", f"{len(listed)} files are those of the manifest")


def _same(file: Path, got: str, want: str, says: str) -> None:
    if got != want:
        raise CheckFailed(f"{file}: has sha256 {got:.12}, {says} says {want:.12}; verify the artifact again")


def _origin(path: Path, manifest: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    """The statement speaks of the stages that the folder was made from, and of one artifact throughout."""
    predicate, inputs = stated["predicate"], manifest["plan"]["inputs"]
    file = path / statement.STATEMENT
    subject = stated["subject"][0]["digest"]["sha256"]
    pairs = [
        ("subject", subject, predicate["artifact"]["sha256"]),
        ("artifact.identity", predicate["artifact"]["identity"], inputs["exported"]),
        ("attack_set.identity", predicate["attack_set"]["identity"], inputs["attack-set"]),
    ]
    for what, got, want in pairs:
        if got != want:
            raise CheckFailed(f"{file}: its {what} is {got:.12}, elsewhere it is {want:.12}; verify the artifact again")


def _subject(
    path: Path, manifest: Mapping[str, Any], predicate: Mapping[str, Any], shipped: "Path | None"
) -> CheckedPart:
    name, want = predicate["artifact"]["file"], predicate["artifact"]["sha256"]
    built_here = path / name if name in manifest["payload"] else None  # an engine that only the device could build
    where = shipped or built_here or _lay(path, manifest, "exported")
    file = where / name if where and where.is_dir() else where
    if file is None or not file.is_file():
        raise CompressError(f"{path}: the artifact {name} is not at {file}; give it by --artifact")
    _same(file, artifact.file_sha256(file), want, "the statement")
    return CheckedPart("artifact", f"{file} is the statement's subject, {want:.12}")


def _lay(path: Path, manifest: Mapping[str, Any], role: str) -> "Path | None":
    where = manifest.get("lineage", {}).get(role)
    return None if where is None else (path / where).resolve()


def _verdicts(path: Path, predicate: Mapping[str, Any]) -> CheckedPart:
    """The table is the one that the statement names, and its figures are the table's."""
    file = path / predicate["verdicts"]["file"]
    content = _content(file)
    _same(file, artifact.bytes_sha256(content), predicate["verdicts"]["sha256"], "the statement")
    with np.load(io.BytesIO(content), allow_pickle=False) as table:
        right = table["clean_predictions"] == table["labels"]
        stands = right & ~table["broken"].any(0)
        constant = chance_count(table["labels"])
    figures = predicate["figures"]
    stated = [
        ("clean", figures["clean"], int(right.sum())),
        ("robust or upper_bound", figures["robust"] or figures["upper_bound"], int(stands.sum())),
        *([("chance", figures["chance"], constant)] if "chance" in figures else []),
    ]
    for name, figure, count in stated:
        if (figure["count"], figure["n"]) != (count, len(right)):
            raise CheckFailed(
                f"{file}: {count} of {len(right)} images, the statement's {name} says {figure['count']} of "
                f"{figure['n']}; verify the artifact again"
            )
    return CheckedPart("verdicts", f"{file.name} gives the statement's counts")


def _attack_set(
    path: Path, manifest: Mapping[str, Any], predicate: Mapping[str, Any], attack_set: "Path | None"
) -> CheckedPart:
    where = attack_set or _lay(path, manifest, "attack-set")
    if where is None or not where.is_dir():
        if attack_set:
            raise CompressError(f"{attack_set}: no folder; give the attack set's")
        return CheckedPart("attack set", f"not at {where}; give it by --attack-set", skipped=True)
    for name, want in predicate["attack_set"]["files"].items():
        _same(where / name, artifact.bytes_sha256(_content(where / name)), want, "the statement")
    return CheckedPart("attack set", f"{where} is the one that was replayed")
