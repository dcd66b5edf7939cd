"""An ONNX file as a network: rebuilt from its operators, so that gradients flow through them, or only executed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from compress.networks.base import Classifier, Features
from compress.networks.graph import Node
from compress.networks.graph.operators import OPERATORS
from compress.networks.graph.rounding import HALF, QuantizeLinear, half_types, rounded_to_half
from edge.core.errors import CompressError
from edge.runtimes.runner import open_runner

QUANTIZE = "QuantizeLinear"
STANDARD = ("", "ai.onnx")


class GraphTwin(Classifier):
    """Executes the graph's nodes in their order; logits only. Where the file fixes a batch size, batches are padded."""

    has_features = False

    def __init__(
        self,
        nodes: Sequence[Node],
        constants: Mapping[str, Tensor],
        halves: Mapping[str, torch.dtype],
        entry: str,
        result: str,
        batch: int,
    ) -> None:
        super().__init__()
        self.entry, self.batch, self.halves = entry, batch, halves
        last = next((node for node in nodes if result in node.outputs), None)
        #: Whether the file gives probabilities; `forward` gives the logits behind them, `output` what the file gives.
        self.probabilities = last is not None and last.op == "Softmax"
        self.result = last.inputs[0] if last is not None and self.probabilities else result
        self.places = {name: f"constant_{number}" for number, name in enumerate(constants)}
        for name, place in self.places.items():
            self.register_buffer(place, constants[name], persistent=False)
        self.quantizers = nn.ModuleDict()
        self.nodes, self.done = _needed(nodes, self.result), _last_uses(_needed(nodes, self.result))
        for node in self.nodes:
            if node.op == QUANTIZE:
                self.quantizers[_key(node)] = _quantizer(node, constants)

    def forward_features(self, x: Tensor) -> Features:
        if self.batch:
            blank = x.new_zeros((-len(x) % self.batch, *x.shape[1:]))
            parts = torch.cat([x, blank]).split(self.batch) if len(blank) else x.split(self.batch)
            logits = torch.cat([self._run(part) for part in parts])[: len(x)]
        else:
            logits = self._run(x)
        return Features(logits, logits.new_zeros((len(logits), 0)), ())

    def output(self, x: Tensor) -> Tensor:
        """What the file gives for images (B,C,H,W): logits (B,K), or probabilities."""
        logits: Tensor = self(x)
        return logits.softmax(1) if self.probabilities else logits

    def _run(self, x: Tensor) -> Tensor:
        values = {self.entry: x}
        for number, node in enumerate(self.nodes):
            inputs = [self._value(name, values) for name in node.inputs]
            result = (
                self.quantizers[_key(node)](inputs[0]) if node.op == QUANTIZE else OPERATORS[node.op](node, *inputs)
            )
            outputs = result if isinstance(result, tuple) else (result,)
            values |= zip(node.outputs, rounded_to_half(node, outputs, self.halves), strict=False)
            for name in self.done[number]:
                values.pop(name, None)
        return values[self.result]

    def _value(self, name: str, values: Mapping[str, Tensor]) -> "Tensor | None":
        if not name:
            return None
        return values[name] if name in values else getattr(self, self.places[name])


def build_twin(content: bytes, *, where: str) -> GraphTwin:
    """The twin of the classifier in `content`, one input (N,C,H,W), one output (N,K), in evaluation mode.

    CompressError, of one line, where the graph holds an operator that is not known here or gives no gradient.
    """
    proto = _parsed(content, where)
    graph = proto.graph
    opset = next(entry.version for entry in proto.opset_import if entry.domain in STANDARD)
    nodes = [
        Node(
            entry.name,
            entry.op_type,
            tuple(entry.input),
            tuple(entry.output),
            {attribute.name: helper.get_attribute_value(attribute) for attribute in entry.attribute},
            opset,
        )
        for entry in graph.node
    ]
    unknown = Counter(
        entry.op_type if entry.domain in STANDARD else f"{entry.domain}.{entry.op_type}"
        for entry in graph.node
        if entry.domain not in STANDARD or entry.op_type not in {*OPERATORS, QUANTIZE, "Constant", "ConstantOfShape"}
    )
    if unknown:
        raise CompressError(f"{where}: no gradient is known of its operator {', '.join(unknown)}; it has no twin")
    constants = {entry.name: _tensor(entry, where) for entry in graph.initializer}
    halves = half_types(nodes, _half_constants(graph))
    entries = [entry for entry in graph.input if entry.name not in constants]
    if len(entries) != 1 or len(graph.output) != 1:
        raise CompressError(
            f"{where}: {len(entries)} inputs, {len(graph.output)} outputs; a classifier has one of each"
        )
    sizes = [dimension.dim_value for dimension in entries[0].type.tensor_type.shape.dim]
    try:
        moving = _fold(nodes, constants, halves, where)
        twin = GraphTwin(moving, constants, halves, entries[0].name, graph.output[0].name, sizes[0])
        twin.eval().requires_grad_(False)
        _try(twin, torch.zeros(sizes[0] or 2, *sizes[1:]), where)
    except CompressError:
        raise
    except Exception as fault:  # whatever torch raises on operands that an operator here does not take
        first = next(iter(str(fault).strip().splitlines()), type(fault).__name__)[:200]
        raise CompressError(f"{where}: its graph cannot be rebuilt in torch ({first}); it has no twin") from None
    return twin


