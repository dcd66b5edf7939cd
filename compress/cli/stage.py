"""One stage from the command line: its config from flags, file and input folder; then its run, then its result."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from compress import config
from compress.cli.options import Shared
from compress.cli.show import head, metric_lines
from edge.core import artifact
from edge.core.errors import CompressError

SHARED_KEYS = tuple(config.Common.model_fields)
Config = TypeVar("Config", bound=config.Common)


def inherited(folder: Path, kinds: Sequence[str], keys: Sequence[str] = SHARED_KEYS) -> dict[str, Any]:
    """Of `keys`, what the stage in `folder` was made with: the base for a stage that starts from it."""
    stage = artifact.read(folder, kinds)
    made_with = stage.config
    if "data" in stage.manifest["lineage"]:
        made_with["data"] += f":{stage.input_path('data')}"
    return {key: made_with[key] for key in keys if made_with.get(key) is not None}


def settle(
    kind: type[Config], section: str, shared: Shared, flags: Mapping[str, Any], base: "Mapping[str, Any] | None" = None
) -> Config:
    """The config of one stage: flags over the config file's `section` over `base` over defaults.

    `flags` are dotted keys of the stage's config, None where not given; `--set` comes last. With a config file, that
    file is checked as a whole first, so that its faults are reported in its own terms.
    """
    whole = {**(base or {}), **(config.read_yaml(shared.config) if shared.config else {})}
    whole = config.merged(whole, _given({"data": shared.data, "threat.eps": shared.eps, "seed": shared.seed}))
    if shared.config:
        config.parse(config.Run, whole, shared.config)
    content = {key: whole[key] for key in SHARED_KEYS if key in whole} | (whole.get(section) or {})
    return config.parse(kind, config.merged(content, _given(flags) | parsed_settings(shared.settings)), section)


def settle_import(shared: Shared, flags: Mapping[str, Any]) -> config.ImportConfig:
    """The config of an imported teacher: as `settle`, of whose shared part the dataset may be missing."""
    whole = config.read_yaml(shared.config) if shared.config else {}
    whole = config.merged(whole, _given({"data": shared.data, "threat.eps": shared.eps, "seed": shared.seed}))
    content = {key: whole[key] for key in SHARED_KEYS if key in whole} | (whole.get("teacher") or {})
    return config.parse(
        config.ImportConfig, config.merged(content, _given(flags) | parsed_settings(shared.settings)), "teacher"
    )


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flags.items() if value is not None}


def parsed_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`--set` values by dotted key, each value read as YAML."""
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key.strip() or not equals:
            raise CompressError(f"--set {pair}: KEY=VALUE is needed, e.g. --set epochs=5")
        try:
            values[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise CompressError(f"--set {pair}: the value is not YAML; quote it") from None
    return values


def place(shared: Shared) -> tuple[Path, bool]:
    """The folder of the stage, which click requires, and whether a complete one stands there already."""
    assert shared.out is not None
    return shared.out, (shared.out / artifact.MANIFEST).is_file()


def show(stage: artifact.Stage, complete: bool, shared: Shared) -> None:
    """Print what came of a stage."""
    click.echo(as_json(stage, complete) if shared.as_json else "\n".join([head(stage, complete), *metric_lines(stage)]))


def as_object(stage: artifact.Stage, complete: bool, **more: Any) -> dict[str, Any]:
    """A stage as the one object that `--json` prints."""
    return {
        "folder": str(stage.path),
        "stage": stage.kind,
        "identity": stage.identity,
        "complete_already": complete,
        "metrics": stage.metrics,
        **more,
    }


def as_json(stage: artifact.Stage, complete: bool, **more: Any) -> str:
    return json.dumps(as_object(stage, complete, **more), ensure_ascii=False)
