"""The network that attacks search on: as the one under test to a percent, and never the one that decides."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize

from compress import networks
from compress.attacks import inside, presets
from compress.attacks.contract import Model, Task
from compress.attacks.ensemble import evaluate
from compress.attacks.ensemble_outcomes import EnsembleResult
from compress.attacks.inside import Inside, search_model
from compress.networks.base import Classifier
from compress.numerics import precision
from compress.quantization.quantizer import Quantizer
from edge.core.errors import CompressError


def network(name: str = "resnet8", seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    net = networks.build_network(name, channels=3, classes=10)
    for part in net.modules():  # statistics as after training, so that folding has something to fold
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    return net.eval()


def pictures(n: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def gradient(model: Model, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf).logsumexp(1).sum(), leaf)[0]


class Noisy(nn.Module):
    """Answers every call otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = network()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x)
        return logits + logits.std() * torch.randn_like(logits)


def fake_quantized(quantizer: nn.Module) -> nn.Module:
    return nn.Sequential(quantizer, network()).eval()


def ours() -> Quantizer:
    """Of the image, which is in [0, 1]."""
    quantizer = Quantizer()
    quantizer.amax.fill_(1)
    quantizer.unsigned = quantizer.is_enabled = True
    return quantizer


class Locked(nn.Module):
    """Holds what no copy can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.lock = network(), threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x)
        return logits


class Float32Only(Locked):
    """Hands its pixels to what takes no bfloat16, in an order of axes that is not that of the copy."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.layer = network()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(x.shape[0], -1).view_as(x))


