"""Networks rebuilt from ONNX graphs: every operator against ONNX Runtime, gradients against the torch network's."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from compress import data
from compress.data.split import to_float
from compress.folders import load
from compress.networks.base import Classifier, Features
from compress.networks.graph import onnx_twin
from edge import open_runner
from edge.core import artifact
from edge.core.errors import CompressError
from export.targets.onnx import float32
from tests.compress import graphs
from tests.compress.graphs import one

RNG = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


#: Windows of which the last would begin in the right padding, and so does not exist: 3 × 3 of 8 × 8 pixels, not 4 × 4.
BEYOND: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}
#: Beside each operator of the table at least one graph that holds it.
CASES: dict[str, bytes] = {
    "Conv": one("Conv", [f(4, 3, 3, 3), f(4)], pads=[1, 1, 1, 1], strides=[2, 1]),
    "Conv, groups and dilations": one("Conv", [f(6, 1, 2, 2)], group=3, dilations=[2, 2]),
    "Conv, pads of its own on each side": one("Conv", [f(2, 3, 3, 3)], pads=[0, 1, 2, 0]),
    "Conv, SAME_UPPER": one("Conv", [f(2, 3, 2, 3)], auto_pad="SAME_UPPER", strides=[2, 2]),
    "Conv, SAME_LOWER": one("Conv", [f(2, 3, 2, 3)], auto_pad="SAME_LOWER", strides=[2, 2]),
    "Conv, VALID": one("Conv", [f(2, 3, 3, 3)], auto_pad="VALID"),
    "MaxPool": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1]),
    "MaxPool, ceil": one("MaxPool", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1, dilations=[2, 2]),
    "MaxPool, ceil and pads": one("MaxPool", shape=(3, 8, 8), opset=22, **BEYOND),
    "AveragePool, ceil and pads": one("AveragePool", shape=(3, 8, 8), opset=22, **BEYOND),
    "AveragePool, ceil and counted pads": one("AveragePool", shape=(3, 8, 8), opset=22, count_include_pad=1, **BEYOND),
    "AveragePool": one("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "AveragePool, pads not counted": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 0, 0]),
    "AveragePool, pads counted": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "GlobalAveragePool": one("GlobalAveragePool"),
    "GlobalMaxPool": one("GlobalMaxPool"),
    "BatchNormalization": one("BatchNormalization", [f(3), f(3), f(3), np.abs(f(3)) + 0.1], epsilon=1e-3),
    "InstanceNormalization": one("InstanceNormalization", [f(3), f(3)]),
    "LayerNormalization": one("LayerNormalization", [f(6, 6), f(6, 6)], axis=-2),
    "Gemm": one("Gemm", [f(4, 6), f(4)], shape=(6,), alpha=0.5, beta=2.0, transB=1),
    "Gemm, no bias": one("Gemm", [f(6, 4)], shape=(6,)),
    "MatMul": one("MatMul", [f(6, 5)]),
    "Add": one("Add", [f(3, 1, 1)]),
    "Sub": one("Sub", [f(3, 1, 1)], where=1),
    "Mul": one("Mul", [f(6)]),
    "Div": one("Div", [f(3, 1, 1)]),
    "Pow": one("Pow", [np.array(2, np.float32)]),
    "Min": one("Min", [f(6), f(6, 1)]),
    "Max": one("Max", [f(6)]),
    "Sum": one("Sum", [f(6), f(6, 1)]),
    "Relu": one("Relu"),
    "LeakyRelu": one("LeakyRelu", alpha=0.2),
    "PRelu": one("PRelu", [f(3, 1, 1)]),
    "Elu": one("Elu", alpha=0.7),
    "Selu": one("Selu"),
    "Celu": one("Celu", alpha=0.7),
    "ThresholdedRelu": one("ThresholdedRelu", alpha=0.3),
    "Softsign": one("Softsign"),
    "Mean": one("Mean", [f(6), f(6, 1)]),
    "ReduceMin": one("ReduceMin", [i(1, -1)], keepdims=0),
    "ReduceL1": one("ReduceL1", [i(1)]),
    "ReduceL2": one("ReduceL2", [i(1)]),
    "ReduceLogSumExp": one("ReduceLogSumExp", [i(1)]),
    "Mish": one("Mish"),
    "Gelu": one("Gelu"),
    "Gelu, tanh": one("Gelu", approximate="tanh"),
    "Softplus": one("Softplus"),
    "Sigmoid": one("Sigmoid"),
    "HardSigmoid": one("HardSigmoid", alpha=1 / 6),
    "HardSwish": one("HardSwish"),
    "Tanh": one("Tanh"),
    "Erf": one("Erf"),
    "Exp": one("Exp"),
    "Neg": one("Neg"),
    "Abs": one("Abs"),
    "Clip": one("Clip", [np.array(-0.5, np.float32), np.array(0.5, np.float32)]),
    "Clip, above only": one("Clip", ["", np.array(0.5, np.float32)]),
    "Clip, attributes": one("Clip", opset=9, min=-0.1, max=0.4),
    "Softmax": one("Softmax", axis=1),
    "Softmax, old": one("Softmax", opset=11, axis=2),
    "LogSoftmax": one("LogSoftmax"),
    "ReduceMean": one("ReduceMean", [i(2, 3)], keepdims=0),
    "ReduceMean, attribute": one("ReduceMean", opset=13, axes=[-1], keepdims=1),
    "ReduceSum": one("ReduceSum", [i(1)]),
    "ReduceMax": one("ReduceMax", [i(-1)]),
    "Reshape": one("Reshape", [i(0, -1, 2)]),
    "Flatten": one("Flatten", axis=-3),
    "Transpose": one("Transpose", perm=[0, 2, 3, 1]),
    "Unsqueeze": one("Unsqueeze", [i(1, -1)]),
    "Unsqueeze, attribute": one("Unsqueeze", opset=11, axes=[1]),
    "Squeeze": one("Squeeze", [i(2, 3)], shape=(3, 1, 1)),
    "Squeeze, attribute": one("Squeeze", opset=11, axes=[2], shape=(3, 1, 4)),
    "Pad": one("Pad", [i(0, 0, 1, 2, 0, 0, 0, 1), np.array(0.3, np.float32)]),
    "Pad, some axes": one("Pad", [i(1, 2, 0, 3), "", i(2, -1)]),
    "Pad, attribute": one("Pad", opset=9, pads=[0, 0, 1, 0, 0, 0, 0, 1]),
    "Pad, reflect": one("Pad", [i(0, 0, 1, 2, 0, 0, 0, 1)], mode="reflect"),
    "Pad, edge": one("Pad", [i(0, 0, 1, 2, 0, 0, 0, 1)], mode="edge"),
    "Slice": one("Slice", [i(1, -4), i(3, 99), i(1, 3), i(1, 2)]),
    "Slice, attribute": one("Slice", opset=9, starts=[0, 1], ends=[2, -1], axes=[2, 3]),
    "Split": one("Split", [i(1, 2)], axis=1, outputs=2),
    "Split, even": one("Split", axis=2, outputs=3, num_outputs=3),
    "Gather": one("Gather", [np.array([[0, 2], [-1, 1]])], axis=1),
    "Expand": one("Expand", [i(1, 3, 6, 6)]),
    "Concat": one("Concat", [f(2, 3, 6, 1)], axis=3),
    "Identity": one("Identity"),
    "Dropout": one("Dropout"),
    "Cast": one("Cast", to=TensorProto.FLOAT16),
}


def images(shape: Any = graphs.SHAPE) -> np.ndarray:
    return np.random.default_rng(1).random((2, *shape), np.float32) * 2 - 1


def shape_of(content: bytes) -> tuple[int, ...]:
    from onnx import load_model_from_string

    entry = next(e for e in load_model_from_string(content).graph.input if e.name == "x")
    return tuple(d.dim_value for d in entry.type.tensor_type.shape.dim[1:])


@pytest.mark.parametrize("name", CASES)
def test_every_operator_against_onnx_runtime(name: str) -> None:
    content = CASES[name]
    x = images(shape_of(content))
    if name == "Cast":  # back to float32, as its sum with a float32 tensor would be
        got = onnx_twin.build_twin(content, where="g")(torch.from_numpy(x)).float().numpy()
        np.testing.assert_array_equal(got, x.astype(np.float16).reshape(2, -1).astype(np.float32))
        return
    got = onnx_twin.build_twin(content, where="g").output(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, graphs.run(content, x), rtol=1e-4, atol=1e-5)


def test_shapes_computed_by_the_graph_and_values_of_constants_alone() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Gather", ["size", "first"], ["scalar"]),  # by a number without dimensions
        helper.make_node("Unsqueeze", ["scalar", "front"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("Sqrt", ["square"], ["root"]),  # of constants: computed once
        helper.make_node("Log", ["root"], ["log"]),
        helper.make_node("Reciprocal", ["root"], ["inverse"]),
        helper.make_node("Mul", ["flat", "inverse"], ["scaled"]),
        helper.make_node("Shape", ["scaled"], ["whole"]),
        helper.make_node("ConstantOfShape", ["whole"], ["half"], value=helper.make_tensor("v", 1, [1], [0.5])),
        helper.make_node("Sum", ["scaled", "log", "half"], ["y"]),
    ]
    constants = {"first": np.array(0), "front": i(0), "rest": i(-1), "square": np.array([4.0], np.float32)}
    content, x = graphs.model(nodes, constants), images()
    twin = onnx_twin.build_twin(content, where="g")
    np.testing.assert_allclose(twin(torch.from_numpy(x)).numpy(), graphs.run(content, x), rtol=1e-6)
    assert " ".join(node.op for node in twin.nodes) == (
        "Shape Gather Unsqueeze Concat Reshape Mul Shape ConstantOfShape Sum"
    )


# ---------------------------------------------------------------------------------------------- integers


def test_the_largest_value_of_a_range_has_a_gradient() -> None:
    """float32(255) / 255 · 255 need not be 1: a white pixel must not lose its gradient to that."""
    scale = np.float32(1 / 255) * np.float32(1 - 1e-7)
    twin = onnx_twin.build_twin(quantized(np.array(0, np.uint8), np.array(scale, np.float32)), where="g")
    leaf = torch.ones(1, *graphs.SHAPE).requires_grad_()
    assert float(leaf.detach().max() / scale) > 255
    assert bool((torch.autograd.grad(twin(leaf).sum(), leaf)[0] == 1).all())


def quantized(zero: np.ndarray, scale: np.ndarray, axis: int = 1) -> bytes:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=axis),
        helper.make_node("Flatten", ["d"], ["y"]),
    ]
    return graphs.model(nodes, {"s": scale, "z": zero})


@pytest.mark.parametrize("zero", [np.array(0, np.uint8), np.array(128, np.uint8), np.array(-3, np.int8)])
def test_quantizing_is_the_runtimes_to_the_bit_and_its_gradient_straight_inside_the_range(zero: np.ndarray) -> None:
    scale = np.array(0.0078125, np.float32)  # a power of two: ties between levels do occur, and are exact
    content = quantized(zero, scale)
    x = (np.arange(-300, 348, dtype=np.float32).reshape(6, *graphs.SHAPE) / 2 * scale).astype(np.float32)
    leaf = torch.from_numpy(x).requires_grad_()
    got = onnx_twin.build_twin(content, where="g")(leaf)
    np.testing.assert_array_equal(got.detach().numpy(), graphs.run(content, x))
    (gradient,) = torch.autograd.grad(got.sum(), leaf)
    info = np.iinfo(zero.dtype)
    levels = np.rint(x / scale) + zero
    inside = (levels >= info.min) & (levels <= info.max)
    np.testing.assert_array_equal(gradient.numpy(), inside.astype(np.float32))
    assert 0 < inside.sum() < inside.size


def test_quantizing_each_channel_by_its_own_scale() -> None:
    content = quantized(np.array([0, 100, 255], np.uint8), np.array([0.01, 0.02, 0.005], np.float32))
    x = images()
    np.testing.assert_array_equal(
        onnx_twin.build_twin(content, where="g")(torch.from_numpy(x)).numpy(), graphs.run(content, x)
    )


# ---------------------------------------------------------------------------------------------- whole networks


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0]


@pytest.mark.parametrize(("exported", "source"), [("ef", "student"), ("e", "quantized")])
def test_the_chains_artifacts_and_their_torch_twins(chain: SimpleNamespace, exported: str, source: str) -> None:
    stage = artifact.read(getattr(chain, exported))
    twin, original = (
        onnx_twin.build_twin(stage.file("model.onnx").read_bytes(), where="e"),
        load(getattr(chain, source)),
    )
    raw, labels = data.load_dataset("digits").part("test")
    x, y = to_float(torch.from_numpy(raw)), torch.from_numpy(labels)
    with open_runner(stage.path) as runner:
        want = runner.infer(raw)
    got = twin(x).numpy()
    assert (got.argmax(1) == want.argmax(1)).mean() >= 0.99
    steps = {"ef": 1e-4, "e": 0.01}[exported]  # INT8: a rounding that goes the other way moves logits by its step
    assert np.abs(got - want).max() <= steps * np.abs(want).max()
    ours, theirs = gradient(twin, x, y).flatten(1), gradient(original, x, y).flatten(1)
    alike = nn.functional.cosine_similarity(ours, theirs)
    # biases are int32 in the file alone: a level in thousands goes the other way, and the ReLUs behind it
    least, median = {"ef": (0.999, 0.9999), "e": (0.5, 0.98)}[exported]
    assert float(alike.quantile(0.05)) > least and float(alike.median()) > median


class Unusual(Classifier):
    """What no family here has: a transposed image, a sigmoid gate, concatenation, pooling with pads, normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=2, dilation=2, padding_mode="reflect")
        self.gate = nn.Conv2d(6, 6, 1, groups=3)
        self.norm = nn.GroupNorm(1, 12)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.last = nn.Linear(12 * 16, 5)

    def forward_features(self, x: Tensor) -> Features:
        out = nn.functional.gelu(self.first(x.transpose(2, 3)))
        out = torch.cat([out * self.gate(out).sigmoid(), nn.functional.silu(-out)], 1)
        out = self.pool(nn.functional.layer_norm(out, out.shape[1:]))
        out = nn.functional.leaky_relu(out, 0.3).clamp(-1, 2)
        return Features(self.last(out.flatten(1)), out, ())


