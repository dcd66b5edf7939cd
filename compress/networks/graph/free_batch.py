"""A graph of a fixed batch as one of any number of images: its constant sizes that hold that batch, found and freed."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from compress.networks.graph import Node
from compress.networks.graph.dataflow import replace_entries
from compress.networks.graph.onnx_twin import GraphTwin
from compress.networks.graph.output_meaning import LOGITS, OutputMeaning

BATCH = "batch"  # the open number of images
TRIED = 3  # batches of the file's size in the pass that finds where the images lie


def free_batch(proto: onnx.ModelProto, file: GraphTwin, image: Tensor) -> None:
    """Write constant sizes and operands that have the file's own number of images for any number.

    Sizes that could not be freed stay; then the graph takes no other number. `image`: (1,C,H,W).
    """
    followed = _FollowedImages(file)
    with torch.no_grad(), contextlib.suppress(Exception):  # whatever torch raises on sizes that do not fit
        for count in (file.batch, TRIED * file.batch):
            followed.start()
            followed(image.expand(count, *image.shape[1:]))
    graph, rewritten = proto.graph, []
    for node in graph.node:
        if (target := followed.targets.get(node.output[0])) is not None:
            node.input[1] = f"{node.output[0]}@sizes"
            graph.initializer.append(numpy_helper.from_array(np.array(target, np.int64), node.input[1]))
            del node.attribute[:]  # `allowzero`: no size is 0
        for place in followed.single.get(node.output[0], ()):
            name = node.input[place]
            images = next(name for other, name in enumerate(node.input) if other not in followed.single[node.output[0]])
            rewritten += _expanded(graph, name, f"{node.output[0]}@{place}", followed.constants[name], images)
            node.input[place] = f"{node.output[0]}@{place}"
        rewritten.append(node)
    replace_entries(graph.node, rewritten)


class _FollowedImages(GraphTwin):
    """A twin that follows the images through its reshapes, first in the file's batch, then in a larger one.

    By the name of a result, `targets`: of a constant reshape the sizes that hold for any number of images; `single`: of
    a concatenation the places of constants that are there once for one image.
    """

    def __init__(self, file: GraphTwin) -> None:
        order = file.stated
        super().__init__(order.nodes, file.constants, file.halves, file.entry, order.result, 0, OutputMeaning(LOGITS))
        self.own_batch = file.batch
        self.shapes: dict[str, tuple[int, ...]] = {}  # in the file's batch, of what is reshaped and what comes of it
        self.ahead: dict[str, int] = {}  # within the axis that holds the images: values that stand before them
        self.targets: dict[str, list[int]] = {}
        self.single: dict[str, list[int]] = {}

    def start(self) -> None:
        self.ahead.clear()

    def _result(self, node: Node, inputs: "Sequence[Any]") -> Any:
        result = node.outputs[0]
        self.ahead[result] = max((self.ahead.get(name, 1) for name in node.inputs), default=1)
        if node.op == "Reshape" and node.inputs[1] in self.constants:
            if result in self.shapes:
                self.targets[result] = self._freed(node, inputs[0].shape)
                return inputs[0].reshape(self.targets[result])
            reshaped = super()._result(node, inputs)
            self.shapes |= {node.inputs[0]: tuple(inputs[0].shape), result: tuple(reshaped.shape)}
            return reshaped
        if node.op == "Concat" and node.whole("axis", 0) and self.own_batch == 1:
            fixed = [place for place, name in enumerate(node.inputs) if name in self.constants]
            count = max(len(value) for value in inputs)
            self.single[result] = [place for place in fixed if len(inputs[place]) == 1]
            inputs = [
                value.expand(count, *value.shape[1:]) if place in self.single[result] else value
                for place, value in enumerate(inputs)
            ]
        return super()._result(node, inputs)

    def _freed(self, node: Node, shape: Sequence[int]) -> list[int]:
        """Sizes with −1 for what holds the images: in row-major order as much stands before them as before.

        Where that leaves two axes, as one of a single row may stand there, the first that is not the last.
        """
        own, target = self.shapes[node.inputs[0]], self.shapes[node.outputs[0]]
        axis = next((place for place, size in enumerate(own) if size != shape[place]), 0)
        ahead = math.prod(own[:axis]) * self.ahead.get(node.inputs[0], 1)
        products = [math.prod(target[:place]) for place in range(len(target) - 1 or 1)]
        held = products.index(ahead) if ahead in products else sum(product < ahead for product in products) - 1
        self.ahead[node.outputs[0]] = max(ahead // products[held], 1)
        return [-1 if place == held else size for place, size in enumerate(target)]


def _expanded(graph: onnx.GraphProto, name: str, result: str, value: Tensor, images: str) -> "list[onnx.NodeProto]":
    """A constant of one image for as many as another tensor holds, as `result`."""
    first, rest = f"{result}@first", f"{result}@rest"
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), first))
    graph.initializer.append(numpy_helper.from_array(np.array(value.shape[1:], np.int64), rest))
    return [
        helper.make_node("Shape", [images], [f"{result}@shape"]),
        helper.make_node("Gather", [f"{result}@shape", first], [f"{result}@count"], axis=0),
        helper.make_node("Concat", [f"{result}@count", rest], [f"{result}@all"], axis=0),
        helper.make_node("Expand", [name, f"{result}@all"], [result]),
    ]
