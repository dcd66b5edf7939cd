"""The robustness statement: what was measured on which bytes, in the shape of an in-toto statement.

`statement.schema.json` beside this file is its JSON schema. Empirical: attacks that were run, never a certificate.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import CompressError
from edge.interval import clopper_pearson

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:robust-compress:robustness-statement:1"
VERSION = 1
LEVEL = 0.95
NEEDED = ("artifact", "threat", "data", "figures", "protocol", "attacks", "agreement", "alarms", "latency")


def build(predicate: Mapping[str, Any]) -> dict[str, Any]:
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


def read(path: "Path | str") -> dict[str, Any]:
    """A statement from a file; one of a newer version or of another kind is refused."""
    try:
        statement = json.loads(Path(path).read_text())
    except (OSError, ValueError) as fault:
        raise CompressError(f"{path}: not readable as a statement ({fault})") from None
    if not isinstance(statement, dict) or statement.get("_type") != TYPE:
        raise CompressError(f"{path}: no in-toto statement; give the statement.json of a verified folder")
    kind, _, version = str(statement.get("predicateType")).rpartition(":")
    if kind != PREDICATE_TYPE.rpartition(":")[0]:
        raise CompressError(f"{path}: states {statement.get('predicateType')}, not robustness; give a statement.json")
    found = statement.get("predicate")
    predicate = found if isinstance(found, dict) else {}
    for given in (version, str(predicate.get("version", VERSION))):
        if given != str(VERSION):
            raise CompressError(f"{path}: version {given}, this program reads {VERSION}; use the program that wrote it")
    missing = [key for key in NEEDED if key not in predicate]
    if missing:
        raise CompressError(f"{path}: lacks {', '.join(missing)}; verify the artifact again")
    return statement


def text(statement: Mapping[str, Any]) -> str:
    """The statement for a person at a terminal."""
    p = statement["predicate"]
    artifact, threat, latency = p["artifact"], p["threat"], p["latency"]
    robust = p["figures"]["robust"]
    lines = [
        f"{artifact['file']} {artifact['sha256'][:12]}  {artifact['precision']}, {artifact['bytes']:,} bytes",
        f"threat      {threat['norm']}, eps {threat['eps']} ({threat['grid_radius']} grey levels), "
        f"{p['data']['n']} test images of {p['data']['name']}",
        f"clean       {_figure(p['figures']['clean'])}",
        f"robust      {_figure(robust)}, worst case over {len(p['attacks'])} attacks"
        if robust
        else f"robust      at most {_figure(p['figures']['upper_bound'])}: an upper bound, not covered: "
        + ", ".join(part["part"] for part in p["protocol"] if not part["covered"]),
        f"agreement   {_agreement(p['agreement'])}",
        f"latency     p50 {latency['p50_ms']:.3f} ms, p99 {latency['p99_ms']:.3f} ms at batch {latency['batch_size']} "
        f"({latency['n']} samples)",
    ]
    lines += [f"ALARM       {alarm['name']}: {alarm['meaning']}" for alarm in p["alarms"] if alarm["fired"]]
    return "\n".join([*lines, "Empirical: the attacks named were run on these bytes. No certificate."])


def _agreement(found: "Mapping[str, Any] | None") -> str:
    if found is None:
        return "not measured: the attack set does not hold the artifact's twin"
    clean, adversarial = found["clean"]["argmax_agreement"], found["adversarial"]["argmax_agreement"]
    return f"{clean:.1%} of clean, {adversarial:.1%} of adversarial predictions equal the twin's"


def _figure(entry: Mapping[str, Any]) -> str:
    low, high = entry["interval"]
    of = f"{entry['count']} of {entry['n']}"
    return f"{entry['value']:.1%} ({of}, {entry['level']:.0%} interval {low:.1%} to {high:.1%})"
