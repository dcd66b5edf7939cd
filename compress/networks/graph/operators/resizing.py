"""Resize and Upsample, axis by axis, at the coordinates that ONNX Runtime computes, in single precision as it does.

An axis is resized by picking places or by a matrix of weights, which sizes, scales and attributes determine.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.networks.graph import Node, Operator
from compress.networks.graph.operators.operands import numbers

NEAREST, LINEAR, CUBIC = "nearest", "linear", "cubic"
#: What lies so near the middle between two places lies in it, as in ONNX Runtime
HALFWAY = 1e-6
CROP = "tf_crop_and_resize"


@dataclass(frozen=True)
class AxisResize:
    """One axis: `scale` new places a place, stated where it is `scaled`; `start` and `end` of the region of interest.

    Of a stated scale that leads to no whole number of places, implementations align other corners: refused.
    """

    size: int
    target: int
    scaled: bool
    scale: float
    start: float
    end: float
    mode: str
    coordinates: str
    nearest: str
    cubic: float
    antialias: bool
    exclude_outside: bool

    def places(self) -> "np.ndarray":
        """Where each new place lies between the old ones."""
        x, scale, size = np.arange(self.target, dtype=np.float32), np.float32(self.scale), np.float32(self.size)
        half, target = np.float32(0.5), np.float32(self.target)
        if self.coordinates == "align_corners":
            if self.scaled and self.scale * self.size != self.target:
                raise ValueError(f"align_corners to {self.scale * self.size:.6g} places is not supported")
            return x * (size - 1) / (target - 1) if self.target > 1 else x * 0
        if self.coordinates == "asymmetric":
            return x / scale
        if self.coordinates == "tf_half_pixel_for_nn":
            return (x + half) / scale
        if self.coordinates == CROP:
            if self.scale == 1 and (self.start, self.end) != (0, 1):
                raise ValueError(f"{CROP} of a part of an axis to as many places is not supported")
            start, end = np.float32(self.start), np.float32(self.end)
            if self.target > 1:
                return start * (size - 1) + x * (end - start) * (size - 1) / (target - 1)
            return x + half * (start + end) * (size - 1)
        if self.coordinates == "pytorch_half_pixel" and self.target <= 1:
            return x * 0
        shift = np.float32(0)
        if self.coordinates == "half_pixel_symmetric":
            shift = size / 2 * (1 - target / (scale * size))
        elif self.coordinates not in ("half_pixel", "pytorch_half_pixel"):
            raise ValueError(f"coordinate_transformation_mode {self.coordinates} is not supported")
        return shift + (x + half) / scale - half

    def outside(self) -> "np.ndarray":
        """Which new places lie outside of the old ones, and are given another value."""
        places = self.places()
        return (places < 0) | (places > self.size - 1) if self.coordinates == CROP else np.zeros(self.target, bool)


@functools.lru_cache(64)
def _picked(axis: AxisResize) -> Tensor:
    """The old place that is nearest to each new one."""
    if axis.coordinates == "half_pixel_symmetric" and axis.nearest in ("floor", "ceil"):
        raise ValueError(f"nearest_mode {axis.nearest} with {axis.coordinates} is not supported")
    x = axis.places().astype(np.float64)
    if axis.nearest == "simple":  # before opset 11
        picked = np.ceil(x) if axis.scale < 1 else np.trunc(x)
    elif axis.nearest == "round_prefer_floor":
        picked = np.ceil(x - 0.5 - HALFWAY)
    elif axis.nearest == "round_prefer_ceil":
        picked = np.floor(x + 0.5 + HALFWAY)
    elif axis.nearest in ("floor", "ceil"):
        picked = np.floor(x) if axis.nearest == "floor" else np.ceil(x)
    else:
        raise ValueError(f"nearest_mode {axis.nearest} is not supported")
    return torch.from_numpy(picked.clip(0, axis.size - 1).astype(np.int64))


@functools.lru_cache(64)
def _weights(axis: AxisResize) -> Tensor:
    """(target, size): of each new place the weights of the old ones."""
    x = axis.places().astype(np.float64)
    if axis.mode == LINEAR and not axis.antialias:
        x = x.clip(0, axis.size - 1)
    shrink = min(axis.scale, 1.0) if axis.antialias else 1.0
    reach = (1 if axis.mode == LINEAR else 2) / shrink
    weights = np.zeros((axis.target, axis.size))
    for row, place in enumerate(x):
        taps = np.arange(math.floor(place - reach) + 1, math.floor(place + reach) + 1)
        values = _kernel(axis, (taps - place) * shrink)
        if axis.exclude_outside:
            values[(taps < 0) | (taps >= axis.size)] = 0
        if axis.exclude_outside or axis.antialias:
            values /= values.sum()
        np.add.at(weights[row], taps.clip(0, axis.size - 1), values)
    return torch.from_numpy(weights)


def _kernel(axis: AxisResize, distance: "np.ndarray") -> "np.ndarray":
    x, a = np.abs(distance), axis.cubic
    if axis.mode == LINEAR:
        return np.clip(1 - x, 0, None)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _resize(
    node: Node,
    x: Tensor,
    region: "Tensor | None" = None,
    scales: "Tensor | None" = None,
    sizes: "Tensor | None" = None,
) -> Tensor:
    if node.opset < 11:  # its second input is the scales
        return _resized(node, x, _axes(node, x, region, None, None, "asymmetric", "simple"))
    scales = None if scales is None or 0 in scales.shape else scales
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    nearest = node.text("nearest_mode", "round_prefer_floor")
    return _resized(node, x, _axes(node, x, scales, sizes, region, coordinates, nearest))


def _upsample(node: Node, x: Tensor, scales: "Tensor | None" = None) -> Tensor:
    """Scales are an attribute before opset 9."""
    given = torch.tensor(node.attributes.get("scales", [])) if scales is None else scales
    return _resized(node, x, _axes(node, x, given, None, None, "asymmetric", "simple"))


def _axes(
    node: Node,
    x: Tensor,
    scales: "Tensor | None",
    sizes: "Tensor | None",
    region: "Tensor | None",
    coordinates: str,
    nearest: str,
) -> dict[int, AxisResize]:
    """The axes that are stated, by their scales or by their new sizes."""
    chosen = [axis % x.ndim for axis in node.ints("axes", range(x.ndim))]
    factors, targets = _factors(node, [x.shape[axis] for axis in chosen], scales, sizes)
    bounds = [0.0] * len(chosen) + [1.0] * len(chosen)
    if coordinates == CROP and region is not None:
        bounds = region.tolist()
    mode = node.text("mode", NEAREST)
    if mode not in (NEAREST, LINEAR, CUBIC) or (mode == NEAREST and node.whole("antialias", 0)):
        raise ValueError(f"mode {mode} with antialias = {node.whole('antialias', 0)} is not supported")
    common = (
        mode,
        coordinates,
        nearest,
        node.number("cubic_coeff_a", -0.75),
        bool(node.whole("antialias", 0)),
        bool(node.whole("exclude_outside", 0)) and (mode == CUBIC or bool(node.whole("antialias", 0))),
    )
    return {
        axis: AxisResize(
            x.shape[axis], targets[k], scales is not None, factors[k], bounds[k], bounds[k + len(chosen)], *common
        )
        for k, axis in enumerate(chosen)
        if factors[k] != 1 or (coordinates == CROP and (bounds[k], bounds[k + len(chosen)]) != (0, 1))
    }


def _factors(
    node: Node, old: list[int], scales: "Tensor | None", sizes: "Tensor | None"
) -> tuple[list[float], list[int]]:
    """Scale and new size by axis. The number of images, which may be a symbol, is scaled by 1."""
    if scales is not None:
        factors = [float(value) for value in scales.tolist()]
        scaled = zip(old, factors, strict=True)
        return factors, [
            size if factor == 1 else math.floor(np.float32(size) * np.float32(factor)) for size, factor in scaled
        ]
    if sizes is None:
        raise ValueError("it has neither scales nor sizes")
    new = numbers(sizes)
    pairs = zip(old, new, strict=True)
    factors = [1.0 if size == target else float(np.float32(target) / np.float32(size)) for size, target in pairs]
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise ValueError(f"keep_aspect_ratio_policy {policy} is not supported")
    if policy != "stretch":
        if any(axis < 0 for axis in node.ints("axes", [-1])):  # ONNX Runtime takes those as they are
            raise ValueError(f"keep_aspect_ratio_policy {policy} without axes from the front is not supported")
        factor = min(factors) if policy == "not_larger" else max(factors)
        factors = [factor] * len(old)
        new = [math.floor(factor * np.float32(size) + 0.5) for size in old]
    return factors, new


def _resized(node: Node, x: Tensor, axes: dict[int, AxisResize]) -> Tensor:
    outside = None
    for place, axis in axes.items():
        if axis.mode == NEAREST:
            x = x.index_select(place, _picked(axis).to(x.device))
        elif x.is_floating_point():
            x = torch.tensordot(x, _weights(axis).to(x.device, x.dtype), ([place], [1])).movedim(-1, place)
        else:
            raise ValueError(f"mode {axis.mode} on integers is not supported")
        if axis.outside().any():
            beside = torch.from_numpy(axis.outside()).to(x.device).reshape([-1] + [1] * (x.ndim - 1 - place))
            outside = beside if outside is None else outside | beside
    return x if outside is None else x.masked_fill(outside, node.number("extrapolation_value", 0.0))


RESIZING = {
    "Resize": Operator(
        _resize,
        "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
        "keep_aspect_ratio_policy mode nearest_mode",
        numbers=(1, 2, 3),
    ),
    "Upsample": Operator(_upsample, "mode scales", numbers=(1,)),
}
