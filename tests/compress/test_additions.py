"""What an addition leaves as it was: at weight 0 the host to the bit, at any weight its statistics and its draws."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.config import Training
from compress.data.split import Split
from compress.methods import registry
from compress.networks.base import Classifier, Features
from compress.networks.undisturbed import without_trace
from compress.numerics import precision
from compress.training.average import Average
from compress.training.passes import PLAIN, Arithmetic, Guide, Passes
from compress.training.update import Supply, Update
from compress.training.watch import Finite

#: Additions at weight 0: dropped, or computed and multiplied by 0, as `warmup` and igdm's progress at the beginning.
SILENT: dict[str, tuple[list[str], dict[str, Any]]] = {
    "vgap, computed": (["vgap"], {"vgap": {"warmup": 0.5, "lambda_gap": 1.0}}),
    "gacd": (["gacd"], {"gacd": {"weight": 0.0}}),
    "igdm, computed": (["igdm"], {}),
    "fair-ard": (["fair-ard"], {"fair-ard": {"beta": 0.0}}),
    "all": (
        ["vgap", "gacd", "igdm", "fair-ard"],
        {
            "vgap": {"lambda_cov": 0.0, "lambda_gram": 0.0, "projection": "learned"},
            "gacd": {"weight": 0.0, "negatives": "bank"},
            "igdm": {"alpha": 0.0},
            "fair-ard": {"beta": 0.0},
        },
    ),
}


class Normed(Classifier):
    """With everything that a pass may leave a trace in: BatchNorm's statistics, and dropout's draws."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body, self.norm, self.drop = nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.3)
        self.head = nn.Linear(width, 3)

    def forward_features(self, x: Tensor) -> Features:
        pooled = self.drop(torch.tanh(self.norm(self.body(x.flatten(1)))))
        return Features(self.head(pooled), pooled, ())


def trained(
    host: str,
    added: list[str],
    options: dict[str, Any],
    *,
    steps: int = 2,
    arithmetic: Arithmetic = PLAIN,
    awp: bool = True,
) -> dict[str, Tensor]:
    """The student, its momenta and torch's random stream after that many epochs of a step, at the run's beginning."""
    draw = torch.Generator().manual_seed(1)
    split = Split(
        torch.randint(0, 256, (8, 1, 2, 2), generator=draw, dtype=torch.uint8), torch.arange(8, dtype=torch.int64) % 3
    )
    torch.manual_seed(0)
    teacher, clean_teacher = (Guide(Normed(5).eval().requires_grad_(False)) for _ in range(2))
    student = Normed(4)
    objective = registry.build_objective(
        [host, *added], options, student, teacher, split.clean(8), images=len(split.labels)
    )
    optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=0.1, momentum=0.9, nesterov=True)
    update = Update(
        student=student,
        passes=Passes(student),
        objective=objective,
        teacher=teacher,
        clean_teacher=clean_teacher,
        supply=Supply(split, 8, 0),
        vary=None,
        optimizer=optimizer,
        average=Average("none", 0.0, student),
        finite=Finite(),
        config=Training(batch_size=8, attack={"steps": 2}, clip=0.3, awp={"gamma": 0.05} if awp else None),
        eps=0.1,
        seed=0,
    )
    update.compute_in(arithmetic)
    for epoch in range(steps):
        update(update.supply.chosen(epoch, 0), epoch, 0, 0.1)
    momenta = {
        f"{name} momentum": optimizer.state[weight]["momentum_buffer"] for name, weight in student.named_parameters()
    }
    return {**student.state_dict(), **momenta, "random": torch.get_rng_state()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("host", registry.hosts())
def test_a_host_with_additions_of_weight_0_is_the_host_to_the_bit(host: str) -> None:
    alone = trained(host, [], {})
    for name, (added, options) in SILENT.items():
        assert differing(alone, trained(host, added, options)) == [], name


@pytest.mark.parametrize("host", registry.hosts())
def test_the_hosts_passes_alone_feed_its_statistics_whatever_the_weight(host: str) -> None:
    alone = trained(host, [], {}, steps=1, awp=False)
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "random"}
    assert statistics <= alone.keys() and float(alone["norm.running_mean"].abs().max()) > 0
    for added in [[name] for name in registry.additions()] + [list(registry.additions())]:
        changed = differing(alone, trained(host, added, {}, steps=1, awp=False))
        assert not statistics & set(changed), added
        assert bool(changed) == (not {"vgap", "gacd"}.isdisjoint(added))  # the others have no weight yet


def test_in_bfloat16_too_the_host_is_as_it_is_alone() -> None:
    half = Arithmetic(precision.BFLOAT16, precision.BFLOAT16, "channels-first")
    alone = trained("adaad", [], {}, arithmetic=half)
    assert differing(alone, trained("adaad", [], {}))
    assert differing(alone, trained("adaad", ["igdm", "vgap"], {"vgap": {"warmup": 0.5}}, arithmetic=half)) == []


def test_passes_without_a_trace_are_followed_back_and_end_with_a_fault_too() -> None:
    network, x = Normed(4), torch.rand(8, 1, 2, 2)
    before, stream = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    own = network(x)
    fed, after = network.norm.running_mean, torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), without_trace(network):
        beside = network(1 - x)
        raise ZeroDivisionError
    assert network.norm.running_mean is fed and torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(stream, after) and not torch.equal(fed, before["norm.running_mean"])
    (own.square().sum() + beside.square().sum()).backward()  # graphs of both kinds of passes are whole
    assert all(weight.grad is not None for weight in network.parameters())
    assert int(network.norm.num_batches_tracked) == 1
