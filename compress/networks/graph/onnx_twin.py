"""An ONNX file as a network: rebuilt from its operators, so that gradients flow through them, or only executed."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.networks.base import Classifier, Features
from compress.networks.graph import Node
from compress.networks.graph.attributes import UnreadPart, called, refuse_unread
from compress.networks.graph.dataflow import DataFlow
from compress.networks.graph.execution import MADE_OF_NUMBERS, ExecutionOrder, host_results, takes_numbers
from compress.networks.graph.file_reading import (
    QUANTIZE,
    as_tensor,
    known_nodes,
    parsed_model,
    refuse_four_bits,
    refuse_image_in_sizes,
    stated_sizes,
)
from compress.networks.graph.operators import OPERATORS
from compress.networks.graph.output_meaning import (
    LOG_PROBABILITIES,
    PROBABILITIES,
    UNKNOWN,
    OutputMeaning,
    output_meaning,
)
from compress.networks.graph.rounding import HALF, QuantizeLinear, half_types, rounded_to_half
from compress.networks.graph.sizes import MEASURES, Array, computed_sizes, measured_sizes
from edge.core.errors import CompressError, first_line
from edge.core.progress import say_once
from edge.runtimes.runner import open_runner

TINY = torch.finfo(torch.float32).tiny


class GraphTwin(Classifier):
    """Executes the graph's nodes in their order; logits only. Where the file fixes a batch size, batches are padded,
    unless images pass `at_once` as they pass in batches of that size.

    `forward` gives the values before the softmax, where the file gives probabilities or their logarithm; `output` gives
    what the file gives.
    """

    has_features = False

    def __init__(
        self,
        nodes: Sequence[Node],
        constants: Mapping[str, Tensor],
        halves: Mapping[str, torch.dtype],
        entry: str,
        result: str,
        batch: int,
        meaning: OutputMeaning,
    ) -> None:
        super().__init__()
        self.entry, self.batch, self.halves, self.meaning = entry, batch, halves, meaning
        self.at_once = not batch
        self.stated = ExecutionOrder.behind(nodes, result)
        self.searched = ExecutionOrder.behind(*_before_softmax(nodes, meaning)) if meaning.before else self.stated
        executed = [*self.stated.nodes, *self.searched.nodes]
        self.on_host = host_results(executed, constants, set(halves))
        #: what operators take as numbers stays on the host: no device is waited for to learn an axis
        as_numbers, as_values = (self._names_read(executed, as_numbers=kind) for kind in (True, False))
        self.numbers = {name: value.numpy() for name, value in constants.items() if name in as_numbers}
        values = [name for name in constants if name in {*as_values, result}]
        self.places = {name: f"constant_{number}" for number, name in enumerate(values)}
        for name, place in self.places.items():
            self.register_buffer(place, constants[name], persistent=False)
        quantize = {node.outputs[0]: node for node in [*self.stated.nodes, *self.searched.nodes] if node.op == QUANTIZE}
        self.keys = {name: f"quantizer_{number}" for number, name in enumerate(quantize)}
        self.quantizers = nn.ModuleDict(
            {self.keys[name]: _quantizer(node, constants) for name, node in quantize.items()}
        )

    @property
    def nodes(self) -> list[Node]:
        return self.searched.nodes

    def forward_features(self, x: Tensor) -> Features:
        logits = self._in_batches(x, self.searched).float()  # some graphs compute in double before a softmax
        if self.meaning.kind in (PROBABILITIES, LOG_PROBABILITIES) and not self.meaning.before:
            logits = self.logits_of_output(logits)
        return Features(logits, logits.new_zeros((logits.shape[0], 0)), ())

    def output(self, x: Tensor) -> Tensor:
        """What the file gives for images (B,C,H,W): logits (B,K), or probabilities."""
        return self._in_batches(x, self.stated)

    def logits_of_output(self, values: Tensor) -> Tensor:
        """What the file gave (B,K), as logits; those of a softmax up to a constant an image."""
        if self.meaning.kind not in (PROBABILITIES, LOG_PROBABILITIES):
            return values
        plain = (values - self.meaning.offset) / self.meaning.factor
        if self.meaning.function == "sigmoid":
            shares = plain if self.meaning.kind == PROBABILITIES else plain.exp()
            return torch.logit(shares.clamp(TINY, 1 - torch.finfo(shares.dtype).eps))
        if self.meaning.kind == LOG_PROBABILITIES:
            return plain.clamp(min=math.log(TINY))
        return plain.clamp(min=TINY).log()

    def _in_batches(self, x: Tensor, order: ExecutionOrder) -> Tensor:
        if self.at_once:
            return self._run(x, order)
        blank = x.new_zeros((-len(x) % self.batch, *x.shape[1:]))
        parts = torch.cat([x, blank]).split(self.batch) if len(blank) else x.split(self.batch)
        return torch.cat([self._run(part, order) for part in parts])[: len(x)]

    def _run(self, x: Tensor, order: ExecutionOrder) -> Tensor:
        values: dict[str, Any] = {self.entry: x}
        for number, node in enumerate(order.nodes):
            if node.outputs[0] in self.on_host:
                outputs: tuple[Any, ...] = self._sizes(node, values)
            else:
                inputs = [self._value(node, place, values, x.device) for place in range(len(node.inputs))]
                result = self._result(node, inputs)
                outputs = rounded_to_half(node, result if isinstance(result, tuple) else (result,), self.halves)
                if node.op in MADE_OF_NUMBERS:
                    outputs = tuple(value.to(x.device) for value in outputs)
            values |= zip(node.outputs, outputs, strict=False)
            for name in order.done[number]:
                values.pop(name, None)
        return values[order.result]

    def _result(self, node: Node, inputs: "Sequence[Tensor | None]") -> Any:
        """What a node gives, one value or all."""
        if node.op == QUANTIZE:
            return self.quantizers[self.keys[node.outputs[0]]](inputs[0])
        return _computed(node, inputs)

    def _constant(self, place: str) -> Tensor:
        """What the network holds there."""
        value = self._buffers[place]
        assert value is not None
        return value

    @property
    def constants(self) -> dict[str, Tensor]:
        """What no image decides, by its name."""
        held = {name: self._constant(place) for name, place in self.places.items()}
        return {**{name: torch.from_numpy(value) for name, value in self.numbers.items()}, **held}

    def _sizes(self, node: Node, values: Mapping[str, Any]) -> tuple[Array, ...]:
        """What a node gives that is computed on the host."""
        if node.op in MEASURES:
            return (measured_sizes(node, values[node.inputs[0]].shape),)
        inputs = [values[name] if name in values else self.numbers.get(name) for name in node.inputs]
        return _applied(node, computed_sizes, node, inputs)

    def _names_read(self, nodes: Sequence[Node], *, as_numbers: bool) -> set[str]:
        """The tensors that nodes take as numbers, as those on the host do all, or as values."""
        return {
            name
            for node in nodes
            for place, name in enumerate(node.inputs)
            if (node.outputs[0] in self.on_host or takes_numbers(node, place)) == as_numbers
        }

    def _value(self, node: Node, place: int, values: Mapping[str, Any], device: torch.device) -> "Tensor | None":
        """An input; where numbers are taken, on the host, and as an array where they are symbols."""
        name, as_numbers = node.inputs[place], takes_numbers(node, place)
        if not name:
            return None
        if name not in values:
            if not as_numbers:
                return self._constant(self.places[name])
            array: Any = self.numbers[name]  # of a tensor a trace would forget the values
            return array if torch.compiler.is_compiling() else torch.from_numpy(array)
        value: Any = values[name]
        if not isinstance(value, np.ndarray):
            return value
        if as_numbers and (value.dtype == object or torch.compiler.is_compiling()):
            return value  # type: ignore[return-value]
        return torch.as_tensor(value) if as_numbers else torch.as_tensor(value, device=device)


def _before_softmax(nodes: Sequence[Node], meaning: OutputMeaning) -> tuple[list[Node], str]:
    """The nodes with those behind the softmax once more, fed with what stands before it; and what they give."""
    assert meaning.before is not None
    by_output = {node.outputs[0]: node for node in nodes}
    name, replayed = meaning.before, []
    for number, (proto, place) in enumerate(meaning.moves):
        node = by_output[proto.output[0]]
        outputs = tuple(f"{output}@logits{number}" for output in node.outputs)
        replayed.append(dataclasses.replace(node, inputs=(name, *node.inputs[1:]), outputs=outputs))
        name = outputs[place]
    return [*nodes, *replayed], name


def build_twin(content: bytes, *, where: str) -> GraphTwin:
    """The twin of the classifier in `content`, one input (N,C,H,W), one output (N,K), in evaluation mode.

    CompressError, of one line, where the graph holds an operator that is not known here or gives no gradient.
    """
    proto = parsed_model(content, where)
    graph = proto.graph
    flow = DataFlow(proto)
    nodes = known_nodes(flow, where)
    constants = {entry.name: as_tensor(entry, where) for entry in graph.initializer}
    stored_halves = {name: HALF[entry.data_type] for name, entry in flow.stored.items() if entry.data_type in HALF}
    halves = half_types(nodes, stored_halves)
    if graph.sparse_initializer:
        raise CompressError(f"{where}: its sparse initializers are not read; it has no twin")
    entries = [entry for entry in graph.input if entry.name not in constants]
    if len(entries) != 1 or len(graph.output) != 1:
        raise CompressError(
            f"{where}: {len(entries)} inputs, {len(graph.output)} outputs; a classifier has one of each"
        )
    sizes = stated_sizes(entries[0], where)
    result = graph.output[0].name
    try:
        refuse_unread(nodes, result)
        refuse_four_bits(nodes, flow)
        moving = _fold(nodes, constants, halves, where)
        refuse_image_in_sizes(moving, constants, set(halves))
        shape = (sizes[0] or 2, *sizes[1:])
        for meaning in (output_meaning(proto), OutputMeaning(UNKNOWN)):
            twin = GraphTwin(moving, constants, halves, entries[0].name, result, sizes[0], meaning)
            twin.eval().requires_grad_(False)
            if not meaning.before or _ranks_as_its_output(twin, torch.linspace(0, 1, math.prod(shape)).reshape(shape)):
                break
            function = "softmaxes" if meaning.function == "nested" else meaning.function
            say_once(
                f"{where}: the values before its {function} rank classes otherwise than its output; attacks "
                f"ascend on its output as it is"
            )
        _try(twin, torch.zeros(shape), where)
        twin.at_once = twin.at_once or _passes_at_once(twin, shape)
    except CompressError:
        raise
    except UnreadPart as fault:
        raise CompressError(f"{where}: {fault}; it has no twin") from None
    except Exception as fault:  # whatever torch raises on operands that an operator here does not take
        raise CompressError(
            f"{where}: its graph cannot be rebuilt in torch ({first_line(fault)}); it has no twin"
        ) from None
    return twin


def _computed(node: Node, inputs: Sequence["Tensor | None"]) -> "Tensor | tuple[Tensor, ...]":
    return _applied(node, OPERATORS[node.op].compute, node, *inputs)


def _applied(node: Node, operator: Callable[..., Any], *arguments: Any) -> Any:
    """What an operator gives; what it does not take, with its name."""
    try:
        return operator(*arguments)
    except Exception as fault:  # torch's, numpy's and ours, of operands and sizes
        raise ValueError(f"{called(node)}: {first_line(fault)}") from fault


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
                constants[node.outputs[0]] = as_tensor(value, where) if name == "value" else torch.tensor(value)
            elif any(name and name not in constants for name in node.inputs):
                moving.append(node)
            else:
                inputs = [constants[name] if name else None for name in node.inputs]
                values = _constant_operator(node, constants)(*inputs)
                outputs = rounded_to_half(node, values if isinstance(values, tuple) else (values,), halves)
                constants |= zip(node.outputs, outputs, strict=False)
    return moving


def _constant_operator(node: Node, constants: Mapping[str, Tensor]) -> Callable[..., Any]:
    if node.op == QUANTIZE:
        quantizer = _quantizer(node, constants)
        return lambda x, *rest: quantizer(x)
    return lambda *inputs: _computed(node, inputs)


def _quantizer(node: Node, constants: Mapping[str, Tensor]) -> QuantizeLinear:
    missing = [name for name in node.inputs[1:] if name and name not in constants]
    if missing:
        raise ValueError(f"the scale {missing[0]} is computed from the image")
    zero = constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
    return QuantizeLinear(node, constants[node.inputs[1]], zero)


def _try(twin: GraphTwin, x: Tensor, where: str) -> None:
    """One pass forward and backward."""
    leaf = x.requires_grad_()
    logits = twin(leaf)
    if logits.ndim != 2 or len(logits) != len(x):
        raise CompressError(f"{where}: gives {tuple(logits.shape)} for {len(x)} images; it has no twin")
    if not logits.requires_grad or torch.autograd.grad(logits.sum(), leaf, allow_unused=True)[0] is None:
        raise CompressError(f"{where}: no gradient reaches its image; it has no twin made from its graph")


def _passes_at_once(twin: GraphTwin, shape: tuple[int, ...]) -> bool:
    """Whether three batches of the file's size give together what each gives, as far as trying tells.

    Images of three ranges and seeds, so that what is computed over a batch, or mixes its images, shows.
    """
    draws = torch.Generator().manual_seed(0)
    images = torch.cat([torch.rand(shape, generator=draws) * share for share in (1, 0.6, 0.3)])
    calls: list[Callable[[Tensor], Tensor]] = [twin.output] if twin.searched is twin.stated else [twin.output, twin]
    each = [call(images) for call in calls]
    twin.at_once = True
    try:
        together = [call(images) for call in calls]
    except Exception:  # a constant shape holds the file's number of images
        return False
    finally:
        twin.at_once = False
    return all(
        left.shape == right.shape and bool((left - right).abs().amax() <= 1e-5 * left.abs().amax())
        for left, right in zip(each, together, strict=True)
    )


def _ranks_as_its_output(twin: GraphTwin, images: Tensor) -> bool:
    """Whether the values before a softmax rank the classes as what the file gives does."""
    leading = twin.output(images).gather(1, twin(images).argsort(1))
    return bool((leading.diff(dim=1) >= -1e-6 * leading.abs().amax()).all())


class OnnxClassifier(Classifier):
    """Preprocessing is inside the graph. Runs on the processor wherever the other networks are.

    Of a graph that gives `probabilities` their logarithm is the logits, but for a constant an image.
    """

    has_features = False

    def __init__(self, file: Path, *, probabilities: bool = False) -> None:
        super().__init__()
        self.runner, self.probabilities = open_runner(file), probabilities

    def forward_features(self, x: Tensor) -> Features:
        logits = self.logits(torch.from_numpy(self.runner.infer(x.detach().cpu().numpy()))).to(x.device)
        return Features(logits, logits.new_zeros((logits.shape[0], 0)), ())

    def logits(self, outputs: Tensor) -> Tensor:
        """What the graph gives (B,K) as logits (B,K)."""
        return outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log() if self.probabilities else outputs
