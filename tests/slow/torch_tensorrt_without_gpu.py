"""Torch-TensorRT's compiler beside a CPU-only torch, for a process of its own: what a GPU would answer is made up here.

Lowering, partitioning, every converter and TensorRT-RTX's builder are the real ones. Not real: the properties of the
GPU, and the engine once it is built, which only a GPU can open; in its place stands a torch network.

Run as a program: cases as JSON on stdin, one JSON line each on stdout.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

GPU = SimpleNamespace(
    name="NVIDIA GeForce RTX 3090", major=8, minor=6, total_memory=24 << 30, multi_processor_count=82, uuid="none"
)
CLASSES = 10


class Engine:
    """What the builder gave, unopened: its bytes, and one tensor in and one out of any type that torch knows."""

    streamable_weights_size = 0

    def __init__(self, content: Any) -> None:
        self.content = bytes(content)

    def serialize(self) -> bytes:
        return self.content

    def get_tensor_dtype(self, name: str) -> Any:
        return importlib.import_module("tensorrt").float32

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1,)

    def is_shape_inference_io(self, name: str) -> bool:
        return False


class Runtime:
    """Opens every engine."""

    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, content: Any) -> Engine:
        assert content, "the builder gave nothing"
        return Engine(content)


def stand_in() -> Any:
    """`torch_tensorrt`, imported; its C++ runtime is out of the way, so that its Python runtime is used."""
    torch._C._CudaDeviceProperties = SimpleNamespace  # type: ignore[attr-defined,misc]
    torch.cuda.get_device_properties = lambda device=None: GPU  # type: ignore[assignment]
    torch.cuda.get_device_capability = lambda device=None: (GPU.major, GPU.minor)  # type: ignore[assignment]
    torch.cuda.get_device_name = lambda device=None: GPU.name  # type: ignore[assignment]
    torch.cuda.current_device = lambda: 0
    torch.cuda.default_stream = lambda device=None: None  # type: ignore[assignment,return-value]
    torch.cuda.synchronize = lambda device=None: None
    torch.cuda.mem_get_info = lambda device=None: (20 << 30, GPU.total_memory)  # type: ignore[assignment]
    library = importlib.import_module("torch_tensorrt")
    importlib.import_module("tensorrt").Runtime = Runtime
    compiler = importlib.import_module("torch_tensorrt.dynamo._compiler")
    compiler.to_torch_device = lambda device: torch.device("cpu")
    own = importlib.import_module("export.targets.torch_tensorrt.program_runner")
    own.DEVICE = "cpu"
    own.load_torch_tensorrt = lambda target: library
    return library


def answer_as(network: Callable[[Tensor], Tensor]) -> None:
    """From now on every engine computes what `network` does."""
    engine = importlib.import_module("torch_tensorrt.dynamo.runtime._TRTEngine").TRTEngine
    engine.infer_outputs = lambda self, shapes: [[shapes[0][0], CLASSES]]
    engine.execute = lambda self, inputs: [network(inputs[0])]


def images(shape: tuple[int, ...], n: int = 64) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(1)).float() / 255


def converted(name: str, shape: tuple[int, int, int], precision: str) -> dict[str, Any]:
    """One network with random weights, up to its engines."""
    from compress import networks
    from compress.config import ExportConfig, parse
    from compress.quantization import int8
    from compress.quantization.grids import TENSORRT
    from export.targets.torch_tensorrt import emission
    from export.targets.torch_tensorrt.preparation import export_program, kernels, prepare_network

    torch.manual_seed(0)
    model = (
        networks.build_network(name, channels=shape[0], classes=CLASSES, size=(shape[1], shape[2]))
        .eval()
        .requires_grad_(False)
    )
    if precision == "int8":
        model, layout = int8.quantize_network(model, [images(shape)])
        int8.lay_out(model, TENSORRT.layout(layout))
    floats = "fp16" if precision == "int8" else precision
    config = parse(ExportConfig, {"data": "digits", "target": "torch-tensorrt-rtx"}, "test")
    library, started = stand_in(), time.perf_counter()
    with kernels():
        prepared = prepare_network(model, floats, shape)
        program = export_program(prepared, shape, (config.batch.min, config.batch.max))
    compiled = emission.compiled_program(library, program, shape, floats, config, Path("timing.cache"))
    engines = [child.serialized_engine for _, child in compiled.named_children() if hasattr(child, "serialized_engine")]
    return {
        "engines": len(engines),
        "bytes": sum(map(len, engines)),
        "weights": sum(value.numel() for value in model.parameters()),
        "in_torch": emission.in_torch(compiled, program, prepared),
        "seconds": round(time.perf_counter() - started, 1),
    }


def written(source: str, out: str, precision: str) -> dict[str, Any]:
    """The whole stage, and its runner over it; the engine answers as the network that it was built from."""
    import numpy as np

    from compress import folders
    from compress.config import ExportConfig, parse
    from edge.core import artifact
    from export import stage
    from export.targets.torch_tensorrt.program_runner import open_stage

    stand_in()
    twin = folders.load(source, runtime="tensorrt")
    answer_as(twin)
    data = {"data": "digits", "target": "torch-tensorrt-rtx", "precision": precision, "batch": {"max": 16}}
    made = stage.run(parse(ExportConfig, data, "test"), stage.ExportInputs(model=source), out)
    x = images((1, 8, 8), 21).numpy()
    with open_stage(artifact.read(out), batch_size=64, threads=0, device="cuda") as runner:
        got, batch_size, about = runner.infer(x), runner.batch_size, runner.describe()
    return {
        "files": sorted(made.manifest["payload"]),
        "metrics": made.metrics,
        "batch_size": batch_size,
        "runner": about,
        "sha256": runner.sha256,
        "gap": float(np.abs(got - twin(torch.from_numpy(x)).numpy()).max()),
    }


if __name__ == "__main__":
    for case in json.load(sys.stdin):
        work = {"convert": converted, "write": written}[case.pop("do")]
        try:
            found = work(**{key: tuple(value) if key == "shape" else value for key, value in case.items()})
        except Exception as fault:  # each case is judged on its own
            found = {"fault": f"{type(fault).__name__}: {fault}"}
        print(json.dumps(found), flush=True)
