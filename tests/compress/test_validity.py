"""Each alarm rings on a model built to deserve it, and on no honest one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from compress import data
from compress.attacks import losses, presets, validity
from compress.attacks.contract import Model
from compress.attacks.ensemble import evaluate
from compress.attacks.pgd import batch_random_start, pgd
from compress.data.split import to_float
from compress.numerics.seeds import generator
from edge.validity import rules
from edge.validity.rules import ValidityCheck

EPS = 24 / 255
N = 60


def images(split: str = "test", n: int = N) -> tuple[np.ndarray, np.ndarray]:
    x, y = data.load_dataset("digits").part(split)
    return x[:n], y[:n]


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def trained(make: Callable[[], nn.Module], *, adversarial: bool, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    pixels, labels = (torch.from_numpy(part) for part in images("train", 800))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(labels), generator=generator(epoch)).split(50):
            x, y = to_float(pixels[chosen]), labels[chosen]
            if adversarial:
                model.eval()
                start = batch_random_start(x, EPS, generator(epoch, "start"))
                x = pgd(model, x, losses.cross_entropy(y), start=start, eps=EPS, step_size=EPS / 2, steps=3)
            model.train()
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


HONEST: dict[str, tuple[Callable[[], nn.Module], bool, int]] = {
    "normal": (convolutional, False, 8),
    "pgd-at": (convolutional, True, 8),
    "other architecture": (dense, False, 12),
}


@pytest.fixture(scope="module")
def honest() -> dict[str, nn.Module]:
    return {name: trained(make, adversarial=hard, epochs=epochs) for name, (make, hard, epochs) in HONEST.items()}


def checks(
    model: Model, names: Any = ("apgd-ce-10",), norm: str = "linf", eps: float = EPS
) -> dict[str, ValidityCheck]:
    x, y = images()
    result = evaluate(model, x, y, presets.attack_plan(names, 10), eps=eps, norm=norm, batch_size=64)
    return {found.name: found for found in validity.validity_checks(model, x, y, result, batch_size=25)}


def fired(found: dict[str, ValidityCheck]) -> set[str]:
    return {name for name, check in found.items() if check.fired}


ALARMS = {rule.name for rule in rules.rules_of("evaluate")}


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.5)])
@pytest.mark.parametrize("name", HONEST)
def test_honest_networks_ring_no_alarm(honest: dict[str, nn.Module], name: str, norm: str, eps: float) -> None:
    found = checks(honest[name], ("apgd-ce-10", "square-100"), norm, eps)
    assert fired(found) == set()
    assert set(found) == ALARMS
    assert found["loss not rising"].value == 1 and found["zero gradients"].value == 0
    assert 1 < found["exploding gradients"].value < validity.EXPLODING / 50  # the threshold is far from the honest


def test_saturated_logits(honest: dict[str, nn.Module]) -> None:
    found = checks(lambda x: honest["normal"](x) * 1e4)
    assert fired(found) == {"zero gradients", "exploding gradients", "loss not rising"}
    assert found["zero gradients"].value > 0.9 and "BPDA" in found["zero gradients"].text


def test_a_temperature_of_a_thousandth(honest: dict[str, nn.Module]) -> None:
    plain, cold = checks(honest["normal"]), checks(lambda x: honest["normal"](x) / 1e-3)
    assert "exploding gradients" in fired(cold)
    assert cold["exploding gradients"].value == pytest.approx(1e3 * plain["exploding gradients"].value, rel=1e-4)


def test_rounding_at_the_input_hides_the_gradient_and_square_finds_the_way(honest: dict[str, nn.Module]) -> None:
    found = checks(lambda x: honest["normal"](torch.round(x * 4) / 4), ("apgd-ce-10", "square-200"))
    assert fired(found) == {"zero gradients", "loss not rising", "attacks without gradients win"}
    assert found["zero gradients"].value == 1 and found["loss not rising"].value == 0


def test_a_random_layer(honest: dict[str, nn.Module]) -> None:
    noise = torch.Generator().manual_seed(0)
    some = checks(lambda x: honest["normal"](x + 0.01 * torch.randn(x.shape, generator=noise)))
    assert fired(some) == {"randomised model"} and some["randomised model"].value == 1
    much = checks(lambda x: honest["normal"](x + 0.5 * torch.randn(x.shape, generator=noise)))
    assert fired(much) >= {"randomised model", "predictions differ between calls"}


def test_probabilities(honest: dict[str, nn.Module]) -> None:
    assert fired(checks(lambda x: honest["normal"](x).softmax(1))) == {"probabilities in place of logits"}
    assert not fired(checks(lambda x: honest["normal"](x).log_softmax(1)))


def test_a_gradient_that_is_no_number_counts_as_exploding(honest: dict[str, nn.Module]) -> None:
    x, y = images()
    result = evaluate(honest["normal"], x, y, presets.attack_plan(["apgd-ce-2"], 10), eps=EPS)
    endless = validity.validity_checks(lambda x: honest["normal"](x) + 0 * (x - x).sqrt().sum(), x, y, result)
    assert "exploding gradients" in fired({found.name: found for found in endless})
    assert all(np.isfinite(found.value) for found in endless)


def test_a_model_without_gradients_is_told_and_attacked_by_what_needs_none(honest: dict[str, nn.Module]) -> None:
    found = checks(lambda x: honest["normal"](x.detach()), ("square-50",))
    assert fired(found) == {"zero gradients", "loss not rising"}


def test_only_images_that_gradient_attacks_tried_are_held_against_them(honest: dict[str, nn.Module]) -> None:
    """In a cascade that starts with Square, nobody knows whether APGD would have broken what Square did."""
    found = checks(honest["normal"], ("square-200", "apgd-ce-10"))
    assert found["attacks without gradients win"].value == 0
    assert "attacks without gradients win" not in checks(honest["normal"], ("square-20",))


def test_each_check_names_itself_its_value_and_what_to_do(honest: dict[str, nn.Module]) -> None:
    for found in checks(lambda x: honest["normal"](x) * 1e4).values():
        assert set(vars(found)) == {"name", "fired", "value", "threshold", "text", "n"}
        assert (":" in found.text) == found.fired and "\n" not in found.text  # advice only where there is need
