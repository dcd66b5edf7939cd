"""What an output means is read off the graph: softmax in every guise that exporters and people give it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.networks.graph import onnx_twin
from compress.networks.graph.output_meaning import output_meaning
from tests.compress import graphs

node = helper.make_node
RNG = np.random.default_rng(3)
CONSTANTS = {
    "W": (RNG.normal(size=(108, 5)) / 8).astype(np.float32),
    "ones": np.array([1], np.int64),
    "first": np.array([0], np.int64),
    "last": np.array([5], np.int64),
    "wide": np.array([0, 5, 1, 1], np.int64),
    "flat": np.array([0, -1], np.int64),
    "spatial": np.array([2, 3], np.int64),
    "s": np.array(1 / 255, np.float32),
    "z": np.array(0, np.uint8),
    "T": np.array(4, np.float32),
    "minus": np.array(-1, np.float32),
    "one": np.array(1, np.float32),
    "tiny": np.array(1e-7, np.float32),
    "true": np.array(True),
    "per class": np.arange(1, 6, dtype=np.float32),
}
HEAD = [
    node("Flatten", ["x"], ["f"]),
    node("MatMul", ["f", "W"], ["l"]),
    node("Slice", ["f", "first", "ones", "ones"], ["f1"]),
]
SUM = {"keepdims": 1}
EXPONENTIALS = [node("Exp", ["l"], ["e"]), node("ReduceSum", ["e", "ones"], ["total"], **SUM)]
SHIFTED = [
    node("ReduceMax", ["l", "ones"], ["top"], **SUM),
    node("Sub", ["l", "top"], ["d"]),
    node("Exp", ["d"], ["e"]),
    node("ReduceSum", ["e", "ones"], ["total"], **SUM),
]


def graph(nodes: Sequence[Any], opset: int = 18, functions: Sequence[Any] = ()) -> onnx.ModelProto:
    ends = [("x", [None, *graphs.SHAPE]), ("y", [None, 5])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    stored = [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    made = helper.make_graph([*HEAD, *nodes], "g", [x], [y], stored)
    return helper.make_model(made, opset_imports=imports, functions=list(functions), ir_version=8)


def branch(*nodes: Any) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "b", [], [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)])


def softmax_in_a_function() -> onnx.ModelProto:
    body = [node("Softmax", ["a"], ["b"], axis=1)]
    made = helper.make_function("local", "Probs", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    return graph([node("Probs", ["l"], ["y"], domain="local")], functions=[made])


#: Behind the logits `l`: kind, tensor before, and the nodes.
CASES: dict[str, tuple[str, "str | None", list[Any]]] = {
    "none": ("logits", None, [node("Identity", ["l"], ["y"])]),
    "scaled logits": ("logits", None, [node("Mul", ["l", "per class"], ["y"])]),
    "relu": ("unknown", None, [node("Relu", ["l"], ["y"])]),
    "softmax": ("probabilities", "l", [node("Softmax", ["l"], ["y"], axis=1)]),
    "cast": ("probabilities", "l", [node("Softmax", ["l"], ["p"], axis=-1), node("Cast", ["p"], ["y"], to=1)]),
    "half": (
        "probabilities",
        "h",
        [node("Cast", ["l"], ["h"], to=10), node("Softmax", ["h"], ["p"]), node("Cast", ["p"], ["y"], to=1)],
    ),
    "double": (
        "probabilities",
        "d",
        [node("Cast", ["l"], ["d"], to=11), node("Softmax", ["d"], ["p"]), node("Cast", ["p"], ["y"], to=1)],
    ),
    "quantized": (
        "probabilities",
        "l",
        [
            node("Softmax", ["l"], ["p"]),
            node("QuantizeLinear", ["p", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
    ),
    "reshaped": (
        "probabilities",
        "w",
        [
            node("Reshape", ["l", "wide"], ["w"]),
            node("Softmax", ["w"], ["p"], axis=1),
            node("Squeeze", ["p", "spatial"], ["y"]),
        ],
    ),
    "transposed": (
        "probabilities",
        "t",
        [
            node("Transpose", ["l"], ["t"], perm=[1, 0]),
            node("Softmax", ["t"], ["p"], axis=0),
            node("Transpose", ["p"], ["y"], perm=[1, 0]),
        ],
    ),
    "over the images": ("unknown", None, [node("Softmax", ["l"], ["y"], axis=0)]),
    "clipped and divided": (
        "probabilities",
        "l",
        [
            node("Softmax", ["l"], ["p"]),
            node("Clip", ["p", "tiny"], ["c"]),
            node("Div", ["c", "T"], ["d"]),
            node("Dropout", ["d"], ["y"]),
        ],
    ),
    "without a class of the background": (
        "probabilities",
        "l6",
        [
            node("Concat", ["l", "f1"], ["l6"], axis=1),
            node("Softmax", ["l6"], ["p"], axis=1),
            node("Slice", ["p", "first", "last", "ones"], ["y"]),
        ],
    ),
    "turned over": ("unknown", None, [node("Softmax", ["l"], ["p"]), node("Mul", ["p", "minus"], ["y"])]),
    "by class": ("unknown", None, [node("Softmax", ["l"], ["p"]), node("Mul", ["p", "per class"], ["y"])]),
    "sigmoid": ("probabilities", "l", [node("Sigmoid", ["l"], ["y"])]),
    "log-softmax": ("log-probabilities", "l", [node("LogSoftmax", ["l"], ["y"])]),
    "log-softmax, tempered": (
        "log-probabilities",
        "l",
        [node("LogSoftmax", ["l"], ["p"]), node("Div", ["p", "T"], ["y"])],
    ),
    "log of softmax": (
        "log-probabilities",
        "l",
        [node("Softmax", ["l"], ["p"]), node("Add", ["p", "tiny"], ["g"]), node("Log", ["g"], ["y"])],
    ),
    "exp of log-softmax": ("probabilities", "l", [node("LogSoftmax", ["l"], ["p"]), node("Exp", ["p"], ["y"])]),
    "softmax of softmax": ("probabilities", "l", [node("Softmax", ["l"], ["p"]), node("Softmax", ["p"], ["y"])]),
    "written out": ("probabilities", "l", [*EXPONENTIALS, node("Div", ["e", "total"], ["y"])]),
    "written out, by its inverse": (
        "probabilities",
        "d",
        [*SHIFTED, node("Reciprocal", ["total"], ["i"]), node("Mul", ["i", "e"], ["y"])],
    ),
    "written out, guarded, two exponentials": (
        "probabilities",
        "l",
        [
            *EXPONENTIALS,
            node("Exp", ["l"], ["e2"]),
            node("Add", ["total", "tiny"], ["g"]),
            node("Div", ["e2", "g"], ["y"]),
        ],
    ),
    "log written out": (
        "log-probabilities",
        "d",
        [*SHIFTED, node("Log", ["total"], ["lse"]), node("Sub", ["d", "lse"], ["y"])],
    ),
    "log by log-sum-exp": (
        "log-probabilities",
        "l",
        [node("ReduceLogSumExp", ["l", "ones"], ["lse"], **SUM), node("Sub", ["l", "lse"], ["y"])],
    ),
    "exp of log written out, shifted back": (
        "probabilities",
        "l",
        [
            *SHIFTED,
            node("Log", ["total"], ["g"]),
            node("Add", ["g", "top"], ["lse"]),
            node("Sub", ["l", "lse"], ["p"]),
            node("Exp", ["p"], ["y"]),
        ],
    ),
    "softplus over its sum": (
        "probabilities",
        None,
        [node("Softplus", ["l"], ["e"]), node("ReduceL1", ["e", "ones"], ["n"], **SUM), node("Div", ["e", "n"], ["y"])],
    ),
    "mean of two": (
        "probabilities",
        None,
        [
            node("Softmax", ["l"], ["p"]),
            node("Neg", ["l"], ["m"]),
            node("Softmax", ["m"], ["q"]),
            node("Mean", ["p", "q"], ["y"]),
        ],
    ),
    "taken branch": (
        "probabilities",
        "l",
        [
            node(
                "If",
                ["true"],
                ["y"],
                then_branch=branch(node("Softmax", ["l"], ["p"])),
                else_branch=branch(node("Identity", ["l"], ["p"])),
            )
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_kind_and_what_stands_before(name: str) -> None:
    kind, before, nodes = CASES[name]
    proto = graph(nodes)
    onnx.checker.check_model(proto)
    found = output_meaning(proto)
    assert (found.kind, found.before) == (kind, before)


@pytest.mark.parametrize("name", CASES)
def test_the_twin_gives_what_stands_before_it_and_says_what_the_file_says(name: str) -> None:
    kind, _, nodes = CASES[name]
    content, x = graph(nodes).SerializeToString(), RNG.random((4, *graphs.SHAPE), np.float32)
    twin, want = onnx_twin.build_twin(content, where="g"), torch.from_numpy(graphs.run(content, x))
    logits = twin(torch.from_numpy(x))
    loose = 1e-2 if name == "half" else 1e-4
    torch.testing.assert_close(twin.output(torch.from_numpy(x)), want, rtol=loose, atol=loose)
    assert twin.meaning.kind == kind and logits.dtype == torch.float32
    if kind not in ("probabilities", "log-probabilities"):
        torch.testing.assert_close(logits, want, rtol=1e-4, atol=1e-5)
        return
    if name not in ("softmax of softmax", "quantized"):  # of those the file's own values say less
        read = twin.logits_of_output(want)
        torch.testing.assert_close(read.log_softmax(1), logits.log_softmax(1), rtol=10 * loose, atol=10 * loose)
    leaf = torch.from_numpy(x).requires_grad_()
    loss = torch.nn.functional.cross_entropy(400 * twin(leaf), want.argmin(1))
    assert float(torch.autograd.grad(loss, leaf)[0].abs().amax()) > 1, "a saturated softmax leaves no gradient"


def test_a_function_of_the_file_is_read_through_and_the_old_softmax_is_over_all_that_follows() -> None:
    found = output_meaning(softmax_in_a_function())
    assert (found.kind, found.before) == ("probabilities", "l")
    old = graph(
        [node("Reshape", ["l", "wide"], ["w"]), node("Softmax", ["w"], ["p"]), node("Flatten", ["p"], ["y"])], 11
    )
    assert output_meaning(old).kind == "probabilities"
