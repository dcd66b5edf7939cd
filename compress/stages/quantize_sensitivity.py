"""What each layer in INT8 costs in robust accuracy."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.networks.base import Classifier
from compress.quantization import int8
from compress.quantization.int8 import Layout
from compress.stages.quantize_judge import Judge, Verdict
from edge.core.artifact import Stage
from edge.core.progress import Progress

#: The record beside a quantized stage for which it was measured.
RECORD = "sensitivity.json"


@dataclass(frozen=True)
class Subject:
    """A calibrated network, its wholly quantized layout, and the runtime whose grid it has."""

    model: Classifier
    layout: Layout
    runtime: str

    @property
    def layers(self) -> list[str]:
        return int8.layers(self.model)

    def leave_float(self, names: Sequence[str]) -> Layout:
        """Those layers are in floating point from now on, in the network's order; the layout."""
        layout = int8.leave_float(self.model, self.layout, [name for name in self.layers if name in names])
        int8.lay_out(self.model, int8.for_runtime(layout, self.runtime))
        return layout


@dataclass(frozen=True)
class Row:
    """One layer: alone in INT8, all others in floating point; and alone in floating point."""

    layer: str
    weights: int
    alone_int8: Verdict
    alone_float: Verdict


@dataclass(frozen=True)
class Sensitivity:
    """Every layer that may be quantized, beside the float network and the quantized one."""

    in_float: Verdict
    in_int8: Verdict
    rows: list[Row]

    @property
    def ranking(self) -> list[str]:
        """Most sensitive first: by images lost with the layer alone in INT8, of equals by margin lost."""
        order = sorted(self.rows, key=lambda row: (row.alone_int8.stood, -row.alone_int8.margin))
        return [row.layer for row in order]

    def as_dict(self) -> dict[str, Any]:
        def beside(verdict: Verdict) -> dict[str, Any]:
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


def read(stage: Stage) -> "dict[str, Any] | None":
    """The record of a quantized stage, None where nothing was measured."""
    return dict(json.loads(stage.file(RECORD).read_text())) if RECORD in stage.manifest["records"] else None


def measure(subject: Subject, judge: Judge, always_float: Sequence[str] = ()) -> Sensitivity:
    """Two attacks a layer, and one on each whole network; layers in `always_float` are not asked about."""
    layers = [name for name in subject.layers if name not in always_float]
    rows = []
    with Progress("sensitivity", 2 * len(layers) + 2) as bar:

        def attacked(in_float: Sequence[str], note: str) -> Verdict:
            subject.leave_float(in_float)
            found = judge(subject.model)
            bar.step(1, note)
            return found

        whole = attacked(subject.layers, "float"), attacked(always_float, "INT8")
        for layer in layers:
            alone = attacked([name for name in subject.layers if name != layer], layer)
            spared = attacked([*always_float, layer], layer)
            rows.append(Row(layer, subject.model.get_submodule(layer).weight.numel(), alone, spared))  # type: ignore[operator]
    return Sensitivity(*whole, rows)
