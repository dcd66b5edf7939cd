"""In which arithmetic a network computes where float32 is not demanded: bfloat16 where the processor multiplies it."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import torch

from edge.core.errors import CompressError

FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = ("auto", FLOAT32, BFLOAT16)

_exact = contextvars.ContextVar("exact", default=False)


def has_bfloat16(device: "torch.device | str") -> bool:
    """Whether matrix products in bfloat16 are done by the hardware: AVX512-BF16 or AMX, or a GPU from Ampere on."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def resolve(wanted: str, device: "torch.device | str") -> str:
    """ "float32" or "bfloat16": `auto` is bfloat16 where the hardware has it. Emulated bfloat16 is only slower."""
    if wanted not in PRECISIONS:
        raise CompressError(f"precision {wanted!r}: not known; give {', '.join(PRECISIONS)}")
    if wanted != "auto":
        return wanted
    return BFLOAT16 if has_bfloat16(device) else FLOAT32


@contextlib.contextmanager
def autocast(precision: str, device: "torch.device | str") -> Iterator[None]:
    """Convolutions and matrix products inside in that precision."""
    kind = torch.device(device).type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == BFLOAT16):
        yield


@contextlib.contextmanager
def full() -> Iterator[None]:
    """float32 means float32 inside: no TF32 in matrix products and convolutions on a GPU."""
    backends: Any = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """As `full`, and what `rounds` speaks of does not round inside: for differences, which rounding would swallow."""
    before = _exact.set(True)
    try:
        with full():
            yield
    finally:
        _exact.reset(before)


def rounds(precision: str, device: "torch.device | str") -> bool:
    """Whether a training pass of that precision, made now, has fewer digits than float32: bfloat16, TF32 on a GPU."""
    if precision == BFLOAT16:
        return not _exact.get()
    on_gpu = torch.device(device).type == "cuda"
    return on_gpu and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
