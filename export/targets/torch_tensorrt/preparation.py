"""The torch module that Torch-TensorRT converts: BatchNorm folded, quantizers as operators, cast to its arithmetic."""

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.base import Classifier
from compress.quantization import int8
from compress.quantization.graph_network import GraphNetwork
from compress.quantization.grids import SIGNED, UNSIGNED
from compress.quantization.lowering import lower
from compress.quantization.quantizer import FakeQuantize
from edge.core.errors import CompressError

DTYPES = {"float32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class QuantizeOperator(nn.Module):
    """A quantizer as the operator that ModelOpt defines and Torch-TensorRT turns into Q/DQ. `amax` stays float32."""

    amax: Tensor

    def __init__(self, amax: Tensor, *, unsigned: bool) -> None:
        super().__init__()
        self.register_buffer("amax", amax)
        self.unsigned = unsigned

    def forward(self, x: Tensor) -> Tensor:
        quantized: Tensor = torch.ops.tensorrt.quantize_op(x, self.amax, 8, 0, self.unsigned, False)
        return quantized


class Floats(nn.Module):
    """A network computing in another float type, float32 images and logits outside."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x.to(self.dtype)).float()
        return logits


def prepare_network(twin: Classifier, floats: str, image: "tuple[int, ...]") -> nn.Module:
    """A copy of `twin`, float or fake-quantized, that computes the same in `floats`: float32, fp16 or bf16.

    For images (C,H,W); BatchNorm is folded in float32.

    One with quantizers runs inside `kernels()` only.
    """
    network = copy.deepcopy(twin).eval().requires_grad_(False)
    operators = _operators(network)
    if not isinstance(network, GraphNetwork):
        network = lower(network, image)
    network.to(DTYPES[floats])
    for name, operator in operators.items():
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, operator)
    return network if floats == "float32" else Floats(network, DTYPES[floats])


def export_program(
    network: nn.Module, image: "tuple[int, ...]", batch: "tuple[int, int]"
) -> torch.export.ExportedProgram:
    """The program of a prepared network for images (C,H,W) and from `batch[0]` to `batch[1]` of them.

    Traced where its weights lie.
    """
    example, shapes = example_batch(image, batch, next(network.parameters()).device)
    with quiet():
        return torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)


def example_batch(
    image: "tuple[int, ...]", batch: "tuple[int, int]", device: "torch.device | str"
) -> tuple[Tensor, Any]:
    """Images to trace with, and what torch.export is told of their number; None where it is fixed."""
    least, most = batch
    example = torch.zeros(max(least, min(2, most)), *image, device=device)
    return example, None if least == most else ({0: torch.export.Dim("batch", min=least, max=most)},)


def _operators(network: nn.Module) -> dict[str, nn.Module]:
    """What stands in the place of each quantizer, by its name."""
    quantizers = dict(int8.quantizers(network))
    if not quantizers:
        return {}
    with quiet():
        try:
            import modelopt.torch.quantization  # noqa: F401  # defines the operator
        except ImportError as fault:
            raise CompressError(
                f"INT8 through Torch-TensorRT needs nvidia-modelopt ({fault}); "
                f"pip install nvidia-modelopt requests huggingface_hub"
            ) from None

    operators: dict[str, nn.Module] = {}
    for name, quantizer in quantizers.items():
        amax = quantizer.amax.detach().clone()
        if amax.ndim:  # of a weight, along its first axis
            weight: Any = network.get_submodule(name.rpartition(".")[0]).weight
            amax = amax.reshape(-1, *[1] * (weight.ndim - 1))
        is_on = quantizer.is_enabled
        operators[name] = QuantizeOperator(amax, unsigned=quantizer.unsigned) if is_on else nn.Identity()
    return operators


@contextlib.contextmanager
def kernels() -> Iterator[None]:
    """Inside, the quantizers' operator computes on our grid.

    ModelOpt's own kernel is CUDA source that wants a compiler on the machine, and Torch-TensorRT executes the operator
    on constants.
    """
    with quiet(), torch.library._scoped_library("tensorrt", "IMPL") as library:
        if hasattr(torch.ops.tensorrt, "quantize_op"):
            for device in ("CPU", "CUDA"):
                library.impl("quantize_op", _quantized, device, allow_override=True)
        yield


def _quantized(x: Tensor, amax: Tensor, bits: int, exponent_bits: int, unsigned: bool, narrow_range: bool) -> Tensor:
    assert (bits, exponent_bits, narrow_range) == (8, 0, False)
    levels = UNSIGNED if unsigned else SIGNED
    values: Tensor = FakeQuantize.apply(x.float(), amax.reshape(-1) if amax.ndim else amax, *levels)
    return values.to(x.dtype)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """These libraries print to stdout, which belongs to results, and warn of what nothing here uses."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
