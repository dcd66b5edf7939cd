"""Computations over ranks, by name → named tensors. With one rank they are the plain ones: what all must agree with."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from compress import names, networks
from compress.config import TrainAttack
from compress.methods import registry
from compress.methods.objective import Objective, Terms, TrainingBatch, Views
from compress.networks.base import Classifier
from compress.networks.distributed import exchange_rows, sharded, synchronise
from compress.numerics import ranks
from compress.numerics.seeds import generator

Case = Callable[[], dict[str, Tensor]]

#: name → method and options; every method, and what options change in it
STEPS: dict[str, tuple[str | list[str], dict[str, object]]] = {
    **{name: (name, {}) for name in names.METHODS},
    "pgd-at and clean": ("pgd-at", {"clean_weight": 0.3}),
    "vgap learned": ("vgap", {"host": "pgd-at", "projection": "learned", "lambda_gap": 0.1}),
    "vgap classes": ("vgap", {"projection": "identity", "gram": "classes", "lambda_gap": 0.5}),
    "gacd bank": ("gacd", {"negatives": "bank", "bank_negatives": 11}),
    "saad on clean images": ("saad", {"beta": 0.5}),
    "ard and labels": ("ard", {"label_weight": 0.3}),
    "several": (["saad", "igdm", "fair-ard"], {}),
}
NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (lambda: nn.BatchNorm2d(3), (7, 3, 4, 5)),
    "mean of all": (lambda: nn.BatchNorm2d(3, momentum=None), (7, 3, 4, 5)),
    "no weights": (lambda: nn.BatchNorm2d(3, affine=False, eps=1e-2, momentum=0.3), (8, 3, 2, 2)),
    "no statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (5, 3, 2, 2)),
    "rows": (lambda: nn.BatchNorm1d(4), (7, 4)),
    "sequences": (lambda: nn.BatchNorm1d(4), (5, 4, 6)),
    "fewer rows than ranks": (lambda: nn.BatchNorm2d(3), (2, 3, 4, 5)),
    "far from zero": (lambda: nn.BatchNorm2d(3), (6, 3, 4, 4)),
}
EPS = 0.1
LR = 5e-3


class Stages(Objective):
    """Reads the feature maps, as no method does yet: their mean Gram matrices between images."""

    attacks = False

    def terms(self, views: Views) -> Terms:
        first, *others = views.clean.stages
        return {str(i): (s.flatten(1) @ s.flatten(1).T).square().mean() for i, s in enumerate([first, *others])}


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """New weights are float64 from their first digit, which threads of a BLAS would change in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def cases() -> Iterator[tuple[str, Case]]:
    for name in NORMS:
        yield f"norm: {name}", lambda name=name: norm(name)
    for name in STEPS:
        yield f"step: {name}, 7 images", lambda name=name: steps(name, 7)
    yield "step: vgap, 8 images", lambda: steps("vgap", 8)
    yield "step: rslad, 2 images", lambda: steps("rslad", 2)
    yield "step: vgap, a transformer by AdamW", lambda: steps("vgap", 7, transformer=True)
    yield "stages", stages
    yield "rows", rows


@float64()
def norm(name: str) -> dict[str, Tensor]:
    """Two training passes and one in evaluation mode: outputs, gradients, buffers."""
    build, shape = NORMS[name]
    layer, draw = build(), generator(name)
    for weight in layer.parameters():
        weight.data = torch.rand(weight.shape, generator=draw) + 0.5
    whole = nn.Sequential(layer)
    names = list(whole.state_dict())
    synchronise(whole)
    assert list(whole.state_dict()) == names and whole[0] is layer
    found: dict[str, Tensor] = {}
    for turn, training in enumerate((True, True, False)):
        x = torch.randn(shape, generator=draw) * 3 + (1e3 if name == "far from zero" else 1)
        upstream = torch.randn(shape, generator=draw)
        own = x[ranks.share(len(x))].requires_grad_()
        whole.train(training).zero_grad()
        y = ranks.gather_rows(whole(own))
        ((y * upstream).sum() + (y[:-1] * y[1:]).sum()).backward()  # a loss in which rows of all ranks meet
        ranks.reduce_gradients(whole.parameters())
        found |= {f"{turn} y": y.detach(), f"{turn} x": ranks.gather_rows(own.grad)}
        found |= {f"{turn} {key}": weight.grad.clone() for key, weight in whole.named_parameters()}
        found |= {f"{turn} {key}": value.clone() for key, value in whole.named_buffers()}
    return found


