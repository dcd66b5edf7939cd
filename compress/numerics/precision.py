"""In which arithmetic a network computes where float32 is not demanded: bfloat16 where the processor multiplies it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from edge.core.errors import CompressError

FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = ("auto", FLOAT32, BFLOAT16)


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
