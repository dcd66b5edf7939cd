"""Guided contrast: naive float64 oracles for both forms, weights, masks, the memory, what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compress.methods.gacd import GuidedContrast
from compress.methods.objective import Objective, TrainingBatch
from compress.numerics.seeds import generator
from edge.core.errors import CompressError
from tests.compress.tiny_networks import Tiny, batch, objective, values


def built(**options: object) -> tuple[Tiny, Tiny, Objective, TrainingBatch, Tensor]:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    torch.manual_seed(0)
    made = objective(student, teacher, "gacd", **{"weight": 1.0, "width": 4, "temperature": 0.5, **options})
    return student, teacher, made, found, x_adv


def unit(rows: list[list[float]]) -> list[list[float]]:
    return [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in rows]


def embedded(
    made: Objective, student: Tiny, teacher: Tiny, found: TrainingBatch, x_adv: Tensor
) -> list[list[list[float]]]:
    """z_T(x), z_S(x), z_S(x_adv) as lists."""
    added = made.additions[0]
    assert isinstance(added, GuidedContrast)
    with torch.no_grad():
        rows = [added.teacher_head(teacher.forward_features(found.x).pooled)]
        rows += [added.student_head(student.forward_features(x).pooled) for x in (found.x, x_adv)]
    return [unit(each.tolist()) for each in rows]


def trust(teacher: Tiny, found: TrainingBatch) -> list[float]:
    with torch.no_grad():
        scores = teacher(found.x).softmax(1)
    own = [float(scores[i, y]) for i, y in enumerate(found.y.tolist())]
    return [w / (sum(own) / len(own)) for w in own]


def inner(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reweighted", [False, True])
def test_contrast_within_the_batch_against_loops(masked: bool, reweighted: bool) -> None:
    student, teacher, made, found, x_adv = built(mask_same_class=masked, reweight=reweighted)
    anchor, *seen = embedded(made, student, teacher, found, x_adv)
    weights, y = trust(teacher, found), found.y.tolist()
    total = 0.0
    for i in range(len(y)):
        each = 0.0
        for z in seen:
            others = [j for j in range(len(y)) if j == i or not (masked and y[j] == y[i])]
            each -= math.log(
                math.exp(inner(anchor[i], z[i]) / 0.5) / sum(math.exp(inner(anchor[i], z[j]) / 0.5) for j in others)
            )
        total += each / 2 * (weights[i] if reweighted else 1)
    assert values(made, student, found, x_adv)["contrast"] == pytest.approx(total / len(y))


@pytest.mark.parametrize("masked", [False, True])
def test_contrast_with_the_memory_against_loops(masked: bool) -> None:
    options = {"negatives": "bank", "bank_negatives": 9, "mask_same_class": masked, "reweight": False}
    student, teacher, made, found, x_adv = built(**options)
    bank = made.additions[0].bank
    scale: list[float] = []
    for turn in range(2):  # the second time with a memory of the first and the scales of then
        seen_by = replace(found, key=(0, 0, turn))
        anchor, *seen = embedded(made, student, teacher, seen_by, x_adv)
        labels, y = bank.labels.tolist(), found.y.tolist()
        memory = {name: getattr(bank, name).tolist() for name in ("student", "teacher")}
        drawn = torch.randint(40, (9,), generator=generator(0, 0, turn, "negatives")).tolist()
        if turn == 0:
            for anchors, name in ((anchor, "student"), (seen[0] + seen[1], "teacher")):
                h = [math.exp(inner(a, memory[name][j]) / 0.5) for a in anchors for j in drawn]
                scale.append(40 * sum(h) / len(h))
        total = 0.0
        for i in range(len(y)):
            for z in seen:
                for half, (own, name) in enumerate(((anchor, "student"), (z, "teacher"))):
                    p = math.exp(inner(anchor[i], z[i]) / 0.5) / scale[half]
                    total -= math.log(p / (p + 9 / 40)) / 2
                    for j in drawn:
                        if j == i or (masked and labels[j] == y[i]):
                            continue
                        p = math.exp(inner(own[i], memory[name][j]) / 0.5) / scale[half]
                        total -= math.log((9 / 40) / (p + 9 / 40)) / 2
        assert values(made, student, seen_by, x_adv)["contrast"] == pytest.approx(total / len(y))
        made.after_step()


def by_weights(made: Objective, student: Tiny, found: TrainingBatch, x_adv: Tensor) -> list[Tensor]:
    """The contrast's gradient by the student's features' weights."""
    return list(torch.autograd.grad(made.parts(student, found, x_adv)["contrast"], list(student.body.parameters())))


