"""The distillation family: every method against its equation in loops over numbers, identity, scale, what moves it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compress import names
from compress.attacks import losses as attack_losses
from compress.attacks.pgd import batch_random_start, pgd, step_size
from compress.config import TrainAttack
from compress.methods import registry
from compress.methods.dgad import put_right
from compress.methods.fair_ard import class_weights
from compress.methods.mart import boosted_cross_entropy
from compress.methods.objective import TrainingBatch, Views
from compress.methods.saad import from_corrected_teacher
from compress.methods.scores import divergences, from_teacher, from_teacher_there, tempered
from compress.numerics.seeds import generator
from tests.compress.tiny_networks import Tiny, batch, objective, values

Row = list[float]


def softmax(row: Row, t: float = 1.0) -> Row:
    total = sum(math.exp(v / t) for v in row)
    return [math.exp(v / t) / total for v in row]


def kl(a: Row, b: Row, t: float = 1.0) -> float:
    return sum(p * math.log(p / q) for p, q in zip(softmax(a, t), softmax(b, t), strict=True))


def ce(row: Row, y: int) -> float:
    return -math.log(softmax(row)[y])


def minus(a: Row, b: Row) -> Row:
    return [u - v for u, v in zip(a, b, strict=True)]


def over(row: Row, t: float) -> Row:
    return [v / t for v in row]


def swapped(row: Row, y: int) -> Row:
    top = row.index(max(row))
    return [row[y] if k == top else row[top] if k == y else v for k, v in enumerate(row)]


@dataclass
class One:
    """What the networks say of one image: student, teacher, clean teacher on x, x_adv and 2x − x_adv."""

    y: int
    s: Row
    s_adv: Row
    s_mirror: Row
    t: Row
    t_adv: Row
    t_mirror: Row
    n: Row
    n_adv: Row
    #: H(T(x_adv)) less the least of the batch, and the most of it
    doubt: float = 0.0
    most: float = 0.0


def mart(o: One) -> dict[str, float]:
    p = softmax(o.s_adv)
    boosted = -math.log(p[o.y]) - math.log(1 - max(v for k, v in enumerate(p) if k != o.y))
    return {"boosted": boosted, "stability": 3 * (1 - softmax(o.s)[o.y]) * kl(o.s, o.s_adv)}


def ard(o: One) -> dict[str, float]:
    return {"kl_adversarial": 0.7 * 4**2 * kl(o.t, o.s_adv, 4), "clean": 0.3 * ce(o.s, o.y)}


def own(o: One, beta: float) -> float:
    return (1 - softmax(o.t_adv)[o.y] ** beta) * kl(o.s, o.s_adv)


def iad_i(o: One) -> dict[str, float]:
    return {
        "kl_adversarial": 0.7 * 2**2 * kl(o.t, o.s_adv, 2),
        "introspection": 0.7 * own(o, 0.4),
        "clean": 0.3 * ce(o.s, o.y),
    }


def adaiad(o: One) -> dict[str, float]:
    return iad_i(o) | {"kl_adversarial": 0.7 * 2**2 * kl(o.t_adv, o.s_adv, 2)}


def akd2(o: One) -> dict[str, float]:
    return {
        "kl_adversarial": 0.6 * 2**2 * kl(o.t_adv, o.s_adv, 2),
        "kl_clean_teacher": 0.3 * 2**2 * kl(o.n_adv, o.s_adv, 2),
        "adversarial": 0.1 * ce(o.s_adv, o.y),
    }


def iad_ii(o: One) -> dict[str, float]:
    trust = softmax(o.t_adv)[o.y] ** 0.4
    return akd2(o) | {
        "kl_adversarial": 0.6 * 2**2 * trust * kl(o.t_adv, o.s_adv, 2),
        "introspection": 0.6 * 2**2 * own(o, 0.4),
    }


def dgad(o: One) -> dict[str, float]:
    right = o.t.index(max(o.t)) == o.y
    apart = [(a - b) ** 2 for a, b in zip(softmax(o.s_adv), softmax(o.s), strict=True)]
    return {
        "kl_adversarial": kl(swapped(o.t_adv, o.y), o.s_adv) if right else 0.0,
        "kl_clean": 0.0 if right else kl(swapped(o.t, o.y), o.s),
        "consistency": 2 * sum(apart) / len(apart),
    }


def gradients(o: One) -> float:
    return kl(minus(o.t_adv, o.t_mirror), minus(o.s_adv, o.s_mirror))


def saad(o: One) -> dict[str, float]:
    return {
        "kl_adversarial": 2 * o.doubt * kl(o.t_adv, o.s_adv),
        "gradients": 2 * o.doubt * 3 * 0.5 * gradients(o),
        "kl_clean": 0.4 * (1 - o.doubt / o.most) * kl(o.t, o.s),
    }


Oracle = Callable[[One], dict[str, float]]
INTROSPECTIVE = {"temperature": 2.0, "begin": 0.5, "beta": 0.4, "label_weight": 0.3}
TWO = {"temperature": 2.0, "teacher_weight": 0.6, "clean_teacher_weight": 0.3}

#: method → options and the terms of one image at half of the run
EQUATIONS: dict[str, tuple[dict[str, Any], Oracle]] = {
    "mart": ({"beta": 3.0}, mart),
    "ard": ({"temperature": 4.0, "label_weight": 0.3}, ard),
    "ltd": ({"teacher_temperature": 0.25}, lambda o: {"kl_adversarial": kl(over(o.t, 0.25), o.s_adv)}),
    "iad-i": (INTROSPECTIVE, iad_i),
    "iad-ii": ({**TWO, "begin": 0.5, "beta": 0.4}, iad_ii),
    "akd2": (TWO, akd2),
    "mtard": ({}, lambda o: {"kl_adversarial": 0.5 * kl(o.t_adv, o.s_adv), "kl_clean": 0.5 * kl(o.n, o.s)}),
    "adaad": (
        {"adversarial_weight": 0.8},
        lambda o: {"kl_adversarial": 0.8 * kl(o.t_adv, o.s_adv), "kl_clean": 0.2 * kl(o.t, o.s)},
    ),
    "adaiad": (INTROSPECTIVE, adaiad),
    "dgad": ({"beta": 2.0}, dgad),
    "saad": ({"entropy_scale": 2.0, "alpha": 3.0, "beta": 0.4}, saad),
    "igdm": (
        {"alpha": 3.0},
        lambda o: {"kl_adversarial": kl(o.t_adv, o.s_adv), "gradients": 3 * 0.5 * gradients(o)},
    ),
    "fair-ard": ({}, lambda o: {"kl_adversarial": 30**2 * kl(o.t, o.s_adv, 30)}),
}


def ones(student: Tiny, found: TrainingBatch, x_adv: Tensor) -> list[One]:
    assert isinstance(found.teacher, Tiny) and isinstance(found.clean_teacher, Tiny)
    places = (found.x, x_adv, 2 * found.x - x_adv)
    with torch.no_grad():
        s, t = ([network(x).tolist() for x in places] for network in (student, found.teacher))
        n = [found.clean_teacher(x).tolist() for x in places[:2]]
    columns = zip(found.y.tolist(), *s, *t, *n, strict=True)
    made = [One(*column) for column in columns]
    entropies = [-sum(p * math.log(p) for p in softmax(o.t_adv)) for o in made]
    for o, entropy in zip(made, entropies, strict=True):
        o.doubt, o.most = entropy - min(entropies), max(entropies) - min(entropies)
    return made


@pytest.mark.parametrize("method", EQUATIONS)
def test_every_method_against_its_equation_in_loops(method: str) -> None:
    options, oracle = EQUATIONS[method]
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    found = replace(found, progress=0.5, temperature=float(options.get("teacher_temperature", 1.0)))
    rows = [oracle(one) for one in ones(student, found, x_adv)]
    want = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    assert values(objective(student, found.teacher, method, **options), student, found, x_adv) == pytest.approx(want)


def test_the_oracles_cover_the_family() -> None:
    others = {"normal", "pgd-at", "trades", "n-fgsm", "rslad", "vgap", "gacd"}  # in files of their own
    assert set(EQUATIONS) | others == set(names.METHODS)


def test_every_method_and_option_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    sections = {part.split("`")[0]: part for part in text.split("\n### `")[1:]}
    assert set(sections) == set(names.METHODS)
    shared = {"teacher_temperature": text}
    inherited = {"iad-ii": "akd2", "adaiad": "iad-i"}
    for method in names.METHODS:
        options = registry.options_of(method)
        for option in options.model_fields:
            where = shared.get(option, sections[method] + sections.get(inherited.get(method, ""), ""))
            assert f"`{option}`" in where, f"{method}: {option}"


def test_the_batch_of_the_oracle_has_what_tells_the_branches_apart() -> None:
    found, _ = batch(Tiny(5, seed=1), 9)
    right = (found.guide(found.x).argmax(1) == found.y).tolist()
    assert True in right and False in right


#: What a student equal to its teacher still pays: labels.
LABELS = {"adversarial", "clean", "boosted"}


@pytest.mark.parametrize("method", EQUATIONS)
def test_a_student_equal_to_its_teachers_where_nothing_is_attacked_has_nothing_to_learn(method: str) -> None:
    network = Tiny(5, seed=1)
    found, _ = batch(network, 9)
    found = replace(found, clean_teacher=network, progress=0.9, y=network(found.x).argmax(1))
    options = {key: value for key, value in EQUATIONS[method][0].items() if key != "teacher_temperature"}
    if method == "ltd":
        options = {"teacher_temperature": 1.0}
    parts = values(objective(network, network, method, **options), network, found, found.x)
    assert all(abs(value) < 1e-9 for name, value in parts.items() if name not in LABELS), parts


@pytest.mark.parametrize("method", EQUATIONS)
def test_losses_are_means_over_images_not_sums(method: str) -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    found = replace(found, progress=0.9)
    twice = replace(found, x=found.x.repeat(2, 1, 1, 1), y=found.y.repeat(2))
    once, more = (
        values(objective(student, found.teacher, method), student, each, adv)
        for each, adv in ((found, x_adv), (twice, x_adv.repeat(2, 1, 1, 1)))
    )
    assert more == pytest.approx(once)


@pytest.mark.parametrize("method", [name for name in EQUATIONS if name not in ("mart", "igdm", "fair-ard")])
def test_the_teachers_temperature_divides_its_logits_alone(method: str) -> None:
    """As if the last layer of the teachers were half as large, and the student's as it is."""
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    made = objective(student, found.teacher, method, **{**EQUATIONS[method][0], "teacher_temperature": 2.0})
    soft = values(made, student, replace(found, progress=0.9, temperature=made.teacher_temperature), x_adv)
    halved = Tiny(5, seed=1), Tiny(4, seed=6)
    for network in halved:
        network.head.weight.data /= 2
        network.head.bias.data /= 2
    plain = objective(student, halved[0], method, **{**EQUATIONS[method][0], "teacher_temperature": 1.0})
    other = replace(found, progress=0.9, teacher=halved[0], clean_teacher=halved[1])
    assert soft == pytest.approx(values(plain, student, other, x_adv))


