"""Index, order and condition operators of the twin: in each version of theirs as ONNX Runtime computes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, helper

from compress.networks.graph import onnx_twin
from compress.networks.graph.attributes import NEWEST, OLDEST
from compress.networks.graph.operators.indexing import INDEXING
from edge.core.errors import CompressError
from tests.compress import graphs

RNG = np.random.default_rng(7)


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


#: of images (2,3,6,6) in rows of 36 values each, and what reads them
INDEX = RNG.integers(-6, 6, (2, 3, 6, 6))
PLACES = np.stack([RNG.integers(-2, 2, 8), RNG.integers(0, 3, 8), RNG.integers(-6, 6, 8)], 1)
APART = np.stack(np.meshgrid([0, -1], [2, 0], [1, -1, 3], indexing="ij"), -1).reshape(-1, 3)
WITHIN = np.stack([RNG.integers(-3, 3, (2, 5)), RNG.integers(0, 6, (2, 5))], -1)
EACH_ONCE = np.argsort(RNG.random((2, 3, 6, 6)), 2)


def node(op: str, *inputs: str, outputs: Sequence[str] = ("t",), **attributes: Any) -> NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def compared(op: str, *inputs: str) -> list[NodeProto]:
    return [node(op, *inputs, outputs=["b"]), node("Where", "b", "x", "low")]


LOW, MIDDLE = np.float32(-9), f(6)
HALVES = [node("Less", "x", "c", outputs=["p"]), node("Greater", "x", "low", outputs=["q"])]
#: operator and form → nodes from x to t, and their constants
CASES: dict[str, tuple[list[NodeProto], dict[str, Any]]] = {
    **{
        op: (compared(op, "x", "c"), {"c": MIDDLE, "low": LOW})
        for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    },
    "Equal": ([node("Relu", "x", outputs=["r"]), *compared("Equal", "r", "c")], {"c": np.float32(0), "low": LOW}),
    **{op: ([*HALVES, *compared(op, "p", "q")], {"c": MIDDLE, "low": np.float32(0.1)}) for op in ("And", "Or", "Xor")},
    "Not": ([HALVES[0], *compared("Not", "p")], {"c": MIDDLE, "low": LOW}),
    "Where": ([HALVES[0], node("Where", "p", "x", "c")], {"c": MIDDLE}),
    "Mod, fmod": ([node("Mod", "x", "c", fmod=1)], {"c": np.float32(0.3)}),
    "Mod, whole": (
        [
            node("Mod", "a", "c", outputs=["m"]),
            node("Cast", "m", to=1, outputs=["d"]),
            node("Mul", "x", "d"),
        ],
        {"a": i(5, -5, 7, -7, 0, 3), "c": i(3, 3, -4, -4, 2, -2)},
    ),
    "Range": (
        [node("Range", "a", "c", "d", outputs=["m"]), node("Mul", "x", "m")],
        {"a": np.float32(6), "c": np.float32(0), "d": np.float32(-1)},
    ),
    "Tile": ([node("Tile", "x", "c")], {"c": i(1, 2, 1, 3)}),
    "GatherElements": ([node("GatherElements", "x", "c", axis=-1)], {"c": INDEX}),
    "GatherND": ([node("GatherND", "x", "c")], {"c": PLACES}),
    "GatherND, some axes": ([node("GatherND", "x", "c")], {"c": PLACES[:, :2]}),
    "GatherND, batch": ([node("GatherND", "x", "c", batch_dims=1)], {"c": WITHIN}),
    "Scatter": ([node("Scatter", "x", "c", "u", axis=2)], {"c": EACH_ONCE, "u": f(2, 3, 6, 6)}),
    "ScatterElements": (
        [node("ScatterElements", "x", "c", "u", axis=-2)],
        {"c": EACH_ONCE[:, :2, :, :3] - 6, "u": f(2, 2, 6, 3)},
    ),
    **{
        f"ScatterElements, {kind}": (
            [node("ScatterElements", "x", "c", "u", axis=3, reduction=kind)],
            {"c": INDEX, "u": f(2, 3, 6, 6)},
        )
        for kind in ("add", "mul", "max", "min")
    },
    "ScatterND": ([node("ScatterND", "x", "c", "u")], {"c": APART, "u": f(12, 6)}),
    **{
        f"ScatterND, {kind}": ([node("ScatterND", "x", "c", "u", reduction=kind)], {"c": PLACES, "u": f(8, 6)})
        for kind in ("add", "mul", "max", "min")
    },
    "CumSum": ([node("CumSum", "x", "c")], {"c": np.array(2)}),
    "CumSum, backwards": ([node("CumSum", "x", "c", reverse=1, exclusive=1)], {"c": np.array(-1)}),
    "TopK": ([node("TopK", "x", "c", outputs=["t", "k"], axis=2)], {"c": i(3)}),
    "TopK, smallest": ([node("TopK", "x", "c", outputs=["t", "k"], largest=0)], {"c": i(2)}),
    "TopK, attribute": ([node("TopK", "x", outputs=["t", "k"], k=2, axis=1)], {}),
    "TopK, places": (
        [
            node("Relu", "x", outputs=["r"]),  # of equal values the first
            node("TopK", "r", "c", outputs=["v", "k"]),
            node("Cast", "k", to=1, outputs=["d"]),
            node("Mul", "v", "d"),
        ],
        {"c": i(6)},
    ),
    "Trilu": ([node("Trilu", "x", "c")], {"c": np.array(1)}),
    "Trilu, lower": ([node("Trilu", "x", upper=0)], {}),
    "OneHot": (
        [node("OneHot", "c", "n", "v", axis=0, outputs=["h"]), node("MatMul", "x", "h")],
        {"c": i(0, 2, -1, 5, 9, -7), "n": np.array(6), "v": np.array([0.5, 2], np.float32)},
    ),
    "EyeLike": ([node("EyeLike", "c", k=1, dtype=1, outputs=["e"]), node("MatMul", "x", "e")], {"c": f(6, 6)}),
    "Size": ([node("Size", "x", outputs=["n"]), node("Cast", "n", to=1, outputs=["d"]), node("Div", "x", "d")], {}),
    "NonZero, constant": ([node("NonZero", "c", outputs=["p"]), node("Gather", "x", "p", axis=2)], {"c": i(0, 1, 5)}),
    "Compress": ([node("Compress", "x", "c", axis=-1)], {"c": np.array([True, False, True, True])}),
    "CastLike": ([node("CastLike", "c", "x", outputs=["m"]), node("Mul", "x", "m")], {"c": i(1, 2, 3, 4, 5, 6)}),
}


def versions(op: str) -> list[int]:
    """An opset of each version of the operator that is not older than what the twin reads, and one in use."""
    if op == "Scatter":  # ScatterElements since opset 11
        return [9]
    starts = {schema.since_version for schema in onnx.defs.get_all_schemas_with_history() if schema.name == op}
    firsts = {start if start >= OLDEST else OLDEST for start in starts if not 0 < start > NEWEST}
    return sorted(opset for opset in firsts | {graphs.OPSET} if onnx.defs.has(op, opset))


@pytest.mark.parametrize("name", CASES)
def test_each_version_is_the_runtimes(name: str) -> None:
    op, (nodes, constants) = name.split(",")[0], CASES[name]
    stored = {key: np.asarray(value) for key, value in constants.items()} | {"rows": i(2, -1)}
    x = np.random.default_rng(1).normal(size=(2, *graphs.SHAPE)).astype(np.float32)
    equal = 0
    for opset in versions(op):
        content = graphs.model([*nodes, node("Reshape", "t", "rows", outputs=["y"])], stored, opset=opset, batch=2)
        try:
            want = graphs.run(content, x)
        except Exception:  # a form that this version does not have
            continue
        got = onnx_twin.build_twin(content, where="g").output(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=f"opset {opset}")
        equal += 1
    assert equal


def test_the_cases_hold_the_whole_table() -> None:
    assert {name.split(",")[0] for name in CASES} == {*INDEXING}


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("NonZero", "x", outputs=["p"]), node("Gather", "x", "p", axis=2)], {}, "operator NonZero: how many"),
        (
            [
                node("Greater", "x", "c", outputs=["p"]),
                node("Reshape", "p", "flat", outputs=["q"]),
                node("Compress", "x", "q"),
            ],
            {"c": MIDDLE, "flat": i(-1)},
            "operator Compress: how many values it gives is computed from the image",
        ),
        ([node("GatherElements", "x", "c", axis=-1)], {"c": INDEX + 1}, "an index lies outside of 6 rows"),
        ([node("TopK", "x", "c", outputs=["t", "k"])], {"c": i(7)}, "operator TopK: k = 7 of 6 values"),
    ],
)
def test_what_no_batch_of_images_can_share_is_refused(nodes: Any, constants: Any, message: str) -> None:
    content = graphs.model([*nodes, node("Reshape", "t", "rows", outputs=["y"])], {**constants, "rows": i(2, -1)})
    with pytest.raises(CompressError, match=message):
        onnx_twin.build_twin(content, where="g")


def test_order_keeps_gradients() -> None:
    """Of the values that are taken, scattered or compared as in torch."""
    nodes = [
        node("TopK", "x", "k", outputs=["v", "p"], axis=-1),
        node("ScatterElements", "x", "p", "v", axis=-1, outputs=["s"]),
        *compared("Greater", "s", "c"),
        node("Flatten", "t", outputs=["y"]),
    ]
    content = graphs.model(nodes, {"k": i(2), "c": MIDDLE, "low": LOW})
    leaf = torch.from_numpy(f(2, *graphs.SHAPE)).requires_grad_()
    (gradient,) = torch.autograd.grad(onnx_twin.build_twin(content, where="g")(leaf).sum(), leaf)
    top = leaf.detach().sort(-1, descending=True).indices[..., :2]
    scattered = leaf.detach().scatter(-1, top, leaf.detach().gather(-1, top))
    np.testing.assert_array_equal(gradient.numpy(), (scattered > torch.from_numpy(MIDDLE)).float().numpy())
