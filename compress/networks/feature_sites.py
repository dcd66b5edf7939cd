"""Where features lie in a pass of a network, and how they are taken out of it and shaped."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.networks.recorded_pass import first, function_name, outputs_of, tensors

INPUT = ".input"


@dataclass(frozen=True)
class Site:
    """A tensor of a pass: the first argument or the result of a module's call, or of a torch function's."""

    name: str
    call: int = 0  # which of its calls in the pass, from 0
    input: bool = False
    place: "int | None" = None  # of a function: which of its tensors is the input

    def __str__(self) -> str:
        name = self.name if self.place is None else f"{self.name}()"
        return f"{name}{INPUT if self.input else ''}{f' #{self.call + 1}' if self.call else ''}"


@dataclass(frozen=True)
class StageSite:
    """How (B,C,H,W) is made of the tensor at a site.

    `grid`: of tokens, how many stand before those of the image, then height and width; without one they are averaged.
    """

    site: Site
    channels_first: bool
    grid: "tuple[int, int, int] | None" = None
    batch: int = 0  # the dimension of the images: of tokens it may be the second

    def shaped(self, value: Tensor) -> Tensor:
        value = value.transpose(0, self.batch)
        if value.ndim == 2:
            return value[:, :, None, None]
        if not self.channels_first:
            value = value.movedim(-1, 1)
        if value.ndim == 4:
            return value
        if self.grid is None:
            return value.flatten(2).mean(2)[:, :, None, None]
        return value[:, :, self.grid[0] :].unflatten(2, self.grid[1:])


@dataclass(frozen=True)
class PooledSite:
    """How (B,D) is made of the tensor at a site: over its positions the mean, or the one whose logits are given."""

    site: Site
    channels_first: bool
    reader: "str | int" = ""  # what tells the weights that read it
    token: "int | None" = None
    batch: int = 0

    def shaped(self, value: Tensor) -> Tensor:
        value = value.transpose(0, self.batch)
        if value.ndim == 2:
            return value
        if self.token is not None:
            return value[:, self.token]
        return value.flatten(2).mean(2) if self.channels_first else value.flatten(1, -2).mean(1)


@dataclass
class Pass:
    """What a pass has at the sites that are wanted; how often it has come by each module."""

    values: dict[Site, Tensor] = field(default_factory=dict)
    calls: dict[tuple[str, bool], int] = field(default_factory=dict)

    def at(self, site: Site) -> "Tensor | None":
        """None where the pass did not come by."""
        return self.values.get(site)

    def see(self, sites: Mapping[int, Site], name: str, before: bool, value: Tensor) -> None:
        """A call of a module of which those calls are wanted."""
        number = self.calls[name, before] = self.calls.get((name, before), -1) + 1
        if number in sites:
            self.values[sites[number]] = value


@contextlib.contextmanager
def tapped(network: nn.Module, sites: Iterable[Site]) -> Iterator[Pass]:
    """Inside, a pass of `network` leaves what it has at the sites; nothing of the network changes."""
    seen, functions = Pass(), {}
    modules: dict[tuple[str, bool], dict[int, Site]] = {}
    for site in sites:
        if site.place is None:
            modules.setdefault((site.name, site.input), {})[site.call] = site
        else:
            functions[site.name, site.call, site.input] = site
    with contextlib.ExitStack() as hooks:
        for (name, before), calls in modules.items():
            hooks.enter_context(_hook(network.get_submodule(name), seen, calls, name, before=before))
        if functions:
            hooks.enter_context(_FunctionTap(functions, seen.values))
        yield seen


def _hook(module: nn.Module, seen: Pass, calls: Mapping[int, Site], name: str, *, before: bool) -> Any:
    if before:
        return module.register_forward_pre_hook(
            lambda module, args, kwargs: seen.see(calls, name, before, first(args, kwargs)), with_kwargs=True
        )
    return module.register_forward_hook(lambda module, args, output: seen.see(calls, name, before, first(output)))


class _FunctionTap(TorchFunctionMode):
    """Takes arguments or results of some calls of torch functions, which it counts as `RecordedPass` does."""

    def __init__(self, wanted: Mapping[tuple[str, int, bool], Site], into: dict[Site, Tensor]) -> None:
        super().__init__()
        self.wanted, self.into = wanted, into
        self.names = {name for name, _, _ in wanted}
        self.counts: dict[str, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = function_name(func)
        outputs = outputs_of(name, args, result)
        if name not in self.names or not outputs:
            return result
        number = self.counts[name] = self.counts.get(name, -1) + 1
        if (site := self.wanted.get((name, number, False))) is not None:
            self.into[site] = outputs[0]
        if (site := self.wanted.get((name, number, True))) is not None:
            assert site.place is not None
            self.into[site] = tensors((args, kwargs))[site.place]
        return result


def joined(values: "list[tuple[PooledSite, Tensor]]") -> Tensor:
    """Pooled features of several readers side by side; the mean of what the same weights read."""
    groups: dict[object, list[Tensor]] = {}
    for site, value in values:
        groups.setdefault(site.reader, []).append(site.shaped(value))
    return torch.cat([rows[0] if len(rows) == 1 else torch.stack(rows).mean(0) for rows in groups.values()], 1)
