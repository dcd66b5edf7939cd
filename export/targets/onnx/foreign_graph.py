"""A classifier of another tool as it is: what it takes and gives, its answers, and the graph that is adopted of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from compress.networks.graph.dataflow import in_order, names_read, replace_entries
from edge.core.errors import CompressError
from edge.runtimes.onnxruntime.runner import executed, open_session, stated_tensor
from edge.runtimes.runner import BATCH_SIZE
from export.contract import graph_inputs
from export.targets.onnx.foreign_file import ForeignFile
from export.targets.onnx.input_form import IMAGE_TYPES, InputForm, chained

LOGIT_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)")
FIRST_OPSET = 7  # from which Sub, Div and Mul broadcast as they do today


@dataclass(frozen=True)
class ForeignClassifier:
    """`sizes`: of the image behind the batch, numbers or names; `rank` of the output, 0 where unknown."""

    file: ForeignFile
    session: Any
    entry: str
    kind: str
    sizes: "tuple[int | str | None, ...]"
    fixed_batch: int
    result: str
    result_kind: str
    rank: int

    @classmethod
    def read(cls, file: ForeignFile, output: "str | None") -> "ForeignClassifier":
        """CompressError where it is no classifier of images, or gives several outputs and none is chosen."""
        where, session = file.path, open_session(file.content, str(file.path))
        inputs = session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(stated_tensor(entry) for entry in inputs)
            raise CompressError(
                f"{where}: has {len(inputs)} inputs{f': {names}' if names else ''}; a classifier has one"
            )
        (entry,) = inputs
        if entry.type not in IMAGE_TYPES or len(entry.shape) != 4:
            raise CompressError(
                f"{where}: takes {stated_tensor(entry)}; a classifier takes images of 4 axes, of float16, 32 or "
                f"64 or uint8"
            )
        result = _chosen(session.get_outputs(), output, str(where))
        if result.type not in LOGIT_TYPES or _too_many_axes(result.shape):
            raise CompressError(f"{where}: gives {stated_tensor(result)}; a classifier gives float logits (N,K)")
        batch, *sizes = entry.shape
        fixed = batch if isinstance(batch, int) and batch > 0 else 0
        return cls(
            file, session, entry.name, entry.type, tuple(sizes), fixed, result.name, result.type, len(result.shape)
        )

    def ask(self, pixels: np.ndarray) -> np.ndarray:
        """Its output (N,K) for what it takes, in calls of its fixed batch, or of `BATCH_SIZE`."""
        size, parts = self.fixed_batch or BATCH_SIZE, []
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            held = len(batch)
            if self.fixed_batch > held:
                batch = np.concatenate([batch, np.zeros((size - held, *batch.shape[1:]), batch.dtype)])
            values = executed(self.session, self.result, self.entry, batch, str(self.file.path))
            if values.ndim < 2 or len(values) != len(batch) or any(side != 1 for side in values.shape[2:]):
                raise CompressError(
                    f"{self.file.path}: gives {self.result} {values.shape} for {len(batch)} images; a classifier gives "
                    f"logits (N,K)"
                )
            parts.append(values.reshape(values.shape[:2])[:held].astype(np.float32))
        return np.concatenate(parts)

    def adopted(self, form: InputForm, shape: "tuple[int, ...]", classes: int, order: "Sequence[int] | None") -> bytes:
        """The graph from float32 (N,C,H,W) in [0, 1] to float32 logits (N,K): the very bytes where it is that already.

        `shape`: (C,H,W) of the images. `order`: the file's class in the place of each of the dataset's.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self.file.proto)
        changed = [
            self._put_in_front(proto, form, shape),
            self._put_behind(proto, classes, order),
            self._single_output(proto),
        ]
        return proto.SerializeToString(deterministic=True) if any(changed) else self.file.content

    def _put_in_front(self, proto: onnx.ModelProto, form: InputForm, shape: "tuple[int, ...]") -> bool:
        graph = proto.graph
        (entry,) = (entry for entry in graph_inputs(proto) if entry.name == self.entry)
        dims = entry.type.tensor_type.shape.dim
        if form.untouched:
            wanted = (self.fixed_batch, *shape)
            free = [place for place, size in enumerate(dims) if not size.dim_value and wanted[place]]
            for place in free:
                dims[place].dim_value = wanted[place]
            return bool(free)
        self._needs_opset("before its input")
        name = _unused(proto, "image")
        nodes = form.nodes(name, self.entry, shape[0], self.file.opset, _unused_scope(proto, self.entry))
        batch = self.fixed_batch or dims[0].dim_param or "batch"
        new = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
        place = [each.name for each in graph.input].index(self.entry)
        graph.input[place].CopyFrom(new)
        replace_entries(graph.node, [*nodes, *graph.node])
        return True

    def _put_behind(self, proto: onnx.ModelProto, classes: int, order: "Sequence[int] | None") -> bool:
        graph = proto.graph
        place = [each.name for each in graph.output].index(self.result)
        stated = graph.output[place].type.tensor_type
        sizes = [size.dim_value or size.dim_param for size in stated.shape.dim] if stated.HasField("shape") else []
        steps: list[tuple[str, list[Any], dict[str, Any]]] = []
        if self.result_kind != "tensor(float)":
            steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
        if self.rank != 2:
            steps.append(("Flatten", [], {"axis": 1}))
        if order is not None and list(order) != sorted(order):
            steps.append(("Gather", [np.array(order, np.int64)], {"axis": 1}))
        batch = self.fixed_batch or (sizes[0] if sizes and sizes[0] else "batch")
        if not steps:
            as_it_is = len(sizes) == 2 and sizes[1] == classes
            if not as_it_is:
                graph.output[place].CopyFrom(
                    helper.make_tensor_value_info(self.result, TensorProto.FLOAT, [batch, classes])
                )
            return not as_it_is
        self._needs_opset("behind its output")
        name = _unused(proto, "logits")
        replace_entries(graph.node, [*graph.node, *chained(steps, self.result, name, _unused_scope(proto, name))])
        graph.output[place].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, classes]))
        return True

    def _single_output(self, proto: onnx.ModelProto) -> bool:
        """Whether there were others; what only they depend on goes with them."""
        graph = proto.graph
        if len(graph.output) == 1:
            return False
        place = [entry.name for entry in self.session.get_outputs()].index(self.result)
        replace_entries(graph.output, [graph.output[place]])
        wanted, nodes = {graph.output[0].name}, []
        for node in reversed(in_order(proto).graph.node):
            if wanted.intersection(node.output):
                wanted.update(names_read(node))
                nodes.append(node)
        replace_entries(graph.node, nodes[::-1])
        for stored in (graph.initializer, graph.sparse_initializer):
            used = [each for each in stored if (each.name if hasattr(each, "name") else each.values.name) in wanted]
            replace_entries(stored, used)
        replace_entries(graph.input, [each for each in graph.input if each.name in wanted])
        return True

    def _needs_opset(self, where: str) -> None:
        if self.file.opset < FIRST_OPSET:
            raise CompressError(
                f"{self.file.path}: has opset {self.file.opset}, below {FIRST_OPSET} nothing is put {where}; convert "
                f"it (onnx.version_converter.convert_version)"
            )


