"""The robustness statement: what was measured on which bytes, in the shape of an in-toto statement.

`statement.schema.json` beside this file is its JSON schema. Empirical: attacks that were run, never a certificate.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.core.errors import CompressError
from edge.core.proportions import clopper_pearson

STATEMENT, VERDICTS = "statement.json", "verdicts.npz"
TYPE = "https://in-toto.io/Statement/v1"
KIND = "urn:robust-compress:robustness-statement"
VERSION = 2
PREDICATE_TYPE = f"{KIND}:{VERSION}"
LEVEL = 0.95
ALARMS = ("masking", "twin disagrees", "predictions differ between calls", "timed logits differ")
NEEDED = (
    *("artifact", "threat", "data", "figures", "protocol", "attacks", "agreement", "alarms", "latency"),
    *("attack_set", "verdicts"),  # which hold the hashes of the files beside it
)


class OtherVersion(CompressError):
    """A statement of a version that is not read here: no damage, another program's."""


def build_statement(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The statement about `predicate["artifact"]`, whose file and sha256 become the subject."""
    artifact = predicate["artifact"]
    return {
        "_type": TYPE,
        "subject": [{"name": artifact["file"], "digest": {"sha256": artifact["sha256"]}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"version": VERSION, "nature": "empirical", **predicate},
    }


def figure(count: int, n: int) -> dict[str, Any]:
    """A proportion with its exact 95 % interval (Clopper–Pearson)."""
    low, high = clopper_pearson(count, n, LEVEL)
    return {"value": count / n, "count": count, "n": n, "interval": [low, high], "level": LEVEL}


def read_statement(path: "Path | str") -> dict[str, Any]:
    """A statement from its file or from a verified folder; one of a newer version or of another kind is refused."""
    file = Path(path) / STATEMENT if Path(path).is_dir() else Path(path)
    try:
        content = file.read_bytes()
    except OSError as fault:
        raise CompressError(
            f"{file}: not readable as a statement ({fault.strerror}); give a verified folder or its {STATEMENT}"
        ) from None
    return parse_statement(content, str(file))


def parse_statement(content: bytes, where: str) -> dict[str, Any]:
    """A statement from its bytes; `where` names them in what is refused."""
    try:
        statement = json.loads(content)
    except ValueError as fault:
        raise CompressError(f"{where}: not readable as a statement ({fault}); verify the artifact again") from None
    if not isinstance(statement, dict) or statement.get("_type") != TYPE:
        raise CompressError(f"{where}: no in-toto statement; give the {STATEMENT} of a verified folder")
    kind, _, written = str(statement.get("predicateType")).rpartition(":")
    if kind != KIND:
        raise CompressError(f"{where}: states {statement.get('predicateType')}, not robustness; give a {STATEMENT}")
    predicate = statement["predicate"] if isinstance(statement.get("predicate"), dict) else {}
    other = {written, str(predicate.get("version", written))} - {str(VERSION)}
    if other:
        raise OtherVersion(
            f"{where}: a statement of version {min(other)}, this program reads {VERSION}; "
            "use the version of robust-compress that wrote it, or verify the artifact again"
        )
    missing = [key for key in NEEDED if key not in predicate]
    if missing:
        raise CompressError(f"{where}: lacks {', '.join(missing)}; verify the artifact again")
    return statement


def inconclusive(predicate: Mapping[str, Any]) -> "Mapping[str, Any] | None":
    """What a budget left undecided; None where everything was decided."""
    found: Mapping[str, Any] | None = predicate["figures"].get("inconclusive")
    return found


def protocol_covered(predicate: Mapping[str, Any]) -> bool:
    """Whether every part of the protocol was run."""
    return all(part["covered"] for part in predicate["protocol"])


def fired_alarms(predicate: Mapping[str, Any]) -> list[str]:
    """Names of the alarms that fired."""
    return [alarm["name"] for alarm in predicate["alarms"] if alarm["fired"]]
