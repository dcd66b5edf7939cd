"""One pass of a network written down: which torch functions it calls on what depends on the images, in which module.

`found_features` chooses from it where a network of others has its features.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

#: Functions that are linear in what depends on the images if their other operands do not.
LINEAR = frozenset(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d matmul __matmul__ __rmatmul__ mm bmm addmm baddbmm "  # noqa: SIM905
    "einsum tensordot bilinear cdist cosine_similarity".split()
)
#: Parts of the names of functions whose results have their channels first, (B,C,…), and names of those with them last.
CHANNELS_FIRST = ("conv", "batch_norm", "group_norm", "instance_norm", "pool", "pixel_", "interpolate")
CHANNELS_LAST = ("linear", "layer_norm", "rms_norm")
#: Those that only order the dimensions anew.
REORDERING = ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims")

#: Modules that only hold others.
CONTAINERS = (nn.Sequential, nn.ModuleList)

#: A module and which of its calls in the pass, from 0.
Call = tuple[str, int]


@dataclass(eq=False)
class Operation:
    """One call of a torch function on tensors of which some depend on the images."""

    name: str  # empty where the function is not seen, a scripted one or an autograd function's
    number: int  # among the calls of that name in the pass, from 0
    reads: list[int]  # the operations whose results it takes; -1: the images
    operand: Tensor  # the first tensor that depends on the images, and which of all its tensors that is
    place: int
    output: Tensor
    single: bool  # it gives this tensor alone
    weight: "int | None"  # of a linear one whose other operand does not depend on the images: what tells the weights
    inside: tuple[Call, ...]  # the modules it runs in, outermost first, without the network itself and containers
    modules: list[Call] = field(default_factory=list)  # those whose result its output is, innermost first
    channels_first: "bool | None" = None


class RecordedPass(TorchFunctionMode):
    """The operations of `run`, a pass of `network` on `images` (B,C,H,W), in the order of their execution."""

    def __init__(self, network: nn.Module, images: Tensor, run: Callable[[], Any]) -> None:
        super().__init__()
        self.images = images
        self.operations: list[Operation] = []
        self.inputs: dict[Call, Tensor] = {}  # the first tensor that each call of a module was given, and that it gave
        self.outputs: dict[Call, Tensor] = {}
        self._makers = {id(images): -1}
        self._kept: list[Tensor] = []  # no two tensors that live have the same id
        self._counts: dict[str, int] = {}
        self._stack: list[Call] = []
        self._plain = {name for name, module in network.named_modules() if type(module) in CONTAINERS} | {""}
        hooks = [hook for name, module in network.named_modules() for hook in self._hooks(name, module)]
        hooks.append(register_module_forward_hook(self._scripted))
        try:
            with self:
                result = run()
        finally:
            for hook in hooks:
                hook.remove()
        self.result = result if isinstance(result, Tensor) else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = function_name(func)
        if outputs := outputs_of(name, args, result):
            number = self._counts[name] = self._counts.get(name, -1) + 1
            self._add(name, number, tensors((args, kwargs)), outputs)
        return result

    def maker(self, tensor: Tensor) -> "int | None":
        """The operation that a tensor is the result of; -1 for the images, None where it does not depend on them."""
        return self._makers.get(id(tensor))

    def _add(self, name: str, number: int, given: list[Tensor], outputs: list[Tensor]) -> None:
        places = [place for place, tensor in enumerate(given) if id(tensor) in self._makers]
        if not places:
            return
        others = [tensor for tensor in given if id(tensor) not in self._makers]
        weighted = name in LINEAR and others and len({id(given[place]) for place in places}) == 1
        operation = Operation(
            name,
            number,
            reads=[self._makers[id(given[place])] for place in places],
            operand=given[places[0]],
            place=places[0],
            output=outputs[0],
            single=len(outputs) == 1,
            weight=id(max(others, key=Tensor.numel)) if weighted else None,
            inside=tuple(call for call in self._stack if call[0] not in self._plain),
        )
        operation.channels_first = self._layout(operation)
        for output in outputs:
            self._makers[id(output)] = len(self.operations)
        self._kept += [*outputs, *others]
        self.operations.append(operation)

    def _hooks(self, name: str, module: nn.Module) -> Iterator[Any]:
        calls = count()

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = (name, next(calls))
            self._stack.append(call)
            if isinstance(given := first(args, kwargs), Tensor):
                self.inputs[call] = given

        def after(module: nn.Module, args: Any, output: Any) -> None:
            call, given = self._stack.pop(), first(output)
            if not isinstance(given, Tensor):
                return
            self.outputs[call] = given
            if self.maker(given) is None and call in self.inputs:
                self._add("", 0, [self.inputs[call]], [given])
            if (maker := self.maker(given)) is not None and maker >= 0:
                self.operations[maker].modules.append(call)

        if not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
            yield module.register_forward_pre_hook(before, with_kwargs=True)
            yield module.register_forward_hook(after)

    def _scripted(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, torch.jit.ScriptModule) and (given := tensors(output)):
            self._add("", 0, tensors(args), given)

    def _layout(self, operation: Operation) -> "bool | None":
        """Whether the output's channels come first, where that can be told from how it came about."""
        if any(part in operation.name for part in CHANNELS_FIRST):
            return True
        if operation.name in CHANNELS_LAST:
            return False
        known = (self.operations[read] for read in operation.reads if read >= 0)
        before = next((each for each in known if each.channels_first is not None), None)
        if before is None:
            return None
        shape, was, space = operation.output.shape, before.output.shape, before.output.shape[2:]
        if not shape:  # one number of all images
            return None
        if operation.name in REORDERING:  # sizes may be equal, so by the strides of the view
            stride = before.output.stride(1 if before.channels_first else -1)
            places = [dim for dim in range(1, len(shape)) if operation.output.stride(dim) == stride]
            return places[0] == 1 if places in ([1], [len(shape) - 1]) else None
        if was == shape:
            return before.channels_first
        if before.channels_first and len(was) == 4 and shape == (*was[:2], space.numel()):  # flatten(2)
            return True
        return False if not before.channels_first and shape[-1] == was[-1] else None

    # ------------------------------------------------------------------------------ what leads to the result

    @cached_property
    def relevant(self) -> list[int]:
        """The operations that the result depends on, in order."""
        return self._back(stop=False)[0]

    @cached_property
    def heads(self) -> list[int]:
        """The last linear operations: behind which no other lies on a way to the result."""
        return self._back(stop=True)[1]

    def _back(self, *, stop: bool) -> tuple[list[int], list[int]]:
        """Operations on the ways back from the result, and the linear ones at which these end if they are to stop."""
        passed: set[int] = set()
        ends: set[int] = set()
        ahead = [self._makers.get(id(self.result), -1)]
        while ahead:
            at = ahead.pop()
            if at < 0 or at in passed:
                continue
            passed.add(at)
            if stop and self.operations[at].weight is not None:
                ends.add(at)
            else:
                ahead += self.operations[at].reads
        return sorted(passed), sorted(ends)

    @cached_property
    def narrows(self) -> list[int]:
        """The operations through whose result all ways from the images to the result lead."""
        last_use = {read: at for at in self.relevant for read in self.operations[at].reads}
        narrows, open_until = [], last_use.get(-1, -1)
        for at in self.relevant:
            if open_until <= at:
                narrows.append(at)
            open_until = max(open_until, last_use.get(at, at))
        return narrows

    def branched(self, after: int, before: int) -> bool:
        """Whether between two operations the ways part, something linear on one of them, as in a residual block."""
        narrow = set(self.narrows)
        between = (at for at in self.relevant if after < at < before and at not in narrow)
        return any(self.operations[at].weight is not None for at in between)


def function_name(func: Any) -> str:
    """What calls are counted by; a view may have to be a reshape where values lie in another order."""
    name = getattr(func, "__name__", "")
    return "reshape" if name == "view" else name


def first(values: Any, more: Any = None) -> Any:
    """What a call is about: the first of its arguments, the first of its results."""
    if isinstance(values, tuple | list):
        return values[0] if values else next(iter((more or {}).values()), None)
    return values


def outputs_of(name: str, args: Any, result: Any) -> list[Tensor]:
    """What a torch function of that name gives; `x[…] = y` gives x."""
    return [args[0]] if name == "__setitem__" else tensors(result)


def tensors(values: Any) -> list[Tensor]:
    """All tensors in arguments or results, in order."""
    return [values] if isinstance(values, Tensor) else [leaf for leaf in tree_leaves(values) if torch.is_tensor(leaf)]
