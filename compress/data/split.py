"""One split of a dataset on the device that trains or attacks."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.data.dataset import Dataset


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]: k → k/255, as every runner does it."""
    return images.to(torch.float32) / 255


@dataclass(frozen=True)
class Split:
    """One split on the device: `images` uint8 (N,C,H,W), `labels` (N,)."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, data: Dataset, name: str, where: torch.device) -> "Split":
        images, labels = data.part(name)
        return cls(torch.from_numpy(images).to(where), torch.from_numpy(labels).to(where))

    def clean(self, size: int) -> "CleanImages":
        """Its float images, a batch at a time, as often as wanted."""
        return CleanImages(self, size)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Float images in [0, 1] and labels, in order, the last batch as small as it comes."""
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield to_float(images), labels


@dataclass(frozen=True)
class CleanImages:
    """The images of a split without labels, in batches; can be gone through again and again."""

    split: Split
    size: int

    def __iter__(self) -> Iterator[Tensor]:
        return (x for x, _ in self.split.batches(self.size))
