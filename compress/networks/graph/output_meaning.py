"""What a classifier's output is, read off the graph back from it: logits, probabilities, or their logarithm.

Softmax is found by what is computed, not by the last node: behind casts, quantizers, reshapes and constant factors, in
a function of the file, written out as exponentials over their sum. Nothing here imports torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from compress.networks.graph.dataflow import MOVES, RETYPES, STANDARD, DataFlow, attributes_of, flattened

LOGITS, PROBABILITIES, LOG_PROBABILITIES, UNKNOWN = "logits", "probabilities", "log-probabilities", "unknown"
#: Operators that make each row a distribution, or each value a probability → how `before` becomes it.
SQUASHES = {
    "Softmax": "softmax",
    "QLinearSoftmax": "softmax",
    "BiasSoftmax": "softmax",
    "LogSoftmax": "softmax",
    "Hardmax": "hardmax",
    "Sigmoid": "sigmoid",
    "QLinearSigmoid": "sigmoid",
}
#: Operators whose result may be of either sign and any size.
# fmt: off
AFFINE = {
    "Gemm", "MatMul", "Conv", "ConvTranspose", "Einsum", "BatchNormalization", "Add", "Sub", "Sum", "Mean",
    "Mul", "Div", "ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool", "ConvInteger",
    "MatMulInteger", "QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool",
    "QGemm", "MatMulNBits", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "FusedMatMul", "FusedGemm",
    "FusedConv", "NhwcConv",
}
# fmt: on
ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Sum", "Mean"}
AVERAGES = {"Add", "Sum", "Mean", "Concat", "ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool"}
SELECTS = {"Slice", "Gather", "Split"}
GUARD = 1e-3  # what is added to probabilities so that their logarithm is finite is at most this
NONNEGATIVE = {"Exp", "Relu", "Softplus", "Sigmoid", "Abs", "Softmax", "HardSigmoid"}


@dataclass(frozen=True)
class OutputMeaning:
    """`kind` of the output, and the tensor `before` the softmax or sigmoid, which `function` names.

    `before` is None where there is none: of logits, of what is unknown, and where no single tensor stands there (the
    mean of several softmaxes, ReLUs over their own sum). `moves`: the nodes from the softmax to the output that put
    values in other places, in order, each with the place of the output that goes on. Probabilities, or their logarithm,
    come out as `factor` · value + `offset`.
    """

    kind: str
    before: "str | None" = None
    function: "str | None" = None
    moves: tuple[tuple[onnx.NodeProto, int], ...] = ()
    factor: float = 1.0
    offset: float = 0.0

    @property
    def wording(self) -> str:
        """For people and contract.json."""
        return self.kind if (self.factor, self.offset) == (1, 0) else f"{self.kind}, scaled"


def output_meaning(proto: onnx.ModelProto) -> OutputMeaning:
    """Of the first output. Names are those of `flattened(proto)`: the file's own but for tensors inside functions."""
    flow = DataFlow(flattened(proto))
    result = flow.proto.graph.output[0]
    try:
        return _Backwards(flow, result.name).meaning(result.name)
    except RecursionError:  # a chain of thousands of nodes that pass values on
        return OutputMeaning(UNKNOWN)


