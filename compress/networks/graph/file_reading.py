"""What an ONNX file holds, as its twin reads it: nodes and constants, or in one line why there can be none."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from compress.networks.graph import Node
from compress.networks.graph.attributes import UnreadPart, called
from compress.networks.graph.dataflow import QUANTIZERS, STANDARD, DataFlow, attributes_of, flattened, standard_opset
from compress.networks.graph.execution import host_results
from compress.networks.graph.operators import OPERATORS
from compress.networks.graph.rounding import HALF
from edge.core.errors import CompressError

QUANTIZE = "QuantizeLinear"
#: ONNX Runtime's own QuantizeLinear and DequantizeLinear were taken up into this opset, 4 and 16 bits and all.
CONTRIBUTED = 21
#: Carried in 8 bits: what weights are dequantized from. A quantizer to such levels would have to clip at theirs.
FOUR_BITS = {onnx.TensorProto.INT4: "int8", onnx.TensorProto.UINT4: "uint8"}
#: Operator → the input that decides how many values it gives.
DECIDES = {"NonZero": 0, "Compress": 1}


def parsed_model(content: bytes, where: str) -> onnx.ModelProto:
    try:
        return flattened(onnx.load_model_from_string(content))
    except Exception as fault:  # protobuf's exceptions share no base class
        raise CompressError(f"{where}: no ONNX model ({type(fault).__name__}); export it again") from None


def known_nodes(flow: DataFlow, where: str) -> list[Node]:
    """Those that the output depends on; CompressError where an operator among them is not known."""
    opset, live = flow.opset, flow.live()
    known = {*OPERATORS, QUANTIZE, "Constant"}
    unknown: Counter[str] = Counter()
    nodes = []
    for entry in live:
        as_standard = entry.domain == "com.microsoft" and entry.op_type in QUANTIZERS
        standard = entry.domain in STANDARD or as_standard
        op = entry.op_type if standard else f"{entry.domain}.{entry.op_type}"
        if op not in known:
            unknown[op] += 1
        version = CONTRIBUTED if as_standard else opset
        nodes.append(Node(entry.name, op, tuple(entry.input), tuple(entry.output), attributes_of(entry), version))
    for function in flow.proto.functions:
        called_by = f"{function.domain}.{function.name}"
        if called_by in unknown:
            raise CompressError(
                f"{where}: its function {called_by} is written in opset {standard_opset(function)}, the file in "
                f"{flow.opset}; it has no twin"
            )
    if "If" in unknown:
        raise CompressError(
            f"{where}: operator If: its condition depends on the image, or on sizes that the file leaves open; "
            f"it has no twin"
        )
    if unknown:
        raise CompressError(f"{where}: no gradient is known of its operator {', '.join(unknown)}; it has no twin")
    return nodes


def refuse_image_in_sizes(nodes: Sequence[Node], constants: Mapping[str, Tensor], halves: set[str]) -> None:
    """Where the image decides how many values there are, images of one batch would need several shapes."""
    known = {*constants, *host_results(nodes, constants, halves)}
    for node in nodes:
        decides = node.inputs[DECIDES[node.op]] if node.op in DECIDES else ""
        if decides and decides not in known:
            raise UnreadPart(f"{called(node)}: how many values it gives is computed from the image")


def refuse_four_bits(nodes: Sequence[Node], flow: DataFlow) -> None:
    """Where a tensor's type is that of a result, which 8 bits would stand for."""
    for node in nodes:
        place = {QUANTIZE: 2, "CastLike": 1}.get(node.op, len(node.inputs))
        like = flow.stored.get(node.inputs[place]) if place < len(node.inputs) else None
        if like is not None and like.data_type in FOUR_BITS:
            kind = onnx.TensorProto.DataType.Name(like.data_type)
            what = "a zero point" if node.op == QUANTIZE else "a target"
            raise UnreadPart(f"{called(node)}: {what} of type {kind} is not supported")


def as_tensor(entry: Any, where: str) -> Tensor:
    """In torch; half precision as float32, 4 bits as 8."""
    array = numpy_helper.to_array(entry)
    if entry.data_type in FOUR_BITS:
        return torch.from_numpy(array.astype(FOUR_BITS[entry.data_type]))
    if entry.data_type in HALF:
        return torch.from_numpy(array.astype("float32"))
    try:
        return torch.from_numpy(array.copy())
    except TypeError:
        kind = onnx.TensorProto.DataType.Name(entry.data_type)
        raise CompressError(f"{where}: {entry.name!r} is of type {kind}, unknown here; it has no twin") from None


def stated_sizes(entry: onnx.ValueInfoProto, where: str) -> list[int]:
    """(N,C,H,W), N 0 where it is free; CompressError where the file leaves an image's size open."""
    stated = entry.type.tensor_type.shape.dim
    if not stated or not all(size.dim_value for size in stated[1:]):
        shown = ", ".join(str(size.dim_value or size.dim_param or "?") for size in stated)
        raise CompressError(
            f"{where}: it leaves its images' size open ({shown}), so it has no twin; adopt it with "
            f"`compress export FILE --data DATA`, which states it"
        )
    return [size.dim_value for size in stated]
