"""Differences of logits in bfloat16 training: their gradient beside float64's, and who is asked once more for it."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compress.data.split import Split
from compress.methods import registry
from compress.methods.igdm import gradient_misfit
from compress.methods.objective import TrainingBatch, Views
from compress.methods.saad import Saad, saad
from compress.methods.scores import divergences
from compress.networks.base import Classifier
from compress.numerics import precision
from compress.numerics.seeds import generator
from compress.training.passes import Guide, Passes
from tests.compress.short_training import few, fresh


@pytest.fixture(scope="module")
def networks() -> tuple[Classifier, Classifier, Tensor, Tensor, Tensor]:
    """A student and a teacher that have seen the digits, digits with labels, and the same at 8/255."""
    x, y = next(Split.of(few(24), "train", torch.device("cpu")).batches(24))
    student, teacher = fresh(0), fresh(1)
    with torch.no_grad():
        for network in (student, teacher):
            for _ in range(20):
                network(x)
    signs = torch.where(torch.rand(x.shape, generator=generator(1)) < 0.5, -1.0, 1.0)
    return student, teacher.eval().requires_grad_(False), x, y, x + 8 / 255 * signs


def views(
    networks: tuple[Classifier, Classifier, Tensor, Tensor, Tensor], kind: str, dtype: torch.dtype = torch.float32
) -> Views:
    student, teacher, x, y, x_adv = networks
    passes, guide = Passes(copy.deepcopy(student).to(dtype).train()), Guide(copy.deepcopy(teacher).to(dtype))
    passes.precision = guide.precision = kind
    return Views(passes, TrainingBatch(x.to(dtype), y, guide, progress=1.0), x_adv.to(dtype))


def rounded_misfit(seen: Views) -> Tensor:
    """The same from passes as they come."""
    mirrored = 2 * seen.x - seen.x_adv
    student = seen.adversarial.logits - seen.student.forward_features(mirrored).logits
    return divergences(seen.taught_adversarial.logits - seen.batch.teach(mirrored).logits, student)


def of_saad(seen: Views) -> Tensor:
    return saad(seen, Saad())["gradients"]


@pytest.mark.parametrize(
    ("misfit", "exact", "bounds"),
    [
        (gradient_misfit, gradient_misfit, (0, 1e-4)),
        (of_saad, of_saad, (0, 1e-2)),  # its weights are differences of entropies that hardly differ yet
        (rounded_misfit, gradient_misfit, (0.05, 1)),  # what the others would lose
    ],
)
def test_the_gradient_of_a_difference_survives_bfloat16(
    networks: tuple[Classifier, Classifier, Tensor, Tensor, Tensor],
    misfit: Callable[[Views], Tensor],
    exact: Callable[[Views], Tensor],
    bounds: tuple[float, float],
) -> None:
    gradients = []
    for function, kind, dtype in ((misfit, "bfloat16", torch.float32), (exact, "float32", torch.float64)):
        seen = views(networks, kind, dtype)
        by_weight = torch.autograd.grad(function(seen).mean(), list(seen.student.parameters()))
        gradients.append(torch.cat([gradient.flatten().double() for gradient in by_weight]))
    found, wanted = gradients
    assert bounds[0] <= float((found - wanted).norm() / wanted.norm()) < bounds[1]


def test_what_the_host_saw_stays_rounded_and_nobody_is_asked_again_in_float32(
    networks: tuple[Classifier, Classifier, Tensor, Tensor, Tensor],
) -> None:
    passes = []
    for kind in ("bfloat16", "float32"):
        seen = views(networks, kind)
        own, asked = seen.adversarial, list[Tensor]()
        assert isinstance(seen.student, Passes) and isinstance(seen.batch.guide, Guide)
        for each in (seen.student, seen.batch.guide):
            each.run = lambda x, run=each.run, asked=asked: asked.append(x) or run(x)  # type: ignore
        taught = seen.taught_adversarial
        gradient_misfit(seen)
        assert seen.adversarial is own and own.rounded == taught.rounded == (kind == "bfloat16")
        assert seen.batch.teach(seen.x_adv).rounded == own.rounded  # an answer in float32 is none for the host
        passes.append(len(asked))
    assert passes == [6, 3]


def test_exact_passes_end_with_the_block_and_tf32_with_them() -> None:
    network = Passes(fresh())
    network.precision = precision.BFLOAT16
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        with precision.exact():
            exact = network.eval().forward_features(x)
        after = network.forward_features(x)
        assert torch.equal(exact.logits, network.network(x))
    assert after.rounded and not exact.rounded and not torch.equal(after.logits, exact.logits)
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        assert precision.rounds(precision.FLOAT32, "cuda") and not precision.rounds(precision.FLOAT32, "cpu")
        with precision.exact():
            assert not precision.rounds(precision.FLOAT32, "cuda")
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


def test_gradient_matching_of_weight_0_asks_nobody(
    networks: tuple[Classifier, Classifier, Tensor, Tensor, Tensor],
) -> None:
    seen = views(networks, "float32")
    addition = registry.find_method("igdm").objective(registry.options_of("igdm")(alpha=0.0), None)
    assert addition.terms(seen) == {} and "adversarial" not in vars(seen)