class _Backwards:
    """From a tensor to what it means, by the node that gives it. `result` is the output, (N,K)."""

    def __init__(self, flow: DataFlow, result: str) -> None:
        self.flow, self.result = flow, result
        self._known: dict[str, OutputMeaning] = {}
        self._selects = False  # whether some classes alone are given: a softmax before that is over more

    def meaning(self, name: str) -> OutputMeaning:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> OutputMeaning:
        node = self.flow.maker.get(name)
        if node is None or name in self.flow.stored:
            return OutputMeaning(UNKNOWN)
        op = node.op_type
        if op in RETYPES:
            return self.meaning(node.input[0])
        if op in MOVES:
            self._selects = self._selects or op in SELECTS
            inner = self.meaning(node.input[0])
            moves = (*inner.moves, (node, list(node.output).index(name)))
            return replace(inner, moves=moves) if inner.before else inner
        if op == "If":
            return self._branches(node)
        if op in SQUASHES:
            return self._squashed(node)
        readers: dict[str, Callable[[onnx.NodeProto], OutputMeaning | None]] = {
            "Log": self._logarithm,
            "Exp": self._exponential,
            "Div": self._quotient,
            "Mul": self._product,
            "Sub": self._difference,
            "Add": self._sum,
            "Clip": self._bounded,
            "Min": self._bounded,
            "Max": self._bounded,
        }
        special = readers[op](node) if op in readers else None
        if special is None and op in AVERAGES:
            special = self._average(node)
        if special is not None or op not in AFFINE:
            return special or OutputMeaning(UNKNOWN)
        weighed = op in ELEMENTWISE and any(self.meaning(entry).kind == PROBABILITIES for entry in node.input)
        return OutputMeaning(UNKNOWN if weighed else LOGITS)  # probabilities weighed by class are neither

    def _branches(self, node: onnx.NodeProto) -> OutputMeaning:
        """Of a condition that the image decides: what both branches give, if it is the same."""
        kinds = set()
        for graph in attributes_of(node).values():
            model = onnx.ModelProto(graph=graph, opset_import=self.flow.proto.opset_import)
            inner = DataFlow(model)
            inner.maker = {**self.flow.maker, **inner.maker}
            inner.stored = {**self.flow.stored, **inner.stored}
            kinds.add(_Backwards(inner, self.result).meaning(graph.output[0].name).kind)
        return OutputMeaning(kinds.pop() if len(kinds) == 1 else UNKNOWN)

    def _squashed(self, node: onnx.NodeProto) -> OutputMeaning:
        function = SQUASHES[node.op_type]
        if function != "sigmoid" and not self._over_classes(node):
            return OutputMeaning(UNKNOWN)
        kind = LOG_PROBABILITIES if node.op_type == "LogSoftmax" else PROBABILITIES
        if node.op_type == "BiasSoftmax":
            return OutputMeaning(kind)
        inside = self.meaning(node.input[0])
        if inside.kind == PROBABILITIES and inside.before:  # a softmax of a softmax: the innermost values count
            return replace(inside, kind=kind, function="nested", factor=1.0, offset=0.0)
        return OutputMeaning(kind, node.input[0], function)

    def _over_classes(self, node: onnx.NodeProto) -> bool:
        """Whether it normalizes over the classes, and nothing else, as far as sizes are known."""
        given = attributes_of(node)
        old = node.domain in STANDARD and self.flow.opset < 13
        axis = int(given.get("axis", 1 if old else -1))
        sizes = self.flow.shapes().get(node.input[0])
        if not sizes:
            return axis != 0
        axis %= len(sizes)
        over = sizes[axis:] if old else sizes[axis : axis + 1]
        beside = sizes[:axis] + ([] if old else sizes[axis + 1 :])
        classes = [*self.flow.shapes().get(self.result, []), 0, 0][1]
        if self._selects or not classes or not all(over):
            return axis != 0
        # beside the classes there is one axis of images, and others of size one
        return math.prod(over) == classes and sum(size != 1 for size in beside) <= 1

    def _logarithm(self, node: onnx.NodeProto) -> "OutputMeaning | None":
        """Of probabilities, which a small constant may keep from zero."""
        inside = self.meaning(node.input[0])
        if inside.kind != PROBABILITIES or not 0 <= inside.offset <= GUARD:
            return None
        return replace(inside, kind=LOG_PROBABILITIES, factor=1.0, offset=math.log(inside.factor))

    def _exponential(self, node: onnx.NodeProto) -> "OutputMeaning | None":
        inside = self.meaning(node.input[0])
        if (inside.kind, inside.factor) != (LOG_PROBABILITIES, 1):
            return None
        return replace(inside, kind=PROBABILITIES, factor=math.exp(inside.offset), offset=0.0)

    def _quotient(self, node: onnx.NodeProto) -> "OutputMeaning | None":
        """a / Σ a, or a value divided by a constant."""
        top, bottom = node.input
        if self._is_sum_of(bottom, top):
            return self._normalized(top)
        divisor = self.flow.scalar(bottom)
        return self._scaled(top, 1 / divisor, 0) if divisor else None

    def _product(self, node: onnx.NodeProto) -> "OutputMeaning | None":
        """a · (1 / Σ a), or a value times a constant."""
        for value, other in (tuple(node.input), tuple(node.input)[::-1]):
            inverse = self.flow.maker.get(self.flow.through(other))
            if inverse is not None and inverse.op_type == "Reciprocal" and self._is_sum_of(inverse.input[0], value):
                return self._normalized(value)
            factor = self.flow.scalar(other)
            if factor is not None:
                return self._scaled(value, factor, 0)
        return None

    def _difference(self, node: onnx.NodeProto) -> "OutputMeaning | None":
        """z − log Σ exp z, a value less a constant, or what is left of 1."""
        value, other = node.input
        if self._is_log_sum_exp_of(other, value):
            return OutputMeaning(LOG_PROBABILITIES, value, "softmax")
        subtracted, whole = self.flow.scalar(other), self.flow.scalar(value)
        if subtracted is not None:
            return self._scaled(value, 1, -subtracted)
        if whole == 1 and self.meaning(other).kind == PROBABILITIES:
            return OutputMeaning(PROBABILITIES)
        return None

    def _sum(self, node: onnx.NodeProto) -> "OutputMeaning | None":
        for value, other in (tuple(node.input), tuple(node.input)[::-1]):
            if (added := self.flow.scalar(other)) is not None:
                return self._scaled(value, 1, added)
        return None

    def _bounded(self, node: onnx.NodeProto) -> "OutputMeaning | None":
        """Between constants: what it was."""
        computed = self._computed(node)
        return self.meaning(computed[0]) if len(computed) == 1 else None

    def _average(self, node: onnx.NodeProto) -> "OutputMeaning | None":
        """Probabilities put together: no single tensor stands before them."""
        computed = self._computed(node)
        if computed and all(self.meaning(name).kind == PROBABILITIES for name in computed):
            return OutputMeaning(PROBABILITIES)
        return None

    def _scaled(self, name: str, factor: float, offset: float) -> "OutputMeaning | None":
        """A positive factor and an offset keep the order of classes; of anything else nothing special is known."""
        inside = self.meaning(name)
        if inside.kind not in (PROBABILITIES, LOG_PROBABILITIES):
            return None
        if factor <= 0:
            return OutputMeaning(UNKNOWN)
        return replace(inside, factor=inside.factor * factor, offset=inside.offset * factor + offset)

    def _normalized(self, name: str) -> "OutputMeaning | None":
        """Of what is divided by its own sum: of exponentials softmax."""
        source, moves = self.flow.moved(name)
        node = self.flow.maker.get(source)
        if node is not None and node.op_type == "Exp":
            return OutputMeaning(PROBABILITIES, node.input[0], "softmax", moves)
        is_distribution = node is not None and node.op_type in NONNEGATIVE
        return OutputMeaning(PROBABILITIES) if is_distribution else None

    def _is_sum_of(self, name: str, value: str) -> bool:
        node = self._behind_bounds(name)
        return node is not None and node.op_type in ("ReduceSum", "ReduceL1") and self._same(node.input[0], value)

    def _is_log_sum_exp_of(self, name: str, value: str) -> bool:
        node = self._behind_bounds(name)
        if node is None or node.op_type == "ReduceLogSumExp":
            return node is not None and self._same(node.input[0], value)
        if node.op_type == "Add":  # max + log Σ exp(z − max)
            parts = [self._behind_bounds(part) for part in node.input]
            largest = next((part for part in parts if part is not None and part.op_type == "ReduceMax"), None)
            rest = next((part for part in parts if part is not None and part.op_type == "Log"), None)
            if largest is None or rest is None or not self._same(largest.input[0], value):
                return False
            exponent = self._exponent(rest)
            shifted = None if exponent is None else self.flow.maker.get(self.flow.through(exponent))
            return shifted is not None and shifted.op_type == "Sub" and self._same(shifted.input[0], value)
        exponent = self._exponent(node)
        return exponent is not None and self._same(exponent, value)

    def _exponent(self, node: onnx.NodeProto) -> "str | None":
        """z of log Σ exp z."""
        total = self._behind_bounds(node.input[0]) if node.op_type == "Log" else None
        power = None if total is None or total.op_type != "ReduceSum" else self._behind_bounds(total.input[0])
        return str(power.input[0]) if power is not None and power.op_type == "Exp" else None

    def _behind_bounds(self, name: str) -> "onnx.NodeProto | None":
        """The node that gives a tensor, before casts, moves, lower bounds and small constants that guard a division."""
        node = self.flow.maker.get(self.flow.through(name))
        if node is not None and node.op_type in ("Clip", "Max", "Add"):
            computed = self._computed(node)
            return self._behind_bounds(computed[0]) if len(computed) == 1 else node
        return node

    def _computed(self, node: onnx.NodeProto) -> list[str]:
        """Its inputs that are no constants."""
        return [name for name in node.input if name and self.flow.array(name) is None]

    def _same(self, left: str, right: str, depth: int = 6) -> bool:
        """Whether two tensors hold the same values, by what makes them, up to so many operators back."""
        left, right = self.flow.through(left), self.flow.through(right)
        if left == right:
            return True
        made, other = self.flow.maker.get(left), self.flow.maker.get(right)
        return (
            depth > 0
            and made is not None
            and other is not None
            and (made.op_type, made.domain, _written(made)) == (other.op_type, other.domain, _written(other))
            and len(made.input) == len(other.input)
            and all(self._same(*pair, depth - 1) for pair in zip(made.input, other.input, strict=True))
        )


def _written(node: onnx.NodeProto) -> Sequence[Any]:
    return sorted(entry.SerializeToString() for entry in node.attribute)
