"""Digits in color, and files of "other tools" that tell them apart, each in the form in which that tool trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress import data
from export.targets.onnx.input_form import IMAGE_TYPES, TO_LAST, InputForm

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLAIN = InputForm()
TO_FIRST = tuple(int(place) for place in np.argsort(TO_LAST))


def colored(path: Path, *, names: "Sequence[str] | None" = NAMES) -> str:
    """digits as npz:PATH: red as drawn, green paler, blue the other way round."""
    digits = data.load_dataset("digits")
    red = digits.images[:, 0]
    split = np.empty(len(red), "U5")
    for part, index in digits.splits.items():
        split[index] = part
    images = np.stack([red, red // 2 + 40, 255 - red], -1)
    more = {} if names is None else {"classes": np.array(names)}
    np.savez(path, images=images, labels=digits.labels, split=split, **more)
    return f"npz:{path}"


def classifier(
    form: InputForm = PLAIN,
    *,
    opset: int = 17,
    ir_version: int = 8,
    sizes: "Sequence[int | str]" = (3, 8, 8),
    batch: "int | str" = "N",
    order: "Sequence[int] | None" = None,
    tail: "Sequence[Any]" = (),
    outputs: "Sequence[str]" = ("y",),
) -> onnx.ModelProto:
    """Nearest mean of the red channel, behind what undoes `form`. `order`: which class each output stands for.

    Weights are Constants and initializers by turns. `tail`: nodes from `z`, the logits, to `outputs`, instead of one.
    """
    weights, bias = _linear()
    if order is not None:
        weights, bias = weights[:, order], bias[list(order)]
    kind, nodes, values = IMAGE_TYPES[form.kind][1], [], {"w": weights, "b": bias}
    at = "x"

    def then(op: str, *constants: np.ndarray, **attributes: Any) -> None:
        nonlocal at
        names = [f"{op}{len(nodes)}.{place}" for place in range(len(constants))]
        values.update(zip(names, constants, strict=True))
        nodes.append(helper.make_node(op, [at, *names], [f"t{len(nodes)}"], **attributes))
        at = nodes[-1].output[0]

    if form.kind != "tensor(float)":
        then("Cast", to=TensorProto.FLOAT)
    if form.layout == "nhwc":
        then("Transpose", perm=TO_FIRST)
    then("Div", np.array(form.full_scale, np.float32))
    if form.channels == "bgr":
        then("Gather", np.array([2, 1, 0]), axis=1)
    if form.normalize != "none":
        mean, std = form._constants(3)
        then("Mul", std)
        then("Add", mean)
    then("Gather", np.array([0]), axis=1)
    then("Flatten")
    nodes.append(helper.make_node("Gemm", [at, "w", "b"], ["z"]))
    nodes += tail or [helper.make_node("Identity", ["z"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, *sizes])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 10]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    if ir_version < 4:  # every initializer is an input too
        graph.input.extend(
            helper.make_tensor_value_info(entry.name, entry.data_type, entry.dims) for entry in graph.initializer
        )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    proto.ir_version = ir_version
    return proto


def _linear() -> tuple[np.ndarray, np.ndarray]:
    """Weights (64,10) and bias (10,), on red pixels in [0, 1]; sharp, so that cross entropies tell forms apart."""
    images, labels = data.load_dataset("digits").part("train")
    x = images.reshape(len(images), -1) / 255
    means = np.stack([x[labels == k].mean(0) for k in range(10)])
    return 4 * means.T.astype(np.float32), -2 * (means**2).sum(1).astype(np.float32)
