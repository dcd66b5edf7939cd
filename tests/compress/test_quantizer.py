"""Fake quantization against loops over numbers and against ModelOpt's."""

import math
import random

import pytest
import torch
from torch import Tensor

from compress.quantization.quantizer import FakeQuantize, Quantizer


def quantizer(amax: "float | list[float]", *, unsigned: bool = False) -> Quantizer:
    made = Quantizer(len(amax) if isinstance(amax, list) else None)
    made.amax.copy_(torch.tensor(amax))
    made.is_enabled, made.unsigned = True, unsigned
    return made


def naive(x: Tensor, amax: "list[float]", low: int, high: int) -> list[float]:
    """Value by value in float64, one amax a row; Python's round goes to the even neighbour."""
    found = []
    for row, top in zip(x.double().tolist(), amax, strict=True):
        scale = top / high
        found += [min(max(round(value / scale), low), high) * scale for value in row]
    return found


def values(seed: int, rows: int = 4, n: int = 50) -> Tensor:
    """Some inside, some far outside, a zero; none on a tie, where float32 and float64 may differ."""
    draw = random.Random(seed)
    return torch.tensor([[0.0, *(draw.gauss(0, 2) for _ in range(n))] for _ in range(rows)])


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("amax", [1.0, 0.037, 5.3])
def test_per_tensor_against_a_loop(amax: float, unsigned: bool) -> None:
    x, low, high = values(1), 0 if unsigned else -128, 255 if unsigned else 127
    got = quantizer(amax, unsigned=unsigned)(x)
    want = naive(x, [amax] * len(x), low, high)
    torch.testing.assert_close(got.flatten().double(), torch.tensor(want, dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_per_channel_against_a_loop() -> None:
    x, amax = values(2), [0.5, 1.0, 3.0, 0.01]
    for shaped in (x, x[:, :, None, None]):
        got = quantizer(amax)(shaped)
        want = torch.tensor(naive(x, amax, -128, 127), dtype=torch.float64)
        torch.testing.assert_close(got.flatten().double(), want, atol=1e-6, rtol=1e-6)


def test_ties_go_to_the_even_level() -> None:
    made = quantizer(127.0)  # scale 1
    assert made(torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])).tolist() == [0, 2, 2, 0, -2, -2]


def test_the_grid_is_kept_and_ends_where_8_bits_do() -> None:
    levels = torch.arange(-128, 128) * (torch.tensor(0.7) / 127)
    assert torch.equal(quantizer(0.7)(levels), levels)
    assert quantizer(127.0)(torch.tensor([-1e9, 1e9])).tolist() == [-128, 127]
    assert quantizer(255.0, unsigned=True)(torch.tensor([-1e9, 1e9])).tolist() == [0, 255]
    assert len(quantizer(1.0, unsigned=True)(torch.linspace(-1, 2, 9999)).unique()) == 256


def test_off_it_is_the_identity() -> None:
    made, x = quantizer(0.1), values(3)
    made.is_enabled = False
    assert made(x) is x


@pytest.mark.parametrize("unsigned", [False, True])
def test_the_gradient_passes_inside_and_stops_where_levels_are_clipped(unsigned: bool) -> None:
    low, high = (0, 255) if unsigned else (-128, 127)
    made = quantizer(float(high), unsigned=unsigned)  # scale 1
    x = torch.tensor([low - 0.6, low - 0.4, 0.3, high - 0.1, high + 0.4, high + 0.6], requires_grad=True)
    weight = torch.arange(1.0, 7.0)
    (made(x) * weight).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]
    rows = torch.tensor([[0.5, 2.0], [0.5, 2.0]], requires_grad=True)
    quantizer([1.0, 3.0])(rows).sum().backward()
    assert rows.grad.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(("unsigned", "channels"), [(False, False), (True, False), (False, True)])