def _chosen(outputs: "Sequence[Any]", name: "str | None", where: str) -> Any:
    """The output of that name; the only one where none is given."""
    listed = ", ".join(stated_tensor(entry) for entry in outputs)
    if name is not None:
        for entry in outputs:
            if entry.name == name:
                return entry
        raise CompressError(f"{where}: --output {name}: no output of that name (it has {listed})")
    if len(outputs) != 1:
        if not outputs:
            raise CompressError(f"{where}: has no output; a classifier gives logits (N,K)")
        raise CompressError(
            f"{where}: has {len(outputs)} outputs: {listed}; choose the logits by --output NAME of `compress export`"
        )
    return outputs[0]


def _too_many_axes(sizes: "Sequence[int | str | None]") -> bool:
    """Whether an output's stated shape is no (N,K) and no (N,K,1,…); one that is not stated is tried."""
    return bool(sizes) and (len(sizes) < 2 or any(size != 1 for size in sizes[2:]))


def _unused(proto: onnx.ModelProto, name: str) -> str:
    """A tensor's name that the graph does not have."""
    used = _tensor_names(proto)
    while name in used:
        name += "_"
    return name


def _unused_scope(proto: onnx.ModelProto, scope: str) -> str:
    """A name before the slash that no tensor and no node has."""
    used = _tensor_names(proto) | {node.name for node in proto.graph.node}
    while any(name.startswith(f"{scope}/") for name in used):
        scope += "_"
    return scope


def _tensor_names(proto: onnx.ModelProto) -> set[str]:
    graph = proto.graph
    names = {entry.name for part in (graph.input, graph.output, graph.initializer) for entry in part}
    return names | {tensor for node in graph.node for tensor in (*node.output, *names_read(node))}
