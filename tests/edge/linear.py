"""Small ONNX classifiers whose every answer is known: logits = W·x + b, so the nearest boundary is a formula."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 4, 4)
FLOAT = TensorProto.FLOAT


def balanced(rng: np.random.Generator, classes: int = 3) -> np.ndarray:
    """W (K,16) whose rows sum to 0, so that no class owes its score to the grey level: all of them occur."""
    drawn = rng.normal(size=(classes, 16))
    return drawn - drawn.mean(1, keepdims=True)


def save(
    path: Path, nodes: list[Any], constants: dict[str, np.ndarray], inputs: Any = None, outputs: Any = None
) -> Path:
    """A graph from `x` to `y` with its weights inside."""
    inputs = inputs or [("x", ["N", *SHAPE])]
    outputs = outputs or [("y", ["N", 3])]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def linear(
    path: Path, weights: np.ndarray, *, bias: "np.ndarray | None" = None, batch: "int | str" = "N", shape: Any = SHAPE
) -> Path:
    """W (K,D), b (K,) on images of `shape` with D pixels."""
    k = len(weights)
    constants = {"w": weights.T.astype(np.float32), "b": np.zeros(k, np.float32) if bias is None else bias}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["y"]),
    ]
    return save(path, nodes, constants, [("x", [batch, *shape])], [("y", [batch, k])])


def noisy(path: Path, weights: np.ndarray) -> Path:
    """As `linear`, with noise drawn anew at every call."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("RandomNormalLike", ["product"], ["noise"], scale=1e-3),
        helper.make_node("Add", ["product", "noise"], ["y"]),
    ]
    return save(path, nodes, {"w": weights.T.astype(np.float32)}, None, [("y", ["N", len(weights)])])


def undefined(path: Path, weights: np.ndarray) -> Path:
    """Logits are the logarithm of W·x: NaN wherever that is negative."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Log", ["product"], ["y"]),
    ]
    return save(path, nodes, {"w": weights.T.astype(np.float32)}, None, [("y", ["N", len(weights)])])


def of_two_images(path: Path, weights: np.ndarray) -> Path:
    """Opens with any batch, runs with two images only."""
    nodes = [
        helper.make_node("Reshape", ["x", "two"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = {"two": np.array([2, weights.shape[1]]), "w": weights.T.astype(np.float32)}
    return save(path, nodes, constants, None, [("y", ["N", len(weights)])])


def outside(path: Path, weights: np.ndarray) -> Path:
    """As `linear`, its weights in `w.bin` beside it."""
    linear(path, weights)
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def logits(weights: np.ndarray, images: np.ndarray) -> np.ndarray:
    """What `linear` computes, in float64; uint8 images are k/255."""
    x = images / 255 if images.dtype == np.uint8 else images.astype(np.float64)
    return x.reshape(len(x), weights.shape[1]) @ weights.astype(np.float32).astype(np.float64).T


def radii(weights: np.ndarray, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The exact least L∞ distance, in grey levels, to each wrong class (N,K), where no pixel meets 0 or 255.

    Along −sign(w_y − w_j) the margin falls by ‖w_y − w_j‖₁ a unit; infinite at the label itself.
    """
    said = logits(weights, images)
    rows = np.arange(len(labels))
    margins = said[rows, labels][:, None] - said
    slopes = np.abs(weights[labels][:, None] - weights[None]).sum(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = 255 * margins / slopes
    least[rows, labels] = np.inf
    return least


def nearest(weights: np.ndarray, images: np.ndarray, labels: np.ndarray, radius: int) -> np.ndarray:
    """The strongest candidates there are: all of `radius` spent towards the nearest wrong class; uint8."""
    towards = radii(weights, images, labels).argmin(1)
    signs = np.sign(weights[labels] - weights[towards]).reshape(images.shape).astype(int)
    return np.clip(images.astype(int) - radius * signs, 0, 255).astype(np.uint8)
