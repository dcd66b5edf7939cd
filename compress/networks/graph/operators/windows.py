"""Convolution and pooling: windows over an image of one to three dimensions, laid as ONNX Runtime lays them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from compress.networks.graph import Node, Operator

#: The attributes of every convolution, and of every pool
CONVOLUTION = "auto_pad dilations group kernel_shape pads strides"
POOL = "auto_pad ceil_mode dilations kernel_shape pads strides"
#: By the dimensions of the tensor, images and channels counted
CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
TRANSPOSED = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d, 5: functional.conv_transpose3d}
LARGEST = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}
MEANS = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}


def conv(node: Node, x: Tensor, weight: Tensor, bias: "Tensor | None" = None) -> Tensor:
    """x (B,C,…), weight (O,C/groups,…), bias (O,)."""
    kernel = _kernel(node, weight)
    strides, dilations = node.ints("strides", [1] * len(kernel)), node.ints("dilations", [1] * len(kernel))
    pads = _pads(node, x, kernel, strides, dilations)
    groups = node.whole("group", 1)
    half = len(kernel)
    if pads[:half] == pads[half:]:
        return CONVOLUTIONS[x.ndim](x, weight, bias, strides, pads[:half], dilations, groups)
    return CONVOLUTIONS[x.ndim](_padded(x, pads, 0.0), weight, bias, strides, 0, dilations, groups)


def _kernel(node: Node, weight: Tensor) -> list[int]:
    kernel = list(weight.shape[2:])
    if (stated := node.ints("kernel_shape", kernel)) != kernel:
        raise ValueError(f"kernel_shape {stated} is not that of its weights, {kernel}")
    return kernel


def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: "Tensor | None" = None) -> Tensor:
    """x (B,C,…), weight (C,O/groups,…): every place of the windows is computed, then pads are cut off."""
    kernel = _kernel(node, weight)
    ones, half = [1] * len(kernel), len(kernel)
    strides, dilations = node.ints("strides", ones), node.ints("dilations", ones)
    beyond, mode = node.ints("output_padding", [0] * half), node.text("auto_pad", "NOTSET")
    whole = TRANSPOSED[x.ndim](x, weight, None, strides, 0, 0, node.whole("group", 1), dilations)
    sizes = [size + extra for size, extra in zip(whole.shape[2:], beyond, strict=True)]
    pads = node.ints("pads", [0] * 2 * half)
    wanted = node.ints("output_shape", [])
    if wanted or mode.startswith("SAME"):
        targets = wanted or [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        totals = [max(size - target, 0) for size, target in zip(sizes, targets, strict=True)]
        if wanted and any(target > size for size, target in zip(sizes, targets, strict=True)):
            raise ValueError(f"output_shape = {wanted} beyond {sizes} is not supported")
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = [*small, *large] if mode == "SAME_UPPER" else [*large, *small]
    elif mode == "VALID":
        pads = [0] * 2 * half
    begins = pads[:half]
    lengths = [size - begin - end for size, begin, end in zip(sizes, begins, pads[half:], strict=True)]
    ends = [begin + length - size for begin, length, size in zip(begins, lengths, whole.shape[2:], strict=True)]
    cut = _padded(whole, [*(-begin for begin in begins), *ends], 0.0)
    return cut if bias is None else cut + bias.reshape(-1, *ones)


@dataclass(frozen=True)
class PoolWindows:
    """Kernel, strides and dilations by axis; `pads` as stated, begins before ends, `reach`: those windows really use.

    They differ where `ceil_mode` adds a window that ends behind the padding. One that would begin there does not exist.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    reach: list[int]

    @classmethod
    def of(cls, node: Node, x: Tensor) -> "PoolWindows":
        kernel = node.ints("kernel_shape", [])
        ones, half = [1] * len(kernel), len(kernel)
        if half != x.ndim - 2 or x.ndim not in LARGEST:
            raise ValueError(f"a window of {half} dimensions over {x.ndim} is not supported")
        strides, dilations = node.ints("strides", ones), node.ints("dilations", ones)
        _refuse_same(node, x, kernel, strides, dilations)
        pads = _pads(node, x, kernel, strides, dilations)
        ends = []
        for axis, size in enumerate(x.shape[2:]):
            begin, end, stride = pads[axis], pads[half + axis], strides[axis]
            width = (kernel[axis] - 1) * dilations[axis] + 1
            steps = size + begin + end - width
            count = (-(-steps // stride) if node.whole("ceil_mode", 0) else steps // stride) + 1
            if (count - 1) * stride >= size + begin:
                count -= 1
            used = (count - 1) * stride + width - size - begin
            room = max(used, end, 0)
            # more room than is used may hold one more window: the one that does not exist
            ends.append(used if (size + begin + room - width) // stride + 1 > count else room)
        return cls(kernel, strides, dilations, pads, [*pads[:half], *ends])


def _refuse_same(node: Node, x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> None:
    """Padding to the same size, where ONNX Runtime lays pools otherwise than it lays convolutions."""
    mode = node.text("auto_pad", "NOTSET")
    if not mode.startswith("SAME"):
        return
    if max(dilations) > 1:
        raise ValueError(f"dilations = {dilations} with auto_pad {mode} is not supported")
    rests = [(size - 1) % step + 1 - width for size, step, width in zip(x.shape[2:], strides, kernel, strict=True)]
    if node.op != "MaxPool" and max(rests) > 1:
        raise ValueError(f"strides = {strides} beyond the window with auto_pad {mode} is not supported")


def max_pool(node: Node, x: Tensor) -> Tensor:
    windows = PoolWindows.of(node, x)
    least = torch.finfo(x.dtype).min if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded = _padded(x, windows.reach, least)
    return LARGEST[x.ndim](padded, windows.kernel, windows.strides, 0, windows.dilations)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """Over the pixels of the image that a window holds, with `count_include_pad` over those of the padding too."""
    windows = PoolWindows.of(node, x)
    total = _mean(_padded(x, windows.reach, 0.0), windows)
    counted = bool(node.whole("count_include_pad", 0))
    if not any(windows.reach) or (counted and windows.reach == windows.pads):
        return total
    ones = torch.ones_like(x[:1, :1])
    if counted:
        ones = _padded(ones, windows.pads, 1.0)
        beyond = [reach - pad for reach, pad in zip(windows.reach, windows.pads, strict=True)]
        return total / _mean(_padded(ones, beyond, 0.0), windows)
    return total / _mean(_padded(ones, windows.reach, 0.0), windows)


def lp_pool(node: Node, x: Tensor) -> Tensor:
    windows, p = PoolWindows.of(node, x), node.whole("p", 2)
    means = _mean(_padded(x.abs() ** p, windows.reach, 0.0), windows)
    return (means * math.prod(windows.kernel)).clamp(min=torch.finfo(x.dtype).tiny) ** (1 / p)  # √0 has no gradient


def _mean(x: Tensor, windows: PoolWindows) -> Tensor:
    """Of each window all its places."""
    if not any(dilation > 1 for dilation in windows.dilations):
        return MEANS[x.ndim](x, windows.kernel, windows.strides, 0)
    weight = torch.full((1, 1, *windows.kernel), 1 / math.prod(windows.kernel), dtype=x.dtype)
    each = x.reshape(-1, 1, *x.shape[2:])
    means = CONVOLUTIONS[x.ndim](each, weight.to(x.device), None, windows.strides, 0, windows.dilations)
    return means.reshape(*x.shape[:2], *means.shape[2:])


def _pads(node: Node, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    mode = node.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return node.ints("pads", [0] * 2 * len(kernel))
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad {mode} is not supported")
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


#: What ONNX Runtime fuses into a convolution, by its parameters
FUSED: dict[str, Callable[..., Tensor]] = {
    "Clip": lambda x, least, most: x.clamp(least, most),
    "HardSigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "LeakyRelu": functional.leaky_relu,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}


def _fused_conv(
    node: Node, x: Tensor, weight: Tensor, bias: "Tensor | None" = None, added: "Tensor | None" = None
) -> Tensor:
    activation = node.text("activation", "")
    if activation not in FUSED:
        raise ValueError(f"activation {activation} is not supported")
    total = conv(node, x, weight, bias)
    total = total if added is None else total + added
    return FUSED[activation](total, *node.attributes.get("activation_params", ()))


WINDOWS = {
    "AveragePool": Operator(average_pool, f"{POOL} count_include_pad"),
    "Conv": Operator(conv, CONVOLUTION),
    "ConvTranspose": Operator(conv_transpose, f"{CONVOLUTION} output_padding output_shape"),
    "GlobalAveragePool": Operator(lambda node, x: x.mean(tuple(range(2, x.ndim)), keepdim=True)),
    "GlobalLpPool": Operator(
        lambda node, x: torch.linalg.vector_norm(x, node.whole("p", 2), tuple(range(2, x.ndim)), True), "p"
    ),
    "GlobalMaxPool": Operator(lambda node, x: x.amax(tuple(range(2, x.ndim)), keepdim=True)),
    "LpPool": Operator(lp_pool, f"{POOL} p"),
    "MaxPool": Operator(max_pool, POOL, ignores="storage_order"),
    "com.microsoft.FusedConv": Operator(_fused_conv, f"{CONVOLUTION} activation activation_params"),
}
