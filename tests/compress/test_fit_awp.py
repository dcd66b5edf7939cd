"""Adversarial weight perturbation: where it stands, what it leaves behind, when it begins."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from compress.training import update
from compress.training.average import copied
from tests.compress.short_training import fresh, same, train


def test_each_layer_stands_a_share_of_its_norm_up_the_gradient() -> None:
    student = fresh().train()
    x, y = torch.rand(16, 1, 8, 8), torch.randint(10, (16,))
    before = copied(student)
    loss = lambda: cross_entropy(student(x), y)  # noqa: E731
    weights = dict(student.named_parameters())
    slopes = dict(zip(weights, torch.autograd.grad(loss(), list(weights.values())), strict=True))
    student.load_state_dict(before)
    plain = float(loss().detach())
    student.load_state_dict(before)
    with update.worse(student, loss, 0.01):
        for name, weight in weights.items():
            step = weight.detach() - before[name]
            if weight.ndim == 1:
                assert not step.any()
                continue
            assert float(step.norm() / before[name].norm()) == pytest.approx(0.01, rel=1e-3)
            assert float(nn.functional.cosine_similarity(step.flatten(), slopes[name].flatten(), 0)) > 0.999
        assert same({n: b for n, b in before.items() if n not in weights}, dict(student.named_buffers()))
        assert float(loss().detach()) > plain + 0.01
    for name, weight in weights.items():
        torch.testing.assert_close(weight.detach(), before[name], atol=1e-6, rtol=1e-5)


def test_positions_and_the_class_token_stay() -> None:
    student = fresh(name="vit-nano-4")
    before = copied(student)
    x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
    with update.worse(student, lambda: cross_entropy(student(x), y), 0.01):
        moved = {name for name, weight in student.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name, weight in student.named_parameters() if weight.ndim > 1 and "weight" in name}
    assert {"pos_embed", "cls_token"}.isdisjoint(moved)


def test_the_update_made_inside_is_kept() -> None:
    layer = nn.Linear(3, 2, bias=False)
    before = layer.weight.detach().clone()
    with update.worse(layer, lambda: layer(torch.ones(1, 3)).sum(), 0.1), torch.no_grad():
        layer.weight.sub_(1.0)
    torch.testing.assert_close(layer.weight.detach(), before - 1.0)


def test_it_begins_after_its_warm_up(tmp_path: Path) -> None:
    results = {}
    for name, given in (("none", None), ("late", {"warmup": 1}), ("later", {"warmup": 2}), ("now", {"gamma": 0.02})):
        student = fresh()
        train(tmp_path / name, student, awp=given)
        results[name] = copied(student)
    assert same(results["none"], results["later"])  # both epochs are before it
    assert not same(results["none"], results["late"]) and not same(results["late"], results["now"])
