"""Engines built where they run: once for each graph, recipe, library and device, then kept, their hash pinned.

They lie in `$XDG_CACHE_HOME/robust-compress/engines/KEY/`, or `$ROBUST_COMPRESS_CACHE/engines/KEY/`, complete or absent
as every stage folder, with the kernel timings of a device beside them.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work
from edge.core.errors import CompressError
from edge.core.progress import say
from edge.runtimes.runner import MODEL, pinned
from edge.runtimes.tensorrt import layers, preflight, recipe
from edge.runtimes.tensorrt.build import Built, build_engine
from edge.runtimes.tensorrt.cuda import Device
from edge.runtimes.tensorrt.library import Library
from edge.runtimes.tensorrt.recipe import ENGINE, SIDECAR, Recipe


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that fits this machine, and its sidecar; `here` where this machine built it and the stage has none."""

    content: bytes
    about: Mapping[str, Any]
    here: bool


def engine_of_stage(stage: Stage, library: Library, device: Device) -> BuiltEngine:
    """The engine that an exported stage stands for on this device.

    The stage's own where it has one that fits; else one built here from its model.onnx and its recipe, or built before.
    """
    if ENGINE in stage.manifest["payload"]:
        try:
            return _own(stage, library, device, here=False)
        except preflight.Unfit as fault:
            say(str(fault))
    content, text = pinned(stage, MODEL), pinned(stage, recipe.RECIPE)
    return ready_engine(
        content, recipe.read_recipe(text, str(stage.file(recipe.RECIPE))), library, device, where=str(stage.path)
    )


def ready_engine(
    content: bytes, build_recipe: Recipe, library: Library, device: Device, *, where: str, cache: "Path | None" = None
) -> BuiltEngine:
    """The engine of the graph in `content` for this device, from the cache or built into it."""
    folder = (cache or cache_folder()) / key(content, build_recipe, library, device)
    plan = _plan(content, build_recipe, library, device)

    def make(work: Work) -> None:
        say(f"{where}: building its engine on {device.name} with {library.name}; this is done once")
        # kernel timings belong to a device and a version of the library
        timed_on = artifact.digest({"device": device.about(), "version": library.version})[:16]
        timings = folder.parent / f"timings-{timed_on}.cache"
        built = build_engine(
            content, build_recipe, library, device=device, timing_cache=read_timings(timings), where=where
        )
        keep_built(work, built, recipe.sidecar_of(built.engine, content, build_recipe, library, device))
        for line in layers.layer_lines(built.layers, build_recipe.int8) if built.layers is not None else ():
            say(line)
        extend_timings(timings, built.timing_cache)

    return _own(artifact.build(folder, plan, make), library, device, here=True)


def keep_built(work: Work, built: Built, about: Mapping[str, Any]) -> None:
    """The engine and its sidecar as payload of a stage, and what is known of its layers beside them."""
    artifact.write_atomic(work.add_payload(ENGINE), built.engine)
    artifact.write_atomic(work.add_payload(SIDECAR), recipe.sidecar_text(about))
    if built.layers is not None:
        text = json.dumps(built.layers, indent=2, ensure_ascii=False) + "\n"
        artifact.write_atomic(work.add_record(layers.LAYERS), text)


def cache_folder() -> Path:
    """Where engines are kept; $ROBUST_COMPRESS_CACHE and $XDG_CACHE_HOME move it."""
    own = os.environ.get("ROBUST_COMPRESS_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robust-compress"
    return base / "engines"


def key(content: bytes, build_recipe: Recipe, library: Library, device: Device) -> str:
    """The folder's name: 16 hex digits of what decides the engine."""
    return artifact.digest(_plan(content, build_recipe, library, device).as_dict())[:16]


def read_timings(path: Path) -> bytes:
    """A file of kernel timings; empty where there is none yet."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as fault:
        raise CompressError(f"{path}: cannot be read as a timing cache ({fault.strerror}); give a file") from None


def extend_timings(path: Path, content: bytes) -> None:
    """Keep what a build measured, whole or not at all; the last of several builders writes."""
    if not content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        artifact.write_atomic(path, content)


def _own(stage: Stage, library: Library, device: Device, *, here: bool) -> BuiltEngine:
    where = str(stage.file(ENGINE))
    content, about = pinned(stage, ENGINE), recipe.read_sidecar(pinned(stage, SIDECAR), str(stage.file(SIDECAR)))
    preflight.check_fits(content, about, library, device, where)
    return BuiltEngine(content, about, here)


def _plan(content: bytes, build_recipe: Recipe, library: Library, device: Device) -> Plan:
    config: Mapping[str, Any] = {
        "recipe": json.loads(build_recipe.text()),
        "library": {"target": library.target, "version": library.version},
        "device": device.about(),
    }
    return Plan("engine", config, 0, {}, {"onnx": artifact.bytes_sha256(content)})
