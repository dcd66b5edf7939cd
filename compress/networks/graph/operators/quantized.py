"""Operators on integer levels. QuantizeLinear is a module of its own, as others look for it (`rounding`)."""

from compress.networks.graph import Operator
from compress.networks.graph.rounding import dequantize

QUANTIZED = {
    "DequantizeLinear": Operator(dequantize, "axis"),
}
