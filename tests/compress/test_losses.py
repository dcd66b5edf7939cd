"""Every objective: nothing to learn from oneself, the right scale, a naive float64 oracle, a true gradient."""

import math

import pytest
import torch
from torch import Tensor, nn

from compress.attacks import losses as attack_losses
from compress.attacks.pgd import random_start
from compress.config import TrainAttack
from compress.errors import CompressError
from compress.losses import methods
from compress.losses.kl import kl
from compress.losses.objective import Batch
from compress.losses.vgap import (
    VarianceGap,
    covariance,
    gram,
    misfit,
    principal_directions,
    relative_gap,
)
from compress.models import Classifier, Features
from compress.options import METHOD_OPTIONS
from compress.seeds import generator


class Tiny(Classifier):
    """Flatten, tanh features, linear head: small enough for float64 loops."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.body = nn.Linear(4, width, dtype=torch.float64)
        self.head = nn.Linear(width, 3, dtype=torch.float64)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=g, dtype=torch.float64)

    def forward_features(self, x: Tensor) -> Features:
        pooled = torch.tanh(self.body(x.flatten(1)))
        return Features(self.head(pooled), pooled, (pooled[:, :, None, None],))


def batch(teacher: Classifier, n: int = 7) -> tuple[Batch, Tensor]:
    g = torch.Generator().manual_seed(5)
    x = torch.rand(n, 1, 2, 2, generator=g, dtype=torch.float64)
    x_adv = (x + 0.1 * torch.randn(x.shape, generator=g, dtype=torch.float64)).clamp(0, 1)
    y = torch.randint(0, 3, (n,), generator=g)
    with torch.no_grad():
        return Batch(x, y, teacher.forward_features(x)), x_adv


def objective(student: Classifier, teacher: Classifier, method: str = "vgap", **options: object):
    clean = [batch(teacher, 40)[0].x]
    return methods.build(method, options, student, teacher, clean).double()


def naive_kl(p_logits: Tensor, q_logits: Tensor) -> float:
    total = 0.0
    for a, b in zip(p_logits.tolist(), q_logits.tolist(), strict=True):
        za, zb = sum(map(math.exp, a)), sum(map(math.exp, b))
        for i, j in zip(a, b, strict=True):
            p, q = math.exp(i) / za, math.exp(j) / zb
            total += p * math.log(p / q)
    return total / len(p_logits)


def naive_covariance(f: Tensor) -> list[list[float]]:
    rows, n = f.tolist(), len(f)
    mean = [sum(r[d] for r in rows) / n for d in range(f.shape[1])]
    width = range(f.shape[1])
    return [[sum((r[a] - mean[a]) * (r[b] - mean[b]) for r in rows) / (n - 1) for b in width] for a in width]


def naive_misfit(a: list[list[float]], b: list[list[float]]) -> float:
    top = sum((x - y) ** 2 for r, s in zip(a, b, strict=True) for x, y in zip(r, s, strict=True))
    return top / sum(y * y for s in b for y in s)


def naive_gram(logits: Tensor, between: str) -> list[list[float]]:
    scores = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in logits.tolist()]
    vectors = scores if between == "images" else [list(column) for column in zip(*scores, strict=True)]
    return [[sum(a * b for a, b in zip(u, v, strict=True)) for v in vectors] for u in vectors]


def test_kl_identity_scale_and_oracle() -> None:
    g = torch.Generator().manual_seed(0)
    p, q = (3 * torch.randn(6, 10, generator=g, dtype=torch.float64) for _ in range(2))
    assert abs(float(kl(p, p))) < 1e-12
    assert float(kl(p, q)) == pytest.approx(naive_kl(p, q))
    assert float(kl(p.repeat(5, 1), q.repeat(5, 1))) == pytest.approx(float(kl(p, q)))  # a mean, not a sum
    sure, unsure = torch.tensor([[50.0, 0, 0, 0]]), torch.zeros(1, 4)
    assert float(kl(sure, unsure)) == pytest.approx(math.log(4))  # not divided by the number of classes


def test_a_student_equal_to_its_teacher_has_nothing_to_learn() -> None:
    teacher = Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    options = {"projection": "identity", "lambda_cov": 1.0, "lambda_gram": 1.0, "lambda_gap": 1.0}
    parts = objective(teacher, teacher, **options).parts(teacher, found, x_adv)
    assert set(parts) == {"kl_adversarial", "kl_clean", "cov", "gram", "gap"}
    for name in ("cov", "gram", "gap", "kl_clean"):
        assert abs(float(parts[name].detach())) < 1e-12, name
    same = methods.build("rslad", {}, teacher, teacher, []).parts(teacher, found, found.x)
    assert all(abs(float(value.detach())) < 1e-12 for value in same.values())


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_features_scaled_by_a_cost_a_squared_minus_one_squared(scale: float) -> None:
    f = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(misfit(covariance(scale * f), covariance(f))) == pytest.approx((scale**2 - 1) ** 2)


@pytest.mark.parametrize("between", ["images", "classes"])
@pytest.mark.parametrize("projection", ["principal", "learned"])
def test_vgap_against_naive_loops(between: str, projection: str) -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    vgap = objective(
        student, teacher, gram=between, projection=projection, lambda_cov=0.3, lambda_gram=0.7, lambda_gap=0.2
    )
    found, x_adv = batch(teacher)
    parts = {name: float(part.detach()) for name, part in vgap.parts(student, found, x_adv).items()}
    cov, gram_, gaps = [], [], {"s": [], "t": []}
    with torch.no_grad():
        for x in (found.x, x_adv):
            s, t = student.forward_features(x), teacher.forward_features(x)
            mapped = vgap._map(s.pooled), vgap._reduce(t.pooled)
            cov.append(naive_misfit(naive_covariance(mapped[0]), naive_covariance(mapped[1])))
            gram_.append(naive_misfit(naive_gram(s.logits, between), naive_gram(t.logits, between)))
            for who, features in (("s", s), ("t", t)):
                matrix = naive_covariance(features.pooled)
                gaps[who].append(sum(matrix[d][d] for d in range(len(matrix))))
        adv, clean = student(x_adv), student(found.x)
        target = teacher(found.x)
    mine, theirs = (abs(v[1] - v[0]) / v[0] for v in (gaps["s"], gaps["t"]))
    want = {
        "kl_adversarial": 5 / 6 * naive_kl(target, adv),
        "kl_clean": 1 / 6 * naive_kl(target, clean),
        "cov": 0.3 * sum(cov) / 2,
        "gram": 0.7 * sum(gram_) / 2,
        "gap": 0.2 * max(0.0, mine - theirs),
    }
    assert parts == pytest.approx(want)


def test_the_gap_penalty_is_paid_only_above_the_teachers() -> None:
    clean = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(relative_gap(clean, 2 * clean)) == pytest.approx(3.0)
    assert float(relative_gap(clean, 0.5 * clean)) == pytest.approx(-0.75)
    assert float(relative_gap(clean, clean)) == 0.0


def test_principal_directions_are_orthonormal_and_carry_the_most_variance() -> None:
    g = torch.Generator().manual_seed(0)
    f = torch.randn(400, 6, generator=g, dtype=torch.float64) * torch.tensor([5.0, 4, 3, 0.2, 0.1, 0.1])
    rows = principal_directions(f, 3)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3, dtype=torch.float64))
    kept, whole = covariance(f @ rows.T).trace(), covariance(f).trace()
    assert float(kept / whole) > 0.99
    torch.testing.assert_close(principal_directions(f.clone(), 3), rows)


@pytest.mark.parametrize("method", sorted(METHOD_OPTIONS))
def test_gradients_are_true_and_the_sum_reaches_every_weight(method: str) -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    host = objective(student, teacher, method, **({"lambda_gap": 1.0} if method == "vgap" else {}))
    found, x_adv = batch(teacher)
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


def test_the_teacher_is_never_moved() -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    vgap = objective(student, teacher, projection="learned")
    found, x_adv = batch(teacher)
    torch.stack(list(vgap.parts(student, found, x_adv).values())).sum().backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert {name for name, _ in vgap.named_parameters()} == {"student_map.weight"}


def test_hosts_differ_in_what_they_attack_and_in_their_parts() -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    logits = student(found.x)
    at = objective(student, teacher, host="pgd-at")
    torch.testing.assert_close(at.attack_loss(student, found)(logits), attack_losses.cross_entropy(found.y)(logits))
    soft = objective(student, teacher, host="rslad")
    torch.testing.assert_close(
        soft.attack_loss(student, found)(logits), attack_losses.divergence(found.guide.logits)(logits)
    )
    assert set(at.parts(student, found, x_adv)) == {"adversarial", "cov", "gram"}


def test_a_weight_of_zero_drops_its_term() -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    bare = objective(student, teacher, lambda_cov=0.0, lambda_gram=0.0).parts(student, found, x_adv)
    plain = methods.build("rslad", {}, student, teacher, []).parts(student, found, x_adv)
    assert {n: float(v.detach()) for n, v in bare.items()} == pytest.approx(
        {n: float(v.detach()) for n, v in plain.items()}
    )


def test_adversarial_training_mixes_as_it_says() -> None:
    student = Tiny(3, seed=2)
    found, x_adv = batch(student)
    ce = nn.functional.cross_entropy
    mixed = methods.build("pgd-at", {"clean_weight": 0.25}, student, None, []).parts(student, found, x_adv)
    assert float(mixed["clean"].detach()) == pytest.approx(0.25 * float(ce(student(found.x), found.y).detach()))
    assert float(mixed["adversarial"].detach()) == pytest.approx(0.75 * float(ce(student(x_adv), found.y).detach()))
    assert set(methods.build("pgd-at", {}, student, None, []).parts(student, found, x_adv)) == {"adversarial"}


@pytest.mark.parametrize(
    ("projection", "widths", "what"),
    [("identity", (3, 5), "equal widths"), ("principal", (5, 3), "at least as wide")],
)
def test_projections_that_cannot_work_are_refused(projection: str, widths: tuple[int, int], what: str) -> None:
    with pytest.raises(CompressError, match=what):
        objective(Tiny(widths[0], 1), Tiny(widths[1], 2), projection=projection)


def test_every_known_method_is_built_here() -> None:
    from compress import names

    assert set(methods.METHODS) == set(names.METHODS) == set(METHOD_OPTIONS)
    student, (found, x_adv) = Tiny(3, 1), batch(Tiny(5, 2))
    for method in names.METHODS:
        if method in names.TEACHER_METHODS:  # these never look at a teacher
            built = methods.build(method, {}, student, None, [])
            assert built.parts(student, Batch(found.x, found.y), x_adv)
        else:
            with pytest.raises((AssertionError, AttributeError)):
                built = methods.build(method, {}, student, None, [found.x])
                built.parts(student, Batch(found.x, found.y), x_adv)


EPS = 0.1


def test_trades_without_weight_is_plain_cross_entropy_and_costs_nothing_where_predictions_agree() -> None:
    student = Tiny(3, seed=2)
    found, x_adv = batch(student)
    plain = methods.build("normal", {}, student, None, []).parts(student, found, x_adv)
    bare = methods.build("trades", {"beta": 0.0}, student, None, []).parts(student, found, x_adv)
    assert set(bare) == {"clean"} and torch.equal(bare["clean"], plain["clean"])
    same = methods.build("trades", {}, student, None, []).parts(student, found, found.x)
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
    parts = methods.build("trades", {}, student, None, []).parts(student, found, x_adv)
    assert {name: float(part.detach()) for name, part in parts.items()} == pytest.approx(want)


def test_trades_attacks_the_divergence_from_clean_predictions_that_stay_fixed() -> None:
    student = Tiny(3, seed=2)
    found, x_adv = batch(student)
    made = methods.build("trades", {}, student, None, [])
    leaf = x_adv.clone().requires_grad_()
    value = made.attack_loss(student, found)(student(leaf))
    target = student(found.x).detach()
    torch.testing.assert_close(value, attack_losses.divergence(target)(student(x_adv)))
    (gradient,) = torch.autograd.grad(value.sum(), [leaf])
    assert float(gradient.abs().max()) > 0
    attacked = made.adversarial(student, found, TrainAttack(steps=5), eps=EPS, draw=generator(0))
    with torch.no_grad():
        start = random_start(found.x, EPS, generator(0))
        assert float(kl(target, student(attacked))) > 2 * float(kl(target, student(start))) > 0
    assert float((attacked - found.x).abs().max()) <= EPS + 1e-6 and not attacked.requires_grad


def test_n_fgsm_without_noise_is_fgsm() -> None:
    student = Tiny(3, seed=2)
    found, _ = batch(student)
    leaf = found.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(student(leaf), found.y), [leaf])
    made = methods.build("n-fgsm", {"noise": 0.0, "alpha": 1.0}, student, None, [])
    x_adv = made.adversarial(student, found, TrainAttack(steps=7), eps=EPS, draw=generator(0))  # steps are not used
    torch.testing.assert_close(x_adv, (found.x + EPS * gradient.sign()).clamp(0, 1))


def test_n_fgsm_steps_once_from_the_noisy_image_and_is_not_projected_back() -> None:
    student = Tiny(3, seed=2)
    found, _ = batch(student, 400)
    made = methods.build("n-fgsm", {}, student, None, [])
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
    made = {name: methods.build(name, {}, Tiny(3, 1), None, []) for name in ("normal", "pgd-at", "trades", "n-fgsm")}
    assert {name for name, method in made.items() if method.single_step(once)} == {"pgd-at", "trades", "n-fgsm"}
    assert {name for name, method in made.items() if method.single_step(often)} == {"n-fgsm"}


def test_gram_of_one_hot_scores_counts_equal_predictions() -> None:
    logits = 100 * torch.eye(3)[[0, 0, 1]]
    torch.testing.assert_close(gram(logits, "images"), torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))
    torch.testing.assert_close(gram(logits, "classes"), torch.diag(torch.tensor([2.0, 1, 0])))


def test_options_name_every_default() -> None:
    assert isinstance(objective(Tiny(3, 1), Tiny(5, 2)), VarianceGap)
    assert all(field.description for options in METHOD_OPTIONS.values() for field in options.model_fields.values())
