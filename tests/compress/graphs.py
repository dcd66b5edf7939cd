"""Small ONNX graphs put together by hand, and what ONNX Runtime says of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SHAPE = (3, 6, 6)
OPSET = 20


def model(
    nodes: Sequence[Any],
    constants: Mapping[str, np.ndarray],
    *,
    shape: Sequence[int] = SHAPE,
    batch: "int | str" = "N",
    opset: int = OPSET,
    functions: Sequence[Any] = (),
    domains: Sequence[str] = (),
) -> bytes:
    """A graph from `x` (batch, *shape) to `y` (batch, K)."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    proto = helper.make_model(graph, opset_imports=imports, functions=list(functions))
    proto.ir_version = 8
    return proto.SerializeToString()


def one(
    op: str,
    inputs: Sequence[Any] = (),
    *,
    opset: int = OPSET,
    outputs: int = 1,
    where: int = 0,
    shape: Sequence[int] = SHAPE,
    **attributes: Any,
) -> bytes:
    """One operator on `x`, flattened: `inputs` are its constants, `where` the place of x among them; "" leaves out.

    The operator of another domain is `domain.name`.
    """
    names = [f"c{k}" if isinstance(value, np.ndarray) else "" for k, value in enumerate(inputs)]
    constants = {f"c{k}": value for k, value in enumerate(inputs) if isinstance(value, np.ndarray)}
    names.insert(where, "x")
    found = [f"t{k}" for k in range(outputs)]
    domain, _, name = op.rpartition(".")
    nodes = [
        helper.make_node(name, names, found, domain=domain, **attributes),
        helper.make_node("Flatten", [found[-1]], ["y"]),
    ]
    return model(nodes, constants, opset=opset, shape=shape, domains=[domain] if domain else [])


def run(content: bytes, x: np.ndarray, name: str = "x") -> np.ndarray:
    """What ONNX Runtime gives for float32 images, its optimizer off, so that every operator is its own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {name: x})[0])


def linear_digits(batch: "int | str" = "N", *, scale: float = 1.0, softmax: bool = False, classes: int = 10) -> bytes:
    """A classifier of 8×8 digits: nearest class mean as a linear layer; better than chance by far, and quick."""
    from compress.data import load_dataset

    images, labels = load_dataset("digits").part("train")
    x = images.reshape(len(images), -1) / 255
    means = np.stack([x[labels == k].mean(0) for k in range(10)])[:classes]
    weights, bias = means.T - means.mean(), -(means**2).sum(1) / 2 + means.sum(1) * means.mean()
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["z"]),
        helper.make_node("Mul", ["z", "s"], ["y"] if not softmax else ["m"]),
    ]
    nodes += [helper.make_node("Softmax", ["m"], ["y"], axis=1)] if softmax else []
    constants = {
        "w": weights.astype(np.float32),
        "b": bias.astype(np.float32),
        "s": np.array(scale, np.float32),
    }
    content = onnx.load_model_from_string(model(nodes, constants, shape=(1, 8, 8), batch=batch))
    content.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, classes]))
    return content.SerializeToString()