def test_a_network_of_unusual_operators() -> None:
    torch.manual_seed(0)
    model = Unusual().eval().requires_grad_(False)
    proto, _ = float32.emit_float32(model, torch.zeros(1, 8, 8), 20)
    twin = onnx_twin.build_twin(proto.SerializeToString(), where="unusual")
    x, y = torch.rand(5, 1, 8, 8), torch.arange(5)
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient(twin, x, y), gradient(model, x, y), rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------------------------------------- edges


def test_a_half_precision_graph() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["h", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["y"]),
    ]
    content, x = graphs.model(nodes, {"w": f(2, 3, 3, 3).astype(np.float16)}), images()
    leaf = torch.from_numpy(x).requires_grad_()
    got = onnx_twin.build_twin(content, where="g")(leaf)
    np.testing.assert_allclose(got.detach().numpy(), graphs.run(content, x), rtol=5e-3, atol=5e-3)
    assert torch.autograd.grad(got.sum(), leaf)[0].dtype == torch.float32


def test_a_fixed_batch_is_padded_where_images_do_not_pass_at_once() -> None:
    free = onnx_twin.build_twin(graphs.linear_digits(), where="g")
    fixed = onnx_twin.build_twin(graphs.linear_digits(4), where="g")
    assert (free.batch, fixed.batch, free.at_once, fixed.at_once) == (0, 4, True, True)
    x = torch.rand(10, 1, 8, 8)
    y = torch.arange(10)
    for together in (True, False):
        fixed.at_once = together
        torch.testing.assert_close(fixed(x), free(x))
        torch.testing.assert_close(gradient(fixed, x, y), gradient(free, x, y))


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Reshape", ["x", "rows"], ["y"])],
        [  # over all images that are there
            helper.make_node("ReduceMax", ["x"], ["top"], keepdims=1),
            helper.make_node("Div", ["x", "top"], ["d"]),
            helper.make_node("Flatten", ["d"], ["y"]),
        ],
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("CumSum", ["f", "zero"], ["y"])],
    ],
)
def test_images_that_would_mix_pass_in_the_batches_of_the_file(nodes: list[Any]) -> None:
    content = graphs.model(nodes, {"rows": i(2, -1), "zero": np.array(0)}, batch=2)
    twin, x = onnx_twin.build_twin(content, where="g"), images()
    assert not twin.at_once
    x = np.concatenate([x, x / 2])
    want = np.concatenate([graphs.run(content, part) for part in np.split(x, 2)])
    np.testing.assert_allclose(twin.output(torch.from_numpy(x)).numpy(), want, rtol=1e-6)


