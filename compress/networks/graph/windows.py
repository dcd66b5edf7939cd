"""ONNX operators that slide a window over an image, in torch: convolution and pooling.

Source of the semantics: the ONNX operator specification. Pads are ONNX's, all begins before all ends.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node

CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


def conv(node: Node, x: Tensor, weight: Tensor, bias: "Tensor | None" = None) -> Tensor:
    """x (B,C,…), weight (O,C/groups,…), bias (O,)."""
    kernel = list(weight.shape[2:])
    strides, dilations = node.ints("strides", [1] * len(kernel)), node.ints("dilations", [1] * len(kernel))
    pads = _pads(node, x, kernel, strides, dilations)
    groups = node.whole("group", 1)
    half = len(kernel)
    if pads[:half] == pads[half:]:
        return CONVOLUTIONS[x.ndim](x, weight, bias, strides, pads[:half], dilations, groups)
    return CONVOLUTIONS[x.ndim](_padded(x, pads, 0.0), weight, bias, strides, 0, dilations, groups)


def max_pool(node: Node, x: Tensor) -> Tensor:
    kernel, strides, dilations, ceil = _window(node)
    padded = _padded(x, _pads(node, x, kernel, strides, dilations), -torch.inf)
    return functional.max_pool2d(padded, kernel, strides, 0, dilations, ceil)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """Without `count_include_pad` a window is averaged over the pixels of the image that it holds."""
    kernel, strides, dilations, ceil = _window(node)
    if any(size != 1 for size in dilations):
        raise ValueError("dilations of an average are not supported")
    pads = _pads(node, x, kernel, strides, dilations)
    total = functional.avg_pool2d(_padded(x, pads, 0.0), kernel, strides, 0, ceil)
    if node.whole("count_include_pad", 0) or not any(pads):
        return total
    ones = _padded(torch.ones_like(x[:1, :1]), pads, 0.0)
    return total / functional.avg_pool2d(ones, kernel, strides, 0, ceil)


def global_average_pool(node: Node, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(node: Node, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def _window(node: Node) -> tuple[list[int], list[int], list[int], bool]:
    kernel = node.ints("kernel_shape", [])
    ones = [1] * len(kernel)
    if len(kernel) != 2:
        raise ValueError(f"a window of {len(kernel)} dimensions is not supported")
    return kernel, node.ints("strides", ones), node.ints("dilations", ones), bool(node.whole("ceil_mode", 0))


def _pads(node: Node, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    mode = node.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return node.ints("pads", [0] * 2 * len(kernel))
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    begins, ends = [], []
    for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return [*begins, *ends]


def _padded(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    if not any(pads):
        return x
    half = len(pads) // 2
    pairs = [side for k in reversed(range(half)) for side in (pads[k], pads[half + k])]
    return functional.pad(x, pairs, value=value)
