"""A host and what is added to it."""

import pytest
import torch
from torch import Tensor

from compress import config, names
from compress.config import TrainAttack
from compress.methods import registry
from compress.methods.objective import Addition, Combined, Views
from compress.methods.registry import options_in_full
from compress.numerics.seeds import generator
from compress.training import Guide
from edge.core.errors import CompressError
from tests.compress.short_training import fresh, same
from tests.compress.tiny_networks import Tiny, batch, objective, values


def test_the_parts_are_those_of_all() -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    torch.manual_seed(0)
    both = objective(student, teacher, ["trades", "vgap", "gacd"], trades={"beta": 2.0}, vgap={"lambda_gap": 1.0})
    parts = values(both, student, found, x_adv)
    assert set(parts) == {"clean", "stability", "cov", "gram", "gap", "contrast"}
    host = values(objective(student, teacher, "trades", beta=2.0), student, found, x_adv)
    gap = values(objective(student, teacher, "vgap", lambda_gap=1.0), student, found, x_adv)
    assert parts == pytest.approx(
        host | {name: gap[name] for name in ("cov", "gram", "gap")} | {"contrast": parts["contrast"]}
    )


@pytest.mark.parametrize("host", registry.hosts())
def test_every_host_carries_an_addition_and_keeps_its_own_attack(host: str) -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    bare, made = objective(student, teacher, host), objective(student, teacher, "vgap", host=host)
    parts = values(made, student, found, x_adv)
    assert {"cov", "gram"} < set(parts)
    assert {name: value for name, value in parts.items() if name not in ("cov", "gram")} == pytest.approx(
        values(bare, student, found, x_adv)
    )
    assert made.attacks == bare.attacks
    attacked = [
        each.adversarial(student, found, TrainAttack(steps=2), eps=0.1, draw=generator(0)) for each in (bare, made)
    ]
    assert torch.equal(*attacked)


class Halved(Addition):
    """Weighs the first image alone, and counts what it is shown."""

    watches = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def weights(self, views: Views) -> Tensor:
        return torch.arange(len(views.y)).eq(0).double()

    def watch(self, logits: Tensor, y: Tensor) -> None:
        self.seen.append(logits.argmax(1) == y)


def test_weights_reach_the_host_image_by_image_and_the_attack_is_watched() -> None:
    student, teacher = Tiny(3, seed=2), Tiny(5, seed=1)
    found, x_adv = batch(teacher)
    halved = Halved()
    made = Combined(objective(student, teacher, "trades"), [halved])
    host = objective(student, teacher, "trades").terms(Views(student, found, x_adv))
    parts = values(made, student, found, x_adv)
    assert parts == pytest.approx({name: float(term[0].detach()) / len(found.y) for name, term in host.items()})
    made.adversarial(student, found, TrainAttack(steps=3), eps=0.1, draw=generator(0))
    assert len(halved.seen) == 3  # the pass on clean images wants no gradient


def test_methods_as_they_are_written() -> None:
    assert registry.checked_method("vgap") == registry.checked_method(["vgap"]) == "vgap"
    assert registry.method_parts(["vgap", "gacd"], {}) == ["rslad", "vgap", "gacd"]
    assert registry.method_parts(["gacd", "trades"], {}) == ["trades", "gacd"]
    assert registry.method_parts("vgap", {"host": "pgd-at"}) == ["pgd-at", "vgap"]
    assert names.written(["trades", "vgap"]) == "trades+vgap"
    for wrong, what in ((["rslad", "trades"], "one method"), ([], "one method"), (["vgap", "vgap"], "each once")):
        with pytest.raises(CompressError, match=what):
            registry.checked_method(wrong)
    with pytest.raises(CompressError, match="did you mean 'vgap'"):
        registry.checked_method(["vgapp"])
    with pytest.raises(CompressError, match="no name"):
        registry.checked_method([3])


def test_options_of_several_methods_are_recorded_in_full_with_the_host_they_share() -> None:
    found = options_in_full(["vgap", "gacd"], {"vgap": {"host": "trades"}})
    assert found["vgap"]["host"] == found["gacd"]["host"] == "trades"
    assert options_in_full(["pgd-at", "vgap"], {})["vgap"]["host"] == "pgd-at"
    assert set(options_in_full("vgap", {})) == set(found["vgap"])
    with pytest.raises(CompressError, match=r"gacd\.host: rslad, but the method is built on trades"):
        options_in_full(["vgap", "gacd"], {"vgap": {"host": "trades"}, "gacd": {"host": "rslad"}})
    with pytest.raises(CompressError, match="unknown method in the options"):
        options_in_full(["vgap", "gacd"], {"lambda_cov": 1})


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"method": ["vgap", "gacd"], "options": {"vgap": {"lambda_cov": -1}}}, "greater than or equal to 0"),
        ({"method": "gacd", "options": {"temperature": 0}}, "greater than 0"),
        ({"method": "vgap", "options": {"host": "rsland"}}, "did you mean 'rslad'"),
        ({"method": ["rslad", "trades"]}, "one method, or one and what is added"),
        ({"method": ["vgap", "gacd"], "options": {"vgapp": {}}}, "did you mean 'vgap'"),
        ({"method": "vgap", "options": {"lambda_kov": 1}}, "did you mean 'lambda_cov'"),
    ],
)
def test_wrong_options_are_told_in_their_own_words(section: dict[str, object], what: str) -> None:
    with pytest.raises(CompressError, match=what):
        config.parse(config.Run, {"data": "digits", "student": section}, "here")


@pytest.mark.parametrize("method", registry.additions())
def test_building_a_method_leaves_the_student_as_it_is(method: str) -> None:
    student, teacher = fresh(), fresh(seed=1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    x = torch.rand(8, 1, 8, 8, generator=generator(0))
    registry.build_objective(method, {}, student, Guide(teacher.eval()), [x, x], images=16)
    assert same(before, student.state_dict()) and student.training and not teacher.training


def test_a_teacher_is_asked_for_when_a_part_of_the_method_asks_one() -> None:
    assert registry.needs_teacher("rslad", {}) and registry.needs_teacher("fair-ard", {})
    assert not registry.needs_teacher("trades", {}) and not registry.needs_teacher("fair-ard", {"host": "pgd-at"})
    assert not registry.needs_teacher(["pgd-at", "fair-ard"], {}) and registry.needs_teacher(["pgd-at", "vgap"], {})
