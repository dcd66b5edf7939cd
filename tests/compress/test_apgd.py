"""Auto-PGD: the paper's schedule, the maintained package's results, and properties no implementation may lack."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from compress.attacks import ball, losses
from compress.attacks.apgd import APGD, Trace, ascend, checkpoints
from compress.attacks.contract import EnsembleAttack, Model, Task, draw, image_random_start, wrong_classes
from compress.attacks.fab import FAB
from compress.attacks.losses import ImageLoss
from compress.attacks.square import Square
from compress.attacks.transfer import PGD, MomentumDiverse
from tests.compress.attacked import check_alone, check_inside, check_no_trace, task, waits, with_classes, wrong

NORMS = {"linf": "Linf", "l2": "L2"}


def climb(at: Task, loss: ImageLoss, steps: int = 100) -> Trace:
    start = image_random_start(at, "test", 0)
    return ascend(at.model, at.x, loss, start=start, y=at.y, eps=at.eps, norm=at.norm, steps=steps)


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")  # the package's own
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_from_the_same_starts_it_goes_where_the_maintained_package_goes(norm: str, loss: str) -> None:
    at = task(norm)
    trace = climb(at, losses.cross_entropy(at.y) if loss == "ce" else losses.dlr(at.y), steps=60)
    theirs = APGDAttack(at.model, n_iter=60, norm=NORMS[norm], eps=at.eps, loss=loss, device="cpu")
    theirs.init_hyperparam(at.x)
    _, right, best, _ = theirs.attack_single_run(at.x, at.y, x_init=image_random_start(at, "test", 0))
    assert 10 < int((trace.verdict > 0).sum()) < 110
    assert int(((trace.verdict > 0) == right.bool()).sum()) <= 2  # of 120
    close = torch.isclose(trace.losses.amax(0), best, rtol=0.02, atol=0.01)
    assert int(close.sum()) >= 114


@pytest.mark.parametrize("norm", NORMS)
def test_with_targets_it_breaks_the_images_that_the_maintained_package_breaks(norm: str) -> None:
    at = task(norm)
    found = APGD("dlr-targeted", steps=40, targets=3).run(at)
    theirs = APGDAttack_targeted(
        at.model, n_iter=40, norm=NORMS[norm], eps=at.eps, n_target_classes=3, seed=0, device="cpu"
    )
    here, there = wrong(at, found), wrong(at, theirs.perturb(at.x, at.y))
    check_inside(at, found)
    assert 10 < int(there.sum()) < 110
    assert int((here != there).sum()) <= 2  # of 120


def by_the_book(model: Model, x: torch.Tensor, y: torch.Tensor, start: torch.Tensor, rho: float) -> list[float]:
    """Algorithm 1 of the paper for one image, L∞, ε = 0.3, line by line: the loss at the start and after each of 60."""

    eps = 0.3

    def look(z: torch.Tensor) -> tuple[float, torch.Tensor]:
        leaf = z.detach().requires_grad_()
        value = losses.margin(y)(model(leaf))
        return float(value.detach()), torch.autograd.grad(value.sum(), leaf)[0]

    def back(z: torch.Tensor) -> torch.Tensor:
        return torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)

    here = before = best = start
    seen = [look(start)[0]]
    top, step, since, checked = seen[0], 2 * eps, 0, (seen[0], 0.0)
    for k in range(60):
        z = back(here + step * look(here)[1].sign())
        share = 0.75 if k else 1.0
        here, before = back(here + share * (z - here) + (1 - share) * (here - before)), here
        seen.append(look(here)[0])
        if seen[-1] > top:
            best, top = here, seen[-1]
        if k + 1 in checkpoints(60):
            gains = sum(seen[i + 1] > seen[i] for i in range(since, k + 1))
            stuck = checked == (top, step)
            checked, span, since = (top, step), k + 1 - since, k + 1
            if gains <= rho * span or stuck:
                step, here = step / 2, best
    return seen


@pytest.mark.parametrize("rho", [0.75, 0.3])  # at 0.3 it is mostly standing still that halves the step
def test_on_a_rugged_loss_it_takes_the_papers_steps_one_by_one(rho: float) -> None:
    g = torch.Generator().manual_seed(4)
    (first, second) = (torch.randn(*shape, generator=g).double() for shape in ((16, 24), (24, 3)))
    x, eps = torch.rand(16, 1, 4, 4, generator=g).double(), 0.3
    model = lambda x: (4 * x.flatten(1) @ first).sin() @ second  # noqa: E731
    y = model(x).argmax(1)
    start = (x + eps * (2 * torch.rand(x.shape, generator=g).double() - 1)).clamp(0, 1)
    trace = ascend(model, x, losses.margin(y), start=start, y=y, eps=eps, norm="linf", steps=60, rho=rho)
    for i in range(16):
        one = slice(i, i + 1)
        expected = torch.tensor(by_the_book(model, x[one], y[one], start[one], rho), dtype=torch.float64)
        torch.testing.assert_close(trace.losses[:, i], expected, atol=1e-6, rtol=0)


def test_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1] and checkpoints(5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_model_it_reaches_the_known_optimum(norm: str) -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 2, generator=g).double()
    x, eps = torch.rand(6, 1, 4, 4, generator=g).double() * 0.4 + 0.3, 0.1
    y = torch.tensor([0, 1] * 3)
    start = x.flip(0).clamp(x - 0.02, x + 0.02)
    model = lambda x: x.flatten(1) @ weight  # noqa: E731
    trace = ascend(model, x, losses.margin(y), start=start, y=y, eps=eps, norm=norm, steps=60)
    slope = (weight[:, 1] - weight[:, 0]) * torch.where(y == 0, 1, -1)[:, None]
    way = slope.abs().sum(1) if norm == "linf" else slope.square().sum(1).sqrt()
    best = losses.margin(y)(model(x)) + eps * way  # x stays inside [0, 1] by construction
    torch.testing.assert_close(trace.losses.amax(0), best, atol=1e-4, rtol=0)
    torch.testing.assert_close(trace.verdict, trace.losses.amax(0))
    torch.testing.assert_close(losses.margin(y)(model(trace.strongest)), trace.verdict)


def test_the_record_holds_every_step_and_its_best_never_falls() -> None:
    at = task("linf", 20)
    trace = climb(at, losses.cross_entropy(at.y), steps=30)
    assert trace.losses.shape == (31, 20) and bool(trace.losses.isfinite().all())
    torch.testing.assert_close(
        trace.losses[0], losses.cross_entropy(at.y)(at.model(image_random_start(at, "test", 0))), atol=1e-6, rtol=1e-5
    )
    assert trace.curve.shape == (31,) and bool((trace.curve.diff() >= 0).all())
    assert float(trace.curve[-1]) > float(trace.curve[0])
    torch.testing.assert_close(trace.curve[-1], trace.losses.amax(0).mean())
    judged = losses.verdict(at.y)(at.model(trace.strongest))
    torch.testing.assert_close(judged, trace.verdict, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
def test_every_image_is_attacked_alike_in_every_batch(norm: str, loss: str) -> None:
    check_alone(APGD(loss, steps=12, restarts=2, targets=2), norm)


@pytest.mark.parametrize("classes", [2, 3, 4, 10, 1000])
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted", "ce-targeted"])
def test_any_number_of_classes(classes: int, loss: str) -> None:
    at = with_classes(classes)
    found = APGD(loss, steps=10, targets=3).run(at)
    check_inside(at, found)
    assert int(wrong(at, found).sum()) >= 5


def test_more_restarts_never_break_fewer() -> None:
    at = task("linf", 40)
    one, two = (wrong(at, APGD("ce", steps=5, restarts=n).run(at)) for n in (1, 3))
    assert bool((two | ~one).all()) and int(two.sum()) >= int(one.sum())


@pytest.mark.parametrize("loss", ["ce-targeted", "dlr-targeted"])
def test_a_class_further_down_is_reached_where_the_first_cannot_be(loss: str) -> None:
    x = torch.full((3, 1, 4, 4), 0.5)
    rising = lambda x: 2 * x.flatten(1).mean(1)  # noqa: E731
    model = lambda x: torch.stack([1.1 + 0 * rising(x), 1.05 + 0 * rising(x), rising(x), 0 * rising(x)], 1)  # noqa: E731
    at = Task(model, x, torch.zeros(3, dtype=torch.int64), np.arange(3), 0.1, "linf", 0)
    assert not wrong(at, APGD(loss, steps=10, targets=1).run(at)).any()
    assert wrong(at, APGD(loss, steps=10, targets=2).run(at)).all()


def test_images_that_are_wrong_already_come_back_as_they_are() -> None:
    at = task("linf", 10)
    at.y[:4] = (at.y[:4] + 1) % 10
    try:
        found = APGD(steps=3).run(at)
        assert torch.equal(found[:4], at.x[:4]) and not torch.equal(found[4:], at.x[4:])
    finally:
        at.y[:4] = (at.y[:4] - 1) % 10


@pytest.mark.parametrize("scale", [1e-20, 1e4, 1e30])
def test_extreme_logits_leave_everything_finite(scale: float) -> None:
    at = task("l2", 10)
    hot = Task(lambda x: scale * at.model(x), at.x, at.y, at.ids, at.eps, "l2", 0)
    for loss in ("ce", "dlr"):
        found = APGD(loss, steps=4).run(hot)
        assert bool(found.isfinite().all())
        check_inside(hot, found)
    assert bool(climb(hot, losses.cross_entropy(hot.y), steps=4).losses.isfinite().all())


def test_a_noisy_model_is_averaged_over() -> None:
    at = task("linf", 5)
    calls = []
    noisy = Task(lambda x: (calls.append(1), at.model(x))[1], at.x, at.y, at.ids, at.eps, "linf", 0)
    once, thrice = (
        ascend(noisy.model, at.x, losses.cross_entropy(at.y), start=at.x, y=at.y, eps=0.1, norm="linf", steps=4, eot=n)
        for n in (1, 3)
    )
    assert len(calls) == 5 + 15
    torch.testing.assert_close(once.losses, thrice.losses, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [partial(APGD, "ce"), partial(FAB, targets=1), PGD, MomentumDiverse, Square])
def test_the_host_waits_for_the_device_once_a_run_and_never_in_a_step(
    attack: Callable[[int], EnsembleAttack], norm: str
) -> None:
    at = task(norm, 4, eps=1e-4)
    short, long = (waits(attack(n), at) for n in (3, 9))
    assert short == long <= 3


@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
def test_it_leaves_no_trace(loss: str) -> None:
    check_no_trace(APGD(loss, steps=2, targets=2))


def test_losses_against_naive_formulas() -> None:
    g = torch.Generator().manual_seed(3)
    logits, y, t = torch.randn(8, 6, generator=g).double(), torch.arange(8) % 6, (torch.arange(8) + 2) % 6
    for i in range(8):
        z, k, to = logits[i].tolist(), int(y[i]), int(t[i])
        order = sorted(z, reverse=True)
        gap = max(v for j, v in enumerate(z) if j != k) - z[k]
        assert float(losses.dlr(y)(logits)[i]) == pytest.approx(gap / (order[0] - order[2]))
        expected = (z[to] - z[k]) / (order[0] - (order[2] + order[3]) / 2)
        assert float(losses.targeted_dlr(y, t)(logits)[i]) == pytest.approx(expected)
        assert float(losses.targeted_margin(y, t)(logits)[i]) == pytest.approx(z[to] - z[k])
    torch.testing.assert_close(losses.targeted_cross_entropy(t)(logits), logits.log_softmax(1)[torch.arange(8), t])
    for scaled in (7 * logits, logits + 5):
        torch.testing.assert_close(losses.dlr(y)(scaled), losses.dlr(y)(logits))
        torch.testing.assert_close(losses.targeted_dlr(y, t)(scaled), losses.targeted_dlr(y, t)(logits))
    torch.testing.assert_close(losses.dlr(y % 2)(logits[:, :2]), losses.margin(y % 2)(logits[:, :2]))


def test_a_verdict_agrees_with_argmax_even_in_a_tie() -> None:
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor([[1, 1, 0], [1, 1, 0], [2, 1, 0], [0, 1, 1]], dtype=dtype)
        y = torch.tensor([0, 1, 1, 1])
        assert (
            (losses.verdict(y)(logits) > 0).tolist() == (logits.argmax(1) != y).tolist() == [False, True, True, False]
        )


def test_draws_belong_to_seed_name_image_and_step_alone() -> None:
    at = task("l2", 6)
    a = draw(at, "a", 3, 5)
    assert torch.equal(a[[4, 1]], draw(at.of(torch.tensor([4, 1])), "a", 3, 5))
    assert torch.equal(draw(at, "a", range(2, 5), 5)[:, 1], a)
    for other in (draw(at, "b", 3, 5), draw(at, "a", 4, 5), draw(task("l2", 6, seed=1), "a", 3, 5)):
        assert not bool((other == a).any())


@pytest.mark.parametrize("norm", NORMS)
def test_starts_lie_on_the_sphere_and_projection_is_the_nearest_way_back(norm: str) -> None:
    at = task(norm, 40)
    gray = Task(at.model, torch.full_like(at.x, 0.5), at.y, at.ids, 0.1, norm, 0)
    delta = image_random_start(gray, "a", 0) - gray.x
    torch.testing.assert_close(ball.length(delta, norm), torch.full((40,), 0.1), atol=1e-6, rtol=0)
    assert abs(float(delta.mean())) < 0.01
    assert torch.equal(ball.project(at.x, at.x, 0.1, norm), at.x)
    torch.testing.assert_close(ball.project(gray.x + delta / 2, gray.x, 0.1, norm), gray.x + delta / 2)
    back = ball.project(gray.x + 3 * delta, gray.x, 0.1, norm) - gray.x
    nearest = delta if norm == "l2" else (3 * delta).clamp(-0.1, 0.1)
    torch.testing.assert_close(back, nearest, atol=1e-6, rtol=0)
    assert bool((ball.unit(torch.zeros(1, 1, 2, 2), norm) == 0).all())
    torch.testing.assert_close(ball.length(ball.unit(1e-30 * delta, norm), norm), torch.ones(40))


def test_targets_are_the_largest_wrong_logits() -> None:
    logits = torch.tensor([[5.0, 1, 3, 2], [0, 9, 1, 2]])
    assert wrong_classes(logits, torch.tensor([0, 3]), 9).tolist() == [[2, 3, 1], [1, 2, 0]]
