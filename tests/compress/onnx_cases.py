"""ONNX's own cases, one or several operators each, through the twin's operators: `python -m tests.compress.onnx_cases`.

Prints, by operator, of how many cases the values are ONNX's, and why the others are refused.
"""

import collections
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases
from torch import Tensor

from compress.networks.graph import Node
from compress.networks.graph.attributes import NEWEST, UnreadPart, refuse_unread
from compress.networks.graph.dataflow import attributes_of
from compress.networks.graph.operators import OPERATORS
from compress.networks.graph.rounding import QuantizeLinear

AGREES, REFUSED, DIFFERS, FAILS = "agrees", "refused", "differs", "fails"
KNOWN = {*OPERATORS, "QuantizeLinear", "Constant"}


@dataclass(frozen=True)
class CaseOutcome:
    """`operator`: the one that the case is of, the first of its graph's where it has several."""

    case: str
    operator: str
    outcome: str
    reason: str = ""


class TypeLacking(Exception):
    """A tensor of a type that the twin has none for, in words."""


def collected(modules: Iterable[str]) -> list[Any]:
    """The cases of some of ONNX's modules, by their names; all of them take several seconds to make."""
    for name in modules:
        importlib.import_module(f"onnx.backend.test.case.node.{name}")
    return list(node_cases._NodeTestCases)


def tensor(value: Any) -> Tensor:
    """Half precision is carried in float32."""
    array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    half = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    try:
        return torch.from_numpy(array.astype(np.float32) if half else array.copy())
    except TypeError:
        raise TypeLacking(f"type {array.dtype.name}") from None


def outcomes(cases: Iterable[Any]) -> list[CaseOutcome]:
    """Of every case all of whose operators the twin has."""
    results = []
    for case in cases:
        nodes = case.model.graph.node
        if all((entry.op_type if not entry.domain else f"{entry.domain}.{entry.op_type}") in KNOWN for entry in nodes):
            results.append(CaseOutcome(case.name, nodes[0].op_type if len(nodes) == 1 else "of several", *_told(case)))
    return results


def _told(case: Any) -> tuple[str, str]:
    graph = case.model.graph
    opset = min(NEWEST, next(entry.version for entry in case.model.opset_import if not entry.domain))
    nodes = [
        Node("", entry.op_type, tuple(entry.input), tuple(entry.output), attributes_of(entry), opset)
        for entry in graph.node
    ]
    halves = "bf16" in case.name.lower().replace("bfloat", "bf")
    for inputs, outputs in case.data_sets:
        try:
            values = {entry.name: tensor(value) for entry, value in zip(graph.input, inputs, strict=True)}
            values |= {entry.name: tensor(entry) for entry in graph.initializer}
            expected = {entry.name: tensor(value) for entry, value in zip(graph.output, outputs, strict=True)}
            for node in nodes:
                refuse_unread([node], node.outputs[0])
                results = _computed(node, [values[name] if name else None for name in node.inputs])
                values |= zip(node.outputs, results, strict=False)
        except (UnreadPart, TypeLacking, ValueError, NotImplementedError) as fault:
            return REFUSED, str(fault)
        except Exception as fault:
            return FAILS, f"{type(fault).__name__}: {fault}".splitlines()[0]
        for name, want in expected.items():
            if name not in values:
                return REFUSED, f"output {name}"
            got, right = values[name].detach().numpy(), want.numpy()
            near = got.shape == right.shape and np.allclose(
                got.astype(np.float64),
                right.astype(np.float64),
                1e-2 if halves else 1e-3,
                1e-2 if halves else 1e-5,
                equal_nan=True,
            )
            if not near:
                return DIFFERS, name
    return AGREES, ""


def _computed(node: Node, inputs: Sequence["Tensor | None"]) -> tuple[Tensor, ...]:
    if node.op == "Constant":
        (name, value), *_ = node.attributes.items()
        return (tensor(value) if name == "value" else torch.tensor(value),)
    if node.op == "QuantizeLinear":
        assert inputs[0] is not None and inputs[1] is not None
        return (QuantizeLinear(node, inputs[1], inputs[2] if len(inputs) > 2 else None)(inputs[0]),)
    result = OPERATORS[node.op].compute(node, *inputs)
    return result if isinstance(result, tuple) else (result,)


def table(results: Sequence[CaseOutcome]) -> str:
    """Operator, cases that agree of all, and the reasons of refusals with their number."""
    lines = []
    for operator in sorted({result.operator for result in results}):
        own = [result for result in results if result.operator == operator]
        agreeing = sum(result.outcome == AGREES for result in own)
        reasons = collections.Counter(f"{result.outcome}: {result.reason}" for result in own if result.reason)
        lines.append(
            f"{operator:28} {agreeing:3} of {len(own):3}  " + "; ".join(f"{n} {why}" for why, n in reasons.items())
        )
    agreeing = sum(result.outcome == AGREES for result in results)
    return "\n".join([*lines, f"{'all':28} {agreeing:3} of {len(results):3}"])


if __name__ == "__main__":
    from onnx.backend.test.loader import load_model_tests

    print(table(outcomes(load_model_tests(kind="node"))))
