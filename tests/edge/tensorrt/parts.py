"""What the tests here share: the real TensorRT-RTX where it is installed, recipes, a device that is not there."""

import os
import platform
from dataclasses import replace
from typing import Any

import pytest

from edge.runtimes.tensorrt import library
from edge.runtimes.tensorrt.cuda import Device
from edge.runtimes.tensorrt.library import Library
from edge.runtimes.tensorrt.recipe import Recipe
from tests.edge.tensorrt.graphs import CONVS

ORIN = Device("Orin", "8.7", 8 << 30, 4 << 30, integrated=True, driver="12.6", runtime="12.6")
RTX_3090 = Device("NVIDIA GeForce RTX 3090", "8.6", 24 << 30, 20 << 30, integrated=False, driver="13.0", runtime="13.0")


def rtx() -> Library:
    """The installed TensorRT-RTX, which builds without a GPU. In CI it must be there."""
    if not os.environ.get("CI") or platform.machine() != "x86_64":
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed", exc_type=ImportError)
    return library.load_library("tensorrt-rtx")


def recipe_of(target: str = "tensorrt-rtx", **changes: Any) -> Recipe:
    """The recipe of an export that was asked for nothing, all of `graphs`' nodes in it."""
    plain = Recipe(target, "float32", (1, 1, 64), None, 3, "none", False, None, (), 1, CONVS, CONVS)
    return replace(plain, **changes)
