"""Every family of networks in INT8 as ONNX Runtime executes it: no layer is computed in floats."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from compress import networks
from compress.quantization import int8
from compress.quantization.grids import ONNX_RUNTIME
from edge.runtimes.onnxruntime.runner import OnnxRunner
from export.targets.onnx import float32, layers, qdq

pytestmark = pytest.mark.slow

#: family → image, and what ONNX Runtime computes in floats between integer layers
FAMILIES: dict[str, tuple[tuple[int, int, int], set[str]]] = {
    "resnet20": ((3, 32, 32), set()),
    "resnet18+normalize": ((3, 32, 32), {"Sub", "Div"}),
    "resnet50": ((3, 32, 32), set()),
    "preactresnet18": ((3, 32, 32), {"Add", "BatchNormalization"}),
    "preactresnet18+same+silu+final-bn": ((3, 32, 32), {"Add", "BatchNormalization", "Sigmoid", "Mul", "QuickGelu"}),
    "wrn-10-4": ((3, 32, 32), {"Add", "BatchNormalization"}),
    "wrn-10-4+silu": ((3, 32, 32), {"Add", "BatchNormalization", "Sigmoid", "Mul", "QuickGelu"}),
    "mobilenetv2": ((3, 32, 32), set()),
    "mobilenetv3-small": ((3, 64, 64), {"HardSigmoid", "Mul"}),
    "mobilenetv3-large": ((3, 64, 64), {"HardSigmoid", "Mul"}),
    "cnn": ((1, 8, 8), set()),
    "vit-nano-2": ((1, 8, 8), {"Add", "BiasGelu", "LayerNormalization", "Mul", "Softmax"}),
    "convnext-yocto-1": ((1, 8, 8), {"Add", "Gelu", "LayerNormalization", "Mul"}),
}
EVERYWHERE = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QGemm", "QLinearAdd", "QLinearMul", "ReduceMean"}
EVERYWHERE |= {"QLinearMatMul", "MatMulIntegerToFloat"}
SHAPES = {"Transpose", "Pad", "Slice", "Reshape", "Flatten", "Squeeze", "Split", "Shape", "Gather", "Concat", "Expand"}


def images(shape: tuple[int, int, int], seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (16, *shape), generator=torch.Generator().manual_seed(seed)).float() / 255


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_is_executed_in_integers(name: str) -> None:
    shape, floats = FAMILIES[name]
    torch.manual_seed(0)
    twin = networks.build_network(name, channels=shape[0], classes=10, size=shape[1:])
    with torch.no_grad():
        for _ in range(3):
            twin.train()(images(shape))
    twin, layout = int8.quantize_network(twin.eval(), [images(shape)])
    proto, origin = float32.emit_float32(int8.float_copy(twin), torch.zeros(shape), 20)
    qdq.insert_pairs(proto, origin, qdq.Scales.of(twin, layout, ONNX_RUNTIME))
    content = proto.SerializeToString()
    executed = layers.executed_layers(content)
    operators = Counter(node.op_type for node in layers.optimised(content).graph.node)
    print(f"{name}: {dict(operators)}")
    weighted = [layer for layer in int8.quantized_layers(twin) if hasattr(twin.get_submodule(layer), "weight")]
    assert executed.floating == [] and sorted(executed.integer) == sorted(weighted)  # products are in `operators`
    assert {*operators} - EVERYWHERE - SHAPES <= floats, "what is not integer is listed"
    x = images(shape, seed=2)
    with OnnxRunner(content, where=name, batch_size=16, threads=1) as runner, torch.no_grad():
        got, want = torch.from_numpy(runner.infer(x.numpy())), twin(x)
    assert float((got - want).abs().mean()) < 0.03 * float(want.abs().max())
