"""Projected gradient ascent: inside the ball, as strong as theory says, and without a trace on the model."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import networks
from compress.attacks import ball, losses
from compress.attacks.pgd import batch_random_start, pgd, step_size, strongest_iterate
from compress.data.split import to_float
from compress.numerics.seeds import generator


def linear(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4)).double()


def images(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 4, 4, generator=g).double() * 0.6 + 0.2, torch.randint(0, 4, (n,), generator=g)


@given(eps=st.floats(0.01, 0.5), steps=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_every_result_lies_in_the_ball_and_in_the_image_range(eps: float, steps: int, seed: int) -> None:
    x, y = images()
    start = batch_random_start(x, eps, generator(seed))
    for found in (
        pgd(linear(), x, losses.cross_entropy(y), start=start, eps=eps, step_size=eps, steps=steps),
        strongest_iterate(
            linear(), x, losses.margin(y), losses.margin(y), start=start, eps=eps, step_size=eps, steps=steps
        )[0],
    ):
        assert float((found - x).abs().max()) <= eps + 1e-6
        assert float(found.min()) >= 0 and float(found.max()) <= 1


def test_on_a_linear_model_it_reaches_the_known_optimum() -> None:
    model, eps = linear(), 0.1
    x, y = images()
    target = (y + 1) % 4
    weight = model[1].weight
    loss = lambda logits: (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]  # noqa: E731
    found = pgd(model, x, loss, start=x, eps=eps, step_size=0.03, steps=10)
    gain = loss(model(found)) - loss(model(x))
    best = eps * (weight[target] - weight[y]).abs().sum(1)  # x stays inside [0, 1] by construction
    torch.testing.assert_close(gain, best)


def test_strongest_is_never_weaker_than_any_iterate_of_the_same_run() -> None:
    torch.manual_seed(0)
    model = networks.build_network("resnet8", channels=1, classes=10).eval()
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    start, judge = batch_random_start(x, 0.2, generator("s")), losses.margin(y)
    _, value = strongest_iterate(
        model, x, losses.cross_entropy(y), judge, start=start, eps=0.2, step_size=0.05, steps=6
    )
    for steps in range(1, 7):
        last = pgd(model, x, losses.cross_entropy(y), start=start, eps=0.2, step_size=0.05, steps=steps)
        with torch.no_grad():
            assert bool((judge(model(last)) <= value + 1e-5).all())
    kept, again = strongest_iterate(
        model, x, losses.cross_entropy(y), judge, start=start, eps=0.2, step_size=0.05, steps=6
    )
    with torch.no_grad():
        torch.testing.assert_close(judge(model(kept)), again, atol=1e-5, rtol=1e-5)


def test_it_leaves_no_trace_on_the_model() -> None:
    model = networks.build_network("resnet8", channels=1, classes=10).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    pgd(model, x, losses.cross_entropy(y), start=x, eps=0.1, step_size=0.05, steps=2)
    assert not model.training and all(w.grad is None for w in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not x.requires_grad


def test_losses_against_naive_formulas() -> None:
    g = torch.Generator().manual_seed(3)
    logits, other = torch.randn(6, 5, generator=g).double(), torch.randn(6, 5, generator=g).double()
    y = torch.tensor([0, 4, 2, 2, 1, 3])
    for i in range(6):
        z, t = logits[i].tolist(), int(y[i])
        total = sum(2.718281828459045**v for v in z)
        assert float(losses.cross_entropy(y)(logits)[i]) == pytest.approx(-z[t] + torch.tensor(total).log().item())
        assert float(losses.margin(y)(logits)[i]) == pytest.approx(max(v for k, v in enumerate(z) if k != t) - z[t])
        p, q = other[i].softmax(0), logits[i].softmax(0)
        assert float(losses.divergence(other)(logits)[i]) == pytest.approx(float((p * (p / q).log()).sum()))
    torch.testing.assert_close(losses.temperature(y, 1.0)(logits), losses.cross_entropy(y)(logits))
    torch.testing.assert_close(losses.temperature(y, 4.0)(logits), losses.cross_entropy(y)(logits / 4))
    torch.testing.assert_close(losses.divergence(logits)(logits), torch.zeros(6).double(), atol=1e-12, rtol=0)


def test_starts_depend_on_their_key_alone_and_fill_the_ball() -> None:
    x = torch.full((64, 1, 8, 8), 0.5)
    a, b, c = (batch_random_start(x, 0.1, generator(key)) for key in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert 0.099 < float((a - x).abs().max()) <= 0.1 + 1e-6
    assert abs(float((a - x).mean())) < 0.005


@pytest.mark.parametrize("eps", ["8/255", "40/255", "0.1", "1/3"])
def test_snapping_gives_grid_images_inside_the_integer_radius(eps: str) -> None:
    g = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (50, 1, 4, 4), generator=g).to(torch.uint8)
    x_adv = batch_random_start(to_float(clean), float(Fraction(eps)), g)
    snapped = ball.snap_to_grid(x_adv, clean, eps)
    distance = (snapped.int() - clean.int()).abs().max()
    assert int(distance) <= ball.grid_radius(eps) == int(255 * Fraction(eps))
    assert int(distance) >= ball.grid_radius(eps) - 1  # it does not simply return the clean image
    inside = (x_adv - to_float(clean)).abs() * 255 <= ball.grid_radius(eps)
    assert float(((to_float(snapped) - x_adv).abs()[inside]).max()) <= 0.5 / 255 + 1e-6
    assert torch.equal(ball.snap_to_grid(to_float(clean), clean, eps), clean)


def test_the_default_step_is_two_and_a_half_radii_over_the_steps() -> None:
    assert step_size(None, 8 / 255, 10) == pytest.approx(2 / 255)
    assert step_size("1/255", 8 / 255, 10) == pytest.approx(1 / 255)