def test_a_softmax_at_the_end_is_left_out_of_the_logits() -> None:
    content = graphs.linear_digits(scale=50, softmax=True)
    twin, plain = (
        onnx_twin.build_twin(content, where="g"),
        onnx_twin.build_twin(graphs.linear_digits(scale=50), where="g"),
    )
    assert (twin.meaning.kind, plain.meaning.kind) == ("probabilities", "logits")
    x = torch.rand(6, 1, 8, 8)
    torch.testing.assert_close(twin(x), plain(x))
    np.testing.assert_allclose(twin.output(x).numpy(), graphs.run(content, x.numpy()), rtol=1e-4, atol=1e-6)


def test_functions_of_the_file_are_read_through() -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    twice = helper.make_function("local", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", graphs.OPSET)])
    nodes = [helper.make_node("Twice", ["x"], ["t"], domain="local"), helper.make_node("Flatten", ["t"], ["y"])]
    content = graphs.model(nodes, {}, functions=[twice], domains=["local"])
    x = images()
    np.testing.assert_array_equal(
        onnx_twin.build_twin(content, where="g")(torch.from_numpy(x)).numpy(), graphs.run(content, x)
    )


def flat(*nodes: Any) -> bytes:
    return graphs.model([*nodes, helper.make_node("Flatten", ["t"], ["y"])], {"s": np.ones(3, np.float32)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (flat(helper.make_node("Unique", ["x"], ["t"])), "no gradient is known of its operator Unique; it has no twin"),
        (
            flat(helper.make_node("BiasDropout", ["x", "s"], ["t"], domain="com.microsoft")),
            r"its operator com\.microsoft\.BiasDropout",
        ),
        (
            flat(helper.make_node("Cast", ["x"], ["i"], to=7), helper.make_node("Cast", ["i"], ["t"], to=1)),
            "no gradient reaches its image",
        ),
        (flat(helper.make_node("Slice", ["x", "a", "b", "c", "c"], ["t"])), "cannot be rebuilt in torch"),
        (b"no model", "no ONNX model"),
    ],
)
def test_what_has_no_twin_is_told_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(CompressError, match=message) as fault:
        onnx_twin.build_twin(content, where="m.onnx")
    assert "\n" not in str(fault.value) and str(fault.value).startswith("m.onnx: ")
