"""What published code of this family got wrong, shown to be right for every method."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from compress import names, training
from compress.config import TrainAttack, Training
from compress.data.split import Split
from compress.methods import registry
from compress.methods.objective import Objective, TrainingBatch
from compress.networks.base import Classifier, Features
from compress.networks.graph.onnx_twin import OnnxClassifier
from compress.numerics.seeds import generator
from compress.training import schedule
from edge.core.artifact import Work
from edge.core.errors import CompressError
from tests.compress.short_training import few, fresh
from tests.compress.tiny_networks import Tiny, batch, objective

ATTACKING = [name for name in names.METHODS if name != "normal"]
EPS, STEP = 0.2, 0.05


def built(method: str, student: Classifier, found: TrainingBatch) -> Objective:
    """In the precision of the batch."""
    own = registry.options_of(method).model_fields
    options = {
        name: 0.4 for name in ("label_weight", "adversarial_weight") if name in own
    }  # so that all terms are there
    made = registry.build_objective(method, options, student, found.teacher, [found.x], images=len(found.y))
    return made.to(found.x.dtype)


@pytest.mark.parametrize("method", [name for name in ATTACKING if name != "n-fgsm"])
def test_the_radius_bounds_the_attack_and_the_step_size_does_not(method: str) -> None:
    student, (found, _) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 40)
    attack = TrainAttack(steps=8, step_size=str(STEP))
    made = built(method, student, found)
    moved = made.adversarial(student, found, attack, eps=EPS, draw=generator(0)) - found.x
    assert STEP < float(moved.abs().max()) <= EPS + 1e-6 and not moved.requires_grad


@pytest.mark.parametrize("method", [name for name in ATTACKING if name != "n-fgsm"])
def test_the_attack_makes_worse_what_it_ascends(method: str) -> None:
    student, (found, _) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 40)
    made = built(method, student, found)
    near, far = (
        made.adversarial(student, found, TrainAttack(steps=n, step_size="0.02"), eps=EPS, draw=generator(0))
        for n in (1, 10)
    )
    search = made.search(student, found)
    with torch.no_grad():
        assert float(search.loss(search.model(far)).mean()) > 1.1 * float(search.loss(search.model(near)).mean())


@pytest.fixture(scope="module")
def real() -> "tuple[Classifier, TrainingBatch, Tensor]":
    """Networks with BatchNorm: a student, digits, a teacher and a clean teacher that have seen them once."""
    split = Split.of(few(48), "train", torch.device("cpu"))
    x, y = next(split.batches(48))
    networks = [fresh(seed) for seed in range(3)]
    with torch.no_grad():
        for network in networks:
            for _ in range(20):
                network(x)
    student, teacher, clean = (network.eval() for network in networks)
    found = TrainingBatch(x, y, teacher, clean, progress=0.5, index=torch.arange(48), key=(0, 0, 0))
    return student, found, (x + 0.1 * torch.rand(x.shape, generator=generator(1))).clamp(0, 1)


def buffers(*networks: "Classifier | None") -> dict[str, Tensor]:
    return {
        f"{i} {name}": value.clone()
        for i, network in enumerate(networks)
        if network is not None
        for name, value in network.named_buffers()
    }


@pytest.mark.parametrize("method", names.METHODS)
def test_no_statistics_move_in_attack_and_parts(method: str, real: "tuple[Classifier, TrainingBatch, Tensor]") -> None:
    student, found, x_adv = real
    made = built(method, student, found)
    before = buffers(student, found.teacher, found.clean_teacher)
    assert any("running_mean" in name for name in before)
    if made.attacks:
        made.adversarial(student, found, TrainAttack(steps=2), eps=EPS, draw=generator(0))
    made.parts(student, found, x_adv)
    student.train()  # as the loop has it: now the student's move, and nobody else's
    made.parts(student, found, x_adv)
    after = buffers(student.eval(), found.teacher, found.clean_teacher)
    moved = {name.split()[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"0"}
    for name, value in student.named_buffers():
        value.copy_(before[f"0 {name}"])


class Remembering(Tiny):
    """A teacher that hands out the same features again, as the loop's does."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__(width, seed)
        self.given: list[tuple[Tensor, Features, list[Tensor]]] = []

    def forward_features(self, x: Tensor) -> Features:
        if torch.is_grad_enabled():
            return super().forward_features(x)
        for asked, features, _ in self.given:
            if asked is x:
                return features
        features = super().forward_features(x)
        self.given.append((x, features, [features.logits.clone(), features.pooled.clone()]))
        return features


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("method", names.METHODS)
def test_what_the_teacher_has_said_stays_as_it_was(method: str, temperature: float) -> None:
    student, teacher = Tiny(3, seed=2), Remembering(5, seed=1)
    found, x_adv = batch(teacher, 20)
    found = replace(found, progress=0.9, temperature=temperature)
    made = built(method, student, found)
    if made.attacks:
        made.adversarial(student, found, TrainAttack(steps=2), eps=EPS, draw=generator(0))
    first = {name: float(part.detach()) for name, part in made.parts(student, found, x_adv).items()}
    again = {name: float(part.detach()) for name, part in made.parts(student, found, x_adv).items()}
    assert first == again
    for _, features, (logits, pooled) in teacher.given:
        assert torch.equal(features.logits, logits) and torch.equal(features.pooled, pooled)


