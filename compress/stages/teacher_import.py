"""The teacher stage from weights that others trained: found, read, recognised, tried, checked, written."""

import functools
from dataclasses import dataclass
from pathlib import Path

from compress import data
from compress.config import ImportConfig
from compress.data import split_name
from compress.folders import own_source
from compress.zoo import sources
from compress.zoo.sources import Source, fetch_file
from edge.core import artifact
from edge.core.artifact import Plan, Stage


@dataclass(frozen=True)
class ImportInputs:
    """A teacher that others trained: its source is part of the config, no stage is read."""


def plan(config: ImportConfig, inputs: ImportInputs) -> Plan:
    """What decides the result: the content of the weight files, the data of the check."""
    return _plan(config, _resolve(config))


def run(config: ImportConfig, inputs: ImportInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Import `config.source` into `out`: architecture and weights, and what was measured of them."""
    from compress.stages.network_import import import_teacher

    source = _resolve(config)
    where = {"data": Path(path)} if config.data and (path := split_name(config.data)[1]) else {}
    where |= {"code": own.place} if source.kind == "factory" and (own := own_source(source.text)) else {}
    make = functools.partial(import_teacher, config, source)
    return artifact.build(out, _plan(config, source), make, lineage=where, replace=replace)


def _resolve(config: ImportConfig) -> Source:
    kind = split_name(config.data)[0] if config.data else None
    return sources.resolve_source(
        config.source, weights=config.weights, folder=config.models, dataset=kind, fetch=fetch_file
    )


def _plan(config: ImportConfig, source: Source) -> Plan:
    files = {f"weights-{number}": artifact.file_sha256(path) for number, path in enumerate(source.files)}
    dataset = data.load_dataset(config.data) if config.data else None
    known = dataset.as_plan() if dataset else {"name": "none"}
    notes = dataset.notes if dataset else ()
    own = own_source(source.text) if source.kind == "factory" else None
    described = {**config.semantic(), **({"code": own.hashes()} if own else {})}
    return Plan(stage="teacher", config=described, seed=config.seed, data=known, inputs=files, notes=notes)
