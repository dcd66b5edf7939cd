"""A torch classifier as a float ONNX graph, with the module that each node came from."""

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch

from compress.networks import Classifier
from edge.core.errors import CompressError
from export.targets.onnx import unsupported

INPUT, OUTPUT = "image", "logits"


def emit(model: Classifier, image: torch.Tensor, opset: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph of `model` with a free batch dimension, and node name → torch module name.

    `image` (C,H,W) gives the input's shape. Input `image` float32 (batch,C,H,W) in [0, 1], output `logits`
    (batch,K). What the exporter notes of the source code is removed, so that equal weights give equal bytes.
    """
    model = model.cpu().eval()
    example = torch.zeros(2, *image.shape)
    with _quiet():
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
                optimize=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as fault:
            raise CompressError(unsupported.line(model, example, fault)) from None
    assert program is not None
    proto = program.model_proto
    origin = {node.name: module for node in proto.graph.node if (module := _module(node)) is not None}
    _strip(proto)
    return proto, origin


def _module(node: onnx.NodeProto) -> "str | None":
    """The innermost torch module whose forward made the node."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            return str(ast.literal_eval(entry.value)[-2])
    return None


def _strip(proto: onnx.ModelProto) -> None:
    proto.producer_name, proto.producer_version, proto.doc_string = "robust-compress", "", ""
    del proto.metadata_props[:]
    graph = proto.graph
    graph.name = "classifier"
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and logs, of operators of packages that are not installed and the programs that it traces."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)
