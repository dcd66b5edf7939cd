"""ONNX Runtime on the processor, or on an NVIDIA GPU: deterministic settings, no telemetry, quiet."""

import copy
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.core import artifact, machine
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.runtimes.onnxruntime.messages import why_it_failed, why_not_opened
from edge.runtimes.runner import MODEL, Runner, pinned

#: By device, the first of these that the installed ONNX Runtime has.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "jetson": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
#: Weights outside the file would escape its hash; they are looked for here only, and not found.
NOWHERE = "/dev/null/none"
FATAL = 4  # the runtime's log level; its faults reach the user as one line of ours


class OnnxRunner(Runner):
    """The ONNX graph in `content`, executed by ONNX Runtime on `device`. `where` names it in messages."""

    spin_wait = True  # ONNX Runtime's threads, unless they are told otherwise

    def __init__(self, content: bytes, *, where: str, batch_size: int, threads: int, device: str = "cpu") -> None:
        self._runtime = _import()
        self._where, self._content = where, content
        self._provider = _provider(self._runtime, device)
        self._version = str(self._runtime.__version__)
        self._threads = threads or machine.usable_cores()
        self._start(batch_size)
        self.sha256, self.size = artifact.bytes_sha256(content), len(content)

    def _start(self, batch_size: int) -> None:
        """A session of the bytes, and what it says of them."""
        started = time.perf_counter_ns()
        self._session = open_session(self._content, self._where, threads=self._threads, provider=self._provider)
        self.open_ms = (time.perf_counter_ns() - started) / 1e6
        self._input, fixed, self.input_shape = _input(self._session, self._where)
        self._output, self.classes = _output(self._session, self._where)
        self.batch_size = fixed or batch_size

    def again(self, batch_size: int) -> "OnnxRunner":
        other = copy.copy(self)
        other._start(batch_size)
        return other

    def describe(self) -> dict[str, Any]:
        """{"name", "version", "provider", "threads"}; threads are those inside one operator."""
        return {"name": "onnxruntime", "version": self._version, "provider": self._provider, "threads": self._threads}

    def close(self) -> None:
        self._session = None

    def _call(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        logits = executed(self._session, self._output, self._input, batch, self._where)
        if logits.shape != (len(batch), self.classes):
            raise CompressError(f"{self._where}: gives logits {logits.shape} for {len(batch)} images; export it again")
        return np.asarray(logits, np.float32)


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise CompressError("onnxruntime is not installed, it executes .onnx files; pip install onnxruntime") from None
    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(FATAL)
    return onnxruntime


def open_stage(stage: Stage, *, batch_size: int, threads: int, device: str) -> OnnxRunner:
    """The model of an exported stage, its bytes those of the manifest."""
    content = pinned(stage, MODEL)
    return OnnxRunner(content, where=str(stage.path), batch_size=batch_size, threads=threads, device=device)


def _provider(runtime: Any, device: str) -> str:
    """The execution provider of a device, where this ONNX Runtime has it."""
    if device not in PROVIDERS:
        raise CompressError(f"ONNX Runtime runs on {' or '.join(PROVIDERS)} here, not on {device!r}")
    here = runtime.get_available_providers()
    chosen = next((provider for provider in PROVIDERS[device] if provider in here), None)
    if chosen is None:
        raise CompressError(
            f"onnxruntime {runtime.__version__} has no {PROVIDERS[device][0]}; pip uninstall onnxruntime, then "
            f"pip install onnxruntime-gpu"
        )
    return str(chosen)


def open_session(content: bytes, where: str, *, threads: int = 0, provider: str = "CPUExecutionProvider") -> Any:
    """The runtime's own session of any graph; why it does not open `content`, of one line, as a CompressError."""
    runtime = _import()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or machine.usable_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
    try:
        session = runtime.InferenceSession(content, options, providers=[provider])
    except Exception as fault:  # the runtime's exceptions share no base class
        raise CompressError(f"{where}: {why_not_opened(content, fault, str(runtime.__version__))}") from None
    if provider not in session.get_providers():  # it goes on without a provider that does not start
        raise CompressError(
            f"{where}: ONNX Runtime does not start {provider} here; nvidia-smi must show a GPU, and CUDA and cuDNN "
            f"must be those that onnxruntime-gpu {runtime.__version__} names"
        )
    return session


def executed(session: Any, output: str, entry: str, batch: "npt.NDArray[Any]", where: str) -> "npt.NDArray[Any]":
    """What `output` holds for a batch; CompressError where the runtime cannot compute it."""
    try:
        (values,) = session.run([output], {entry: batch})
    except Exception as fault:  # the runtime's exceptions share no base class
        raise CompressError(
            f"{where}: fails on {len(batch)} images ({why_it_failed(fault)}); export it again"
        ) from None
    return values


def stated_tensor(entry: Any) -> str:
    """`logits float (N, 10)`, as a session has an input or output."""
    kind = entry.type.removeprefix("tensor(").removesuffix(")") if entry.type.startswith("tensor(") else entry.type
    return f"{entry.name} {kind} ({', '.join('?' if size is None else str(size) for size in entry.shape)})"


def _input(session: Any, where: str) -> tuple[str, int, tuple[int, int, int]]:
    """Name, fixed batch size or 0, and (C,H,W) of the one input."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise CompressError(f"{where}: has {len(inputs)} inputs; a classifier has one, images (N,C,H,W)")
    (entry,) = inputs
    if entry.type != "tensor(float)" or len(entry.shape) != 4:
        raise CompressError(
            f"{where}: takes {stated_tensor(entry)}; a classifier takes float32 images (N,C,H,W): `compress export` "
            f"makes it take them"
        )
    batch, *image = entry.shape
    if not all(isinstance(size, int) and size > 0 for size in image):
        raise CompressError(
            f"{where}: takes {stated_tensor(entry)}, whose C, H and W are not fixed; `compress export` takes them from "
            f"--data"
        )
    channels, height, width = image
    return entry.name, batch if isinstance(batch, int) and batch > 0 else 0, (channels, height, width)


def _output(session: Any, where: str) -> tuple[str, int]:
    """Name and number of classes of the one output."""
    outputs = session.get_outputs()
    if len(outputs) != 1:
        raise CompressError(
            f"{where}: has {len(outputs)} outputs: {', '.join(map(stated_tensor, outputs))}; a classifier has one: "
            f"`compress export` keeps that of --output NAME"
        )
    (entry,) = outputs
    if entry.type != "tensor(float)" or len(entry.shape) != 2 or not isinstance(entry.shape[1], int):
        raise CompressError(f"{where}: gives {stated_tensor(entry)}; a classifier gives float32 logits (N,K), K fixed")
    return entry.name, entry.shape[1]