@functools.cache
def trained(seed: int) -> Classifier:
    """With BatchNorm statistics that fit: features that hardly vary make relative misfits huge."""
    torch.manual_seed(seed)
    found = networks.build_network("resnet8", channels=1, classes=10)
    with torch.no_grad():
        for turn in range(10):
            found(batch(16, turn)[0])
    return found


def network(seed: int) -> Classifier:
    return copy.deepcopy(trained(seed))


def transformer_network() -> Classifier:
    torch.manual_seed(4)
    return networks.build_network("vit-nano-4", channels=1, classes=10, size=(8, 8))


def batch(size: int, turn: int) -> tuple[Tensor, Tensor]:
    draw = generator("images", turn)
    x = torch.rand(size, 1, 8, 8, generator=draw)
    return x, torch.randint(0, 10, (size,), generator=draw)


@float64()
def steps(name: str, size: int, *, transformer: bool = False) -> dict[str, Tensor]:
    """Two steps as the loop takes them: images, parts of the loss, weights, buffers, the objective's own weights."""
    method, options = STEPS[name]
    student, *teachers = transformer_network() if transformer else network(1), network(2), network(3)
    pupil, guide, other = (sharded(each) for each in (student, *(t.eval().requires_grad_(False) for t in teachers)))
    clean = [batch(20, turn)[0] for turn in (3, 4, 5, 6)]
    torch.manual_seed(0)  # for what an objective learns itself
    objective = registry.build_objective(method, options, pupil, guide, clean, images=80)
    weights = [*student.parameters(), *objective.parameters()]
    descend = adamw(student, objective) if transformer else plain_descent(weights)
    found: dict[str, Tensor] = {}
    for turn in range(2):
        x, y = batch(size, turn)
        images = TrainingBatch(x, y, guide, other, progress=0.6, index=torch.arange(size) + turn, key=(0, turn, 0))
        x_adv = x
        if objective.attacks:
            pupil.eval()
            attack = TrainAttack(steps=2)
            draw = generator("start", turn)
            x_adv = exchange_rows(objective.adversarial(pupil, images, attack, eps=EPS, draw=draw))
        pupil.train()
        parts = objective.parts(pupil, images, x_adv)
        student.zero_grad()
        for weight in objective.parameters():
            weight.grad = None
        torch.stack(list(parts.values())).sum().backward()
        ranks.reduce_gradients(student.parameters(), objective.parameters())
        descend()
        objective.after_step()
        found |= {f"{turn} x_adv": x_adv.clone(), **{f"{turn} {key}": part.detach() for key, part in parts.items()}}
    assert not objective.attacks or not torch.equal(x_adv, x)
    return found | {
        f"{kind} {key}": value
        for kind, part in (("s", student), ("o", objective))
        for key, value in part.state_dict().items()
    }


def plain_descent(weights: list[Tensor]) -> Callable[[], object]:
    """Momentum apart what the loop's optimizer does."""

    def descend() -> None:
        with torch.no_grad():
            for weight in weights:
                if weight.grad is not None:
                    weight -= LR * weight.grad

    return descend


def adamw(student: Classifier, objective: Objective) -> Callable[[], object]:
    """The loop's own; importing it takes a second."""
    from compress.config import Training
    from compress.training.update import build_optimizer

    return build_optimizer(Training(optimizer="adamw"), student, objective).step


@float64()
def stages() -> dict[str, Tensor]:
    student = network(1)
    pupil = sharded(student).train()
    x, y = batch(7, 0)
    torch.stack(list(Stages().parts(pupil, TrainingBatch(x, y), x).values())).sum().backward()
    ranks.reduce_gradients(student.parameters())
    return {name: weight.grad for name, weight in student.named_parameters() if weight.grad is not None}


def rows() -> dict[str, Tensor]:
    """Rows of several types put together, those of a layout in that layout."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool):
        whole = torch.arange(7 * 6).view(7, 6).to(dtype)
        found[str(dtype)] = ranks.gather_rows(whole[ranks.share(7)])
    images = torch.rand(7, 3, 4, 4, generator=generator("layout")).contiguous(memory_format=torch.channels_last)
    found["images"] = exchange_rows(images)
    assert found["images"].is_contiguous(memory_format=torch.channels_last)
    return found
