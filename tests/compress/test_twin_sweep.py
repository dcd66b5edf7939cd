"""Attributes, inputs and opsets of the twin's operators, each combination as ONNX Runtime computes it or refused."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from compress.networks.graph import onnx_twin
from compress.networks.graph.attributes import ELSEWHERE, NEWEST, OLDEST
from compress.networks.graph.operators import OPERATORS
from edge.core.errors import CompressError
from tests.compress import graphs
from tests.compress.graphs import one

RNG = np.random.default_rng(5)
FARTHEST = -(2**63)


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def s(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def factors(*of_image: float) -> np.ndarray:
    return np.array([1, 1, *of_image], np.float32)


def slices(*four: tuple[int, ...]) -> list[np.ndarray]:
    return [i(*values) for values in four]


#: opsets, inputs beside the image, attributes (None: left out), and how the graph is made otherwise
Swept = tuple[list[int], list[list[Any]], dict[str, list[Any]], dict[str, Any]]
STRIDES, KERNELS = [None, [2, 2], [3, 2]], [[3, 2]]
PADS = [None, [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 1]]
SAME = ["SAME_UPPER", "SAME_LOWER", "VALID"]
POOL = {"kernel_shape": KERNELS, "strides": STRIDES, "ceil_mode": [None, 1]}
COUNTED = {"count_include_pad": [None, 1]}
NORMS = [f(3), f(3), f(3), np.abs(f(3)) + 0.1]
AXES = {"axes": [None, [1], [-1, 2]], "keepdims": [0, 1]}
AXES_INPUT = [[], [i(1)], [i(-1, 2)], [i()]]
NOOP = {"keepdims": [None, 0], "noop_with_empty_axes": [None, 1]}
PADDINGS = [[i(0, 0, 1, 2, 0, 0, 0, 1)], [i(0, 0, -1, 2, 0, 0, 2, -2)], [i(0, 1, 5, 2, 0, 1, 4, 1), s(0.5)]]
PADDED_AXES = [[i(1, 2), "", i(-1)], [i(1, -2, 0, 1), s(0.3), i(1, 3)]]
MODES = {"mode": [None, "constant", "reflect", "edge", "wrap"]}
ALPHA = [None, 0.3, 1.7, -0.5]
COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
NEAREST = [None, "round_prefer_ceil", "floor", "ceil"]
TARGETS = i(2, 3, 4, 11)
SWEEP: dict[str, list[Swept]] = {
    "MaxPool": [
        ([12, 22], [[]], {**POOL, "pads": PADS, "dilations": [None, [2, 2]]}, {}),
        ([12], [[]], {**POOL, "auto_pad": SAME}, {}),
    ],
    "AveragePool": [
        ([11, 22], [[]], {**POOL, **COUNTED, "pads": PADS}, {}),
        (
            [19],
            [[]],
            {"kernel_shape": [[2, 2]], **COUNTED, "ceil_mode": [0, 1], "dilations": [[2, 1]], "pads": PADS},
            {},
        ),
        ([22], [[]], {"kernel_shape": [[3, 3]], "strides": STRIDES, **COUNTED, "auto_pad": SAME}, {}),
    ],
    "Conv": [
        ([11, 22], [[f(6, 3, 3, 2)], [f(6, 3, 3, 2), f(6)]], {"strides": [None, [2, 1]], "pads": PADS}, {}),
        ([11], [[f(6, 3, 3, 2)]], {"auto_pad": SAME, "strides": STRIDES}, {}),
        ([11], [[f(6, 1, 3, 2)]], {"group": [3], "kernel_shape": [None, [3, 2]], "dilations": [None, [2, 2]]}, {}),
    ],
    "Elu": [([22], [[]], {"alpha": ALPHA}, {})],
    "Selu": [([6 + 1, 22], [[]], {"alpha": ALPHA, "gamma": ALPHA}, {})],
    "Celu": [([12], [[]], {"alpha": ALPHA}, {})],
    "LeakyRelu": [([6 + 1, 16], [[]], {"alpha": ALPHA}, {})],
    "ThresholdedRelu": [([10], [[]], {"alpha": ALPHA}, {})],
    "HardSigmoid": [([22], [[]], {"alpha": ALPHA, "beta": ALPHA}, {})],
    "Gelu": [([20], [[]], {"approximate": [None, "none", "tanh"]}, {})],
    "Swish": [([24], [[]], {"alpha": ALPHA}, {})],
    "Gemm": [
        (
            [9, 13],
            [[f(6, 4), f(4)], [f(6, 4), f(1)], [f(6, 4), s(0.5)]],
            {"alpha": [None, 0.5], "beta": [None, 2.0, 0.0]},
            {"shape": (6,)},
        ),
        ([11], [[f(4, 6)], [f(4, 6), f(4)]], {"alpha": [None, 0.5], "transB": [1]}, {"shape": (6,)}),
    ],
    "BatchNormalization": [
        ([9, 15], [NORMS], {"epsilon": [None, 0.01], "momentum": [None, 0.5]}, {}),
        ([7], [NORMS], {"spatial": [None, 1, 0]}, {}),
        ([14], [NORMS], {"training_mode": [0, 1]}, {}),
    ],
    "InstanceNormalization": [([7, 22], [[f(3), f(3)]], {"epsilon": [None, 0.1]}, {})],
    "LayerNormalization": [
        (
            [17],
            [[f(6)], [f(6), f(6)], [f(1), f(1)]],
            {"epsilon": [None, 0.1], "axis": [None, 3], "stash_type": [None, 1]},
            {},
        ),
        ([17], [[f(3, 6, 6), f(6)], [f(6)]], {"axis": [1, -3], "stash_type": [None, 10]}, {}),
    ],
    "Softmax": [([9, 11, 13], [[]], {"axis": [None, 1, 2, -1]}, {})],
    "LogSoftmax": [([9, 13], [[]], {"axis": [None, 1, 2, -1]}, {})],
    "Hardmax": [([9, 13], [[]], {"axis": [None, 1, 2, -1]}, {})],
    "ReduceL1": [([11], [[]], AXES, {}), ([18], AXES_INPUT, {"keepdims": [None, 0]}, {})],
    "ReduceL2": [([11], [[]], AXES, {}), ([18], AXES_INPUT, {"keepdims": [None, 0]}, {})],
    "ReduceLogSumExp": [([11], [[]], AXES, {}), ([18], AXES_INPUT, {"keepdims": [None, 0]}, {})],
    "ReduceMax": [([11], [[]], AXES, {}), ([18, 20], AXES_INPUT, NOOP, {})],
    "ReduceMean": [([11], [[]], AXES, {}), ([18], AXES_INPUT, NOOP, {})],
    "ReduceMin": [([11], [[]], AXES, {}), ([18], AXES_INPUT, NOOP, {})],
    "ReduceSum": [([11], [[]], AXES, {}), ([13], AXES_INPUT, NOOP, {})],
    "Clip": [
        ([7, 9], [[]], {"min": [None, -0.2], "max": [None, 0.3]}, {}),
        ([11, 13], [[], [s(-0.2)], ["", s(0.3)], [s(-0.2), s(0.3)], [s(0.3), s(-0.2)]], {}, {}),
    ],
    "Reshape": [
        ([13, 21], [[i(0, -1)], [i(0, 3, 0, 2, 3)], [i(2, 0, -1)]], {}, {}),
        ([14], [[i(2, -1)]], {"allowzero": [0, 1]}, {}),
    ],
    "Flatten": [([9, 13], [[]], {"axis": [None, 0, 1, 2, -3, 4]}, {})],
    "Squeeze": [
        ([11], [[]], {"axes": [None, [2], [1, 2], [-1]]}, {"shape": (1, 1, 6)}),
        ([13], [[], [i(2)], [i(1, -2)], [i(-1)], [i()]], {}, {"shape": (1, 1, 6)}),
    ],
    "Unsqueeze": [([11], [[]], {"axes": [[2], [-1, 1]]}, {}), ([13], [[i(2)], [i(-1, 1)]], {}, {})],
    "Split": [
        ([11], [[]], {"axis": [2, -1], "split": [None, [2, 4]]}, {"outputs": 2}),
        ([13], [[], [i(2, 4)], [i(1, 2)]], {"axis": [1, 2, -1]}, {"outputs": 2}),
        ([18], [[]], {"axis": [1, 2], "num_outputs": [4]}, {"outputs": 4}),
        ([18], [[]], {"axis": [1, 2], "num_outputs": [5]}, {"outputs": 5}),
    ],
    "Slice": [
        ([9], [[]], {"starts": [[1], [-3]], "ends": [[3], [99]], "axes": [[2], [-1]]}, {}),
        (
            [13],
            [
                slices((1,), (3,), (1,), (1,)),
                slices((5,), (0,), (2,), (-2,)),
                slices((-1,), (-99,), (3,), (-1,)),
                slices((4, 0), (-6, 9), (2, 3), (-1, 2)),
                slices((99,), (FARTHEST,), (-1,), (-1,)),
                slices((-99,), (3,), (2,), (2,)),
                [i(0, 1), i(2, 3), "", i(1, 2)],
            ],
            {},
            {},
        ),
    ],
    "Pad": [
        ([13, 19], PADDINGS, MODES, {}),
        ([18], PADDED_AXES, MODES, {}),
        ([9], [[]], {"pads": [[0, 0, 1, 2, 0, 0, -1, 1]], **MODES, "value": [None, 0.5]}, {}),
    ],
    "Gather": [([11, 13], [[i(0, -1)], [np.array([[0, 2], [-1, -3]])], [i(5)], [i(-7)]], {"axis": [1, -2]}, {})],
    "Concat": [([13], [[f(2, 3, 6, 1)]], {"axis": [3, -1, 1]}, {})],
    "Transpose": [([13], [[]], {"perm": [None, [0, 3, 1, 2]]}, {})],
    "Cast": [([19], [[]], {"to": [1, 8, 17, 22], "saturate": [None, 0]}, {})],
    "Pow": [([13, 15], [[s(2)], [s(3)], [np.array(2)], [np.array(2, np.int32)]], {}, {})],
    "PRelu": [([9, 16], [[f(3, 1, 1)], [f(6)], [s(0.2)]], {}, {})],
    "Dropout": [
        ([10], [[]], {"ratio": [None, 0.9]}, {}),
        ([13], [[], [s(0.9)], [s(0.9), np.array(False)], [s(0.9), np.array(True)]], {"seed": [None, 3]}, {}),
    ],
    "Expand": [([13], [[i(1, 3, 6, 6)], [i(6)], [i(2, 1, 3, 1, 1)]], {}, {})],
    "Div": [([7, 14], [[f(3, 1, 1)], [s(2)], [f(1, 3, 6, 6)]], {}, {}), ([14], [[f(3, 1, 1)]], {}, {"where": 1})],
    "MatMul": [([13], [[f(6, 5)], [f(3, 6, 5)], [f(6)]], {}, {})],
    "HardSwish": [([14, 22], [[]], {}, {})],
    "Mish": [([18, 22], [[]], {}, {})],
    "Shrink": [([9], [[]], {"bias": ALPHA, "lambd": [None, 0.2]}, {})],
    "GroupNormalization": [
        ([18], [[f(2), f(2)]], {"num_groups": [2], "epsilon": [None, 0.1]}, {"shape": (4, 5, 5)}),
        ([21], [[f(4), f(4)]], {"num_groups": [2, 4], "stash_type": [None, 10]}, {"shape": (4, 5, 5)}),
    ],
    "RMSNormalization": [
        ([23], [[f(6)], [f(6, 6)]], {"axis": [None, -2], "epsilon": [None, 0.1], "stash_type": [1, 10]}, {})
    ],
    "LRN": [
        (
            [7, 13],
            [[]],
            {"size": [1, 3, 5], "alpha": [None, 0.5], "beta": [None, 0.4], "bias": [None, 2.0]},
            {"shape": (7, 4, 4)},
        ),
        ([13], [[]], {"size": [3]}, {"shape": (7, 4)}),
    ],
    "LpNormalization": [([7, 22], [[]], {"axis": [None, 1, -2], "p": [None, 1, 2]}, {})],
    "MeanVarianceNormalization": [([9, 13], [[]], {"axes": [None, [0, 2, 3], [1, 2, 3], [2, 3]]}, {})],
    "ReduceProd": [([11], [[]], AXES, {}), ([18], AXES_INPUT, NOOP, {})],
    "ReduceSumSquare": [([11], [[]], AXES, {}), ([18], AXES_INPUT, {"keepdims": [None, 0]}, {})],
    "ReduceLogSum": [([11], [[]], AXES, {}), ([18], AXES_INPUT, {"keepdims": [None, 0]}, {})],
    "Einsum": [([12], [[f(6, 5)]], {"equation": ["bchw,wk->bck", "bchw , wk -> bhk"]}, {})],
    "DepthToSpace": [
        ([7], [[]], {"blocksize": [2]}, {"shape": (8, 3, 2)}),
        ([11, 13], [[]], {"blocksize": [2], "mode": [None, "DCR", "CRD"]}, {"shape": (8, 3, 2)}),
    ],
    "SpaceToDepth": [([7, 13], [[]], {"blocksize": [2, 3]}, {})],
    "GlobalLpPool": [([7, 22], [[]], {"p": [None, 1, 3]}, {})],
    "LpPool": [
        ([7, 11], [[]], {"kernel_shape": KERNELS, "strides": STRIDES, "p": [None, 1, 3], "pads": PADS[2:]}, {}),
        ([18, 22], [[]], {**POOL, "p": [2], "pads": PADS[2:], "dilations": [[2, 2]]}, {}),
        ([11], [[]], {**POOL, "auto_pad": SAME}, {}),
    ],
    "ConvTranspose": [
        (
            [7, 11, 22],
            [[f(3, 4, 3, 2), f(4)]],
            {"strides": STRIDES, "pads": PADS, "output_padding": [None, [1, 0]]},
            {},
        ),
        ([11], [[f(3, 2, 3, 3)]], {"auto_pad": SAME, "strides": [None, [2, 2]], "group": [1, 3]}, {}),
        ([11], [[f(3, 2, 3, 3)]], {"output_shape": [[12, 13]], "strides": [[2, 2]], "dilations": [None, [2, 1]]}, {}),
    ],
    "Upsample": [
        ([7], [[]], {"mode": [None, "nearest", "linear"], "scales": [[1.0, 1.0, 2.0, 1.5]]}, {}),
        ([9], [[factors(2, 1.5)], [factors(3, 1)]], {"mode": [None, "nearest", "linear"]}, {}),
    ],
    "Resize": [
        ([10], [[factors(2, 1.5)], [factors(0.5, 0.7)]], {"mode": [None, "nearest", "linear"]}, {}),
        (
            [11, 13, 18, 19],
            [[np.zeros(0, np.float32), factors(0.5, 2)], [np.zeros(0, np.float32), np.zeros(0, np.float32), TARGETS]],
            {"mode": ["nearest", "linear", "cubic"], "coordinate_transformation_mode": COORDINATES},
            {},
        ),
        (
            [11],
            [[np.zeros(0, np.float32), factors(0.5, 2)]],
            {"coordinate_transformation_mode": ["tf_half_pixel_for_nn"], "nearest_mode": NEAREST},
            {},
        ),
        ([13], [["", "", TARGETS]], {"nearest_mode": NEAREST, "coordinate_transformation_mode": COORDINATES[:3]}, {}),
        (
            [13],
            [["", factors(1.5, 0.6)]],
            {"mode": ["cubic"], "cubic_coeff_a": ALPHA, "exclude_outside": [None, 1]},
            {},
        ),
        (
            [18],
            [["", "", i(3, 9)]],
            {
                "axes": [[2, 3]],
                "mode": ["linear", "cubic"],
                "antialias": [1],
                "keep_aspect_ratio_policy": [None, "not_larger", "not_smaller"],
            },
            {},
        ),
    ],
    "com.microsoft.BiasGelu": [([17], [[f(6)]], {}, {})],
    "com.microsoft.FastGelu": [([17], [[], [f(6)]], {}, {})],
    "com.microsoft.Gelu": [([17], [[]], {}, {})],
    "com.microsoft.QuickGelu": [([17], [[]], {"alpha": ALPHA}, {})],
    "com.microsoft.FusedMatMul": [
        ([17], [[f(6, 6)]], {"transA": [None, 1], "transB": [None, 1], "alpha": ALPHA}, {}),
        ([17], [[f(2, 3, 6, 6)]], {"transBatchA": [None, 1], "transBatchB": [None, 1]}, {}),
    ],
}
#: The same windows over one and three dimensions.
SWEEP["Conv"] += [
    ([11], [[f(4, 3, 3)]], {"pads": [None, [1, 0]], "dilations": [None, [2]]}, {"shape": (3, 9)}),
    ([11], [[f(4, 3, 2, 2, 2)]], {"pads": [None, [1, 0, 1, 0, 1, 0]], "strides": [[2, 1, 1]]}, {"shape": (3, 4, 4, 4)}),
]
SWEEP["ConvTranspose"] += [([11], [[f(3, 4, 3)]], {"strides": [[2]], "pads": [None, [1, 0]]}, {"shape": (3, 9)})]
for pool in ("MaxPool", "AveragePool", "LpPool"):
    SWEEP[pool] += [
        (
            [22],
            [[]],
            {"kernel_shape": [[3]], "strides": [[2]], "ceil_mode": [0, 1], "pads": [[1, 1]]},
            {"shape": (3, 8)},
        ),
        ([22], [[]], {"kernel_shape": [[2, 2, 2]], "strides": [None, [2, 1, 2]]}, {"shape": (3, 4, 4, 4)}),
    ]
#: What a refusal here says; anything else is a fault of the operator's, of which it gives no account.
REASONS = ("not supported", "is none of ", "no gradient reaches", "images; it has no twin", "of size 1", "do not make")
#: Versions that ONNX Runtime has no kernel or no right for, and one that gives no gradient.
UNTRIED = {"GlobalLpPool-22", "Upsample-10", "Hardmax-13"}
#: What a quantized activation may be laid out as.
ZEROS = [None, *(np.array(7, kind) for kind in (np.uint8, np.int8, np.uint16, np.int16))]
KINDS = [None, TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16]


def combinations(op: str) -> Iterator[tuple[str, Callable[[], bytes], tuple[int, ...]]]:
    for opsets, inputs, attributes, more in SWEEP[op]:
        for opset, constants, values in itertools.product(opsets, inputs, itertools.product(*attributes.values())):
            given = {name: value for name, value in zip(attributes, values, strict=True) if value is not None}
            what = f"{op}-{opset} {given} {[getattr(value, 'shape', value) for value in constants]}"
            yield what, lambda: one(op, constants, opset=opset, **given, **more), more.get("shape", graphs.SHAPE)  # noqa: B023


@pytest.mark.parametrize("op", SWEEP)
def test_each_combination_is_the_runtimes_or_refused(op: str) -> None:
    equal = 0
    for what, make, shape in combinations(op):
        x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
        try:
            content = make()
            want = graphs.run(content, x)
        except Exception:  # what the runtime refuses has nothing to be compared with
            continue
        try:
            got = onnx_twin.build_twin(content, where="g").output(torch.from_numpy(x)).numpy()
        except CompressError as fault:
            assert any(words in str(fault) for words in REASONS), f"{what}: {fault}"
            continue
        assert got.shape == want.shape, what
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=what)
        equal += 1
    assert equal or op == "Cast"


def versions(op: str) -> set[int]:
    """The first opset that is read of each version of an operator."""
    known = [opset for opset in range(OLDEST, NEWEST + 1) if onnx.defs.has(op, opset)]
    return {max(OLDEST, onnx.defs.get_schema(op, opset).since_version) for opset in known}


def test_every_version_of_every_operator() -> None:
    """The first combination of the sweep that both take, for its values: whatever changed its meaning shows there."""
    standard = [(op, opset) for op in SWEEP if "." not in op for opset in versions(op)]
    tried = {f"{op}-{n}" for op, n in standard if any(_agrees(op, n, *combination) for combination in simplest(op))}
    assert {f"{op}-{opset}" for op, opset in standard} - tried == UNTRIED


def simplest(op: str) -> Iterator[tuple[list[Any], dict[str, Any], dict[str, Any]]]:
    """Of each form of its inputs: no attribute that may be left out, all that are there, the last of each."""
    for _, inputs, attributes, more in SWEEP[op]:
        needed = {name: values[0] for name, values in attributes.items() if None not in values}
        every = {name: next(value for value in values if value is not None) for name, values in attributes.items()}
        last = {name: values[-1] for name, values in attributes.items() if values[-1] is not None}
        for constants in inputs[:2]:
            yield from ((constants, stated, more) for stated in (needed, every, last))


def _agrees(op: str, opset: int, constants: list[Any], attributes: dict[str, Any], more: dict[str, Any]) -> bool:
    """False of what the runtime or the twin refuses; it fails where they give other values."""
    x = np.random.default_rng(1).normal(size=(2, *more.get("shape", graphs.SHAPE))).astype(np.float32)
    try:
        content = one(op, constants, opset=opset, **attributes, **more)
        want = graphs.run(content, x)
        got = onnx_twin.build_twin(content, where="g").output(torch.from_numpy(x)).numpy()
    except Exception:
        return False
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=f"{op}-{opset} {attributes}")
    return True


@pytest.mark.parametrize("stated", KINDS)
def test_levels_are_of_the_type_that_is_stated(stated: "int | None") -> None:
    """By the zero point, by `output_dtype`, by both; on a scale an image and a channel; on values beyond the range."""
    x = (np.random.default_rng(2).normal(size=(2, *graphs.SHAPE)) * 3).astype(np.float32)
    equal = 0
    for zero, axis in itertools.product(ZEROS, (None, 1, -3)):
        scale = s(0.01) if axis is None else np.array([0.01, 0.003, 0.02], np.float32)
        attributes = {} if axis is None else {"axis": axis}
        levels = {"s": scale} | ({} if zero is None else {"z": zero if axis is None else np.full(3, zero)})
        typed = {} if stated is None else {"output_dtype": stated}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", *levels], ["q"], **attributes, **typed),
            helper.make_node("DequantizeLinear", ["q", *levels], ["d"], **attributes),
            helper.make_node("Flatten", ["d"], ["y"]),
        ]
        content = graphs.model(nodes, levels, opset=21)
        proto = onnx.load_model_from_string(content)
        proto.ir_version = 10
        content = proto.SerializeToString()
        try:
            want = graphs.run(content, x)
        except Exception:  # a zero point of another type than is stated
            continue
        got = onnx_twin.build_twin(content, where="g").output(torch.from_numpy(x)).numpy()
        np.testing.assert_array_equal(got, want, err_msg=f"{stated} {zero} {axis}")
        equal += 1
    assert equal >= 3


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8])
@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_weights_of_few_bits(kind: int, domain: str) -> None:
    levels = helper.make_tensor("w", kind, [108, 5], RNG.integers(0, 8, 540).tolist())
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], domain=domain),
        helper.make_node("MatMul", ["f", "d"], ["y"]),
    ]
    proto = onnx.load_model_from_string(graphs.model(nodes, {"s": s(0.1)}, opset=21, domains=["com.microsoft"]))
    proto.graph.initializer.extend([levels, helper.make_tensor("z", kind, [], [3])])
    proto.ir_version = 10
    x = np.random.default_rng(1).random((2, *graphs.SHAPE), np.float32)
    got = onnx_twin.build_twin(proto.SerializeToString(), where="g")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, graphs.run(proto.SerializeToString(), x), rtol=1e-5, atol=1e-5)
    proto.graph.node[1].CopyFrom(helper.make_node("QuantizeLinear", ["f", "s", "z"], ["q"], domain=domain))
    proto.graph.node[2].CopyFrom(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], domain=domain))
    if kind != TensorProto.INT8:
        with pytest.raises(CompressError, match=r"QuantizeLinear: a zero point of type U?INT4 is not supported"):
            onnx_twin.build_twin(proto.SerializeToString(), where="g")


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23, 24, 25])
def test_every_version_of_levels(opset: int) -> None:
    """Of a tensor; since opset 13 of a channel too, since 21 of a block of one."""
    scale, axis = (s(0.02), {}) if opset < 13 else (np.array([0.01, 0.003, 0.02], np.float32), {"axis": 1})
    levels = {"s": scale, "z": np.full(scale.shape, 7, np.uint8)}
    weights = {"w": RNG.integers(-8, 8, (6, 5)).astype(np.int8), "ws": np.abs(f(3, 5)), "wz": np.zeros((3, 5), np.int8)}
    blocks = {"axis": 0, "block_size": 2}
    if opset < 21:
        weights, blocks = {**weights, "ws": s(0.1), "wz": np.array(1, np.int8)}, {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], **axis),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["v"], **blocks),
        helper.make_node("MatMul", ["d", "v"], ["m"]),
        helper.make_node("Flatten", ["m"], ["y"]),
    ]
    content = graphs.model(nodes, {**levels, **weights}, opset=opset)
    proto = onnx.load_model_from_string(content)
    proto.ir_version = 10
    x = np.random.default_rng(1).normal(size=(2, *graphs.SHAPE)).astype(np.float32)
    got = onnx_twin.build_twin(proto.SerializeToString(), where="g")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, graphs.run(proto.SerializeToString(), x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "content",
    [
        one("LpPool", kernel_shape=[2, 2]),
        one("GlobalLpPool"),
        one("LpNormalization", axis=1),
        one("MeanVarianceNormalization", axes=[2, 3]),
        one("LRN", size=3),
        one("GroupNormalization", [f(3), f(3)], opset=21, num_groups=3),
        one("RMSNormalization", [f(6)], opset=23),
        one("ReduceL2", [i(1)]),
        one("Attention", [f(2, 3, 5, 6), f(2, 3, 5, 4), np.array([[False] * 5] * 2 + [[True] * 5] * 4)], opset=23),
    ],
)
def test_a_blank_image_and_masked_rows_have_finite_gradients(content: bytes) -> None:
    x = torch.zeros(2, *graphs.SHAPE, requires_grad=True)
    (gradient,) = torch.autograd.grad(onnx_twin.build_twin(content, where="g")(x).sum(), x)
    assert gradient.isfinite().all()


def test_an_image_cut_to_whole_levels_passes_gradients_and_pools() -> None:
    """As exporters of pipelines write what a camera gives; whether gradients are asked for changes no value."""
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"]),
        helper.make_node("Cast", ["m"], ["q"], to=TensorProto.UINT8),
        helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Cast", ["p"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    content = graphs.model(nodes, {"s": s(255)})
    x = torch.rand(2, *graphs.SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    twin = onnx_twin.build_twin(content, where="g")
    values = twin(x)
    np.testing.assert_array_equal(values.detach().numpy(), graphs.run(content, x.detach().numpy()))
    with torch.no_grad():
        assert torch.equal(twin(x), values.detach())
    (gradient,) = torch.autograd.grad(values.sum(), x)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("op", "expected"),
    [("Round", 1.0), ("Floor", 1.0), ("Ceil", 1.0), ("Sign", 0.5)],
)
def test_what_rounds_passes_the_gradient_straight_through(op: str, expected: float) -> None:
    """Sign between −1 and 1, where half of these values lie."""
    x = torch.linspace(-2, 2, 216).reshape(2, *graphs.SHAPE).requires_grad_()
    (gradient,) = torch.autograd.grad(onnx_twin.build_twin(one(op), where="g")(x).sum(), x)
    assert gradient.mean() == expected and set(gradient.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (one("LayerNormalization", [f(6)], stash_type=10), "operator LayerNormalization: attribute stash_type = 10 is"),
        (one("Relu", opset=27), "opset 27 is not known, 7 to 26 are"),
        (one("Relu", opset=6), "opset 6 is not known"),
        (one("Relu", opset=13, consumed_inputs=[0]), r"attribute consumed_inputs = \[0\] is none of Relu-13"),
        (one("Cast", to=TensorProto.FLOAT8E5M2), "operator Cast: to = FLOAT8E5M2 is not supported"),
        (one("MaxPool", kernel_shape=[2, 2], outputs=2), "operator MaxPool: output Indices is not supported"),
        (one("QuantizeLinear", [s(1)], opset=21, block_size=2), "operator QuantizeLinear: attribute block_size = 2"),
        (
            one("QuantizeLinear", [s(1)], opset=21, output_dtype=TensorProto.INT4),
            "output_dtype = INT4 is not supported",
        ),
        (one("BatchNormalization", NORMS, opset=15, training_mode=1), "training_mode = 1 is not supported"),
        (
            # in training mode by its outputs, as exporters of networks without running statistics write it
            graphs.model(
                [
                    helper.make_node("BatchNormalization", ["x", *"sbmv"], ["t", "m2", "v2", "m3", "v3"]),
                    helper.make_node("Flatten", ["t"], ["y"]),
                ],
                dict(zip("sbmv", NORMS, strict=True)),
                opset=9,
            ),
            "operator BatchNormalization: several outputs, its training mode before opset 14, are not supported",
        ),
        (one("MaxPool", kernel_shape=[2]), "operator MaxPool: a window of 1 dimensions over 4 is not supported"),
        (one("Gather", [i(7)], axis=2), "operator Gather: an index lies outside of 6 rows"),
        (one("MeanVarianceNormalization"), "axes = .0, 2, 3. is not supported: it takes its statistics from the batch"),
        (
            one("Resize", ["", factors(0.7, 1)], coordinate_transformation_mode="align_corners", mode="linear"),
            "operator Resize: align_corners to 4.2 places is not supported",
        ),
        (
            one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], auto_pad="SAME_UPPER"),
            r"dilations = \[2, 2\] with auto",
        ),
        (
            one("Attention", [f(2, 3, 5, 6), f(2, 3, 5, 4), "", f(2, 3, 1, 6), f(2, 3, 1, 4)], opset=23),
            "operator Attention: input past_key is not supported",
        ),
        (
            one("com.microsoft.FusedMatMul", [f(6, 6)], transBatchA=1),
            "operator com.microsoft.FusedMatMul: attribute transBatchA = 1 is not supported",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_name(content: bytes, message: str) -> None:
    with pytest.raises(CompressError, match=message) as fault:
        onnx_twin.build_twin(content, where="m.onnx")
    assert "\n" not in str(fault.value) and str(fault.value).endswith("it has no twin")


def test_every_attribute_of_every_opset_is_read_meaningless_or_refused() -> None:
    """And what is said to be read is an attribute of the operator in some opset."""
    said = {op: f"{operator.reads} {operator.ignores}" for op, operator in OPERATORS.items() if "." not in op}
    for op, honoured in {**ELSEWHERE, **said}.items():
        known = {
            name
            for opset in range(OLDEST, NEWEST + 1)
            if onnx.defs.has(op, opset)
            for name in onnx.defs.get_schema(op, opset).attributes
        }
        assert {*honoured.split()} <= known, op


def test_two_quantizers_whose_names_are_alike_stay_two() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["a.q"]),
        helper.make_node("DequantizeLinear", ["a.q", "s"], ["d"]),
        helper.make_node("QuantizeLinear", ["d", "t"], ["a_q"]),
        helper.make_node("DequantizeLinear", ["a_q", "t"], ["e"]),
        helper.make_node("Flatten", ["e"], ["y"]),
    ]
    content = graphs.model(nodes, {"s": s(0.01), "t": s(0.1)})
    x = np.random.default_rng(1).random((2, *graphs.SHAPE), np.float32)
    got = onnx_twin.build_twin(content, where="g")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, graphs.run(content, x), rtol=1e-6)
