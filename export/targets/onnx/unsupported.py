"""Which layer of a network ONNX cannot express, and why, in one line."""

import re
from typing import Any

import torch
from torch import nn


def line(model: nn.Module, example: torch.Tensor, fault: BaseException) -> str:
    """What made the export of `model` fail with `fault`: the operator or the reason, and the torch module at fault."""
    reason = _innermost(fault)
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", reason)
    where, program = _traced(model, example)
    if operator is None:
        first = next(iter(reason.strip().splitlines()), type(fault).__name__)[:160]
        return f"{_layer(where)}ONNX cannot express it ({first}); what it computes must not depend on values, change it"
    if program is not None:
        where = _user(program, operator[1])
    return f"{_layer(where)}{operator[1]} has no counterpart in ONNX; put operators that ONNX knows in its place"


def _innermost(fault: BaseException) -> str:
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return str(fault)


def _traced(model: nn.Module, example: torch.Tensor) -> "tuple[str, Any]":
    """The module whose forward was not traced to its end, or the program of all of them."""
    names = {module: name for name, module in model.named_modules()}
    running: list[str] = []

    def enter(module: nn.Module, args: Any) -> None:
        running.append(names[module])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    handles = [module.register_forward_pre_hook(enter) for module in names]
    handles += [module.register_forward_hook(leave) for module in names]
    try:
        program = torch.export.export(model, (example,)).run_decompositions()
    except Exception:  # what failed before fails again, of whatever type it is
        return running[-1] if running else "", None
    finally:
        for handle in handles:
            handle.remove()
    return "", program


def _user(program: Any, operator: str) -> str:
    """The innermost module that calls the operator, which may go by a longer name before it is decomposed."""
    plain = operator.rpartition(".")[2]
    for node in program.graph.nodes:
        if plain in str(node.target):
            return str(list(node.meta["nn_module_stack"].values())[-1][0])
    return ""


def _layer(name: str) -> str:
    return f"layer {name}: " if name else ""
