"""Networks as people really write them, one function each; `test_user_networks.py` says what becomes of each."""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress import networks
from compress.networks.base import Classifier, Features


class Grey(nn.Module):
    """A network of one-channel images, as the examples for MNIST have it; `post` and `pre` are what people add."""

    def __init__(self, post: Callable[[Tensor], Any] = lambda y: y, pre: Callable[[Tensor], Tensor] = lambda x: x):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(32, 10)
        self.post, self.pre = post, pre

    def forward(self, x: Tensor) -> Any:
        return self.post(self.head(self.layers(self.pre(x))))


@dataclass
class Answer:
    logits: Tensor


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As transformers' models answer."""


def grey() -> nn.Module:
    return Grey()


def half() -> nn.Module:
    return Grey(lambda y: y.half())


def bfloat16() -> nn.Module:
    return Grey(lambda y: y.bfloat16())


def double() -> nn.Module:
    return Grey(lambda y: y.double())


class TensorImage(Tensor):
    """As fastai's: every operator on one gives one, and on two kinds at once is refused."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if {kind for kind in types if kind is not Tensor} == {cls} and func is torch.equal:
            return NotImplemented
        return super().__torch_function__(func, types, args, kwargs or {})


def tensor_image() -> nn.Module:
    return Grey(lambda y: y.as_subclass(TensorImage))


def moving() -> nn.Module:
    os.chdir("/")
    return Grey()


def sparse_logits() -> nn.Module:
    return Grey(lambda y: y.to_sparse())


def double_weights() -> nn.Module:
    return Grey().double()


def strided() -> nn.Module:
    return Grey(lambda y: y.t().contiguous().t())


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(*Grey().layers, Grey().head))  # type: ignore[no-any-return]


def printing() -> nn.Module:
    print("in the factory")

    def said(y: Tensor) -> Tensor:
        print("in the forward pass")
        return y

    return Grey(said)


def pair() -> nn.Module:
    return Grey(lambda y: (y, y))


def a_dict() -> nn.Module:
    return Grey(lambda y: {"logits": y, "features": y})


def output() -> nn.Module:
    return Grey(lambda y: ModelOutput(loss=None, logits=y))


def answer() -> nn.Module:
    return Grey(Answer)


def array() -> nn.Module:
    return Grey(lambda y: y.detach().numpy())


def classes() -> nn.Module:
    return Grey(lambda y: y.argmax(1))


def one_hot() -> nn.Module:
    return Grey(lambda y: nn.functional.one_hot(y.argmax(1), 10))


def maps() -> nn.Module:
    return Grey(lambda y: y[:, :, None, None])


def first_only() -> nn.Module:
    return Grey(lambda y: y[:1])


def seven() -> nn.Module:
    return Grey(lambda y: y[:, :7])


def squeezed() -> nn.Module:
    return Grey(lambda y: y.squeeze())


def no_number() -> nn.Module:
    return Grey(lambda y: y * torch.nan)


def without_gradient() -> nn.Module:
    return Grey(pre=lambda x: x.detach())


def in_place() -> nn.Module:
    return Grey(pre=lambda x: x.sub_(0.5))


def large_only() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.Flatten(), nn.Linear(4 * 111 * 111, 10))


def raising() -> nn.Module:
    def missing(x: Tensor) -> Tensor:
        raise KeyError("two\nlines")

    return Grey(pre=missing)


def exiting() -> nn.Module:
    raise SystemExit(3)


def on_gpu() -> nn.Module:
    return Grey(pre=lambda x: x.to("cuda:77"))


class Training(Grey):
    def forward(self, x: Tensor) -> Any:
        self.layers.train()
        return super().forward(x)


def training() -> nn.Module:
    return Training()


class Counting(Grey):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        self.get_buffer("calls").add_(1)
        return super().forward(x)


def counting() -> nn.Module:
    return Counting()


def drawn() -> nn.Module:
    """What it draws is no parameter and no buffer, so another call draws another network."""
    torch.seed()
    matrix = torch.randn(10, 10)
    return Grey(lambda y: y @ matrix)


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def sparse() -> nn.Module:
    network = Grey()
    network.register_buffer("mask", torch.eye(3).to_sparse())
    return network


def int16() -> nn.Module:
    network = Grey()
    network.register_buffer("codes", torch.zeros(3, dtype=torch.int16))
    return network


def wide(width: int, depth: int = 2) -> nn.Module:
    return Grey()


def a_class() -> type:
    return Grey


an_object = Grey()


class Viewing(nn.Module):
    """As the first tutorial of PyTorch has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 8, 3), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv2(torch.relu(self.conv1(x)))), 2)
        return self.head(x.view(-1, 32))  # type: ignore[no-any-return]


class Own(Classifier):
    """A subclass of ours, of the user's own."""

    def __init__(self, answer: Callable[[Tensor], Any] = lambda y: Features(y.double(), y, ())) -> None:
        super().__init__()
        self.body, self.answer = Grey(), answer

    def forward_features(self, x: Tensor) -> Features:
        features: Features = self.answer(self.body(x))
        return features


def own() -> nn.Module:
    return Own()


def native() -> nn.Module:
    return networks.build_network("resnet8", channels=1, classes=10)


def own_raising() -> nn.Module:
    return Own(lambda y: 1 / 0)


def own_logits() -> nn.Module:
    return Own(lambda y: y)


# ------------------------------------------------------------------------------- as students, which are trained


def own_head(num_classes: int, in_chans: int = 3, width: str = "narrow") -> nn.Module:
    """As most code has it: what it takes by name."""
    del width
    return nn.Sequential(nn.Conv2d(in_chans, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))


def no_weights() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d((2, 5)), nn.Flatten())


def frozen() -> nn.Module:
    return Grey().requires_grad_(False)


def partly_frozen() -> nn.Module:
    network = Grey()
    network.layers.requires_grad_(False)
    return network


def nan_weights() -> nn.Module:
    network = Grey()
    nn.init.constant_(network.head.bias, torch.nan)
    return network


calls: list[int] = []


def growing() -> nn.Module:
    """Every call makes another network."""
    calls.append(0)
    layers = [nn.Linear(10, 10) for _ in calls]
    return nn.Sequential(Grey(), *layers)


def by_the_clock() -> nn.Module:
    torch.seed()
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))


class Auxiliary(Grey):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


def auxiliary() -> nn.Module:
    return Auxiliary()


def softmax() -> nn.Module:
    return Grey(lambda y: y.softmax(1))


def three_channels() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))