class Branching(Classifier):
    """Asks a value of its input on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = network()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x if x.sum() > 0 else -x)
        return logits


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-1", "mobilenetv2"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_it_answers_as_the_network_and_points_the_same_way(name: str, kind: str) -> None:
    net, x = network(name), pictures()
    found = search_model(net, kind, x)
    assert isinstance(found, Inside) and inside.precision_of(found) == kind
    with torch.no_grad():
        true, near = net(x), found(x)
    assert near.dtype == torch.float32
    spread = (true.amax(1) - true.amin(1)).max()
    assert (near - true).abs().max() <= (1e-4 if kind == "float32" else 0.05) * spread
    ways = nn.functional.cosine_similarity(gradient(net, x).flatten(1), gradient(found, x).flatten(1))
    assert ways.min() > (0.9999 if kind == "float32" else 0.95)


def test_no_pixel_is_rounded_before_it_is_summed() -> None:
    """bfloat16 has 8 bits: 0.5 and 0.5 + 1/2048 are one number in it, but not their sum over four pixels and two."""
    layer = nn.Conv2d(1, 1, 2, bias=False)
    layer.weight.data = torch.tensor([[[[1.0, 1.0], [-1.0, -1.0]]]])
    net = nn.Sequential(layer, nn.Flatten(), nn.Linear(1, 4), nn.Linear(4, 2)).eval().requires_grad_(False)
    found = Inside(net, "bfloat16", torch.rand(1, 1, 2, 2))
    image = torch.full((1, 1, 2, 2), 0.5)
    image[..., 0, :] += 1 / 2048
    with precision.autocast("bfloat16", "cpu"):
        assert float(found.network[0](image)) == 2 / 2048  # type: ignore[index, operator]
    assert [part.weight.dtype for part in found.modules() if isinstance(part, nn.Conv2d | nn.Linear)] == [
        torch.float32,
        torch.bfloat16,
        torch.float32,
    ]


def test_the_network_under_test_is_left_as_it_was() -> None:
    net, x = network(), pictures()
    before = {name: (value.clone(), value.stride()) for name, value in net.state_dict().items()}
    asked = [weight.requires_grad for weight in net.parameters()]
    search_model(net, "bfloat16", x)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) and after[name].stride() == s for name, (value, s) in before.items())
    assert [weight.requires_grad for weight in net.parameters()] == asked
    assert not any(part._forward_hooks for part in net.modules())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: network().forward, "it is no torch module"),
        (lambda: network().double(), "it has weights in torch.float64, not float32"),
        (Noisy, "answers otherwise on 8 of 8 images, as that of a network which draws at random does"),
        (lambda: fake_quantized(ours()), "1 fake quantizers round its values"),
        (lambda: fake_quantized(FakeQuantize(quant_min=0, quant_max=255)), "1 fake quantizers round its values"),
        (Locked, "it cannot be copied (cannot pickle '_thread.lock' object)"),
        (Float32Only, "a copy in bfloat16, channels last, does not run (view size is not compatible"),
    ],
    ids=["a function", "float64", "random", "ours", "torch's quantizer", "no copy", "no view"],
)
def test_what_cannot_be_searched_on_a_copy_is_searched_on_itself_and_why_is_said(
    make: Callable[[], Any], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "_SAID", set())
    model = make()
    x = pictures().double() if isinstance(model, Classifier) else pictures()
    assert search_model(model, "bfloat16", x) is model
    assert inside.precision_of(model) == "float32"
    said = capsys.readouterr().err
    assert f"{type(model).__name__} is searched on itself: " in said and reason in said
    search_model(model, "bfloat16", x)
    assert capsys.readouterr().err == "", "once"


def test_what_cannot_be_traced_is_searched_on_unfolded_and_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "_SAID", set())
    assert isinstance(search_model(Branching().eval(), "float32", pictures()), Inside)
    assert "Branching is searched on unfolded: its forward pass cannot be traced" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["lower", "_round", "copy"])
def test_what_nobody_foresaw_is_a_bug_and_no_slow_search(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> None:
        raise ZeroDivisionError("a bug")

    if where == "copy":
        monkeypatch.setattr(inside.copy, "deepcopy", broken)
    else:
        monkeypatch.setattr(inside, where, broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        search_model(network(), "bfloat16", pictures())


def test_precision_is_one_of_three_and_auto_is_one_of_two() -> None:
    with pytest.raises(CompressError, match="precision 'int8': not known; give auto, float32, bfloat16"):
        precision.resolve("int8", "cpu")
    assert precision.resolve("auto", "cpu") == ("bfloat16" if precision.has_bfloat16("cpu") else "float32")
    assert precision.resolve("float32", "cpu") == "float32"


def trial(model: Model, n: int = 48, **given: Any) -> EnsembleResult:
    x = pictures(n).numpy()
    y = model(torch.from_numpy(x)).argmax(1).numpy()
    plan = presets.attack_plan(["apgd-ce-20", "square-50"], 10)
    return evaluate(model, x, y, plan, eps=given.pop("eps", 0.02), batch_size=16, **given)


def test_the_search_in_bfloat16_breaks_what_the_search_in_float32_breaks() -> None:
    net = network().requires_grad_(False)
    exact, fast = trial(net, precision="float32"), trial(net, precision="bfloat16")
    assert (exact.precision, fast.precision) == ("float32", "bfloat16")
    assert 0.2 < exact.robust.mean() < 0.8
    assert int((exact.robust != fast.robust).sum()) <= 1


class Shifted(Inside):
    """Searches on logits whose first class is off by `shift`: far more than any rounding."""

    shift = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift * torch.eye(10)[0]


def test_what_the_copy_errs_about_is_attacked_again_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy with another boundary: believed alone, it would stop at candidates that break nothing."""
    net = network().requires_grad_(False)
    seen: list[tuple[bool, int]] = []
    run = type(presets.attack_plan("apgd-ce-20", 10)[0]).run

    def watched(attack: Any, task: Task) -> Tensor:
        seen.append((task.model is net, len(task.x)))
        return run(attack, task)

    def shifted(model: Any, kind: str, example: Tensor) -> Model:
        found = Shifted(model, kind, example)
        found.shift = 3 * float(model(example).std())
        return found

    exact = trial(net, precision="float32")
    monkeypatch.setattr(inside, "search_model", shifted)
    monkeypatch.setattr(type(presets.attack_plan("apgd-ce-20", 10)[0]), "run", watched)
    wrong = trial(net, precision="bfloat16")
    again = sum(count for on_itself, count in seen if on_itself)
    assert sum(count for on_itself, count in seen if not on_itself) == 48 and 0 < again <= 48
    assert int((exact.robust != wrong.robust).sum()) <= 1


def test_an_image_that_awaits_its_second_attack_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network().requires_grad_(False)

    def off(model: Any, kind: str, example: Tensor) -> Model:
        found = Shifted(model, kind, example)
        found.shift = 1e3
        return found

    monkeypatch.setattr(inside, "search_model", off)
    found = trial(net, precision="bfloat16", eps=1e-5, budget_s=1e-9)
    assert found.inconclusive.sum() == 48 and not found.robust.any()
    assert np.array_equal(found.tried.sum(1), [0, 0])