def test_temperature_keeps_its_size_by_its_square() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 10, generator=g, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(tempered(a, b, 1.0), divergences(a, b))
    apart = a - b
    centred = apart - apart.mean(1, keepdim=True)
    limit = centred.square().sum(1) / (2 * 10)
    torch.testing.assert_close(tempered(a, b, 1e3), limit, rtol=1e-2, atol=0)


@pytest.mark.parametrize(("method", "begin"), [("iad-i", 60 / 200), ("iad-ii", 40 / 200), ("adaiad", 60 / 200)])
def test_introspection_begins_at_its_share_of_the_run(method: str, begin: float) -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    made = objective(student, found.teacher, method)
    before, after = (values(made, student, replace(found, progress=p), x_adv) for p in (begin - 1e-6, begin))
    assert before["introspection"] == 0 < after["introspection"]
    assert set(before) == set(after)  # the loop's rows keep their columns
    assert (before["kl_adversarial"] == after["kl_adversarial"]) == (method != "iad-ii")
    whole = values(objective(student, found.teacher, method, begin=1.0), student, replace(found, progress=0.99), x_adv)
    assert whole == before


def test_gradient_matching_rises_with_the_run_and_its_weight() -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    at = {
        (alpha, progress): values(
            objective(student, found.teacher, "igdm", alpha=alpha), student, replace(found, progress=progress), x_adv
        )["gradients"]
        for alpha, progress in ((1.0, 0.0), (1.0, 0.25), (1.0, 0.75), (10.0, 0.25))
    }
    assert at[1.0, 0.0] == 0 < at[1.0, 0.25]
    assert at[1.0, 0.75] == pytest.approx(3 * at[1.0, 0.25]) and at[10.0, 0.25] == pytest.approx(10 * at[1.0, 0.25])


