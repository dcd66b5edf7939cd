"""INT8 dialects: on which 8-bit grid each runtime computes, one object a dialect, named by its targets.

ONNX Runtime on x86 and arm64 turns a convolution into an integer one only when its input and its output carry the
same 8-bit type and a ReLU before the output's quantizer is redundant. So non-negative tensors are U8 with zero point
0, signed ones U8 with zero point 128, which is the symmetric signed grid, shifted; biases are int32 on the sum's grid.

TensorRT knows symmetric quantization only: S8 with zero point 0 everywhere, biases float, scales in FP16 as the rest of
the graph is. It computes a convolution and what is behind it as one, so the sites between are without a quantizer.
Either way the twin of that dialect has exactly these grids (scales of FP16 but for their rounding).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.core import targets
from edge.core.errors import CompressError

SIGNED, UNSIGNED = (-128, 127), (0, 255)
#: The smallest normal number of FP16.
LEAST_HALF = np.float32(2.0**-14)


@dataclass(frozen=True)
class StoredGrid:
    """How one activation tensor is stored: real = scale · (level − zero_point)."""

    scale: np.ndarray
    zero_point: "np.uint8 | np.int8"


@dataclass(frozen=True)
class Int8Dialect:
    """How a runtime's INT8 differs; weights are int8 per output channel, zero point 0, in all of them.

    `unsigned`: levels 0…255 where nothing is negative, else −128…127 everywhere. `integer_bias`: int32 on the grid of
    the accumulator, else float. `half_scales`: scales that FP16 holds. `fuses`: it does without the sites in `fused` of
    a layout.
    """

    unsigned: bool
    integer_bias: bool
    half_scales: bool
    fuses: bool

    def layout(self, stored: Mapping[str, Any]) -> "dict[str, Any]":
        """The layout of this dialect's twin, of that which `quantizer.json` stores: the same ranges on its own grid."""
        sites = {
            site: unsigned and self.unsigned
            for site, unsigned in stored["unsigned"].items()
            if not (self.fuses and site in stored["fused"])
        }
        return {**stored, "unsigned": sites}

    def levels(self, unsigned: bool) -> "tuple[int, int]":
        """The lowest and the highest level of a tensor that may be known to be ≥ 0."""
        return UNSIGNED if unsigned and self.unsigned else SIGNED

    def stored(self, amax: float, unsigned: bool) -> StoredGrid:
        """How a tensor is stored whose largest magnitude is `amax`, and whose values may be known to be ≥ 0."""
        scale = self.scale(amax / self.levels(unsigned)[1])
        if unsigned and self.unsigned:
            return StoredGrid(scale, np.uint8(0))
        return StoredGrid(scale, np.uint8(128) if self.unsigned else np.int8(0))

    def scale(self, value: Any) -> np.ndarray:
        """A scale, or one a channel, as the file holds it: float32."""
        scale = np.asarray(value, np.float32)
        return half_scale(scale) if self.half_scales else scale


ONNX_RUNTIME = Int8Dialect(unsigned=True, integer_bias=True, half_scales=False, fuses=False)
TENSORRT = Int8Dialect(unsigned=False, integer_bias=False, half_scales=True, fuses=True)


def dialect(name: str) -> Int8Dialect:
    """The dialect of that name; an unknown one, or one whose object is none: CompressError."""
    known = targets.grid_of(name)
    if not isinstance(known, Int8Dialect):
        raise CompressError(
            f"runtime {name!r}: its grid is a {type(known).__name__}; give a compress.quantization.grids.Int8Dialect"
        )
    return known


def half_scale(scale: np.ndarray) -> np.ndarray:
    """Scales as FP16 holds them, as float32, never below its smallest normal number, 2⁻¹⁴.

    What lies below keeps few bits there, and processors may take it for zero. The levels are counted in steps of the
    raised scale, so that a channel of tiny weights has fewer of them, each at most 3·10⁻⁵ away from its weight.
    """
    return np.maximum(scale.astype(np.float16).astype(np.float32), LEAST_HALF)