def test_the_ranges_gradient_against_learned_step_sizes_as_published(unsigned: bool, channels: bool) -> None:
    """Esser et al. 2020, eq. 3: v̄ − v / s inside, −Q_N or Q_P outside; scaled by 1 / √(n Q_P); amax = Q_P · s."""
    x, low, high = values(4, rows=3), 0 if unsigned else -128, 255 if unsigned else 127
    amax = [0.4, 1.1, 2.0] if channels else [1.1] * 3
    weight = values(5, rows=3)
    made = quantizer(amax if channels else 1.1, unsigned=unsigned)
    made.learn()
    (made(x) * weight).sum().backward()
    want = []
    for row, top, factors in zip(x.double().tolist(), amax, weight.double().tolist(), strict=True):
        step, total = top / high, 0.0
        for value, factor in zip(row, factors, strict=True):
            level = round(value / step)
            inside = low <= level <= high
            total += factor * (level - value / step if inside else min(max(level, low), high))
        want.append(total / math.sqrt(len(row) * high))  # of one channel's weights, or of one image
    moved = torch.tensor(want if channels else [sum(want)], dtype=torch.float64)
    # a step of −1 down the gradient of amax moves s = amax / Q_P by as much as descent on s would
    torch.testing.assert_close(made.amax.grad.reshape(-1).double() / high, moved, atol=1e-5, rtol=1e-4)


def test_learning_and_settling_change_no_name_and_no_value() -> None:
    made, x = quantizer([0.5, 2.0]), torch.randn(2, 9)
    before, out = made.state_dict(), made(x)
    made.learn()
    assert [name for name, _ in made.named_parameters()] == ["amax"] and torch.equal(made(x), out)
    made.settle()
    assert not list(made.parameters()) and list(made.state_dict()) == list(before)
    assert torch.equal(made.amax, before["amax"])


def test_a_learned_range_grows_to_what_it_clips() -> None:
    torch.manual_seed(0)
    x, made = torch.randn(64, 128), quantizer(0.5)

    def error() -> Tensor:
        return ((made(x) - x) ** 2).sum(1).mean()

    before = float(error())
    made.learn()
    optimizer = torch.optim.SGD([made.amax], lr=1e-4)
    for _ in range(300):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert 2 < float(made.amax.detach()) < 6  # of a normal distribution's 4 or so
    assert float(error().detach()) < 0.01 * before


def test_a_step_too_long_leaves_a_range_that_can_come_back() -> None:
    made, x = quantizer([1.6, 1.6, 1.6]), torch.ones(3, 4)
    made.learn()
    with torch.no_grad():
        made.amax.copy_(torch.tensor([0.0, -1.0, -0.01]))
    out = made(x)
    assert out[:, 0].tolist() == pytest.approx([0.1, 1.0, 0.1])
    out.sum().backward()
    assert float(made.amax.grad[2]) < 0  # ascent on Σ out, which a wider range serves, moves it away from 0
    made.settle()
    assert made.amax.tolist() == pytest.approx([0.1, 1.0, 0.1])


def test_nothing_is_kept_of_a_pass_without_gradients() -> None:
    with torch.no_grad():
        assert FakeQuantize.apply(torch.ones(3), torch.tensor(1.0), -128, 127).grad_fn is None


@pytest.mark.parametrize("unsigned", [False, True])
def test_modelopts_quantizer_gives_the_same_values(unsigned: bool) -> None:
    """All but those on a tie after rounding in float32: it multiplies by 1 / scale where ours divides."""
    pytest.importorskip("modelopt", reason="nvidia-modelopt is not installed")
    from modelopt.torch.quantization.config import QuantizerAttributeConfig
    from modelopt.torch.quantization.nn import TensorQuantizer

    for amax, axis in ((1.3, None), ([0.5, 1.0, 3.0, 0.01], 0)):
        if unsigned and axis is not None:
            continue
        theirs = TensorQuantizer(QuantizerAttributeConfig(num_bits=8, axis=axis, unsigned=unsigned))
        theirs.amax = torch.tensor(amax) if axis is None else torch.tensor(amax)[:, None]
        x = values(6, n=2000).abs() if unsigned else values(6, n=2000)
        ours, want = quantizer(amax, unsigned=unsigned)(x), theirs(x)
        step = torch.as_tensor(amax).reshape(-1, 1) / (255 if unsigned else 127)
        assert float((ours - want).abs().max() / step.max()) < 1.01
        assert float(((ours - want).abs() > 1e-3 * step).float().mean()) < 1e-3
