"""Half-precision graphs rebuilt in torch: the values of the type, gradients that do not vanish in it."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from compress.networks.graph import onnx_twin
from tests.compress import graphs

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float16)
HEAD = RNG.normal(size=(64, 3)).astype(np.float16)


def half(scale: float = 1.0, kind: int = TensorProto.FLOAT16) -> bytes:
    """x cast to half, a convolution, ReLU, a product, its logits cast back."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=kind),
        helper.make_node("Conv", ["h", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["l"]),
        helper.make_node("Mul", ["l", "s"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = {"w": WEIGHT, "m": HEAD, "s": np.float16(scale)}
    return graphs.model(nodes, constants)


def test_values_are_rounded_behind_each_operator() -> None:
    x = RNG.random((5, *graphs.SHAPE), np.float32)
    got = onnx_twin.build_twin(half(), where="graph")(torch.from_numpy(x)).numpy()
    want = graphs.run(half(), x)
    assert (got == got.astype(np.float16)).all(), "each is a number of the type"
    assert np.abs(got - want).max() <= 4 * np.spacing(np.float16(np.abs(want).max()))
    patches = np.lib.stride_tricks.sliding_window_view(x.astype(np.float16).astype(np.float64), (3, 3), axis=(2, 3))
    conv = np.einsum("nchwij,ocij->nohw", patches, WEIGHT.astype(np.float64)).astype(np.float16)
    rows = np.maximum(conv, 0).reshape(5, -1)[:, :64].astype(np.float64)
    oracle = (rows @ HEAD.astype(np.float64)).astype(np.float16)
    assert np.abs(got - oracle).max() <= 4 * np.spacing(np.float16(np.abs(oracle).max()))


def test_constants_that_the_graph_makes_are_of_its_type() -> None:
    """0.1 in half precision is 0.09998, and a sum with it is rounded."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node(
            "ConstantOfShape", ["one"], ["c"], value=helper.make_tensor("v", TensorProto.FLOAT16, [1], [0.1])
        ),
        helper.make_node("Add", ["h", "c"], ["a"]),
        helper.make_node("Cast", ["a"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["y"]),
    ]
    content = graphs.model(nodes, {"one": np.array([1], np.int64)})
    x = RNG.random((2, *graphs.SHAPE), np.float32)
    got = onnx_twin.build_twin(content, where="graph")(torch.from_numpy(x)).numpy()
    assert (got == got.astype(np.float16)).all()
    want = (x.astype(np.float16).astype(np.float32) + np.float32(np.float16(0.1))).astype(np.float16).reshape(2, -1)
    np.testing.assert_array_equal(got, want)


def test_small_gradients_reach_the_image() -> None:
    """Of 2⁻¹⁵ and less half precision keeps few bits, and below 2⁻²⁵ none; float32 keeps them."""
    x = torch.from_numpy(RNG.random((2, *graphs.SHAPE), np.float32))
    gradients = []
    for factor in (1.0, 1e-9):
        leaf = x.clone().requires_grad_()
        twin = onnx_twin.build_twin(half(), where="graph")
        gradients.append(torch.autograd.grad(factor * twin(leaf).sum(), leaf)[0] / factor)
    assert gradients[0].abs().min() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("value", "kept"), [(70000.0, float("inf")), (65504.0, 65504.0)])
def test_overflow_is_not_hidden(value: float, kept: float) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Flatten", ["h"], ["f"]),
        helper.make_node("Mul", ["f", "s"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT),
    ]
    content = graphs.model(nodes, {"s": np.float16(1)})
    twin = onnx_twin.build_twin(content, where="graph")
    assert float(twin(torch.full((1, *graphs.SHAPE), value)).max()) == kept
