"""Float candidates on the 8-bit grid: inside the radius, and no weaker than rounding alone."""

import torch

from compress.attacks import ball, losses
from compress.attacks.ball import settle_on_grid
from compress.data.split import to_float

EPS = "8/255"


def case(seed: int = 0) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A linear model and clean images classified right, no pixel near black or white."""
    g = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(4, 16, generator=g))
        model[1].bias.zero_()
    clean = torch.randint(60, 196, (40, 1, 4, 4), generator=g).to(torch.uint8)
    return model.requires_grad_(False), clean, model(to_float(clean)).argmax(1)


def test_candidates_just_over_the_boundary_stay_over_it() -> None:
    """The nearest adversarial image in the direction of the gradient, as FAB would give it."""
    model, clean, y = case()
    x, weight = to_float(clean), model[1].weight
    other = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    along = (weight[other] - weight[y]).sign().view_as(x)
    gap = -losses.targeted_margin(y, other)(model(x))
    least = gap / (weight[other] - weight[y]).abs().sum(1)
    reachable = least < 7.5 / 255
    found = x + along * (least * 1.0001)[:, None, None, None]
    assert bool((losses.margin(y)(model(found))[reachable] > 0).all()) and 5 < int(reachable.sum()) < 40
    rounded, settled = ball.snap_to_grid(found, clean, EPS), settle_on_grid(model, found, clean, EPS, losses.margin(y))
    wrong = [model(to_float(images)).argmax(1) != y for images in (rounded, settled)]
    assert not bool(wrong[0][reachable].all()), "rounding alone loses some"
    assert bool(wrong[1][reachable].all())
    assert int((settled.int() - clean.int()).abs().max()) <= ball.grid_radius(EPS)


def test_never_weaker_than_rounding_and_never_outside() -> None:
    model, clean, y = case(1)
    g = torch.Generator().manual_seed(2)
    found = (to_float(clean) + (torch.rand(clean.shape, generator=g) - 0.5) * 12 / 255).clamp(0, 1)
    judge = losses.margin(y)
    settled, rounded = settle_on_grid(model, found, clean, EPS, judge), ball.snap_to_grid(found, clean, EPS)
    assert bool((judge(model(to_float(settled))) >= judge(model(to_float(rounded)))).all())
    assert int((settled.int() - clean.int()).abs().max()) <= 8
    unmoved = settle_on_grid(model, to_float(clean), clean, EPS, judge)
    assert torch.equal(unmoved, clean)
