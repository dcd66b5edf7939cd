"""Which optimizer takes the step: its formula, what it lets decay, and what is its default."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.config import Quantize, QuantizeConfig, StudentConfig, Training, parse
from compress.methods.normal import CleanTraining, Normal
from compress.training.average import copied
from compress.training.update import build_optimizer, optimizer_hint
from edge.core.errors import CompressError
from tests.compress.short_training import fresh, rows, same, train


def test_adamw_lets_weights_decay_and_nothing_else() -> None:
    student, objective = fresh(name="vit-nano-4"), CleanTraining(Normal())
    objective.state["map"] = nn.Linear(3, 2)  # as a learned projection is
    decayed, others = build_optimizer(Training(optimizer="adamw"), student, objective).param_groups
    names = {id(value): name for part in (student, objective.state) for name, value in part.named_parameters()}
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    assert {names[id(value)] for value in decayed["params"]} == {
        "patch_embed.proj.weight",
        "head.weight",
        "map.weight",
        *(f"blocks.{n}.{layer}.weight" for n in range(4) for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    }
    assert decayed["weight_decay"] == 0.05 and others["weight_decay"] == 0


def test_a_step_of_adamw_is_the_papers() -> None:
    """Loshchilov & Hutter 2019, Algorithm 2, twice, with its own decay and the rate that the schedule has set."""
    torch.manual_seed(0)
    student, lr, decay = nn.Linear(3, 2), 0.01, 0.1
    config = Training(optimizer="adamw", momentum=0.8, weight_decay=decay)
    optimizer = build_optimizer(config, student, CleanTraining(Normal()))  # type: ignore[arg-type]
    want = {name: value.detach().clone() for name, value in student.named_parameters()}
    first, second = ({name: torch.zeros_like(value) for name, value in want.items()} for _ in range(2))
    for turn in (1, 2):
        for name, value in student.named_parameters():
            value.grad = torch.randn_like(value)
            first[name] = 0.8 * first[name] + 0.2 * value.grad
            second[name] = 0.999 * second[name] + 0.001 * value.grad**2
            step = first[name] / (1 - 0.8**turn) / ((second[name] / (1 - 0.999**turn)).sqrt() + 1e-8)
            want[name] = want[name] - lr * (step + (decay if name == "weight" else 0) * want[name])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    for name, value in student.named_parameters():
        torch.testing.assert_close(value.detach(), want[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "lr"), [(StudentConfig, 0.001), (QuantizeConfig, 0.00005)])
def test_adamw_has_defaults_of_its_own_and_sgd_is_not_written(kind: Any, lr: float) -> None:
    config = parse(kind, {"data": "digits", "optimizer": "adamw"}, "test")
    assert (config.lr, config.weight_decay) == (lr, 0.05) and config.semantic()["optimizer"] == "adamw"
    told = parse(kind, {"data": "digits", "optimizer": "adamw", "lr": 0.3, "weight_decay": 0}, "test")
    assert (told.lr, told.weight_decay) == (0.3, 0)
    plain = parse(kind, {"data": "digits"}, "test")
    assert plain.semantic() == parse(kind, {"data": "digits", "optimizer": "sgd"}, "test").semantic()
    assert "optimizer" not in plain.semantic() and plain.weight_decay == 5e-4
    with pytest.raises(CompressError, match="optimizer: input should be 'sgd' or 'adamw', got 'adam'"):
        parse(kind, {"data": "digits", "optimizer": "adam"}, "test")


def test_a_transformer_by_sgd_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformer, lr = fresh(name="vit-nano-4"), 0.01
    train(tmp_path / "w", transformer, "normal", epochs=1, lr=lr)
    hint = "has LayerNorm and is trained by SGD at lr 0.01; mostly it needs --set optimizer=adamw"
    assert capsys.readouterr().err.count(f"test: {hint}") == 1
    quiet = [(Training(optimizer="adamw"), transformer), (Training(), fresh()), (Quantize(), transformer)]
    assert optimizer_hint(Training(lr=lr), transformer) == hint and not any(optimizer_hint(*each) for each in quiet)


def test_the_loop_descends_by_the_optimizer_that_is_asked_for(tmp_path: Path) -> None:
    results = {}
    for optimizer in ("sgd", "adamw"):
        student = fresh()
        train(tmp_path / optimizer, student, "normal", optimizer=optimizer, lr=0.002, epochs=1)
        results[optimizer] = copied(student)
        assert rows(tmp_path / optimizer)[0]["lr"] < 0.002  # the schedule's end
    assert not same(results["sgd"], results["adamw"])
