"""ONNX's own node tests, of every operator that the twin has: the same values, or a refusal by name."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from torch import Tensor

from compress.networks.graph import Node
from compress.networks.graph.attributes import NEWEST, UnreadPart, refuse_unread
from compress.networks.graph.dataflow import attributes_of
from compress.networks.graph.operators import OPERATORS
from compress.networks.graph.rounding import QuantizeLinear

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the generators of these tests


def tensor(value: Any) -> Tensor:
    """TypeError of the types that torch lacks; half precision is carried in float32."""
    array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    half = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return torch.from_numpy(array.astype(np.float32) if half else array.copy())


def computed(node: Node, inputs: Sequence["Tensor | None"]) -> tuple[Tensor, ...]:
    refuse_unread([node], node.outputs[0])
    if node.op == "QuantizeLinear":
        assert inputs[0] is not None and inputs[1] is not None
        return (QuantizeLinear(node, inputs[1], inputs[2] if len(inputs) > 2 else None)(inputs[0]),)
    result = OPERATORS[node.op].compute(node, *inputs)
    return result if isinstance(result, tuple) else (result,)


def test_the_values_of_onnx() -> None:
    seen, wrong = collections.Counter[str](), []
    for case in load_model_tests(kind="node"):
        graph = case.model.graph
        operators = {node.op_type for node in graph.node}
        if len(graph.node) != 1 or not operators <= {*OPERATORS, "QuantizeLinear"} or graph.node[0].domain:
            continue
        (entry,) = graph.node
        opset = min(NEWEST, case.model.opset_import[0].version)  # what is newer changed no value of these
        node = Node("", entry.op_type, tuple(entry.input), tuple(entry.output), attributes_of(entry), opset)
        for inputs, outputs in case.data_sets:
            named = dict(zip((value.name for value in graph.input), inputs, strict=True))
            try:
                got = computed(node, [tensor(named[name]) if name else None for name in node.inputs])
            except (UnreadPart, ValueError, TypeError, RuntimeError, IndexError, NotImplementedError):
                seen["refused"] += 1
                continue
            halves = "bfloat16" in case.name.lower()
            wanted = dict(zip((value.name for value in graph.output), outputs, strict=True))
            for name, value in zip(node.outputs, got, strict=False):
                want = np.asarray(tensor(wanted[name])).astype(np.float64)
                near = value.shape == want.shape and np.allclose(
                    value.numpy().astype(np.float64), want, 1e-2 if halves else 1e-3, 1e-5, equal_nan=True
                )
                seen["equal" if near else "other"] += 1
                if not near:
                    wrong.append(case.name)
    assert not wrong and seen["equal"] > 550 and seen["refused"] < 300, (wrong, seen)
