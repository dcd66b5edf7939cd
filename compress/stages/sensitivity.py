"""What each layer in INT8 costs in robust accuracy, and which go back to floating point for it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from compress.attacks import losses
from compress.attacks.pgd import batch_random_start, largest_margin
from compress.config import QuantizeConfig
from compress.data.dataset import Dataset, first_of_each_class
from compress.data.split import Split
from compress.networks.base import Classifier
from compress.numerics.seeds import generator
from compress.quantization import grids, int8
from compress.quantization.graph_network import GraphNetwork
from compress.quantization.int8 import Layout
from edge.core.artifact import Stage
from edge.core.errors import CheckFailed
from edge.core.progress import Progress, say
from edge.core.proportions import clopper_pearson

#: The record beside a quantized stage for which it was measured.
RECORD = "sensitivity.json"


@dataclass(frozen=True)
class RobustVerdict:
    """How many of `n` images stood, and the images' mean worst margin: largest wrong logit minus the true one."""

    n: int
    stood: int
    margin: float

    @property
    def robust(self) -> float:
        return self.stood / self.n

    def drop(self, reference: "RobustVerdict") -> float:
        """Percentage points below a reference on the same images."""
        return 100 * (reference.stood - self.stood) / self.n

    def as_dict(self) -> dict[str, Any]:
        low, high = clopper_pearson(self.stood, self.n)
        return {"robust": self.robust, "interval": [low, high], "mean_margin": self.margin}


class RobustJudge:
    """PGD on validation images: `judge(network)`. Nothing is chosen by test images."""

    def __init__(self, dataset: Dataset, config: QuantizeConfig, where: torch.device) -> None:
        validation = Split.of(dataset, "val", where)
        chosen = first_of_each_class(validation.labels.cpu().numpy(), config.sensitivity_images)
        index = torch.from_numpy(chosen).to(where)
        self.split = Split(validation.images[index], validation.labels[index])
        self.config = config

    @property
    def described(self) -> dict[str, Any]:
        """The images and the attack."""
        threat = {"attack": "pgd", "steps": self.config.validate_steps, "eps": self.config.threat.eps}
        return {"split": "val", "n": len(self.split.labels), **threat}

    def __call__(self, model: Classifier) -> RobustVerdict:
        """float32 images → logits; the attack is white-box, through whatever quantizers are on."""
        config, eps, worst = self.config, self.config.threat.radius, []
        for index, (x, y) in enumerate(self.split.batches(config.batch_size)):
            start = batch_random_start(x, eps, generator(config.seed, "evaluate", index))
            with torch.no_grad():
                margins = losses.margin(y)(model(x))
            right = margins < 0  # what is wrong already need not be attacked
            if bool(right.any()):
                steps = config.validate_steps
                _, margins[right] = largest_margin(model, x[right], y[right], start=start[right], eps=eps, steps=steps)
            worst.append(margins)
        margins = torch.cat(worst)
        return RobustVerdict(len(margins), int((margins < 0).sum()), float(margins.mean()))


