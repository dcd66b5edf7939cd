"""How an engine is to be built and what it was built for: `recipe.json` and `engine.json`, beside it, never inside it.

What builds later reads only the recipe.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge.core import artifact
from edge.core.errors import CompressError
from edge.runtimes.tensorrt.cuda import Device
from edge.runtimes.tensorrt.library import MODULES, TENSORRT_RTX, Library

RECIPE = "recipe.json"
FORMAT = 1


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a build but the graph, the library and the device.

    `weighted` names the graph's nodes that multiply by weights, `int8` those of them meant to do so in 8 bits: an
    engine's layers are held against these.
    """

    target: str
    precision: str
    batch: tuple[int, int, int]  # min, opt, max
    workspace_mib: "int | None"
    optimization_level: int
    hardware_compatibility: str
    version_compatible: bool
    dla: "int | None"
    compute_capabilities: tuple[str, ...]
    rebuilds: int
    weighted: tuple[str, ...] = ()
    int8: tuple[str, ...] = ()

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def recipe_of(
    target: str, precision: str, batch: Mapping[str, int], engine: Mapping[str, Any], **nodes: tuple[str, ...]
) -> Recipe:
    """From the sections `batch` and `engine` of an export's configuration; `nodes` as the fields `weighted`, `int8`."""
    return Recipe(
        target=target,
        precision=precision,
        batch=(batch["min"], batch["opt"], batch["max"]),
        workspace_mib=engine["workspace_mib"],
        optimization_level=engine["optimization_level"],
        hardware_compatibility=engine["hardware_compatibility"],
        version_compatible=engine["version_compatible"],
        dla=engine["dla"],
        compute_capabilities=tuple(engine["compute_capabilities"]),
        rebuilds=engine["rebuilds"],
        **nodes,
    )


def read_recipe(content: "str | bytes", where: str) -> Recipe:
    """A recipe from its file. What is none, or of another version of this package: CompressError."""
    try:
        fields = dict(json.loads(content))
        version = fields.pop("format", None)
        if version != FORMAT:
            raise CompressError(f"{where}: a recipe of format {version}, this version reads {FORMAT}; export it again")
        for name in ("batch", "compute_capabilities", "weighted", "int8"):
            fields[name] = tuple(fields[name])
        recipe = Recipe(**fields)
        low, opt, high = recipe.batch
    except (ValueError, TypeError, KeyError):
        raise CompressError(f"{where}: not readable as a build recipe; export the model again") from None
    if not 1 <= low <= opt <= high:
        raise CompressError(f"{where}: batch {low}:{opt}:{high}, min ≤ opt ≤ max is needed; export the model again")
    return recipe


def check_recipe(recipe: Recipe) -> None:
    """What no library could build, whatever the machine: CompressError."""
    ahead = recipe.target == TENSORRT_RTX
    if recipe.compute_capabilities and not ahead:
        raise CompressError(
            f"compute capability {recipe.compute_capabilities[0]}: {recipe.target} builds for the GPU that it finds; "
            f"leave it out, or use --target tensorrt-rtx"
        )
    if recipe.hardware_compatibility != "none" and ahead:
        raise CompressError(
            f"hardware compatibility {recipe.hardware_compatibility}: tensorrt-rtx builds for the GPUs that "
            f"--compute-capability names; use that"
        )
    if recipe.version_compatible and ahead:
        raise CompressError("version compatible: not of tensorrt-rtx; leave it out")
    if recipe.dla is None:
        return
    low, opt, high = recipe.batch
    if ahead:
        raise CompressError(f"dla {recipe.dla}: desktop GPUs have none; use --target tensorrt")
    if recipe.precision != "fp16":
        raise CompressError(f"dla {recipe.dla}: runs fp16 here, not {recipe.precision}; give --precision fp16")
    if low != high:
        raise CompressError(
            f"dla {recipe.dla}: takes one batch size, not {low}:{opt}:{high}; give --batch {opt}:{opt}:{opt}"
        )


ENGINE, SIDECAR = "engine.plan", "engine.json"
SIDECAR_FORMAT = 1
KEYS = ("sha256", "bytes", "library", "device", "compute_capabilities", "system", "machine")


def sidecar_of(
    engine: bytes, content: bytes, recipe: Recipe, library: Library, device: "Device | None"
) -> dict[str, Any]:
    """The sidecar of an engine that was just built here from the graph in `content`. JSON types."""
    return {
        "format": SIDECAR_FORMAT,
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


def sidecar_text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


def read_sidecar(content: "str | bytes", where: str) -> dict[str, Any]:
    """A sidecar from its file; what is none: CompressError."""
    try:
        about = dict(json.loads(content))
        known = about.get("format") == SIDECAR_FORMAT and all(key in about for key in KEYS)
        known = known and about["library"]["target"] in MODULES
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise CompressError(f"{where}: not readable as what an engine was built for; export the model again")
    return about