def _parsed(content: bytes, where: str) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(content)
        return onnx.inliner.inline_local_functions(proto) if proto.functions else proto
    except Exception as fault:  # protobuf's exceptions share no base class
        raise CompressError(f"{where}: no ONNX model ({type(fault).__name__}); export it again") from None


def _half_constants(graph: onnx.GraphProto) -> dict[str, torch.dtype]:
    """Name → type of the weights and `Constant` nodes in half precision."""
    constants = {entry.name: entry.data_type for entry in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t.data_type
    return {name: HALF[kind] for name, kind in constants.items() if kind in HALF}


def _tensor(entry: Any, where: str) -> Tensor:
    """In torch; half precision as float32."""
    array = numpy_helper.to_array(entry)
    if entry.data_type in HALF:
        return torch.from_numpy(array.astype("float32"))
    try:
        return torch.from_numpy(array.copy())
    except TypeError:
        kind = onnx.TensorProto.DataType.Name(entry.data_type)
        raise CompressError(f"{where}: holds weights of type {kind}, unknown here; it has no twin") from None


def _fold(
    nodes: Sequence[Node], constants: dict[str, Tensor], halves: Mapping[str, torch.dtype], where: str
) -> list[Node]:
    """The nodes that depend on the image; what all others give is added to `constants`."""
    moving = []
    with torch.no_grad():
        for node in nodes:
            if node.op == "Constant":
                name, value = next(iter(node.attributes.items()))
                if name != "value" and not name.startswith(("value_int", "value_float")):
                    raise ValueError(f"a constant of {', '.join(node.attributes)}")
                constants[node.outputs[0]] = _tensor(value, where) if name == "value" else torch.tensor(value)
            elif any(name and name not in constants for name in node.inputs):
                moving.append(node)
            else:
                inputs = [constants[name] if name else None for name in node.inputs]
                values = _constant_operator(node, constants, where)(*inputs)
                outputs = rounded_to_half(node, values if isinstance(values, tuple) else (values,), halves)
                constants |= zip(node.outputs, outputs, strict=False)
    return moving


def _constant_operator(node: Node, constants: Mapping[str, Tensor], where: str) -> Callable[..., Any]:
    if node.op == QUANTIZE:
        quantizer = _quantizer(node, constants)
        return lambda x, *rest: quantizer(x)
    if node.op == "ConstantOfShape":
        value = node.attributes.get("value")
        fill = torch.zeros(1) if value is None else _tensor(value, where)
        return lambda shape: fill.expand(tuple(shape.tolist())).clone()
    return lambda *inputs: OPERATORS[node.op](node, *inputs)


def _quantizer(node: Node, constants: Mapping[str, Tensor]) -> QuantizeLinear:
    missing = [name for name in node.inputs[1:] if name and name not in constants]
    if missing:
        raise ValueError(f"the scale {missing[0]} is computed from the image")
    zero = constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
    return QuantizeLinear(node, constants[node.inputs[1]], zero)


def _needed(nodes: Sequence[Node], result: str) -> list[Node]:
    """The nodes behind `result`, in their order."""
    wanted, backwards = {result}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            backwards.append(node)
    return backwards[::-1]


def _last_uses(nodes: Sequence[Node]) -> list[list[str]]:
    """After each node the values that no later one reads, so that they need not stay in memory."""
    last = {name: number for number, node in enumerate(nodes) for name in node.inputs}
    done: list[list[str]] = [[] for _ in nodes]
    for name, number in last.items():
        done[number].append(name)
    return done


def _key(node: Node) -> str:
    """A name of the node that a module may have."""
    return node.outputs[0].replace(".", "_")


def _try(twin: GraphTwin, x: Tensor, where: str) -> None:
    """One pass forward and backward."""
    leaf = x.requires_grad_()
    logits = twin(leaf)
    if logits.ndim != 2 or len(logits) != len(x):
        raise CompressError(f"{where}: gives {tuple(logits.shape)} for {len(x)} images; it has no twin")
    if not logits.requires_grad or torch.autograd.grad(logits.sum(), leaf, allow_unused=True)[0] is None:
        raise CompressError(f"{where}: no gradient reaches its image; it has no twin made from its graph")


class OnnxClassifier(Classifier):
    """Preprocessing is inside the graph. Runs on the processor wherever the other networks are."""

    has_features = False

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.runner = open_runner(file)

    def forward_features(self, x: Tensor) -> Features:
        logits = torch.from_numpy(self.runner.infer(x.detach().cpu().numpy())).to(x.device)
        return Features(logits, logits.new_zeros((len(logits), 0)), ())
