"""ONNX operators in torch, by name. Semantics: the ONNX operator specification.

Each kind has a table in a file of its own, of what computes an operator and which of its attributes that reads. Integer
tensors, which graphs compute shapes with, pass the same operators as images do.
"""

from compress.networks.graph import Operator
from compress.networks.graph.operators.activations import ACTIVATIONS
from compress.networks.graph.operators.arithmetic import ARITHMETIC
from compress.networks.graph.operators.attention import ATTENTION
from compress.networks.graph.operators.indexing import INDEXING
from compress.networks.graph.operators.normalization import NORMALIZATION
from compress.networks.graph.operators.quantized import QUANTIZED
from compress.networks.graph.operators.reductions import REDUCTIONS
from compress.networks.graph.operators.resizing import RESIZING
from compress.networks.graph.operators.shapes import SHAPES
from compress.networks.graph.operators.windows import WINDOWS

OPERATORS: dict[str, Operator] = {
    **ACTIVATIONS,
    **ARITHMETIC,
    **ATTENTION,
    **INDEXING,
    **NORMALIZATION,
    **QUANTIZED,
    **REDUCTIONS,
    **RESIZING,
    **SHAPES,
    **WINDOWS,
}
