"""Torch-TensorRT, imported only where it can work; what cannot is one line, and what it logs stays off the terminal."""

import contextlib
import importlib
import logging
from collections.abc import Iterator
from typing import Any

import torch

from edge.core.errors import CompressError
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


def first_line(fault: "BaseException | str") -> str:
    """What a foreign exception says, short enough for one line."""
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)[:200]
