"""What methods keep between steps: values that come in one by one, running means, embeddings of all training images.

A module of torch, which methods import when they are made.
"""

from __future__ import annotations

import math
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
    """Running means of matrices by name, the first value as it came.

    Gradients flow through the newest alone, and as if it were the whole mean. Its share, 1 − decay, is not their size:
    the past depends on the same weights, of which all its shares add up to 1, and has no graph any more. With the share
    the gradient would be a tenth at an equal loss; so it is that of the batch once the statistics stand still.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._now: dict[str, Tensor] = {}

    def mixed(self, name: str, value: Tensor) -> Tensor:
        """decay · past + (1 − decay) · value; ∂/∂value is 1."""
        before, newest = self.seen(name), value.detach()
        mean = newest if before is None else self.decay * before + (1 - self.decay) * newest
        self._now[name] = mean
        return mean + (value - newest)

    def keep(self) -> None:
        """What was mixed last is the past from now on."""
        for name, value in self._now.items():
            self.register_buffer(name, value)
        self._now = {}


class Bank(nn.Module):
    """z_S and z_T of each of n training images, (n,W), as last seen with momentum; random directions until then."""

    def __init__(self, options: Gacd, images: int, like: Tensor) -> None:
        """`like` has the device and the type that the memory gets."""
        super().__init__()
        self.options, self.images = options, images
        needed = 2 * images * options.width * like.element_size()
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if like.is_cuda:
            free = torch.cuda.mem_get_info(like.device)[0]
        if needed > free:
            raise CompressError(
                f"options.negatives: bank needs {needed / 2**30:,.1f} GiB for student and teacher, {images:,} images × "
                f"{options.width} dimensions each, {free / 2**30:,.1f} GiB are free; give a smaller width, or "
                f"negatives: batch"
            )
        for name, key in (("student", ("bank",)), ("teacher", ("bank", "teacher"))):
            start = torch.randn(images, options.width, generator=generator(*key))
            self.register_buffer(name, functional.normalize(start, dim=1).to(like))
        self.register_buffer("labels", torch.full((images,), -1, device=like.device))
        self.register_buffer("log_z", torch.full((2,), torch.nan, device=like.device, dtype=like.dtype))
        self._seen: tuple[Tensor, Tensor, dict[str, Tensor]] | None = None
        self._log_z: Tensor | None = None

    def contrast(self, teacher: Tensor, student: Tensor, y: Tensor, index: Tensor, draw: torch.Generator) -> Tensor:
        """ℓ of each image, (B,), for z_T (B,W) and z_S of its views (V,B,W), of the images `index` with labels y (B,).

        Both halves of compress/methods/gacd.py. The negatives of one anchor are constants, so only the half in which
        the student anchors pushes the student away from them.
        """
        options, labels = self.options, self.get_buffer("labels")
        drawn = torch.randint(self.images, (options.bank_negatives,), generator=draw).to(labels.device)
        allowed = drawn[None] != index[:, None]
        if options.mask_same_class:
            allowed &= labels[drawn][None] != y[:, None]
        positive = (teacher * student).sum(2) / options.temperature
        teacher_anchors = teacher @ self.get_buffer("student")[drawn].T / options.temperature
        student_anchors = student @ self.get_buffer("teacher")[drawn].T / options.temperature
        scales = self._scales(teacher_anchors.detach(), student_anchors.detach())
        log_noise = math.log(options.bank_negatives / self.images)
        loss = torch.zeros_like(positive)
        for log_z, negative in zip(scales, (teacher_anchors, student_anchors), strict=True):
            # log P = log h − log Z; −log P / (P + k/n) and −log (k/n) / (P + k/n) without leaving logarithms
            attracted = functional.softplus(log_noise + log_z - positive)
            repelled = functional.softplus(negative - log_z - log_noise) * allowed
            loss = loss + attracted + repelled.sum(-1)
        return loss.mean(0)

    def see(self, index: Tensor, y: Tensor, student: Tensor, teacher: Tensor) -> None:
        """What the step found for the images `index` (B,): labels (B,), embeddings of length 1 (B,W)."""
        self._seen = (index, y, {"student": student.detach(), "teacher": teacher.detach()})

    def keep(self) -> None:
        """Into the memory with it."""
        if self._log_z is not None:
            self.get_buffer("log_z").copy_(self._log_z)
        if self._seen is None:
            return
        index, y, embeddings = self._seen
        momentum = self.options.bank_momentum
        for name, new in embeddings.items():
            rows = self.get_buffer(name)
            rows[index] = functional.normalize(momentum * rows[index] + (1 - momentum) * new.to(rows), dim=1)
        self.get_buffer("labels")[index] = y
        self._seen = self._log_z = None

    def _scales(self, *negatives: Tensor) -> Tensor:
        """log Z of both halves, (2,): estimated from log h of the first batch's negatives, constant from then on."""
        estimated = torch.stack([h.logsumexp(tuple(range(h.ndim))) - math.log(h.numel()) for h in negatives])
        known = self.get_buffer("log_z")
        self._log_z = torch.where(known.isnan(), estimated + math.log(self.images), known)
        return self._log_z