@pytest.mark.parametrize("negatives", ["batch", "bank"])
def test_negatives_push_the_student_away(negatives: str) -> None:
    """Beside the same images all of one class, which leaves the positives alone."""
    options = {"negatives": negatives, "bank_negatives": 30, "reweight": False}
    student, teacher, made, found, x_adv = built(**options)
    added, seen_by = made.additions[0], replace(found, y=torch.arange(len(found.y)))
    if negatives == "bank":
        made.parts(student, found, x_adv)
        made.after_step()  # from now on Z is the same for both
        added.bank.labels.fill_(99)
    both = by_weights(made, student, seen_by, x_adv)
    if negatives == "bank":
        added.bank.labels.fill_(0)
    attracted = by_weights(made, student, replace(found, y=torch.zeros_like(found.y)), x_adv)
    pushed = [a - b for a, b in zip(both, attracted, strict=True)]
    assert max(float(part.abs().max()) for part in pushed) > 1e-3

    def nearness() -> float:
        """Mean inner product of the student with the teacher on other images."""
        anchor, clean, adversarial = (torch.tensor(z) for z in embedded(made, student, teacher, found, x_adv))
        others = anchor if negatives == "batch" else added.bank.teacher.float()
        products = torch.stack([z @ others.T for z in (clean, adversarial)])
        return float(products[:, ~torch.eye(*products.shape[1:], dtype=torch.bool)].mean())

    before = nearness()
    with torch.no_grad():
        for weight, part in zip(student.body.parameters(), pushed, strict=True):
            weight -= 0.01 * part
    assert nearness() < before


def test_a_sharp_contrast_with_the_memory_stays_finite() -> None:
    student, _, made, found, x_adv = built(negatives="bank", temperature=1e-3)
    for _ in range(2):
        gradients = by_weights(made, student, found, x_adv)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        made.after_step()


def test_the_memory_keeps_each_image_with_momentum_and_only_after_a_step() -> None:
    student, teacher, made, found, x_adv = built(negatives="bank", bank_momentum=0.25)
    bank = made.additions[0].bank
    before = {name: getattr(bank, name).clone() for name in ("student", "teacher")}
    values(made, student, found, x_adv)
    assert all(torch.equal(getattr(bank, name), rows) for name, rows in before.items()) and int(bank.labels.max()) == -1
    made.after_step()
    taught, clean, adversarial = (torch.tensor(z) for z in embedded(made, student, teacher, found, x_adv))
    for name, new in (("student", clean + adversarial), ("teacher", taught)):
        moved = 0.25 * before[name][:7] + 0.75 * torch.nn.functional.normalize(new, dim=1)
        wanted = torch.nn.functional.normalize(moved, dim=1)
        torch.testing.assert_close(getattr(bank, name)[:7], wanted.double(), atol=1e-6, rtol=0)
        assert torch.equal(getattr(bank, name)[7:], before[name][7:])
    assert torch.equal(bank.labels[:7], found.y)
    again = built(negatives="bank", bank_momentum=0.25)[2]
    again.load_state_dict(made.state_dict())
    assert values(again, student, found, x_adv) == values(made, student, found, x_adv)


def test_negatives_are_of_other_classes_unless_that_is_turned_off() -> None:
    from compress.methods import registry

    assert registry.options_of("gacd")().mask_same_class is True


def test_a_student_that_says_what_its_teacher_says_pays_least() -> None:
    student, _, made, found, x_adv = built(reweight=False)
    added = made.additions[0]
    pays = []
    for network in (student, Tiny(3, seed=9)):
        same = objective(network, network, "gacd", weight=1.0, width=4, temperature=0.5, reweight=False)
        same.additions[0].student_head.load_state_dict(added.student_head.state_dict())
        same.additions[0].teacher_head.load_state_dict(added.student_head.state_dict())
        pays.append(values(same, network, replace(found, teacher=network), found.x)["contrast"])
    assert max(pays) < math.log(len(found.y)) < 100  # chance level
    assert values(made, student, found, x_adv)["contrast"] > min(pays)


def test_heads_are_trained_and_the_teacher_is_not() -> None:
    student, teacher, made, found, x_adv = built(negatives="bank")
    torch.stack(list(made.parts(student, found, x_adv).values())).sum().backward()
    assert all(weight.grad is not None and float(weight.grad.abs().max()) > 0 for weight in made.parameters())
    assert len(list(made.parameters())) == 4 and all(weight.grad is None for weight in teacher.parameters())


def test_a_bank_larger_than_memory_is_refused() -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    from compress.methods import registry

    with pytest.raises(CompressError, match=r"bank needs .* GiB for student and teacher, 100,000,000,000 images"):
        registry.build_objective("gacd", {"negatives": "bank"}, student, teacher, [batch(teacher)[0].x], images=10**11)