def test_two_teachers_must_leave_no_less_than_nothing_to_the_labels() -> None:
    with pytest.raises(ValueError, match="add up to more than 1"):
        registry.options_of("akd2")(teacher_weight=0.8, clean_teacher_weight=0.3)
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    bare = objective(student, found.teacher, "akd2", teacher_weight=0.7, clean_teacher_weight=0.3)
    assert set(values(bare, student, found, x_adv)) == {"kl_adversarial", "kl_clean_teacher"}


def test_boosted_cross_entropy_stays_finite_where_a_score_rounds_to_one() -> None:
    logits = torch.tensor([[200.0, 0.0, 1.0], [0.0, 200.0, 1.0]], requires_grad=True)
    loss = boosted_cross_entropy(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(loss.detach(), torch.tensor([0.0, 200.0 + 199.0 - math.log1p(math.exp(-1.0))]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert bool(gradient.isfinite().all())


def test_labels_put_right_move_two_logits_of_a_copy() -> None:
    g = torch.Generator().manual_seed(0)
    logits, y = torch.randn(50, 6, generator=g), torch.randint(0, 6, (50,), generator=g)
    before = logits.clone()
    found = put_right(logits, y)
    assert torch.equal(logits, before) and found.data_ptr() != logits.data_ptr()
    assert torch.equal(found.argmax(1), y)
    assert torch.equal(found.sort(1).values, logits.sort(1).values)
    was_right = logits.argmax(1) == y
    assert 0 < int(was_right.sum()) < 50 and torch.equal(found[was_right], logits[was_right])
    assert ((found != logits).sum(1)[~was_right] == 2).all()


# ------------------------------------------------------------------------------------------------ searches


def test_the_attack_that_asks_the_teacher_there_follows_it() -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    leaf = x_adv.clone().requires_grad_()
    search = from_teacher_there(student, replace(found, temperature=2.0))
    value = search.loss(search.model(leaf))
    with torch.no_grad():
        rows = zip(found.guide(x_adv).tolist(), student(x_adv).tolist(), strict=True)
    assert value.tolist() == pytest.approx([kl(over(t, 2.0), s) for t, s in rows])
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    h = 1e-6
    for place in ((0, 0, 0, 0), (3, 0, 1, 1)):
        moved = [x_adv.clone() for _ in range(2)]
        moved[0][place] += h
        moved[1][place] -= h
        up, down = (float(search.loss(search.model(x)).sum().detach()) for x in moved)
        assert float(gradient[place]) == pytest.approx((up - down) / (2 * h), rel=1e-5)


def test_the_corrected_teacher_follows_the_image_to_first_order() -> None:
    student, (found, _) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    found = replace(found, temperature=2.0)
    g = torch.Generator().manual_seed(1)
    step = torch.randn(found.x.shape, generator=g, dtype=torch.float64)
    near, h = found.x + 0.1 * step, 1e-6
    with torch.no_grad():
        slope = (found.guide(found.x + h * step) - found.guide(found.x - h * step)) / (2 * h)
        want = []
        for row, rise, s, y in zip(found.guide(found.x), slope, student(near), found.y, strict=True):
            moved = over(row.tolist(), 2.0)
            moved[y] += 0.7 * 0.1 * float(rise[y]) / 2.0
            want.append(kl(moved, s.tolist()))
    search = from_corrected_teacher(student, found, 0.7)
    assert search.loss(search.model(near)).tolist() == pytest.approx(want)
    fixed, plain = from_corrected_teacher(student, found, 0.0), from_teacher(student, found)
    torch.testing.assert_close(fixed.loss(fixed.model(near)), plain.loss(plain.model(near)))


# ------------------------------------------------------------------------------------------------ methods with a state


def test_mtard_weighs_its_teachers_by_how_far_the_student_is() -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    made, resumed = (objective(student, found.teacher, "mtard", rate=0.5, milestones=[0.8]) for _ in range(2))
    weight, first = 0.5, None
    g = torch.Generator().manual_seed(0)
    for turn, progress in enumerate((0.0, 0.2, 0.4, 0.85)):
        for each in student.parameters():  # as if a step of training
            each.data += 0.3 * torch.randn(each.shape, generator=g, dtype=torch.float64)
        rows = ones(student, found, x_adv)
        clean = sum(kl(o.n, o.s) for o in rows) / len(rows)
        adversarial = sum(kl(o.t_adv, o.s_adv) for o in rows) / len(rows)
        first = first or (clean, adversarial)
        left = clean / first[0], adversarial / first[1]
        weight -= (0.5 if progress < 0.8 else 0.05) * (weight - left[0] / sum(left))
        now = replace(found, progress=progress)
        for _ in range(2):  # asked twice, as adversarial weight perturbation does: the state has not moved
            parts = values(made, student, now, x_adv)
            assert parts == pytest.approx({"kl_adversarial": (1 - weight) * adversarial, "kl_clean": weight * clean})
        if turn == 2:
            resumed.load_state_dict(made.state_dict())
            assert values(resumed, student, now, x_adv) == parts
        made.after_step()
    assert abs(weight - 0.5) > 0.02  # or nothing was shown


def test_mtards_weights_are_no_way_to_lower_the_loss() -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 9)
    made = objective(student, found.teacher, "mtard", rate=0.5)
    made.parts(student, found, x_adv)
    made.after_step()
    student = Tiny(3, seed=9)
    parts = made.parts(student, found, x_adv)
    clean = divergences(found.teach_clean(found.x).logits, student(found.x)).mean()
    adversarial = divergences(found.teach(x_adv).logits, student(x_adv)).mean()
    weight = float((parts["kl_clean"] / clean).detach())
    got = torch.autograd.grad(torch.stack([*parts.values()]).sum(), [*student.parameters()])
    want = torch.autograd.grad((1 - weight) * adversarial + weight * clean, [*student.parameters()])
    assert weight != pytest.approx(0.5, abs=1e-3)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def test_classes_that_fall_sooner_count_more_from_the_next_epoch_on() -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 30)
    made, resumed = (objective(student, found.teacher, "fair-ard", beta=2.0) for _ in range(2))
    bare = objective(student, found.teacher, "ard")
    host = bare.terms(Views(student, found, x_adv))["kl_adversarial"].detach()

    def step(epoch: int) -> float:
        now = replace(found, key=(0, epoch, 0))
        made.adversarial(student, now, TrainAttack(steps=3), eps=0.3, draw=generator(epoch))
        part = values(made, student, now, x_adv)["kl_adversarial"]
        assert part == values(made, student, now, x_adv)["kl_adversarial"]  # asked twice
        made.after_step()
        return part

    assert step(0) == pytest.approx(float(host.mean()))  # nothing is known yet
    step(0)
    right, all_ = [0.0] * 3, [0] * 3
    for x in _iterates(student, found, epoch=0, steps=3, eps=0.3):
        for prediction, y in zip(student(x).argmax(1).tolist(), found.y.tolist(), strict=True):
            right[y] += prediction == y
            all_[y] += 1
    raw = [(1 / (r / n + 1e-5)) ** 2 for r, n in zip(right, all_, strict=True)]
    weights = [min(max(3 * v / sum(raw), 5 / 6), 5 / 2) for v in raw]
    assert max(weights) > min(weights)
    want = sum(weights[y] * float(term) for y, term in zip(found.y.tolist(), host, strict=True)) / len(host)
    assert step(1) == pytest.approx(want, rel=1e-5)
    resumed.load_state_dict(made.state_dict())  # as a checkpoint in the middle of an epoch does
    last = replace(found, key=(0, 1, 5))
    assert values(resumed, student, last, x_adv) == values(made, student, last, x_adv)
    assert step(1) == pytest.approx(want, rel=1e-5)
    later = replace(found, key=(0, 2, 0))
    resumed.load_state_dict(made.state_dict())
    assert values(resumed, student, later, x_adv) == values(made, student, later, x_adv)


def test_weights_of_classes_are_bounded_and_even_where_classes_are() -> None:
    torch.testing.assert_close(class_weights(torch.full((4,), 0.3), 2.0), torch.ones(4))
    torch.testing.assert_close(class_weights(torch.tensor([1.0, 0.5]), 2.0), torch.tensor([5 / 6, 8 / 5]))
    torch.testing.assert_close(class_weights(torch.tensor([1.0, 0.0, 1.0]), 2.0), torch.tensor([5 / 6, 5 / 2, 5 / 6]))
    torch.testing.assert_close(class_weights(torch.tensor([1.0, 0.5]), 0.0), torch.ones(2))


def _iterates(student: Tiny, found: TrainingBatch, *, epoch: int, steps: int, eps: float) -> list[Tensor]:
    """The images that PGD on cross-entropy asks the student about: the start and all iterates but the last."""
    loss = attack_losses.cross_entropy(found.y)
    start = batch_random_start(found.x, eps, generator(epoch))
    size = step_size(None, eps, steps)
    return [pgd(student, found.x, loss, start=start, eps=eps, step_size=size, steps=n) for n in range(steps)]