@pytest.mark.parametrize("method", names.METHODS)
def test_no_gradient_reaches_a_teacher(method: str) -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1), 20)
    found = replace(found, progress=0.9)
    made = built(method, student, found)
    if made.attacks:
        made.adversarial(student, found, TrainAttack(steps=2), eps=EPS, draw=generator(0))
    torch.stack([*made.parts(student, found, x_adv).values()]).sum().backward()
    assert isinstance(found.clean_teacher, Tiny)
    assert all(weight.grad is None for network in (found.guide, found.clean_teacher) for weight in network.parameters())
    assert all(weight.grad is not None for weight in student.parameters())


@pytest.mark.parametrize("method", ["adaad", "adaiad", "dgad", "saad", "igdm"])
def test_a_teacher_without_gradients_is_refused_where_the_attack_follows_it(
    method: str, chain: SimpleNamespace, real: "tuple[Classifier, TrainingBatch, Tensor]"
) -> None:
    student, found, _ = real
    mute = replace(found, teacher=OnnxClassifier(chain.ef / "model.onnx"))
    made = built(method, student, mute)
    with pytest.raises(CompressError, match="gives no gradients by its images"):
        made.adversarial(student, mute, TrainAttack(steps=1), eps=EPS, draw=generator(0))


@pytest.mark.parametrize("method", names.CLEAN_TEACHER_METHODS)
def test_a_missing_second_teacher_is_said(method: str) -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1))
    with pytest.raises(AssertionError, match="needs a second teacher"):
        objective(student, found.teacher, method).parts(student, replace(found, clean_teacher=None), x_adv)


@pytest.mark.parametrize("method", [name for name in names.METHODS if name not in names.CLEAN_TEACHER_METHODS])
def test_nobody_else_asks_a_second_teacher(method: str) -> None:
    student, (found, x_adv) = Tiny(3, seed=2), batch(Tiny(5, seed=1))
    assert objective(student, found.teacher, method).parts(student, replace(found, clean_teacher=None), x_adv)


def test_the_rate_falls_at_both_milestones() -> None:
    config = Training(epochs=200, schedule="step", warmup=0.0, milestones=[100, 150])
    shares = [schedule.share(config, epoch * 10, 2000) for epoch in (0, 99, 100, 149, 150, 199)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_training_selects_without_a_test_split(tmp_path: Path) -> None:
    digits = few(64)
    without = replace(digits, splits={name: split for name, split in digits.splits.items() if name != "test"})
    student, teacher = fresh(1), fresh(0).eval().requires_grad_(False)
    config = Training(precision="float32", epochs=2, batch_size=32, attack={"steps": 1}, validate_steps=1)
    made = registry.build_objective("adaad", {}, student, teacher)
    found = training.fit(student, made, teacher, without, config, eps=0.1, seed=0, work=Work(tmp_path), label="x")
    assert found["best_epoch"] in (1, 2) and found["validation"]["n"] == len(digits.splits["val"])


@pytest.fixture(autouse=True)
def _same_draws() -> Iterator[None]:
    torch.manual_seed(0)
    yield
