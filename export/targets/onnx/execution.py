"""Which layers of an INT8 file ONNX Runtime really executes in integers, read off the graph that it makes of it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from edge.core.errors import CompressError

#: Operator of the optimised graph → which input holds its weights.
INTEGER = {"QLinearConv": 3, "QGemm": 3, "ConvInteger": 1, "MatMulInteger": 1}
FATAL = 4  # the runtime's log level
FLOAT = {"Conv": 1, "FusedConv": 1, "Gemm": 1, "MatMul": 1, "FusedGemm": 1}


@dataclass(frozen=True)
class ExecutedLayers:
    """Names of torch modules that multiply by weights, by what they are executed in."""

    integer: list[str]
    floating: list[str]


def executed_layers(content: bytes) -> ExecutedLayers:
    """Of a file that this package wrote: weights bear their module's name in it."""
    as_executed = optimised(content)
    assert as_executed is not None, "parity has executed it"
    nodes = as_executed.graph.node
    return ExecutedLayers(
        [_module(node.input[place]) for node in nodes if (place := INTEGER.get(node.op_type)) is not None],
        [_module(node.input[place]) for node in nodes if (place := FLOAT.get(node.op_type)) is not None],
    )


def optimised(content: bytes) -> "onnx.ModelProto | None":
    """The graph as ONNX Runtime lays it out for this processor; None where it opens none of this kind here.

    One level below its last, which renames weights for their blocked layout and changes no arithmetic.
    """
    try:
        import onnxruntime
    except ImportError:
        raise CompressError(
            "onnxruntime is not installed, it says how a layer executes; pip install onnxruntime"
        ) from None
    onnxruntime.disable_telemetry_events()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.intra_op_num_threads = 1
        options.log_severity_level = FATAL
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception:  # the runtime's exceptions share no base class
            return None
        return onnx.load(path)


def _module(weight: str) -> str:
    return weight.partition(".weight")[0]
