"""An ONNX file as the graph of a student: of any number of images, ending in its logits, weights in its state.

What a stage keeps of it is the same graph without the values that its weights file holds.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from compress.networks.graph.dataflow import DataFlow, names_read, replace_entries
from compress.networks.graph.file_reading import parsed_model
from compress.networks.graph.free_batch import BATCH, free_batch
from compress.networks.graph.onnx_twin import GraphTwin, build_twin
from compress.networks.graph.output_meaning import PROBABILITIES, OutputMeaning
from compress.networks.graph.trainable import OnnxNetwork
from edge.core.errors import CompressError

OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
QUANTIZED = re.compile(r"QLinear|DynamicQuantize|[Qq]uantizeLinear$|QGemm|Integer(ToFloat)?$|NBits$")
#: What a student's logits may differ from the file's, of their spread.
AGREES, AGREES_IN_HALF = 1e-4, 0.1
#: The same beyond which an image's logits hang on the images beside it; half precision rounds less.
MIXED = 1e-2
PROBED = 3  # images of noise on which student and file must agree


@dataclass(frozen=True)
class StudentGraph:
    """`probabilities`: it gives those, and has no values before a softmax. `notes`: what was changed, in words."""

    proto: onnx.ModelProto
    classes: int
    probabilities: bool
    notes: tuple[str, ...]


def read_student(content: bytes, shape: "tuple[int, ...]", where: str) -> StudentGraph:
    """The student in an ONNX file for images (C,H,W), held against the file on noise.

    CompressError, of one line, where it is quantized, holds what has no gradient, or takes no number of images but one.
    """
    proto = parsed_model(content, where)
    file, notes = build_twin(content, where=where), []
    if _scale_levels(proto):
        notes.append("its image is scaled to 8-bit levels, and no longer rounded to them")
    _refuse_quantized(DataFlow(proto), where)
    images = torch.randint(256, (PROBED, *shape), generator=torch.Generator().manual_seed(0)) / 255
    with torch.no_grad():
        wanted = file(images)
    if not file.batch:
        _refuse_mixed(file, images, wanted, where)
    meaning = file.meaning
    if meaning.before is not None:
        _end_before(proto, meaning, wanted.shape[1])
        notes.append(f"its logits are the values before its {meaning.function} ({meaning.before})")
    elif meaning.kind == PROBABILITIES and (meaning.factor, meaning.offset) != (1, 0):
        raise CompressError(f"{where}: its outputs are {meaning.wording}; export the values before its softmax")
    if other := _in_float32(proto):
        notes.append(f"its {other} values are trained in float32")
    if file.batch:
        free_batch(proto, file, images[:1])
        notes.append(f"its batch of {file.batch} became any number of images")
    _declare(proto, shape)
    _prune(proto)
    probabilities = meaning.kind == PROBABILITIES and meaning.before is None
    try:
        given = file.output(images) if probabilities else wanted
        allowed = AGREES_IN_HALF if "float16" in other else AGREES
        _refuse_disagreement(OnnxNetwork(proto, where), images, given, allowed, where)
    except CompressError as fault:
        if not file.batch:
            raise
        why = str(fault).removeprefix(f"{where}: ").removesuffix("; it has no twin")
        raise CompressError(
            f"{where}: takes a batch of {file.batch} and, rewritten, no other ({why}); export it with a free batch"
        ) from None
    return StudentGraph(proto, wanted.shape[1], probabilities, tuple(notes))


def _refuse_mixed(file: GraphTwin, images: Tensor, together: Tensor, where: str) -> None:
    """CompressError where an image's logits depend on the images beside it, as behind a mean over the batch."""
    with torch.no_grad():
        alone = torch.cat([file(image[None]) for image in images])
    share = float((together - alone).abs().max() / (together.amax() - together.amin()).clamp(min=1e-12))
    if share > MIXED:
        raise CompressError(
            f"{where}: mixes the images of a batch (logits alone and beside others differ by {share:.2g} of"
            f" their spread); a student must answer each image by itself"
        )


def without_values(proto: onnx.ModelProto, where: str) -> bytes:
    """The graph without the values that the state of its network holds."""
    stored = OnnxNetwork(proto, where).stored
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    for entry in bare.graph.initializer:
        if entry.name in stored:
            kept = TensorProto(name=entry.name, data_type=TensorProto.FLOAT, dims=entry.dims)
            entry.CopyFrom(kept)
    return bare.SerializeToString(deterministic=True)


