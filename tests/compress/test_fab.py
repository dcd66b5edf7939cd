"""FAB: its projection against a linear program and a bisection, its results against the maintained package's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.fab_pt import FABAttack_PT
from scipy.optimize import linprog

from compress.attacks import ball
from compress.attacks.fab import FAB, to_hyperplane
from tests.compress.attacked import check_alone, check_inside, check_no_trace, task, with_classes, wrong


def problem(seed: int, n: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points, normals (one entry zero) and gaps, reachable and not, both signs, float64."""
    g = torch.Generator().manual_seed(seed)
    points, w = torch.rand(6, n, generator=g).double(), torch.randn(6, n, generator=g).double()
    points[:, 1] = torch.tensor([0, 1, 0, 1, 0.5, 1])  # some at an edge already
    w[:, 0] = 0
    return points, w, torch.tensor([0.1, -0.3, 0.7, -1.5, 0.0, 40])


def reach(points: torch.Tensor, w: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
    """The largest w·d towards the gap that the image range allows."""
    room = torch.where((w > 0) == (gap > 0), 1 - points, points)
    return (w.abs() * room).sum()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_in_linf_the_projection_solves_the_linear_program(seed: int) -> None:
    points, w, gaps = problem(seed)
    found = to_hyperplane(points, w, gaps, "linf")
    for x, v, gap, d in zip(points, w, gaps, found, strict=True):
        if reach(x, v, gap) < gap.abs():
            continue
        n = len(x)  # variables d and its bound t: minimize t, -t ≤ d ≤ t
        eye, one = np.eye(n), np.ones((n, 1))
        solved = linprog(
            np.r_[np.zeros(n), 1],
            A_ub=np.block([[eye, -one], [-eye, -one]]),
            b_ub=np.zeros(2 * n),
            A_eq=np.r_[v.numpy(), 0][None],
            b_eq=[float(gap)],
            bounds=[(-float(a), 1 - float(a)) for a in x] + [(0, None)],
        )
        assert solved.success
        assert float(d.abs().max()) == pytest.approx(solved.fun, abs=1e-9)
        assert float(v @ d) == pytest.approx(float(gap), abs=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_in_l2_the_projection_agrees_with_a_bisection(seed: int) -> None:
    points, w, gaps = problem(seed)
    found = to_hyperplane(points, w, gaps, "l2")
    for x, v, gap, d in zip(points, w, gaps, found, strict=True):
        if reach(x, v, gap) < gap.abs():
            continue
        v = v * (-1 if gap < 0 else 1)
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            short = float(v @ ((x + middle * v).clamp(0, 1) - x)) < abs(float(gap))
            low, high = (middle, high) if short else (low, middle)
        torch.testing.assert_close(d, (x + high * v).clamp(0, 1) - x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_projection_stays_in_range_and_reaches_the_plane_or_the_corner(norm: str, seed: int) -> None:
    points, w, gaps = problem(seed)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        x, v, gap = points.to(dtype), w.to(dtype), gaps.to(dtype)
        d = to_hyperplane(x, v, gap, norm)
        assert float((x + d).min()) >= -1e-6 and float((x + d).max()) <= 1 + 1e-6
        assert bool((d[:, 0] == 0).all())
        for i in range(len(x)):
            limit = min(float(gap[i].abs()), float(reach(x[i], v[i], gap[i])))
            assert float((v[i] @ d[i]).abs()) == pytest.approx(limit, abs=tolerance)
            assert float(v[i] @ d[i]) * float(gap[i]) >= 0
    for scale in (1e-12, 1e12):  # the plane is the same however its equation is scaled
        torch.testing.assert_close(
            to_hyperplane(points, scale * w, scale * gaps, norm),
            to_hyperplane(points, w, gaps, norm),
            atol=1e-6,
            rtol=1e-6,
        )


def test_no_normal_no_way() -> None:
    x = torch.rand(3, 5)
    for norm in ("linf", "l2"):
        moved = to_hyperplane(x, torch.zeros(3, 5), torch.tensor([0.0, 1, -1e30]), norm)
        assert bool((moved == 0).all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_breaks_the_images_that_the_maintained_package_breaks(norm: str) -> None:
    at = task(norm)
    found = FAB(steps=20, targets=3).run(at)
    check_inside(at, found)
    theirs = FABAttack_PT(
        at.model,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        n_iter=20,
        eps=at.eps,
        targeted=True,
        seed=0,
        device="cpu",
        n_target_classes=3,
    )
    here, there = wrong(at, found), wrong(at, theirs.perturb(at.x, at.y))
    assert 10 < int(there.sum()) < 110
    assert int((here != there).sum()) <= 2  # of 120


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_finds_the_least_distance(norm: str) -> None:
    at = with_classes(2)
    weight = torch.autograd.functional.jacobian(lambda x: at.model(x)[0], at.x[:1])[:, 0].flatten(1)
    slope = weight[1] - weight[0]
    logits = at.model(at.x)
    gap = (logits.gather(1, at.y[:, None]) - logits.gather(1, 1 - at.y[:, None]))[:, 0] * torch.where(at.y == 0, 1, -1)
    least = ball.length(to_hyperplane(at.x.flatten(1), slope.expand(10, -1), gap, norm).view_as(at.x), norm)
    one = [at.of(torch.tensor([i])) for i in range(10)]
    for part, distance in zip(one, least.tolist(), strict=True):
        for factor, breaks in ((0.98, False), (1.02, True)):
            narrow = type(part)(part.model, part.x, part.y, part.ids, factor * distance, norm, 0)
            assert bool(wrong(narrow, FAB(steps=15).run(narrow))) is breaks


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_image_is_attacked_alike_in_every_batch(norm: str) -> None:
    check_alone(FAB(steps=10, targets=2), norm)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_any_number_of_classes(classes: int) -> None:
    at = with_classes(classes)
    found = FAB(steps=15).run(at)
    check_inside(at, found)
    assert int(wrong(at, found).sum()) >= 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_leaves_no_trace(norm: str) -> None:
    check_no_trace(FAB(steps=2, targets=2), norm)
