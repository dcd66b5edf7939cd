"""The target tensorrt-rtx: engines for desktop GPUs, built ahead of time on a machine that may have none."""

from compress.config import ExportConfig
from compress.data.dataset import Dataset
from edge.core.artifact import Stage, Work
from edge.core.targets import Target
from export.contract import Emission
from export.targets.tensorrt.emission import emit_engine

#: TensorRT-RTX lists INT8 for weights of matrix products alone; that a convolution builds says nothing of its speed.
UNVERIFIED = "builds; INT8 execution unverified"


def emit_tensorrt_rtx(target: Target, work: Work, source: Stage, dataset: Dataset, config: ExportConfig) -> Emission:
    """model.onnx, recipe.json and, where the library is here, engine.plan with its sidecars."""
    return emit_engine(target, work, source, dataset, config, needs_gpu=False, int8_status=UNVERIFIED)