def with_zeros(content: bytes) -> onnx.ModelProto:
    """The graph that `without_values` gave, zeros where the state's values go."""
    proto = onnx.load_model_from_string(content)
    for entry in proto.graph.initializer:
        if not entry.raw_data and not entry.float_data and entry.data_type == TensorProto.FLOAT:
            entry.raw_data = np.zeros(tuple(entry.dims), np.float32).tobytes()
    return proto


def _refuse_quantized(flow: DataFlow, where: str) -> None:
    quantized = Counter(node.op_type for node in flow.live() if QUANTIZED.search(node.op_type))
    if quantized:
        listed = ", ".join(f"{count} {op}" for op, count in quantized.most_common(3))
        raise CompressError(f"{where}: is quantized already ({listed}); give the float file that it was made from")


def _scale_levels(proto: onnx.ModelProto) -> bool:
    """Let levels that the image itself is rounded to, as adoption puts in front, be its pixels over their scale."""
    flow, constants = DataFlow(proto), {entry.name for entry in proto.graph.initializer}
    entries = {entry.name for entry in proto.graph.input} - constants
    rounds = [node for node in flow.live() if QUANTIZED.search(node.op_type)]
    levels = [node for node in rounds if node.op_type == "QuantizeLinear" and flow.through(node.input[0]) in entries]
    if len(levels) < len(rounds) or any(flow.scalar(name) for node in levels for name in node.input[2:]):
        return False
    for node in levels:
        node.op_type = "Div"
        del node.input[2:], node.attribute[:]
    return bool(levels)


def _in_float32(proto: onnx.ModelProto) -> str:
    """Weights and casts of other float types as float32 ones, in place; the names of those types."""
    found = dict[str, None]()

    def as_float32(entry: TensorProto) -> None:
        if entry.data_type in OTHER_FLOATS:
            found[TensorProto.DataType.Name(entry.data_type).lower()] = None
            entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry).astype(np.float32), entry.name))

    for entry in proto.graph.initializer:
        as_float32(entry)
    for attribute in (attribute for node in proto.graph.node for attribute in node.attribute):
        if attribute.name == "value" and attribute.HasField("t"):
            as_float32(attribute.t)
        elif attribute.name == "to" and attribute.i in OTHER_FLOATS:
            found[TensorProto.DataType.Name(attribute.i).lower()] = None
            attribute.i = TensorProto.FLOAT
    return ", ".join(found)


def _end_before(proto: onnx.ModelProto, meaning: OutputMeaning, classes: int) -> None:
    """Let the graph give what stands before its softmax, moved as the softmax's values are."""
    assert meaning.before is not None
    name = meaning.before
    for number, (node, place) in enumerate(meaning.moves):
        moved = onnx.NodeProto()
        moved.CopyFrom(node)
        moved.input[0], moved.name = name, f"{node.name}@logits{number}"
        moved.output[:] = [f"{output}@logits{number}" for output in node.output]
        proto.graph.node.append(moved)
        name = moved.output[place]
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, classes]))


def _declare(proto: onnx.ModelProto, shape: "tuple[int, ...]") -> None:
    """Any number of images of that shape."""
    constants = {entry.name for entry in proto.graph.initializer}
    (entry,) = (entry for entry in proto.graph.input if entry.name not in constants)
    first, *others = entry.type.tensor_type.shape.dim
    first.dim_param = BATCH
    for dimension, size in zip(others, shape, strict=True):
        dimension.dim_value = size
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = BATCH
    del proto.graph.value_info[:], proto.metadata_props[:]


def _prune(proto: onnx.ModelProto) -> None:
    """Leave out nodes and values that the logits do not need."""
    replace_entries(proto.graph.node, DataFlow(proto).live())
    read = {name for node in proto.graph.node for name in names_read(node)}
    replace_entries(proto.graph.initializer, [entry for entry in proto.graph.initializer if entry.name in read])


def _refuse_disagreement(network: OnnxNetwork, images: Tensor, wanted: Tensor, allowed: float, where: str) -> None:
    with torch.no_grad():
        answers = network.eval()(images)
    spread = float(wanted.std()) or 1.0
    if answers.shape != wanted.shape or float((answers - wanted).abs().max()) > allowed * spread:
        raise CompressError(f"{where}: its logits for {len(images)} images at once are others than the file's")
