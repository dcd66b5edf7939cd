"""timm's networks with random weights, and ours with the same, in an environment that has timm; a line of JSON each."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from compress import networks
from compress.networks import foreign
from compress.zoo import detect
from compress.zoo.checkpoints import extract_weights
from edge.core.errors import CompressError

#: name in timm → side of its images, and what else makes it
NAMES: dict[str, tuple[int, dict[str, Any]]] = {
    "deit_tiny_patch16_224": (224, {}),
    "vit_small_patch16_224": (224, {}),
    "vit_tiny_patch16_224": (32, {"img_size": 32, "patch_size": 4}),
    "convnext_atto": (64, {}),
    "convnext_femto": (64, {}),
    "convnext_pico": (64, {}),
    "deit_tiny_distilled_patch16_224": (224, {}),
    "convnext_tiny": (64, {}),
    "convnextv2_atto": (64, {}),
}


def main() -> None:
    timm = foreign._package("timm", "pip install timm")
    for name, (side, options) in NAMES.items():
        torch.manual_seed(0)
        theirs = timm.create_model(name, num_classes=10, **options).eval().requires_grad_(False)
        for weight in theirs.parameters():
            weight.copy_(torch.randn_like(weight) * 0.1)
        file = Path(f"{name}.pt")
        try:
            found = detect.detect_network(extract_weights(theirs.state_dict(), file, None), file, None, (side, side))
        except CompressError as fault:
            print(json.dumps({"name": name, "fault": str(fault)}))
            continue
        ours = networks.build_network(found.model, channels=3, classes=10, size=(side, side)).eval()
        ours.load_state_dict(found.weights)
        x = torch.rand(2, 3, side, side)
        with torch.no_grad():
            want = theirs(x)
            gap = float((ours(x) - want).abs().max() / want.abs().max())
        print(json.dumps({"name": name, "model": found.model, "gap": gap}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
