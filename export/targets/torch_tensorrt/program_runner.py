"""A Torch-TensorRT program on the GPU. The one runner that needs torch, so it stands here and not in `edge`.

The library is imported only where it can work; what cannot is one line, and what it logs stays off the terminal.
"""

import contextlib
import importlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError, first_line
from edge.core.progress import say
from edge.runtimes.runner import Runner
from export.contract import CONTRACT
from export.targets.torch_tensorrt import versions
from export.targets.torch_tensorrt.preparation import quiet

#: Where programs are built and run: the first GPU.
DEVICE = "cuda"
#: The loggers of the package and of the builder that it drives.
LOGGER, BUILDER = "torch_tensorrt", "torch_tensorrt [TensorRT Conversion Context]"


def load_torch_tensorrt(target: str) -> Any:
    """The module `torch_tensorrt` for torch-tensorrt or torch-tensorrt-rtx, versions and GPU checked before it."""
    versions.check_versions(target)
    if not torch.cuda.is_available():
        raise CompressError(
            f"{target} builds and runs programs on an NVIDIA GPU, torch {torch.__version__} finds none here; check "
            f"nvidia-smi, or use --target tensorrt, whose engine can be built later"
        )
    logging.getLogger(LOGGER).setLevel(logging.CRITICAL)
    try:
        with quiet():
            library = importlib.import_module("torch_tensorrt")
    except Exception as fault:  # its own import raises bare exceptions
        raise CompressError(
            f"{target} {versions.version(target)} does not import ({first_line(fault)}); install it anew: "
            f"{versions.command(target)}"
        ) from None
    logging.captureWarnings(False)  # importing it turns every warning of the process into a line of its log
    return library


@contextlib.contextmanager
def complaints() -> Iterator[list[str]]:
    """The builder's faults inside, which its exceptions do not repeat."""
    faults: list[str] = []
    kept = logging.Handler(logging.ERROR)
    kept.emit = lambda record: faults.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(BUILDER)
    logger.addHandler(kept)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield faults
    finally:
        logger.propagate = propagated
        logger.removeHandler(kept)


def open_stage(stage: Stage, *, batch_size: int, threads: int, device: str) -> "TorchTensorRTRunner":
    """The program of an exported stage, on the GPU.

    `batch_size` is moved into the range that the program was built for, said in one line. `threads` means nothing to
    it. Loading a program unpickles and executes native code: only bytes whose hash the manifest names are handed over.
    """
    target = stage.config["target"]
    if device != "cuda":
        raise CompressError(f"{stage.path}: a {target} program runs on --device cuda, not on {device}")
    contract = json.loads(stage.file(CONTRACT).read_text(encoding="utf-8"))
    name = contract["model"]["file"]
    content = stage.file(name).read_bytes()
    got, want = artifact.bytes_sha256(content), stage.manifest["payload"][name]["sha256"]
    if got != want:
        raise CompressError(
            f"{stage.path}: {name} has sha256 {got:.12}, the manifest says {want:.12}; "
            f"delete the folder and run: {stage.manifest['made']['command']}"
        )
    least, most = contract["input"]["batch"]["min"], contract["input"]["batch"]["max"]
    channels, height, width = contract["input"]["shape"][1:]

    def opened(size: int) -> TorchTensorRTRunner:
        within = min(max(size, least), most)
        runner = TorchTensorRTRunner(
            content,
            where=str(stage.path),
            file=name,
            target=target,
            program=stage.config["engine"]["program"],
            batch_size=within,
            input_shape=(channels, height, width),
            classes=len(contract["labels"]),
            again=opened,
        )
        if within != size:
            say(f"{stage.path}: built for {least} to {most} images a call, not {size}; {within} are taken")
        return runner

    return opened(batch_size)


class TorchTensorRTRunner(Runner):
    """The program in `content`, executed on the first GPU. `where` names it in messages."""

    def __init__(
        self,
        content: bytes,
        *,
        where: str,
        file: str,
        target: str,
        program: str,
        batch_size: int,
        input_shape: tuple[int, int, int],
        classes: int,
        again: "Callable[[int], TorchTensorRTRunner] | None" = None,
    ) -> None:
        self._again = again
        self._library = load_torch_tensorrt(target)
        self._where, self._target = where, target
        self.file, self.size = file, len(content)
        self.batch_size, self.input_shape, self.classes = batch_size, input_shape, classes
        started = time.perf_counter_ns()
        self._program: Any = self._load(content, program)
        torch.cuda.synchronize()
        self.open_ms = (time.perf_counter_ns() - started) / 1e6
        self.sha256 = artifact.bytes_sha256(content)

    def again(self, batch_size: int) -> "TorchTensorRTRunner":
        if self._again is None:
            raise NotImplementedError
        return self._again(batch_size)

    def describe(self) -> dict[str, Any]:
        """{"name", "version", "provider", "threads"}; the GPU is the provider, the processor computes nothing."""
        return {
            "name": self._target,
            "version": str(self._library.__version__),
            "provider": torch.cuda.get_device_name(),
            "threads": 1,
        }

    def close(self) -> None:
        self._program = None
        torch.cuda.empty_cache()

    def _load(self, content: bytes, program: str) -> Any:
        try:
            with quiet():
                if program == "aoti":
                    return torch._inductor.aoti_load_package(io.BytesIO(content))
                return torch.export.load(io.BytesIO(content)).module()
        except Exception as fault:  # unpickling, engines and extensions raise what they like
            raise CompressError(
                f"{self._where}: the program does not load here ({first_line(fault)}); it was "
                f"built for one GPU and one version of TensorRT: export it again on this machine"
            ) from None

    def _call(self, batch: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        try:
            with torch.no_grad():
                answer: Tensor = self._program(torch.from_numpy(batch).to(DEVICE))
                logits: npt.NDArray[np.float32] = answer.float().cpu().numpy()
        except Exception as fault:  # likewise
            raise CompressError(
                f"{self._where}: fails on {len(batch)} images ({first_line(fault)}); export it again on this machine"
            ) from None
        if logits.shape != (len(batch), self.classes):
            raise CompressError(f"{self._where}: gives logits {logits.shape} for {len(batch)} images; export it again")
        return logits
