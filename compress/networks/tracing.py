"""The operations that a network computes, read off one pass by torch.export; the number of images stays open."""

import builtins
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from edge.core.errors import CompressError, first_line
from edge.core.user_code import place_of

MOST_IMAGES = 65536
#: What an exporter says → what a user did.
REASONS = {
    "data-dependent": "a branch or a number that hangs on a tensor's values",
    "Constraints violated (batch)": "int(x.shape[0]), a loop over images, or the like",
}


class UntraceableNetwork(CompressError):
    """A forward pass that cannot be followed for any number of images."""


def trace_program(model: nn.Module, example: Tensor, what: str = "") -> torch.export.ExportedProgram:
    """The ATen operations of `model`, in evaluation mode as it is, for images like `example` (2,C,H,W).

    Any number of images passes it. UntraceableNetwork says in which module of `model` the pass could not be followed;
    `what` is how the line calls the network.
    """
    try:
        return _export(model, example)
    except Exception as fault:  # whatever a forward pass raises that meets tensors without values
        layer = stopped_in(model, example).removeprefix("network").strip(".")
        place = " of ".join(part for part in (f"layer {layer}" if layer else "", what) if part)
        raise UntraceableNetwork(
            f"{f'{place}: ' if place else ''}what it computes cannot be read off one pass ({_reason(fault)}); write it "
            f"without branches on values and without the number of images as a Python number"
        ) from fault


def _export(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    shapes = ({0: torch.export.Dim("batch", min=1, max=MOST_IMAGES)},)
    with quiet():
        try:
            return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
        except Exception:  # Python asks len() for a number, and the number of images then is that of the example
            with _symbolic_length():
                return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def _symbolic_length() -> Iterator[None]:
    """Inside, `len(x)` of a tensor is `x.shape[0]`, which may be a symbol."""
    number = builtins.len

    def length(x: Any) -> Any:
        return x.shape[0] if isinstance(x, Tensor) and x.ndim else number(x)

    builtins.len = length
    try:
        yield
    finally:
        builtins.len = number


def stopped_in(model: nn.Module, example: Tensor) -> str:
    """The innermost module whose forward a trace of `model` entered and did not leave; "" where none is."""
    names = {module: name for name, module in model.named_modules()}
    running: list[str] = []

    def enter(module: nn.Module, args: Any) -> None:
        running.append(names[module])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    handles: list[Any] = []
    try:
        handles += [module.register_forward_pre_hook(enter) for module in names]
        handles += [module.register_forward_hook(leave) for module in names]
        _export(model, example)
    except Exception:  # what failed before fails again, of whatever type it is
        return running[-1] if running else ""
    finally:
        for handle in handles:
            handle.remove()
    return ""


def _reason(fault: BaseException) -> str:
    """What the innermost fault says, in our words where an exporter has its own, and the user's line that it met."""
    place = place_of(fault)
    while fault.__cause__ is not None:
        fault = fault.__cause__
    said = first_line(fault, 160)
    ours = next((words for theirs, words in REASONS.items() if theirs in said), said)
    return f"{ours}{place}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print and log, of operators of packages that are not installed and of the programs that they trace."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)


def module_path(node: torch.fx.Node) -> str:
    """The innermost module whose forward computed `node`; "" where that is the outermost."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""
