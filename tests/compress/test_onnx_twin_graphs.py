"""Whole graphs in the twin: public files, shape arithmetic, branches and functions, what exporters write."""

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from compress.networks.graph import onnx_twin
from compress.networks.graph.dataflow import DataFlow, flattened
from compress.networks.graph.sizes import UNKNOWN, sizes
from edge.core.errors import CompressError
from tests.compress import graphs
from tests.compress.exported_networks import NETWORKS

FILES = Path(__file__).parents[2].parent / "shared/data/onnx"
node = helper.make_node


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def assert_twin(content: bytes, batches: tuple[int, ...] = (1, 2, 7)) -> onnx_twin.GraphTwin:
    """Its logits are ONNX Runtime's to 1e-4 of their spread, and a gradient reaches each image."""
    proto = onnx.load_model_from_string(content)
    (entry,) = (entry for entry in proto.graph.input if entry.name not in {e.name for e in proto.graph.initializer})
    fixed, *shape = (size.dim_value for size in entry.type.tensor_type.shape.dim)
    twin = onnx_twin.build_twin(content, where="g")
    for batch in batches:
        x = np.random.default_rng(batch).random((batch, *shape), np.float32)
        parts = np.split(x, batch // fixed) if fixed else [x]
        want = np.concatenate([graphs.run(content, part, name=entry.name) for part in parts])
        leaf = torch.from_numpy(x).requires_grad_()
        got = twin.output(leaf).detach().numpy()
        assert got.shape == want.shape and np.abs(got - want).max() <= 1e-4 * np.ptp(want), batch
        (gradient,) = torch.autograd.grad(twin(leaf).square().sum(), leaf)
        assert gradient.isfinite().all() and gradient.abs().flatten(1).amax(1).min() > 0
    assert_on_one_device(twin, shape)
    return twin


def assert_on_one_device(twin: onnx_twin.GraphTwin, shape: list[int]) -> None:
    """A device whose tensors hold nothing: what is left on the processor, or read back from the device, fails there."""
    leaf = torch.zeros(2, *shape, device="meta", requires_grad=True)
    copy.deepcopy(twin).to("meta")(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.device.type == "meta"


@pytest.mark.parametrize("name", ["resnet_2b", "vit_ibp", "cifar10_large"])
def test_public_files(name: str) -> None:
    file = FILES / f"{name}.onnx"
    if not file.exists():
        pytest.skip(f"no {file}")
    content = file.read_bytes()
    if name == "cifar10_large":  # its images come channels last
        assert_twin(content, (2,))
        return
    twin = assert_twin(content)
    if name == "vit_ibp":
        host = [entry.op for entry in twin.nodes if entry.outputs[0] in twin.on_host]
        assert {"Shape", "Gather", "Unsqueeze", "Concat"} <= {*host} and not {"Add", "MatMul"} & {*host}


@pytest.mark.parametrize("name", ["written attention", "Swin", "CoordConv"])
def test_the_legacy_exporter_with_a_free_batch(name: str) -> None:
    torch.manual_seed(0)
    content = legacy_export(NETWORKS[name]())
    assert_twin(content)


def legacy_export(network: torch.nn.Module, free: bool = True) -> bytes:
    stream, image = io.BytesIO(), torch.rand(2 if free else 1, 3, 32, 32)
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"]}
    axes = {"x": {0: "N"}, "y": {0: "N"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (image,), stream, dynamo=False, dynamic_axes=axes, **names)  # type: ignore[arg-type]
    return stream.getvalue()


# ------------------------------------------------------------------------------------------- sizes

ARITHMETIC = [
    node("Shape", ["x"], ["s"]),
    node("Gather", ["s", "first"], ["n"]),  # a number without dimensions
    node("Slice", ["s", "two", "three"], ["height"]),
    node("Gather", ["s", "three"], ["width"]),
    node("Mul", ["height", "width"], ["area"]),
    node("Mul", ["area", "three"], ["all"]),
    node("Unsqueeze", ["n", "zero"], ["rows"]),
    node("Concat", ["rows", "all"], ["target"], axis=0),
    node("Equal", ["target", "minus"], ["free"]),
    node("ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("v", TensorProto.INT64, [1], [1])),
    node("Where", ["free", "ones", "target"], ["kept"]),
    node("Reshape", ["x", "kept"], ["flat"]),
    node("Range", ["start", "n", "step"], ["ids"]),
    node("Cast", ["ids"], ["number"], to=TensorProto.FLOAT),
    node("Unsqueeze", ["number", "one"], ["column"]),
    node("Div", ["area", "three"], ["third"]),
    node("Mod", ["third", "five"], ["rest"]),
    node("Cast", ["rest"], ["factor"], to=TensorProto.FLOAT),
    node("Mul", ["flat", "factor"], ["scaled"]),
    node("Add", ["scaled", "column"], ["y"]),
]
NUMBERS = {
    "first": np.array(0),
    "two": i(2),
    "three": i(3),
    "five": i(5),
    "zero": i(0),
    "one": i(1),
    "minus": i(-1, -1),
    "shape": i(2),
    "start": np.array(0),
    "step": np.array(1),
}


def test_shape_arithmetic_is_done_on_the_host_with_a_symbolic_batch() -> None:
    twin = assert_twin(graphs.model(ARITHMETIC, NUMBERS))
    on_device = [entry.op for entry in twin.nodes if entry.outputs[0] not in twin.on_host]
    assert " ".join(on_device) == "Reshape Mul Add"
    assert not list(twin.buffers()), "numbers stay where Python reads them"


def test_torch_traces_the_twin_with_a_free_batch() -> None:
    """Sizes stay symbols on the way through the graph's arithmetic."""
    nodes = [*ARITHMETIC[:12], node("Relu", ["flat"], ["y"])]
    content = graphs.model(nodes, {name: NUMBERS[name] for name in NUMBERS})
    twin = onnx_twin.build_twin(content, where="g")
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(twin, (torch.rand(3, *graphs.SHAPE),), dynamic_shapes=({0: batch},))
    x = torch.rand(7, *graphs.SHAPE)
    torch.testing.assert_close(program.module()(x), twin(x))


def test_a_size_that_is_not_stated_decides_nothing() -> None:
    content = graphs.model(ARITHMETIC, NUMBERS, opset=18)
    flow = DataFlow(onnx.load_model_from_string(content))
    assert flow.array("target") is None and flow.array("all") is not None
    assert flow.array("all") == [108] and flow.array("factor") == 2
    assert flow.array("free") is None
    held = sizes([UNKNOWN, 3])
    assert (held * 2 + 1)[0] is UNKNOWN and (held * 2 + 1)[1] == 7
    with pytest.raises(ValueError, match="not stated"):
        bool(held[0] == 3)


# ------------------------------------------------------------------------------------------- branches, functions


def branch(name: str, *nodes: NodeProto, result: str = "p") -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)])


def squeezing() -> list[NodeProto]:
    """What the legacy exporter writes for `squeeze`, and what a script writes for a check of sizes inside it."""
    inner = node(
        "If",
        ["channels"],
        ["p"],
        then_branch=branch("a", node("Squeeze", ["m", "three"], ["p"])),
        else_branch=branch("b", node("Identity", ["m"], ["p"])),
    )
    return [
        node("ReduceMean", ["x", "three"], ["m"]),
        node("Shape", ["m"], ["s"]),
        node("Gather", ["s", "at"], ["size"]),
        node("Equal", ["size", "one"], ["single"]),
        node("Equal", ["size", "one"], ["channels"]),
        node(
            "If",
            ["single"],
            ["q"],
            then_branch=branch("t", node("Relu", ["m"], ["m2"]), node("Add", ["m2", "m"], ["m3"]), inner),
            else_branch=branch("e", node("Neg", ["m"], ["p"])),
        ),
        node("Flatten", ["q"], ["y"]),
    ]


@pytest.mark.parametrize("axis", [3, 2])
def test_branches_that_sizes_decide(axis: int) -> None:
    """One inside the other, too."""
    content = graphs.model(squeezing(), {"three": i(3), "at": np.array(axis), "one": np.array(1)})
    operators = {entry.op_type for entry in flattened(onnx.load_model_from_string(content)).graph.node}
    assert "If" not in operators and ("Neg" in operators) == (axis == 2) and ("Squeeze" in operators) == (axis == 3)
    assert_twin(content)


def test_a_branch_that_the_batch_decides_is_refused() -> None:
    content = graphs.model(squeezing(), {"three": i(3), "at": np.array(0), "one": np.array(1)})
    with pytest.raises(CompressError, match="operator If: its condition depends on the image, or on sizes that the"):
        onnx_twin.build_twin(content, where="g")


@pytest.mark.parametrize(("op", "opset"), [("Relu", 14), ("Relu", 13), ("Softmax", 11)])
def test_functions_of_another_opset(op: str, opset: int) -> None:
    """Inlined where their operators mean the same in the file's; ONNX Runtime reads Softmax in the file's opset."""
    body = [node(op, ["a"], ["b"])]
    function = helper.make_function("local", "F", ["a"], ["b"], body, [helper.make_opsetid("", opset)])
    nodes = [node("F", ["x"], ["t"], domain="local"), node("Flatten", ["t"], ["y"])]
    content = graphs.model(nodes, {}, functions=[function], domains=["local"])
    if (op, opset) == ("Relu", 14):
        assert_twin(content)
        return
    with pytest.raises(CompressError, match=f"its function local.F is written in opset {opset}, the file in 20"):
        onnx_twin.build_twin(content, where="g")


def test_images_of_no_stated_size_are_refused_with_what_states_it() -> None:
    proto = onnx.load_model_from_string(graphs.one("Relu"))
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(CompressError, match=r"its images' size open \(N, 3, height, 6\), so it has no twin; adopt"):
        onnx_twin.build_twin(proto.SerializeToString(), where="g")


@pytest.mark.parametrize("op", ["Loop", "Scan"])
def test_loops_are_refused_by_name(op: str) -> None:
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info(name, kind, [])
            for name, kind in (("k", TensorProto.INT64), ("c", TensorProto.BOOL), ("v", TensorProto.FLOAT))
        ],
        [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in (("d", TensorProto.BOOL), ("w", TensorProto.FLOAT))
        ],
    )
    content = graphs.model([node(op, ["n", "", "x"], ["t"], body=body), node("Flatten", ["t"], ["y"])], {"n": i(2)})
    with pytest.raises(CompressError, match=f"no gradient is known of its operator {op}; it has no twin"):
        onnx_twin.build_twin(content, where="g")


def test_an_initializer_that_is_also_an_input() -> None:
    proto = onnx.load_model_from_string(graphs.one("Add", [np.ones((3, 1, 1), np.float32)]))
    proto.graph.input.append(helper.make_tensor_value_info("c0", TensorProto.FLOAT, [3, 1, 1]))
    assert numpy_helper.to_array(proto.graph.initializer[0]).shape == (3, 1, 1)
    assert_twin(proto.SerializeToString())
