"""What an installed package might add: a method that follows gradients by the images, a network, a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from compress.data import DatasetSource
from compress.data.dataset import Dataset, assemble_dataset
from compress.methods.base import Method, MethodOptions, Weight, torch
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import from_labels, smoothed_cross_entropy
from compress.networks import Network

if TYPE_CHECKING:
    from compress.networks.base import Classifier


class InputGradientOptions(MethodOptions):
    """Cross-entropy and the size of its gradient by the images."""

    penalty: Weight = Field(1.0, description="weight of the squared gradient")


def input_gradients(views: Views, options: InputGradientOptions) -> Terms:
    """CE(S(x_adv), y) + λ ‖∇_x CE(S(x), y)‖² of each image (Ross & Doshi-Velez 2018)."""
    leaf = views.x.detach().requires_grad_()
    loss = smoothed_cross_entropy(views.student(leaf), views.y)
    (slope,) = torch.autograd.grad(loss.sum(), leaf, create_graph=True)
    adversarial = smoothed_cross_entropy(views.adversarial.logits, views.y)
    return {"adversarial": adversarial, "slope": options.penalty * slope.square().flatten(1).sum(1)}


METHOD = Method(
    "input-gradients",
    InputGradientOptions,
    stateless(input_gradients, from_labels),
    about="small gradients by the images",
    teachers=0,
)


def linear(name: str, *, channels: int, classes: int, flags: frozenset[str]) -> Classifier:
    from compress.networks.base import preprocessing
    from tests.compress.plugin_network import PooledLinear

    return PooledLinear(channels, classes, preprocessing(flags, channels))


NETWORK = Network("pooled-linear", linear, {"pooled-linear": "a convolution and a linear layer"})


def placed(
    name: str, *, channels: int, classes: int, flags: frozenset[str], size: tuple[int, int] | None = None
) -> Classifier:
    from tests.compress.plugin_network import PlacedLinear

    return PlacedLinear(channels, classes, size or (8, 8))


PLACED = Network("placed-linear", placed, {"placed-linear": "one weight for each place of the image"})


def stripes(path: str | None) -> Dataset:
    """Images of horizontal and of vertical stripes, as many as `path` says."""
    count = int(path or 200)
    labels = np.arange(count) % 2
    images = np.random.default_rng(0).integers(0, 40, (count, 1, 8, 8), np.uint8)
    images[labels == 0, :, ::2] += 200
    images[labels == 1, :, :, ::2] += 200
    return assemble_dataset("stripes", f"stripes:{path}", images, labels, {})


SOURCE = DatasetSource("stripes", "stripes of two directions", stripes, path="optional", eps="16/255")
MISNAMED = DatasetSource("another", "an entry point of another name", stripes)
WRONG: Any = {"name": "a dictionary"}
