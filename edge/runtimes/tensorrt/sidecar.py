"""`engine.json`: what an engine was built for, beside the engine and never inside it."""

import json
import platform
from collections.abc import Mapping
from typing import Any

from edge.core import artifact
from edge.core.errors import CompressError
from edge.runtimes.tensorrt.cuda import Device
from edge.runtimes.tensorrt.library import MODULES, Library
from edge.runtimes.tensorrt.recipe import Recipe

ENGINE, SIDECAR = "engine.plan", "engine.json"
FORMAT = 1
KEYS = ("sha256", "bytes", "library", "device", "compute_capabilities", "system", "machine")


def of(engine: bytes, content: bytes, recipe: Recipe, library: Library, device: "Device | None") -> dict[str, Any]:
    """The sidecar of an engine that was just built here from the graph in `content`. JSON types."""
    return {
        "format": FORMAT,
        "file": ENGINE,
        "sha256": artifact.bytes_sha256(engine),
        "bytes": len(engine),
        "onnx_sha256": artifact.bytes_sha256(content),
        "recipe_sha256": artifact.bytes_sha256(recipe.text().encode()),
        "library": {"target": library.target, "version": library.version},
        "device": None if device is None else device.about(),
        "cuda": None if device is None else {"driver": device.driver, "runtime": device.runtime},
        "compute_capabilities": list(library.capabilities(recipe.compute_capabilities)),
        "system": platform.system().lower(),
        "machine": platform.machine(),
        "precision": recipe.precision,
        "batch": list(recipe.batch),
        "hardware_compatibility": recipe.hardware_compatibility,
        "version_compatible": recipe.version_compatible,
        "dla": recipe.dla,
    }


def text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


def read(content: "str | bytes", where: str) -> dict[str, Any]:
    """A sidecar from its file; what is none: CompressError."""
    try:
        about = dict(json.loads(content))
        known = about.get("format") == FORMAT and all(key in about for key in KEYS)
        known = known and about["library"]["target"] in MODULES
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise CompressError(f"{where}: not readable as what an engine was built for; export the model again")
    return about
