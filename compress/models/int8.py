"""The twin: a network whose weights and activations pass NVIDIA ModelOpt's 8-bit fake quantizers.

Symmetric throughout, zero point 0: weights signed per output channel, activations per tensor and unsigned where they
cannot be negative. BatchNorm is folded first, so that what is quantized here is what the exported file stores. The
rounding passes gradients straight through.
"""

import contextlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress import artifact
from compress.errors import CompressError
from compress.models import Classifier
from compress.models.base import Activation, Add
from compress.models.folding import fold, quantizer_sites

QUANTIZER = "quantizer.json"


def quantize(model: Classifier, images: Iterable[Tensor]) -> dict[str, Any]:
    """Fold and quantize `model` in place, ranges set by the largest value seen on `images`; the quantizer's layout."""
    batches = list(images)
    fold(model)
    layout = {"bits": 8, "unsigned": _signs(model, quantizer_sites(model), batches)}
    _insert(model, layout, batches)
    return layout


def restore(model: Classifier, layout: dict[str, Any], weights: dict[str, Tensor], image: Tensor) -> None:
    """The quantized network again: one zero image inserts the quantizers, then `weights` are loaded strictly."""
    fold(model)
    _insert(model, layout, [torch.zeros_like(image)])
    model.load_state_dict(weights, strict=True)
    model.eval()


def write_layout(work: artifact.Work, layout: dict[str, Any]) -> None:
    artifact.write_atomic(work.add_payload(QUANTIZER), json.dumps(layout, indent=2) + "\n")


def read_layout(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / QUANTIZER).read_text()))


def _signs(model: Classifier, sites: dict[str, str], batches: list[Tensor]) -> dict[str, bool]:
    """Quantizer name → whether its values were never negative."""
    lowest = dict.fromkeys(sites, float("inf"))

    def watch(name: str, pick: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            value = {"output": output, "input": args[0], "a": args[0], "b": args[-1]}[pick]
            lowest[name] = min(lowest[name], float(value.min()))

        return hook

    handles = [
        model.get_submodule(target).register_forward_hook(watch(name, name.rpartition(".")[2].split("_")[0]))
        for name, target in sites.items()
    ]
    with torch.no_grad():
        for x in batches:
            model(x)
    for handle in handles:
        handle.remove()
    return {name: value >= 0 for name, value in lowest.items()}


def _insert(model: Classifier, layout: dict[str, Any], batches: list[Tensor]) -> None:
    mtq = _modelopt()
    enabled = [
        {"quantizer_name": name, "cfg": {"num_bits": layout["bits"], "axis": None, "unsigned": unsigned}}
        for name, unsigned in layout["unsigned"].items()
    ]
    weights = {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": layout["bits"], "axis": 0}}
    recipe = {"quant_cfg": [{"quantizer_name": "*", "enable": False}, weights, *enabled], "algorithm": "max"}

    def calibrate(network: nn.Module) -> None:
        for x in batches:
            network(x)

    with quiet(), torch.no_grad():
        mtq.quantize(model, recipe, calibrate)
    model.eval()


def _modelopt() -> Any:
    """ModelOpt's quantization module, taught where activations and sums are quantized."""
    with quiet():
        try:
            import modelopt.torch.quantization as mtq
            from modelopt.torch.quantization.nn import QuantModule, QuantModuleRegistry, TensorQuantizer
        except ImportError as fault:
            raise CompressError(
                f"quantization needs nvidia-modelopt ({fault}); pip install nvidia-modelopt requests huggingface_hub"
            ) from None
    if Activation in QuantModuleRegistry:
        return mtq

    class QuantActivation(QuantModule):
        def _setup(self) -> None:
            self.output_quantizer = TensorQuantizer()

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.output_quantizer(super().forward(x))
            return result

    class QuantAdd(QuantModule):
        def _setup(self) -> None:
            self.a_quantizer = TensorQuantizer()
            self.b_quantizer = TensorQuantizer()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            result: Tensor = super().forward(self.a_quantizer(a), self.b_quantizer(b))
            return result

    mtq.register(original_cls=Activation, quantized_cls=QuantActivation)
    mtq.register(original_cls=Add, quantized_cls=QuantAdd)
    return mtq


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """ModelOpt prints to stdout, which belongs to results, and warns of extensions that nothing here uses."""
    import warnings

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
