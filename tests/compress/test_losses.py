"""Every objective: a true gradient that reaches every weight; those without a teacher: identity, scale, oracle."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress import names
from compress.attacks import losses as attack_losses
from compress.attacks.pgd import batch_random_start
from compress.config import TrainAttack
from compress.methods import registry
from compress.methods.scores import divergences
from compress.numerics.seeds import generator
from tests.compress.tiny_networks import Tiny, alone, batch, naive_kl, objective, values


def kl(p: Tensor, q: Tensor) -> Tensor:
    """The mean over a batch, as the loop makes it of the terms."""
    return divergences(p, q).mean()


def test_kl_identity_scale_and_oracle() -> None:
    g = torch.Generator().manual_seed(0)
    p, q = (3 * torch.randn(6, 10, generator=g, dtype=torch.float64) for _ in range(2))
    assert abs(float(kl(p, p))) < 1e-12
    assert float(kl(p, q)) == pytest.approx(naive_kl(p, q))
    assert float(kl(p.repeat(5, 1), q.repeat(5, 1))) == pytest.approx(float(kl(p, q)))  # a mean, not a sum
    sure, unsure = torch.tensor([[50.0, 0, 0, 0]]), torch.zeros(1, 4)
    assert float(kl(sure, unsure)) == pytest.approx(math.log(4))  # not divided by the number of classes


#: Options with which a method uses all that it has.
EVERY_TERM: dict[str, dict[str, object]] = {
    "vgap": {"lambda_gap": 1.0},
    "ard": {"label_weight": 0.3},
    "iad-i": {"label_weight": 0.3},
    "adaiad": {"label_weight": 0.3},
    "adaad": {"adversarial_weight": 0.7},
    "saad": {"beta": 0.5},
}


@pytest.mark.parametrize("method", sorted(names.METHODS))
def test_gradients_are_true_and_the_sum_reaches_every_weight(method: str) -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    host = objective(student, teacher, method, **EVERY_TERM.get(method, {}))
    found, x_adv = batch(teacher)
    found = replace(found, progress=0.5)
    weights = [*student.parameters()]

    def loss(*values: Tensor) -> Tensor:
        for weight, value in zip(weights, values, strict=True):
            weight.data = value.data
        return torch.stack(list(host.parts(student, found, x_adv).values())).sum()

    grads = torch.autograd.grad(loss(*[w.detach().clone() for w in weights]), weights)
    for weight, gradient in zip(weights, grads, strict=True):
        assert float(gradient.abs().max()) > 0
        index = tuple(int(i) for i in torch.unravel_index(gradient.abs().argmax(), gradient.shape))
        old, h = weight.data[index].item(), 1e-6
        values = []
        for step in (h, -h):
            weight.data[index] = old + step
            values.append(float(torch.stack(list(host.parts(student, found, x_adv).values())).sum().detach()))
        weight.data[index] = old
        assert float(gradient[index]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4)


def test_adversarial_training_mixes_as_it_says() -> None:
    student = Tiny(3, seed=2)
    found, x_adv = batch(student)
    ce = nn.functional.cross_entropy
    mixed = registry.build_objective("pgd-at", {"clean_weight": 0.25}, student, None, []).parts(student, found, x_adv)
    assert float(mixed["clean"].detach()) == pytest.approx(0.25 * float(ce(student(found.x), found.y).detach()))
    assert float(mixed["adversarial"].detach()) == pytest.approx(0.75 * float(ce(student(x_adv), found.y).detach()))
    assert set(registry.build_objective("pgd-at", {}, student, None, []).parts(student, found, x_adv)) == {
        "adversarial"
    }


EPS = 0.1


def test_trades_without_weight_is_plain_cross_entropy_and_costs_nothing_where_predictions_agree() -> None:
    student = Tiny(3, seed=2)
    found, x_adv = batch(student)
    plain = registry.build_objective("normal", {}, student, None, []).parts(student, found, x_adv)
    bare = registry.build_objective("trades", {"beta": 0.0}, student, None, []).parts(student, found, x_adv)
    assert set(bare) == {"clean"} and torch.equal(bare["clean"], plain["clean"])
    same = registry.build_objective("trades", {}, student, None, []).parts(student, found, found.x)
    assert abs(float(same["stability"].detach())) < 1e-12


def test_trades_against_naive_loops() -> None:
    student = Tiny(3, seed=2)
    found, x_adv = batch(student)
    with torch.no_grad():
        clean, adversarial = student(found.x), student(x_adv)
    losses = [
        math.log(sum(map(math.exp, row))) - row[y] for row, y in zip(clean.tolist(), found.y.tolist(), strict=True)
    ]
    want = {"clean": sum(losses) / len(losses), "stability": 6 * naive_kl(clean, adversarial)}
    parts = registry.build_objective("trades", {}, student, None, []).parts(student, found, x_adv)
    assert {name: float(part.detach()) for name, part in parts.items()} == pytest.approx(want)


def test_trades_attacks_the_divergence_from_clean_predictions_that_stay_fixed() -> None:
    student = Tiny(3, seed=2)
    found, x_adv = batch(student)
    made = registry.build_objective("trades", {}, student, None, [])
    leaf = x_adv.clone().requires_grad_()
    search = made.search(student, found)
    value = search.loss(search.model(leaf))
    target = student(found.x).detach()
    torch.testing.assert_close(value, attack_losses.divergence(target)(student(x_adv)))
    (gradient,) = torch.autograd.grad(value.sum(), [leaf])
    assert float(gradient.abs().max()) > 0
    attacked = made.adversarial(student, found, TrainAttack(steps=5), eps=EPS, draw=generator(0))
    with torch.no_grad():
        start = batch_random_start(found.x, EPS, generator(0))
        assert float(kl(target, student(attacked))) > 2 * float(kl(target, student(start))) > 0
    assert float((attacked - found.x).abs().max()) <= EPS + 1e-6 and not attacked.requires_grad


def test_n_fgsm_without_noise_is_fgsm() -> None:
    student = Tiny(3, seed=2)
    found, _ = batch(student)
    leaf = found.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(student(leaf), found.y), [leaf])
    made = registry.build_objective("n-fgsm", {"noise": 0.0, "alpha": 1.0}, student, None, [])
    x_adv = made.adversarial(student, found, TrainAttack(steps=7), eps=EPS, draw=generator(0))  # steps are not used
    torch.testing.assert_close(x_adv, (found.x + EPS * gradient.sign()).clamp(0, 1))


def test_n_fgsm_steps_once_from_the_noisy_image_and_is_not_projected_back() -> None:
    student = Tiny(3, seed=2)
    found, _ = batch(student, 400)
    made = registry.build_objective("n-fgsm", {}, student, None, [])
    x_adv = made.adversarial(student, found, TrainAttack(), eps=EPS, draw=generator(0))
    assert torch.equal(x_adv, made.adversarial(student, found, TrainAttack(), eps=EPS, draw=generator(0)))
    noise = 2 * EPS * (2 * torch.rand(found.x.shape, generator=generator(0)) - 1)
    start = (found.x + noise).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(student(start), found.y), [start])
    torch.testing.assert_close(x_adv, (start + EPS * gradient.sign()).clamp(0, 1).detach(), atol=1e-6, rtol=0)
    moved = (x_adv - found.x).abs()
    assert 2.5 * EPS < float(moved.max()) <= 3 * EPS + 1e-6
    assert float(x_adv.min()) >= 0 and float(x_adv.max()) <= 1 and not x_adv.requires_grad
    ce = nn.functional.cross_entropy(student(x_adv), found.y)
    assert float(made.parts(student, found, x_adv)["adversarial"].detach()) == pytest.approx(float(ce.detach()))


def test_which_methods_take_a_single_step() -> None:
    once, often = TrainAttack(steps=1), TrainAttack(steps=2)
    made = {name: registry.build_objective(name, {}, Tiny(3, 1), None, []) for name in names.TEACHER_METHODS}
    assert {name for name, method in made.items() if method.single_step(once)} == {*made} - {"normal"}
    assert {name for name, method in made.items() if method.single_step(often)} == {"n-fgsm"}


def test_options_name_every_default() -> None:
    assert all(
        field.description
        for options in map(registry.options_of, names.METHODS)
        for field in options.model_fields.values()
    )


def test_options_of_every_method_and_methods_of_every_option() -> None:
    methods = {name: registry.find_method(name) for name in names.METHODS}
    assert {name: method.name for name, method in methods.items()} == {name: name for name in names.METHODS}
    assert {*registry.hosts(), *registry.additions()} == set(names.METHODS)
    assert len({method.options for method in methods.values()}) == len(methods)
    assert {*names.TEACHER_METHODS} == {
        name for name, method in methods.items() if method.teachers == 0 and method.host is None
    }
    assert {*names.CLEAN_TEACHER_METHODS} == {name for name, method in methods.items() if method.teachers == 2}
    assert registry.additions() == {"vgap": "rslad", "gacd": "rslad", "igdm": "adaad", "fair-ard": "ard"}
    files = {path.stem for path in Path(registry.__file__).parent.glob("*.py") if "METHOD = " in path.read_text()}
    assert files == {name.replace("-", "_") for name in names.METHODS}


@pytest.mark.parametrize("method", names.METHODS)
def test_who_needs_a_teacher_says_so_and_nobody_else_asks_one(method: str) -> None:
    student, (found, x_adv) = Tiny(3, 1), batch(Tiny(5, 2))
    if method in names.TEACHER_METHODS:
        assert objective(student, None, method).parts(student, alone(found), x_adv)
    else:
        with pytest.raises(AssertionError, match=r"needs a (second )?teacher"):
            objective(student, None, method).parts(student, alone(found), x_adv)


@pytest.mark.parametrize(
    "method", [name for name in names.METHODS if "label_smoothing" in registry.options_of(name).model_fields]
)
def test_smoothed_labels_against_their_definition(method: str) -> None:
    student, (found, x_adv) = Tiny(3, 1), batch(Tiny(5, 2))
    plain = values(objective(student, None, method), student, found, x_adv)
    smooth = values(objective(student, None, method, label_smoothing=0.3), student, found, x_adv)
    term = "clean" if "clean" in plain else "adversarial"
    with torch.no_grad():
        spread = -student(found.x if term == "clean" else x_adv).log_softmax(1).mean()
    assert smooth[term] == pytest.approx(0.7 * plain[term] + 0.3 * float(spread))
    assert {name: smooth[name] for name in smooth if name != term} == {n: plain[n] for n in plain if n != term}


def test_divergences_are_those_of_each_image() -> None:
    g = torch.Generator().manual_seed(0)
    p, q = (3 * torch.randn(6, 10, generator=g, dtype=torch.float64) for _ in range(2))
    for i, each in enumerate(divergences(p, q)):
        assert float(each) == pytest.approx(naive_kl(p[i : i + 1], q[i : i + 1]))
