"""Every family of networks, exported for tensorrt-rtx in every precision; one line of JSON an engine on stdout.

A program of its own: what crashes in the builder crashes this process and no other.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import export.stage
from compress.config import ExportConfig, parse
from edge.core.artifact import Stage
from tests.export import untrained

FAMILIES = (
    "resnet8",
    "resnet18",
    "preactresnet18",
    "wrn-10-4",
    "mobilenetv2-0.5",
    "mobilenetv3-small",
    "cnn",
    "vit-nano-2",
    "convnext-yocto-1",
)
#: Of random weights, half precision and 8 bits turn more predictions than of trained ones; parity has tests of its own.
BRIEF = {"data": "digits", "target": "tensorrt-rtx", "parity_images": 32, "min_agreement": 0.0}


def main() -> None:
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            student = untrained.student(root / "student", family)
            quantized = untrained.quantized(root / "quantized", student, runtime="tensorrt")
            for source, precision in ((student, "float32"), (student, "fp16"), (quantized, "int8")):
                print(json.dumps(built(family, source, precision, root / precision)), flush=True)


def built(family: str, source: Stage, precision: str, out: Path) -> dict[str, Any]:
    config = parse(ExportConfig, {**BRIEF, "precision": precision}, "families")
    made = export.stage.run(config, export.stage.ExportInputs(model=source.path), out)
    recipe = json.loads(made.file("recipe.json").read_text())
    layers = json.loads(made.file("layers.json").read_text())
    return {
        "family": family,
        "precision": precision,
        "bytes": made.metrics["bytes"],
        "seconds": made.metrics["build_seconds"],
        "weighted": len(recipe["weighted"]),
        "int8": len(recipe["int8"]),
        "layers": layers["weighted"],
        "not_int8": layers["not_int8"],
        "unseen": layers["unseen"],
    }


if __name__ == "__main__":
    sys.exit(main())
