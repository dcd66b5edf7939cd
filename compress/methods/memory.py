"""What methods keep between steps: values that come in one by one, running means, embeddings of all training images.

A module of torch, which methods import when they are made.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.numerics.seeds import generator
from edge.core.errors import CompressError

if TYPE_CHECKING:
    from compress.methods.gacd import Gacd


class GrowingState(nn.Module):
    """Buffers that exist once something was seen; those that a checkpoint has are made when it is loaded."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, value in state_dict.items():
            own = name.removeprefix(prefix)
            if name.startswith(prefix) and own not in self._buffers:
                self.register_buffer(own, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def seen(self, name: str) -> Tensor | None:
        """The buffer of that name, None before there is one."""
        return self._buffers.get(name)


class RunningMeans(GrowingState):
    """Running means of matrices by name, the first value as it came. Gradients flow through the newest alone."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._now: dict[str, Tensor] = {}

    def mixed(self, name: str, value: Tensor) -> Tensor:
        """decay · past + (1 − decay) · value."""
        before = self.seen(name)
        now = value if before is None else self.decay * before + (1 - self.decay) * value
        self._now[name] = now.detach()
        return now

    def keep(self) -> None:
        """What was mixed last is the past from now on."""
        for name, value in self._now.items():
            self.register_buffer(name, value)
        self._now = {}


class Bank(nn.Module):
    """z_S of each of n training images, (n,W), as last seen with momentum; random directions until then."""

    def __init__(self, options: Gacd, images: int, like: Tensor) -> None:
        """`like` has the device and the type that the memory gets."""
        super().__init__()
        self.options, self.images = options, images
        needed = images * options.width * like.element_size()
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if like.is_cuda:
            free = torch.cuda.mem_get_info(like.device)[0]
        if needed > free:
            raise CompressError(
                f"options.negatives: bank needs {needed / 2**30:,.1f} GiB for {images:,} images × {options.width} "
                f"dimensions, {free / 2**30:,.1f} GiB are free; give a smaller width, or negatives: batch"
            )
        start = torch.randn(images, options.width, generator=generator("bank"))
        self.register_buffer("rows", functional.normalize(start, dim=1).to(like))
        self.register_buffer("labels", torch.full((images,), -1, device=like.device))
        self.register_buffer("z", torch.zeros((), device=like.device, dtype=like.dtype))
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None
        self._z: Tensor | None = None

    def contrast(self, anchor: Tensor, positive: Tensor, y: Tensor, index: Tensor, draw: torch.Generator) -> Tensor:
        """ℓ of each image, (B,), for embeddings (B,W) of images `index` with labels y (compress/methods/gacd.py)."""
        options, rows, labels = self.options, self.get_buffer("rows"), self.get_buffer("labels")
        count, noise = options.bank_negatives, options.bank_negatives / self.images
        drawn = torch.randint(self.images, (count,), generator=draw).to(rows.device)
        allowed = drawn[None] != index[:, None]
        if options.mask_same_class:
            allowed &= labels[drawn][None] != y[:, None]
        h_positive = ((anchor * positive).sum(1) / options.temperature).exp()
        h = (anchor @ rows[drawn].T / options.temperature).exp()
        p_positive, p = (each / self._scale(h.detach()) for each in (h_positive, h))
        attracted = -(p_positive / (p_positive + noise)).log()
        repelled = -(noise / (p + noise)).log() * allowed
        return attracted + repelled.sum(1)

    def see(self, index: Tensor, y: Tensor, rows: Tensor) -> None:
        """What the step found for the images `index` (B,): labels (B,), embeddings of length 1 (B,W)."""
        self._seen = (index, y, rows.detach())

    def keep(self) -> None:
        """Into the memory with it."""
        if self._z is not None:
            self.get_buffer("z").copy_(self._z)
        if self._seen is None:
            return
        index, y, new = self._seen
        rows, momentum = self.get_buffer("rows"), self.options.bank_momentum
        rows[index] = functional.normalize(momentum * rows[index] + (1 - momentum) * new.to(rows), dim=1)
        self.get_buffer("labels")[index] = y
        self._seen = self._z = None

    def _scale(self, h: Tensor) -> Tensor:
        """Z: estimated on the first batch, constant from then on."""
        z = self.get_buffer("z")
        if float(z) > 0:
            return z
        self._z = self.images * h.mean()
        return self._z
