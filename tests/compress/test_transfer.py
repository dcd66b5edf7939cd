"""Momentum with diversity, the two PGDs and RayS: what each promises on real images."""

import numpy as np
import pytest
import torch

from compress.attacks import ensemble, losses
from compress.attacks.adaptive import PackagedAttack
from compress.attacks.contract import EnsembleAttack, image_random_start, stream
from compress.attacks.pgd import strongest_iterate
from compress.attacks.transfer import PGD, MarginPGD, MomentumDiverse, RayS, _shrink
from edge.attacks.rays import rays
from edge.core.errors import CompressError
from tests.compress.attacked import check_alone, check_inside, check_no_trace, task, with_classes, wrong

GRADIENT: list[EnsembleAttack] = [PGD(steps=8, restarts=2), MarginPGD(steps=8), MomentumDiverse(steps=8)]


def named(attack: EnsembleAttack) -> str:
    return attack.name


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", GRADIENT, ids=named)
def test_it_stays_inside_and_breaks_images(attack: EnsembleAttack, norm: str) -> None:
    at = task(norm, 60)
    found = attack.run(at)
    check_inside(at, found)
    noise = wrong(at, image_random_start(at, "noise", 0))
    assert int(wrong(at, found).sum()) > 3 * int(noise.sum()) + 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", GRADIENT, ids=named)
def test_every_image_is_attacked_alike_in_every_batch(attack: EnsembleAttack, norm: str) -> None:
    check_alone(attack, norm)


@pytest.mark.parametrize("attack", [*GRADIENT, RayS(queries=10)], ids=named)
def test_it_leaves_no_trace(attack: EnsembleAttack) -> None:
    check_no_trace(attack)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("attack", [*GRADIENT, RayS(queries=120)], ids=named)
def test_any_number_of_classes(attack: EnsembleAttack, classes: int) -> None:
    at = with_classes(classes)
    found = attack.run(at)
    check_inside(at, found)
    assert int(wrong(at, found).sum()) >= 2


def test_in_linf_pgd_is_the_one_of_training() -> None:
    at = task("linf", 20)
    for attack, loss in ((PGD(steps=7), losses.cross_entropy), (MarginPGD(steps=7), losses.margin)):
        expected, _ = strongest_iterate(
            at.model,
            at.x,
            loss(at.y),
            losses.margin(at.y),
            start=image_random_start(at, attack.name, 0),
            eps=at.eps,
            step_size=2.5 * at.eps / 7,
            steps=7,
        )
        torch.testing.assert_close(attack.run(at), expected)


def test_without_diversity_it_is_the_momentum_method_written_out() -> None:
    at = task("linf", 6)
    x_adv, momentum = at.x.clone(), torch.zeros_like(at.x)
    for _ in range(5):
        leaf = x_adv.requires_grad_()
        (gradient,) = torch.autograd.grad(losses.cross_entropy(at.y)(at.model(leaf)).sum(), leaf)
        momentum = 0.7 * momentum + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
        x_adv = (x_adv.detach() + at.eps / 5 * momentum.sign()).clamp(at.x - at.eps, at.x + at.eps).clamp(0, 1)
    found = MomentumDiverse(steps=5, decay=0.7, probability=0).run(at)
    better = losses.margin(at.y)(at.model(x_adv)) > losses.margin(at.y)(at.model(at.x))
    torch.testing.assert_close(found[better], x_adv[better])
    other = MomentumDiverse(steps=5, decay=0.7, probability=1).run(at)
    assert not torch.allclose(found, other, atol=1e-3)


def test_shrinking_agrees_with_torchs_resampling_and_moves_by_whole_pixels() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 10, 10, generator=g)
    for small, first in ((10, 0), (7, 0), (7, 3), (9, 1)):
        place = torch.tensor([(first + 0.5) / (10 - small + 1)])
        matrix = _shrink(torch.tensor([float(small)]), place, 10)[0]
        expected = torch.zeros(10, 10)
        resized = torch.nn.functional.interpolate(x, size=(small, small), mode="bilinear")[0, 0]
        expected[first : first + small, first : first + small] = resized
        torch.testing.assert_close(matrix @ x[0, 0] @ matrix.T, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(_shrink(torch.tensor([10.0]), torch.tensor([0.99]), 10)[0], torch.eye(10))


def test_rays_is_the_one_of_edge_and_knows_one_norm() -> None:
    at = task("linf", 20)
    found = RayS(queries=60).run(at)
    expected = rays(
        lambda images: at.model(torch.from_numpy(images)).numpy(),
        at.x.numpy(),
        at.y.numpy(),
        eps=at.eps,
        queries=60,
        seed=stream(0, "rays"),
        ids=at.ids,
    )
    torch.testing.assert_close(found, torch.from_numpy(expected.adversarial), atol=1e-6, rtol=0)
    assert wrong(at, found).tolist() == expected.broken.tolist()
    check_alone(RayS(queries=40), "linf")


def test_an_attack_of_another_norm_is_refused_before_those_in_front_of_it_run() -> None:
    at = task("l2", 2)
    images, labels = at.x.numpy().astype(np.float32), at.y.numpy()
    with pytest.raises(CompressError, match=r"^rays works in linf, and the norm is l2: leave rays out"):
        ensemble.evaluate(pytest.fail, images, labels, [PGD(), RayS()], eps=at.eps, norm="l2")
    packaged = PackagedAttack("theirs", RayS(), "some-attacks 1.2")
    with pytest.raises(CompressError, match=r"^theirs works in linf, and the norm is l2"):
        ensemble.evaluate(pytest.fail, images, labels, [packaged], eps=at.eps, norm="l2")


def test_what_a_report_lists_can_be_written_as_json() -> None:
    assert PGD(steps=7).parameters() == {"steps": 7, "restarts": 1}
    assert MomentumDiverse().parameters() == {"steps": 20, "decay": 1.0, "probability": 0.5, "smallest": 0.9}
    assert {attack.name for attack in GRADIENT} == {"pgd", "pgd-margin", "mi-di"}
    assert RayS().parameters() == {"queries": 1000}
