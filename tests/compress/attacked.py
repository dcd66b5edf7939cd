"""A small network, trained for a second to be somewhat robust, and digits it gets right: what attack tests attack."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compress import data, networks
from compress.attacks.contract import EnsembleAttack, Task
from compress.data.split import to_float

EPS = {"linf": 0.12, "l2": 0.7}


@functools.cache
def network() -> nn.Module:
    """64 → 48 → 10, adversarially trained in one-step attacks on the training digits; float32."""
    x, y = (torch.from_numpy(values) for values in data.load_dataset("digits").part("train"))
    x = to_float(x)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(10):
        for index in torch.randperm(len(x)).split(64):
            leaf = (x[index] + (torch.rand_like(x[index]) - 0.5) * 0.2).requires_grad_()
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y[index]), leaf)
            moved = (leaf.detach() + 0.1 * gradient.sign()).clamp(0, 1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(moved), y[index]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


@functools.cache
def digits(n: int) -> tuple[Tensor, Tensor]:
    """The first `n` test digits that the network gets right."""
    x, y = (torch.from_numpy(values) for values in data.load_dataset("digits").part("test"))
    x = to_float(x)
    right = network()(x).argmax(1) == y
    return x[right][:n], y[right][:n]


def task(norm: str, n: int = 120, *, seed: int = 0, double: bool = False, eps: "float | None" = None) -> Task:
    """The digits as a task on the network, in float64 where asked."""
    x, y = digits(n)
    model: Callable[[Tensor], Tensor] = network()
    if double:
        model = exact(network())
        x = x.double()
    return Task(model, x, y, np.arange(len(x)) * 7 + 3, EPS[norm] if eps is None else eps, norm, seed)


def exact(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same two-layer network in float64, summed pixel by pixel in one order whatever the batch."""
    (first, bias), (second, last) = ((m.weight.double(), m.bias.double()) for m in (model[1], model[3]))

    def forward(x: Tensor) -> Tensor:
        hidden = (x.flatten(1)[:, None] * first).sum(2) + bias
        return (hidden.relu()[:, None] * second).sum(2) + last

    return forward


def with_classes(classes: int) -> Task:
    """A random linear model of few or many classes on grey noise, labels as predicted."""
    g = torch.Generator().manual_seed(classes)
    x = torch.rand(10, 1, 8, 8, generator=g)
    weight = torch.randn(64, classes, generator=g) / 8
    model = lambda x: x.flatten(1) @ weight  # noqa: E731
    return Task(model, x, model(x).argmax(1), np.arange(10), 0.1, "linf", 0)


def wrong(at: Task, images: Tensor) -> Tensor:
    """Which images the task's model gets wrong, bool (B,)."""
    with torch.no_grad():
        return at.model(images).argmax(1) != at.y


def check_inside(at: Task, images: Tensor) -> None:
    """Every candidate in the ball and in the image range, to 1e-6."""
    delta = (images - at.x).flatten(1).double()
    far = delta.abs().amax(1) if at.norm == "linf" else delta.square().sum(1).sqrt()
    assert images.shape == at.x.shape and images.dtype == at.x.dtype
    assert float(far.max()) <= at.eps + 1e-6
    assert float(images.min()) >= 0 and float(images.max()) <= 1


def check_alone(attack: EnsembleAttack, norm: str) -> None:
    """The same again, and the same image by image in whatever batch it stands."""
    at = task(norm, 9, double=True)
    together = attack.run(at)
    assert torch.equal(attack.run(at), together)
    for index in ([4], [8, 2, 5]):
        torch.testing.assert_close(attack.run(at.of(torch.tensor(index))), together[index], atol=1e-9, rtol=0)


class _Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: a scalar read, a list of indices of unknown length."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = "index" in str(func) and any(m is not None and m.dtype == torch.bool for m in _indices(args))
        self.count += masked or func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def _indices(args: Any) -> list[Tensor]:
    return (
        list(args[1]) if len(args) > 1 and isinstance(args[1], list | tuple) and args[1] and _tensors(args[1]) else []
    )


def _tensors(values: Any) -> bool:
    return all(value is None or isinstance(value, Tensor) for value in values)


def waits(attack: EnsembleAttack, at: Task) -> int:
    """How often the host had to wait."""
    with _Waits() as mode:
        attack.run(at)
    return mode.count


def check_no_trace(attack: EnsembleAttack, norm: str = "linf") -> None:
    """Weights, statistics, modes, gradient fields and the images are after the attack what they were before."""
    torch.manual_seed(0)
    model = networks.build_network("resnet8", channels=1, classes=10).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(3, 1, 8, 8)
    kept, state = x.clone(), torch.get_rng_state()
    attack.run(Task(model, x, model(x).argmax(1), np.arange(3), 0.01, norm, 0))
    assert torch.equal(x, kept) and not x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)  # all draws are addressed
    assert not model.training and all(w.grad is None and w.requires_grad for w in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
