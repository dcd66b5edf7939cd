"""bfloat16 inside the networks, float32 everywhere else, and what is decided about it when."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from compress.attacks import losses
from compress.attacks.pgd import robust_accuracy
from compress.config import QuantizeConfig, parse
from compress.data.split import Split
from compress.methods import registry
from compress.methods.objective import Search, TrainingBatch
from compress.networks.base import Classifier, Features
from compress.numerics import precision
from compress.training import Guide, Passes, fit, passes
from compress.training.average import copied
from edge.core.errors import CompressError
from tests.compress.short_training import EPS, PgdTraining, few, fresh, same, train


class Seeing(PgdTraining):
    """Adversarial training that looks at what leaves the network."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()
        self.inside: set[torch.dtype] = set()

    def parts(self, student: Classifier, batch: TrainingBatch, x_adv: Tensor) -> dict[str, Tensor]:
        found = student.forward_features(x_adv)
        self.types |= {found.logits.dtype, found.pooled.dtype}
        self.inside |= {stage.dtype for stage in found.stages}
        return super().parts(student, batch, x_adv)


def images(n: int = 8, channels: int = 1, size: int = 8) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_float32_passes_are_the_networks_own() -> None:
    network, x = fresh().eval(), images()
    assert torch.equal(Passes(network)(x), network(x))
    assert Passes(network).has_features is network.has_features


def test_bfloat16_stays_inside_the_network() -> None:
    network, x = fresh().train(), images()
    passes = Passes(network)
    passes.precision = precision.BFLOAT16
    found = passes.forward_features(x)
    assert found.logits.dtype == found.pooled.dtype == torch.float32 and found.stages[0].dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network.forward_features(x)
    assert torch.equal(found.logits, inside.logits.float()) and inside.logits.dtype == torch.bfloat16
    exact = network.forward_features(x)
    assert (
        0 < float((found.logits - exact.logits).detach().abs().max()) < 0.05 * float(exact.logits.detach().abs().max())
    )
    found.logits.sum().backward()
    assert {weight.grad.dtype for weight in network.parameters() if weight.grad is not None} == {torch.float32}


def test_training_in_bfloat16_keeps_weights_losses_and_validation_in_float32(tmp_path: Path) -> None:
    student, plain, objective = fresh(), fresh(), Seeing()
    found = train(tmp_path / "a", student, objective=objective, precision="bfloat16", epochs=1)
    train(tmp_path / "b", plain, epochs=1)
    assert found["precision"] == "bfloat16"
    assert objective.types == {torch.float32} and objective.inside == {torch.bfloat16}
    floats = {value.dtype for value in student.state_dict().values() if value.is_floating_point()}
    assert floats == {torch.float32} and not same(student.state_dict(), plain.state_dict())
    split = Split.of(few(), "val", torch.device("cpu"))
    again = robust_accuracy(student, split, 32, eps=EPS, steps=1, seed=3)
    assert again == found["validation"]["robust"]


def test_digits_are_too_small_to_be_measured(tmp_path: Path) -> None:
    auto, plain = fresh(), fresh()
    assert train(tmp_path / "a", auto, precision="auto", epochs=1)["precision"] == "float32"
    train(tmp_path / "b", plain, epochs=1)
    assert same(auto.state_dict(), plain.state_dict())


@pytest.mark.skipif(not precision.has_bfloat16("cpu"), reason="bfloat16 is emulated here, so never measured")
def test_a_measurement_decides_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    from compress import networks

    network = networks.build_network("resnet8", channels=3, classes=10)
    passes, before = Passes(network), copied(network)
    y = torch.zeros(4, dtype=torch.int64)
    found = passes.fastest(passes, Search(passes, losses.cross_entropy(y)), images(4, 3, 32), steps=2)
    assert isinstance(found, passes.Arithmetic) and str(found)
    assert same(network.state_dict(), before) and passes.precision == precision.FLOAT32
    assert all(weight.grad is None for weight in network.parameters())


def test_mixed_arithmetic_is_spelled_out_and_layouts_are_given() -> None:
    mixed = passes.Arithmetic("bfloat16", "float32", "channels-first")
    assert str(mixed) == "bfloat16 attack, float32 update" and str(passes.PLAIN) == "float32"
    x = images(4, 3, 8)
    assert mixed.image(passes.PLAIN.image(x)).is_contiguous()
    assert passes.PLAIN.image(x).is_contiguous(memory_format=torch.channels_last)


def test_a_resumed_run_computes_as_it_began(tmp_path: Path) -> None:
    from edge.core import interrupt
    from tests.compress.test_fit_resume import AtStep, asked

    with pytest.raises(interrupt.Interrupted):
        train(tmp_path, fresh(), objective=AtStep(1, asked()), precision="bfloat16")
    assert train(tmp_path, fresh(), precision="auto")["precision"] == "bfloat16"


class Counting(Classifier):
    """A network that counts its passes."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network, self.passes = network, 0

    def forward_features(self, x: Tensor) -> Features:
        self.passes += 1
        return self.network.forward_features(x)


def test_the_teacher_is_asked_once_about_each_batch_of_images(tmp_path: Path) -> None:
    inside = Counting(fresh(1).eval().requires_grad_(False))
    teacher, student = Guide(inside), fresh()
    options = {"lambda_cov": 0.1, "lambda_gram": 0.1, "host": "rslad"}
    objective = registry.build_objective("vgap", options, student, teacher, [images(64)])
    inside.passes = 0
    train(tmp_path, student, objective=objective, teacher=teacher, epochs=1, lr=1e-3, awp={"gamma": 0.01})
    assert inside.passes == 4 * 2  # steps × (clean, adversarial), though awp computes the loss twice
    with torch.no_grad():
        x = images()
        first = teacher(x)
        assert torch.equal(first, teacher(x.clone())) and torch.equal(first, inside(x))


def test_fake_quantizers_stay_in_float32(tmp_path: Path) -> None:
    from edge.core.artifact import Work

    config = parse(QuantizeConfig, {"data": "digits", "precision": "bfloat16"}, "test")
    student = fresh()
    objective = PgdTraining()
    with pytest.raises(CompressError, match="precision bfloat16: fake quantizers need float32"):
        fit(student, objective, None, few(), config, eps=EPS, seed=0, work=Work(tmp_path), label="test")


def test_what_cannot_be_compiled_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    student, plain = fresh(), fresh()
    found = train(tmp_path / "a", student, compile=True, epochs=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if "cannot be compiled" in line]
    train(tmp_path / "b", plain, epochs=1)
    assert found["compiled"] is False and len(lines) == 1
    assert same(student.state_dict(), plain.state_dict())
