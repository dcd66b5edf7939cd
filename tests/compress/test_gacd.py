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
    for turn in range(2):  # the second time with a memory of the first and the scale of then
        seen_by = replace(found, key=(0, 0, turn))
        anchor, *seen = embedded(made, student, teacher, seen_by, x_adv)
        rows, labels, y = bank.rows.tolist(), bank.labels.tolist(), found.y.tolist()
        drawn = torch.randint(40, (9,), generator=generator(0, 0, turn, "negatives")).tolist()
        if turn == 0:
            scale = 40 * sum(math.exp(inner(a, rows[j]) / 0.5) for a in anchor for j in drawn) / (len(anchor) * 9)
        total = 0.0
        for i in range(len(y)):
            for z in seen:
                p = math.exp(inner(anchor[i], z[i]) / 0.5) / scale
                total -= math.log(p / (p + 9 / 40)) / 2
                for j in drawn:
                    if j == i or (masked and labels[j] == y[i]):
                        continue
                    p = math.exp(inner(anchor[i], rows[j]) / 0.5) / scale
                    total -= math.log((9 / 40) / (p + 9 / 40)) / 2
        assert values(made, student, seen_by, x_adv)["contrast"] == pytest.approx(total / len(y))
        made.after_step()


def test_the_memory_keeps_each_image_with_momentum_and_only_after_a_step() -> None:
    student, teacher, made, found, x_adv = built(negatives="bank", bank_momentum=0.25)
    bank = made.additions[0].bank
    before = bank.rows.clone()
    values(made, student, found, x_adv)
    assert torch.equal(bank.rows, before) and int(bank.labels.max()) == -1
    made.after_step()
    _, clean, adversarial = (torch.tensor(z) for z in embedded(made, student, teacher, found, x_adv))
    new = torch.nn.functional.normalize(clean + adversarial, dim=1)
    wanted = torch.nn.functional.normalize(0.25 * before[:7] + 0.75 * new, dim=1)
    torch.testing.assert_close(bank.rows[:7], wanted.double(), atol=1e-6, rtol=0)
    assert torch.equal(bank.rows[7:], before[7:]) and torch.equal(bank.labels[:7], found.y)
    again = built(negatives="bank", bank_momentum=0.25)[2]
    again.load_state_dict(made.state_dict())
    assert values(again, student, found, x_adv) == values(made, student, found, x_adv)


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

    with pytest.raises(CompressError, match=r"bank needs .* GiB for 100,000,000,000 images"):
        registry.build_objective("gacd", {"negatives": "bank"}, student, teacher, [batch(teacher)[0].x], images=10**11)
