"""Files that ONNX Runtime's own quantizer writes, operators on integers and all: the twin says what they say."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from torch import Tensor, nn

from compress.networks.graph import Node, onnx_twin
from compress.networks.graph.attributes import refuse_unread
from compress.networks.graph.operators import OPERATORS
from tests.compress import graphs

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter, which is deprecated and writes what people have
SHAPE = (3, 8, 8)


class SmallConvolutions(nn.Module):
    """Beside layers what the quantizer has integer operators for: pools, sums, products, concatenation, activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        y = nn.functional.leaky_relu(self.grouped(x), 0.1)
        z = nn.functional.silu(y) + y
        both = torch.cat([z * y, nn.functional.avg_pool2d(z, 3, 1, 1)], 1)
        return self.head(both.mean((2, 3)))


class SmallAttention(nn.Module):
    """Patches, one head, softmax over tokens, a token's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.mixed, self.hidden, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        query, key, value = self.mixed(self.norm(tokens)).chunk(3, -1)
        tokens = tokens + torch.softmax(query @ key.transpose(1, 2) / 4, -1) @ value
        return self.head(nn.functional.gelu(self.hidden(tokens))[:, 0])


class RandomImages(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.batches: Iterator[np.ndarray] = iter([generator.random((8, *SHAPE), np.float32) for _ in range(2)])

    def get_next(self) -> "dict[str, np.ndarray] | None":
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


@pytest.fixture(scope="module", params=[SmallConvolutions, SmallAttention])
def floats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    torch.onnx.export(request.param().eval(), (torch.rand(2, *SHAPE),), file, dynamo=False, opset_version=17, **names)
    path = tmp_path_factory.mktemp("floats") / "model.onnx"
    path.write_bytes(file.getvalue())
    return path


def optimized(path: Path) -> None:
    """As ONNX Runtime saves what its optimizer made of a file, layers fused into operators of its own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(path), 4
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("way", ["optimized", "pairs, optimized", "dynamic, optimized"])
def test_the_twin_of_an_optimized_file(floats: Path, way: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if "dynamic" in way:
        quantize_dynamic(floats, path)
    elif "pairs" in way:
        quantize_static(floats, path, RandomImages(), quant_format=QuantFormat.QDQ)
    else:
        path.write_bytes(floats.read_bytes())
    optimized(path)
    content, x = path.read_bytes(), np.random.default_rng(9).random((4, *SHAPE), np.float32)
    want = graphs.run(content, x)
    got = onnx_twin.build_twin(content, where="g")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("way", ["operators", "operators, signed and by channel", "pairs", "dynamic"])
def test_the_twin_of_a_quantized_file(floats: Path, way: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    signed = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    if way == "dynamic":
        quantize_dynamic(floats, path)
    else:
        layout = QuantFormat.QDQ if way == "pairs" else QuantFormat.QOperator
        quantize_static(floats, path, RandomImages(), quant_format=layout, **(signed if "signed" in way else {}))
    written = {node.op_type for node in onnx.load(path).graph.node}
    wanted = {"dynamic": {"ConvInteger", "MatMulInteger"}, "pairs": {"DequantizeLinear"}}.get(way, {"QLinearConv"})
    assert wanted <= written
    content, x = path.read_bytes(), np.random.default_rng(9).random((4, *SHAPE), np.float32)
    twin, leaf = onnx_twin.build_twin(content, where="g"), torch.from_numpy(x).requires_grad_()
    logits = twin(leaf)
    want = graphs.run(content, x)
    np.testing.assert_allclose(logits.detach().numpy(), want, atol=1e-5 * np.abs(want).max())
    with torch.no_grad():
        assert torch.equal(twin(leaf), logits.detach())
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    exact = onnx_twin.build_twin(floats.read_bytes(), where="f")
    (slope,) = torch.autograd.grad(exact(leaf)[:, 0].sum(), leaf)
    alike = nn.functional.cosine_similarity(gradient.flatten(1), slope.flatten(1))
    assert alike.median() > 0.9  # zero where the logit lies beyond what was calibrated


def test_the_levels_of_a_batch_depend_on_its_images() -> None:
    """As ONNX Runtime computes them: a brighter image beside it makes an image's levels coarser."""
    nodes = [
        onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        onnx.helper.make_node("Flatten", ["d"], ["y"]),
    ]
    content = graphs.model(nodes, {})
    x = np.random.default_rng(0).random((2, *graphs.SHAPE), np.float32)
    twin = onnx_twin.build_twin(content, where="g")
    for batch in (x[:1], np.concatenate([x[:1], 9 * x[1:]])):
        np.testing.assert_array_equal(twin(torch.from_numpy(batch)).numpy(), graphs.run(content, batch))


LEAST = {np.uint8: 0, np.int8: -128}
RNG = np.random.default_rng(3)


def levels(kind: Any, *shape: int) -> np.ndarray:
    return np.asarray(RNG.integers(LEAST[kind], LEAST[kind] + 256, shape), kind)


def scale(*shape: int, of: float = 0.05) -> np.ndarray:
    return np.asarray(RNG.uniform(0.5, 2, shape) * of, np.float32)


def value(kind: Any, *shape: int) -> list[np.ndarray]:
    """Levels, their scale and zero point."""
    return [levels(kind, *shape), scale(), levels(kind)]


def integer_cases(kind: Any) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Operator, inputs of random levels, scales and zero points, attributes."""
    contributed, shape, to = "com.microsoft.", (2, 3, 5, 4), [scale(of=0.2), levels(kind)]
    bias = RNG.integers(-3000, 3000, 6).astype(np.int32)
    wide = [scale(of=2), levels(kind)]
    for attributes in ({}, {"pads": [1, 0, 0, 1], "strides": [2, 1]}, {"auto_pad": "SAME_UPPER"}):
        weights = [levels(np.int8, 6, 3, 3, 2), scale(6), np.zeros(6, np.int8)]
        yield "QLinearConv", [*value(kind, *shape), *weights, *wide, bias], attributes
        single = [levels(kind, 6, 1, 3, 2), scale(), np.array(9 if kind is np.uint8 else 0, kind)]
        yield "QLinearConv", [*value(kind, *shape), *single, *wide], {**attributes, "group": 3}
    for weights in (value(kind, 7, 4), value(kind, 2, 7, 4), [levels(np.int8, 7, 4), scale(4), np.zeros(4, np.int8)]):
        yield "QLinearMatMul", [*value(kind, 2, 3, 7), *weights, *wide], {}
        yield "MatMulInteger", [levels(kind, 2, 3, 7), weights[0], levels(kind), weights[2]], {}
    yield "ConvInteger", [levels(np.uint8, *shape), levels(np.uint8, 6, 3, 3, 2), levels(np.uint8)], {}
    for c in (bias[:4], None):
        stated = [*value(kind, 3, 7), *value(kind, 4, 7), c]
        yield contributed + "QGemm", [*stated, *wide], {"transB": 1, "alpha": 0.5}
        yield contributed + "QGemm", stated, {"transB": 1}
    for op in ("QLinearAdd", "QLinearMul"):
        yield contributed + op, [*value(kind, *shape), *value(kind, 3, 1, 1), *to], {}
    yield contributed + "QLinearSigmoid", [*value(kind, *shape), np.float32(1 / 256), levels(kind)], {}
    yield contributed + "QLinearLeakyRelu", [*value(kind, *shape), *to], {"alpha": 0.2}
    for axis, opset in ((-1, 17), (1, 13), (2, 11)):
        least = np.array(LEAST[kind], kind)
        attributes = {"axis": axis, "opset": opset}
        yield contributed + "QLinearSoftmax", [*value(kind, *shape), scale(of=0.004), least], attributes
    for attributes in ({"pads": [1, 1, 1, 1]}, {"ceil_mode": 1, "strides": [2, 2]}, {"count_include_pad": 1}):
        yield contributed + "QLinearAveragePool", [*value(kind, *shape), *to], {"kernel_shape": [2, 3], **attributes}
    yield contributed + "QLinearGlobalAveragePool", [*value(kind, *shape), *to], {"channels_last": 0}
    yield contributed + "QLinearConcat", [*to, *value(kind, *shape), *value(kind, *shape)], {"axis": 1}
    choice = RNG.random(shape) < 0.5
    yield contributed + "QLinearWhere", [choice, *value(kind, *shape), *value(kind, *shape), *to], {}
    yield contributed + "DynamicQuantizeMatMul", [scale(3, 7), levels(kind, 7, 4), scale(), levels(kind), scale(4)], {}


def of_the_runtime(op: str, names: list[str], inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
    """The first input is the graph's, all others are constants."""
    domain, _, name = op.rpartition(".")
    graph = helper.make_graph(
        [helper.make_node(name, names, ["y"], domain=domain, **attributes)],
        "g",
        [helper.make_tensor_value_info("i0", helper.np_dtype_to_tensor_dtype(inputs[0].dtype), inputs[0].shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in zip(names[1:], inputs[1:], strict=True) if n],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"i0": inputs[0]})[0])


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_each_integer_operator_gives_the_runtimes_levels(kind: Any) -> None:
    for op, inputs, attributes in integer_cases(kind):
        names = ["" if each is None else f"i{place}" for place, each in enumerate(inputs)]
        node = Node("", op, tuple(names), ("y",), attributes, 17)
        refuse_unread([node], "y")
        want = of_the_runtime(op, names, inputs, attributes)
        tensors = [None if each is None else torch.from_numpy(np.asarray(each)) for each in inputs]
        got = OPERATORS[op].compute(node, *tensors).numpy()
        exact = want.dtype != np.float32
        np.testing.assert_allclose(got, want, *((0, 0) if exact else (1e-5, 1e-5)), err_msg=f"{op} {attributes}")


def test_each_contributed_operator_on_levels_is_tried() -> None:
    tried = {op for op, _, _ in integer_cases(np.uint8)}
    assert {op for op in OPERATORS if op.startswith(("com.microsoft.Q", "com.microsoft.Dyn"))} - tried == {
        "com.microsoft.QuickGelu"
    }
