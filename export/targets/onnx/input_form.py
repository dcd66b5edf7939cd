"""What a file of another tool takes for an image, and the nodes that make it of float32 NCHW pixels in [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.zoo.catalog import normalization_constants
from edge.core.errors import CompressError

#: Element types of images, as ONNX Runtime calls them → as NumPy and ONNX do.
IMAGE_TYPES = {
    "tensor(float)": (np.float32, TensorProto.FLOAT),
    "tensor(float16)": (np.float16, TensorProto.FLOAT16),
    "tensor(double)": (np.float64, TensorProto.DOUBLE),
    "tensor(uint8)": (np.uint8, TensorProto.UINT8),
}
BYTES = "tensor(uint8)"
TO_LAST = (0, 2, 3, 1)
FIRST_QUANTIZER = 10  # the opset that brought QuantizeLinear


@dataclass(frozen=True)
class InputForm:
    """`normalize`: a name or M/S, of red, green and blue in [0, 1]; the result is multiplied by `full_scale`, 1 or 255.

    Then the channels, then the axes are put into the file's order.
    """

    normalize: str = "none"
    full_scale: int = 1
    channels: str = "rgb"  # or bgr
    layout: str = "nchw"  # or nhwc
    kind: str = "tensor(float)"

    @property
    def untouched(self) -> bool:
        """Whether images go in as they are."""
        return self == InputForm()

    @property
    def options(self) -> str:
        """As it is written on the command line; without what is the default."""
        parts = [
            f"--normalize {self.normalize}" if self.normalize != "none" else "",
            f"--range {self.full_scale}" if self.full_scale != 1 and self.kind != BYTES else "",
            f"--channels {self.channels}" if self.channels != "rgb" else "",
            f"--layout {self.layout}" if self.layout != "nchw" else "",
        ]
        return " ".join(filter(None, parts)) or "--normalize none"

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """What the file is fed for images uint8 (N,C,H,W): (N,C,H,W) or (N,H,W,C) of its own type."""
        x = images
        if self.kind != BYTES:
            x = x.astype(np.float32) / np.float32(255)
            if self.normalize != "none":
                mean, std = self._constants(images.shape[1])
                x = (x - mean) / std
            x = (x * np.float32(self.full_scale)).astype(IMAGE_TYPES[self.kind][0])
        x = x[:, ::-1] if self.channels == "bgr" else x
        return np.ascontiguousarray(x.transpose(TO_LAST) if self.layout == "nhwc" else x)

    def nodes(self, source: str, result: str, channels: int, opset: int, scope: str) -> list[onnx.NodeProto]:
        """From `source`, float32 (N,C,H,W) in [0, 1], to `result`, as the file takes it. Constants are nodes too.

        Before IR version 4 an initializer had to be an input as well. 8-bit levels are rounded to by QuantizeLinear,
        whose gradient a twin passes straight through.
        """
        chain: list[tuple[str, list[Any], dict[str, Any]]] = []
        if self.normalize != "none":
            mean, std = self._constants(channels)
            chain += [("Sub", [mean], {}), ("Div", [std], {})]
        if self.kind == BYTES and opset >= FIRST_QUANTIZER:
            chain.append(("QuantizeLinear", [np.array(1 / 255, np.float32), np.array(0, np.uint8)], {}))
        elif self.kind == BYTES:
            chain += [("Mul", [np.array(255, np.float32)], {}), ("Add", [np.array(0.5, np.float32)], {})]
            chain += [("Floor", [], {}), ("Cast", [], {"to": TensorProto.UINT8})]
        elif self.full_scale != 1:
            chain.append(("Mul", [np.array(self.full_scale, np.float32)], {}))
        if self.kind not in (BYTES, "tensor(float)"):
            chain.append(("Cast", [], {"to": IMAGE_TYPES[self.kind][1]}))
        if self.channels == "bgr":
            chain.append(("Gather", [np.arange(channels)[::-1].copy()], {"axis": 1}))
        if self.layout == "nhwc":
            chain.append(("Transpose", [], {"perm": list(TO_LAST)}))
        return chained(chain, source, result, scope)

    def _constants(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (1,C,1,1)."""
        mean, std = normalization_constants(self.normalize, channels)
        return np.array(mean, np.float32).reshape(1, -1, 1, 1), np.array(std, np.float32).reshape(1, -1, 1, 1)


def chained(
    steps: "Sequence[tuple[str, list[Any], dict[str, Any]]]", source: str, result: str, scope: str
) -> list[onnx.NodeProto]:
    """One node behind the other, each an operator, its constants and its attributes; named in `scope`."""
    nodes = []
    for number, (op, constants, attributes) in enumerate(steps):
        names = [f"{scope}/adopted{number}.{place}" for place in range(len(constants))]
        nodes += [
            helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(value))
            for name, value in zip(names, constants, strict=True)
        ]
        last = number == len(steps) - 1
        step = scope if last else f"{scope}/adopted{number}"
        given = result if last else step
        nodes.append(helper.make_node(op, [source, *names], [given], name=f"{step}/{op}", **attributes))
        source = given
    return nodes


def fitting_layouts(sizes: "Sequence[int | str | None]", shape: "tuple[int, ...]") -> list[str]:
    """Which of nchw and nhwc go with a file's sizes behind the batch, whatever is not fixed, for images (C,H,W)."""
    channels, height, width = shape
    wanted = {"nchw": (channels, height, width), "nhwc": (height, width, channels)}
    return [
        layout
        for layout, expected in wanted.items()
        if all(not isinstance(size, int) or size == want for size, want in zip(sizes, expected, strict=True))
    ]


def checked_form(form: InputForm, where: str) -> InputForm:
    """The form; CompressError where 8-bit images would be normalized before they are rounded to 8 bits."""
    if form.kind == BYTES and form.normalize != "none":
        raise CompressError(f"{where}: takes uint8 images, nothing is normalized before it; leave --normalize out")
    if form.kind == BYTES and form.full_scale != 255:
        raise CompressError(f"{where}: takes uint8 images, 0 to 255; leave --range {form.full_scale} out")
    return form
