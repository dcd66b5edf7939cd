"""How an engine is to be built, as an exported stage stores it: `recipe.json`. What builds later reads only this."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge.core.errors import CompressError
from edge.runtimes.tensorrt.library import TENSORRT_RTX

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
    if recipe.dla is not None:
        _check_dla(recipe)


def _check_dla(recipe: Recipe) -> None:
    low, opt, high = recipe.batch
    if recipe.target == TENSORRT_RTX:
        raise CompressError(f"dla {recipe.dla}: desktop GPUs have none; use --target tensorrt")
    if recipe.precision != "fp16":
        raise CompressError(f"dla {recipe.dla}: runs fp16 here, not {recipe.precision}; give --precision fp16")
    if low != high:
        raise CompressError(
            f"dla {recipe.dla}: takes one batch size, not {low}:{opt}:{high}; give --batch {opt}:{opt}:{opt}"
        )
