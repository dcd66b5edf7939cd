"""Which layers of an INT8 file ONNX Runtime really executes in integers, read off the graph that it makes of it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

#: Operator of the optimised graph → which input holds its weights.
INTEGER = {"QLinearConv": 3, "QGemm": 3, "ConvInteger": 1, "MatMulInteger": 1}
FLOAT = {"Conv": 1, "FusedConv": 1, "Gemm": 1, "MatMul": 1, "FusedGemm": 1}


@dataclass(frozen=True)
class ExecutedLayers:
    """Names of torch modules that multiply by weights, by what they are executed in."""

    integer: list[str]
    floating: list[str]


def executed_layers(content: bytes) -> ExecutedLayers:
    """Of a file that this package wrote: weights bear their module's name in it."""
    nodes = optimised(content).graph.node
    return ExecutedLayers(
        [_module(node.input[place]) for node in nodes if (place := INTEGER.get(node.op_type)) is not None],
        [_module(node.input[place]) for node in nodes if (place := FLOAT.get(node.op_type)) is not None],
    )


def optimised(content: bytes) -> onnx.ModelProto:
    """The graph after all of ONNX Runtime's rewriting but that of the memory layout, which renames everything."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _module(weight: str) -> str:
    return weight.partition(".weight")[0]
