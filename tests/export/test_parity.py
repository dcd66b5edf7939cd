"""What counts as equal: logits to a tolerance, predictions to what so few images can show."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge.core.errors import CheckFailed
from export import parity

IMAGES = np.random.default_rng(0).integers(0, 256, (256, 1, 2, 2), np.uint8)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.flatten(1))


def truth(images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return Linear()(torch.from_numpy(images).float() / 255).numpy()


def compare(answers: Any, tolerance: "float | None" = 1e-3, min_agreement: float = 0.99) -> parity.Parity:
    model: Any = Linear()
    return parity.compare_logits(model, answers, IMAGES, min_agreement=min_agreement, tolerance=tolerance)


def swapped(count: int) -> Any:
    """Answers whose predictions differ on that many images."""

    def answers(images: np.ndarray, batch_size: int) -> np.ndarray:
        found = truth(images)
        found[:count] = np.roll(found[:count], 1, axis=1)
        return found

    return answers


def test_equal_answers_pass_and_are_asked_at_every_batch_size() -> None:
    asked = []

    def answers(images: np.ndarray, batch_size: int) -> np.ndarray:
        asked.append(batch_size)
        return truth(images)

    found = compare(answers)
    assert found and found.max_abs == 0 and found.argmax_agreement == 1 and asked == [1, 64]


def test_one_batch_size_that_differs_is_enough() -> None:
    found = compare(lambda images, size: truth(images) + (size == 64) * np.float32([0, 0, 9]), None)
    assert not found and found.max_abs == pytest.approx(9, abs=1e-4)


def test_logits_count_relative_to_the_largest_unless_predictions_alone_do() -> None:
    largest = max(float(np.abs(truth(IMAGES)).max()), 1.0)
    for factor, passes in ((0.9, True), (1.1, False)):
        shift = np.float32(factor * 1e-3 * largest)
        assert bool(compare(lambda images, size, shift=shift: truth(images) + shift)) == passes
    assert compare(lambda images, size: truth(images) + 5, None)


def test_predictions_fail_only_where_the_images_show_it() -> None:
    """Of 256 images 6 leave 99 % possible (Clopper–Pearson, 95 %: up to 99.1 %), 7 do not (98.9 %)."""
    assert compare(swapped(6), None) and not compare(swapped(7), None)
    assert compare(swapped(6), None).argmax_agreement == 250 / 256
    assert compare(swapped(7), None, min_agreement=0.98)
    assert not compare(swapped(1), None, min_agreement=1.0) and compare(swapped(0), None, min_agreement=1.0)


def test_a_failure_is_one_line_with_its_figures() -> None:
    config: Any = SimpleNamespace(min_agreement=0.99)
    model: Any = Linear()
    with pytest.raises(
        CheckFailed, match=r"^the exported int8 file and the torch model disagree .*90\.2% of 256 images"
    ):
        parity.hold_parity(model, "int8", swapped(25), IMAGES, config)


def test_magnitudes_by_layer_as_a_loop_finds_them() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 2, 1), Linear2()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.second(self.first(x))
            return found

    class Linear2(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 0.0 - x / 0.0  # not a number

    net = Net()
    found = parity.magnitudes(net, IMAGES)
    with torch.no_grad():
        want = max(float(net.first(image[None].float() / 255).abs().max()) for image in torch.from_numpy(IMAGES))
    assert list(found) == ["first", "second"] and found["first"] == pytest.approx(want, rel=1e-6)
    assert np.isnan(found["second"]), "which is no finite magnitude either"