@dataclass(frozen=True)
class CalibratedNetwork:
    """A calibrated network, its wholly quantized layout, and the runtime whose grid it has."""

    model: GraphNetwork
    layout: Layout
    runtime: str

    @property
    def layers(self) -> list[str]:
        return int8.quantized_layers(self.model)

    def weights(self, layer: str) -> int:
        """How many weights a layer has; a product of two tensors has none."""
        return sum(
            weight.numel() for name, weight in self.model.get_submodule(layer).named_parameters() if name == "weight"
        )

    def leave_float(self, names: Sequence[str]) -> Layout:
        """Those layers are in floating point from now on, in the network's order; the layout."""
        layout = int8.leave_float(self.model, self.layout, [name for name in self.layers if name in names])
        int8.lay_out(self.model, grids.dialect(self.runtime).layout(layout))
        return layout


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer: alone in INT8, all others in floating point; and alone in floating point."""

    layer: str
    weights: int
    alone_int8: RobustVerdict
    alone_float: RobustVerdict


@dataclass(frozen=True)
class Sensitivity:
    """Every layer that may be quantized, beside the float network and the quantized one."""

    in_float: RobustVerdict
    in_int8: RobustVerdict
    rows: list[LayerSensitivity]

    @property
    def ranking(self) -> list[str]:
        """Most sensitive first: by images lost with the layer alone in INT8, of equals by margin lost."""
        order = sorted(self.rows, key=lambda row: (row.alone_int8.stood, -row.alone_int8.margin))
        return [row.layer for row in order]

    def as_dict(self) -> dict[str, Any]:
        def beside(verdict: RobustVerdict) -> dict[str, Any]:
            return {**verdict.as_dict(), "drop_points": verdict.drop(self.in_float)}

        return {
            "float": self.in_float.as_dict(),
            "int8": beside(self.in_int8),
            "layers": [
                {
                    "layer": row.layer,
                    "weights": row.weights,
                    "alone_int8": beside(row.alone_int8),
                    "alone_float": beside(row.alone_float),
                }
                for row in self.rows
            ],
            "most_sensitive_first": self.ranking,
        }


def read_sensitivity(stage: Stage) -> "dict[str, Any] | None":
    """The record of a quantized stage, None where nothing was measured."""
    return (
        dict(json.loads(stage.file(RECORD).read_text(encoding="utf-8")))
        if RECORD in stage.manifest["records"]
        else None
    )


def measure_sensitivity(
    subject: CalibratedNetwork, judge: RobustJudge, always_float: Sequence[str] = ()
) -> Sensitivity:
    """Two attacks a layer, and one on each whole network; layers in `always_float` are not asked about."""
    layers = [name for name in subject.layers if name not in always_float]
    rows = []
    with Progress("sensitivity", 2 * len(layers) + 2) as bar:

        def attacked(in_float: Sequence[str], note: str) -> RobustVerdict:
            subject.leave_float(in_float)
            verdict = judge(subject.model)
            bar.step(1, note)
            return verdict

        whole = attacked(subject.layers, "float"), attacked(always_float, "INT8")
        for layer in layers:
            alone = attacked([name for name in subject.layers if name != layer], layer)
            spared = attacked([*always_float, layer], layer)
            rows.append(LayerSensitivity(layer, subject.weights(layer), alone, spared))
    return Sensitivity(*whole, rows)


def fall_back(
    subject: CalibratedNetwork,
    judge: RobustJudge,
    allowed: float,
    always_float: Sequence[str],
    sensitivity: Callable[[], Sensitivity],
) -> tuple[list[str], dict[str, Any]]:
    """The layers in floating point with which at most `allowed` percentage points are lost, and what was found.

    `sensitivity` is asked only where the quantized network loses more. CheckFailed when no layer could stay INT8.
    """
    in_float, chosen = list(always_float), list(always_float)
    subject.leave_float(subject.layers)
    reference = judge(subject.model)
    subject.leave_float(in_float)
    verdict = first = judge(subject.model)
    if verdict.drop(reference) > allowed:
        for layer in sensitivity().ranking:
            chosen.append(layer)
            if len(chosen) == len(subject.layers):
                raise CheckFailed(
                    f"max_robust_drop {allowed:g}: INT8 loses {first.drop(reference):.2f} points of robust validation "
                    f"accuracy (n={verdict.n}), and still {verdict.drop(reference):.2f} with every layer but {layer} "
                    f"in floating point; nothing was kept; allow more, or --mode qat"
                )
            subject.leave_float(chosen)
            verdict = judge(subject.model)
            say(f"fallback: {layer} in floating point, {verdict.drop(reference):.2f} points lost (n={verdict.n})")
            if verdict.drop(reference) <= allowed:
                break
    sizes = {name: subject.weights(name) for name in subject.layers}
    return [name for name in subject.layers if name in chosen], {
        **judge.described,
        "max_robust_drop": allowed,
        "float": reference.as_dict(),
        "int8": {**first.as_dict(), "drop_points": first.drop(reference)},
        "kept": {**verdict.as_dict(), "drop_points": verdict.drop(reference)},
        "float_layers": [name for name in subject.layers if name in chosen],
        "float_weights": sum(sizes[name] for name in chosen) / max(1, sum(sizes.values())),  # products have none
    }
