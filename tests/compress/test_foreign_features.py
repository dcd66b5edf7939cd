"""Features of networks of others: the native ones' own, a reader's own, with their gradients; named; refused."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress import folders, networks
from compress.data import load_dataset
from compress.methods.features import Projections
from compress.networks import network_files
from compress.networks.base import Classifier, Features
from compress.networks.foreign_network import Foreign, guarded
from compress.networks.found_features import NamedFeatures
from edge.core.errors import CompressError
from tests.compress.fake_stages import Call, caller
from tests.compress.feature_networks import NETWORKS, FunctionalCNN, GroupNormCNN, TinyViT

HERE = "tests.compress.feature_networks"


def foreign(net: nn.Module, shape: tuple[int, ...] = (1, 8, 8), **named: Any) -> Foreign:
    network = Foreign(net, "theirs", 10)
    network.shape, network.named = shape, NamedFeatures.of(named)
    return network.eval()


NATIVE = [
    ("resnet8", 16),
    ("preactresnet18+final-bn+silu", 8),
    ("wrn-10-1+pssilu+same+normalize", 16),
    ("wrn-10-1+cosine+standardize", 16),
    ("mobilenetv2-0.25", 16),
    ("mobilenetv3-small", 64),
    ("vit-nano-2", 8),
    ("convnext-yocto-1", 16),
    ("cnn", 16),
]


@pytest.mark.parametrize(("name", "size"), NATIVE)
def test_a_native_network_taken_as_one_of_others_gives_its_own_features(name: str, size: int) -> None:
    torch.manual_seed(0)
    native = networks.build_network(name, channels=3, classes=10, size=(size, size)).eval()
    x = torch.rand(3, 3, size, size)
    with torch.no_grad():
        own, found = native.forward_features(x), foreign(native, (3, size, size)).forward_features(x)
    stages = [own.stages[k] for k in (0, 2, 3)] if name == "cnn" else own.stages  # which has two maps of one resolution
    assert torch.equal(found.logits, own.logits) and torch.equal(found.pooled, own.pooled)
    assert [stage.shape for stage in found.stages] == [stage.shape for stage in stages]
    assert all(torch.equal(a, b) for a, b in zip(found.stages, stages, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_reader_would_take_is_found_with_its_gradients(name: str) -> None:
    make, pooled, stages = NETWORKS[name]
    torch.manual_seed(1)
    net = make().eval()  # type: ignore[no-untyped-call]
    network, x = foreign(net), torch.rand(4, 1, 8, 8)
    features = network.forward_features(x)
    assert network.found((1, 8, 8)).as_metrics() == {"pooled": pooled, "stages": stages}
    torch.testing.assert_close(features.logits, net(x))
    want = [net.pooled(x), *net.maps(x)]
    got = [features.pooled, *features.stages]
    weigh = [torch.randn(value.shape) for value in want]

    def gradients(values: list[Tensor]) -> list[Tensor]:
        loss = sum((w * value.square()).sum() for w, value in zip(weigh, values, strict=True))
        found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, retain_graph=True)  # type: ignore[arg-type]
        return [torch.zeros(()) if gradient is None else gradient for gradient in found]

    for a, b in zip([*got, *gradients(got)], [*want, *gradients(want)], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_looking_for_features_leaves_nothing_behind_and_a_copy_keeps_them() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10))
    network = foreign(net).train()
    net[1].eval()
    before, stream = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert network.has_features
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert net[2].training and not net[1].training and net[0]._forward_hooks == {}
    twin, x = copy.deepcopy(network).eval(), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        net[4].weight.zero_()
        assert torch.equal(twin.forward_features(x).pooled, network.eval().forward_features(x).pooled)
        assert float(twin(x).abs().sum()) != float(network(x).abs().sum())


def test_the_exporter_traces_features_with_the_batch_left_open() -> None:
    class AsTuple(nn.Module):
        def __init__(self, network: Classifier) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            features = self.network.forward_features(x)
            return (features.logits, features.pooled, *features.stages)

    network = AsTuple(foreign(GroupNormCNN()))
    free = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(network, (torch.rand(2, 1, 8, 8),), dynamic_shapes=free, strict=False)
    x = torch.rand(5, 1, 8, 8)
    for a, b in zip(program.module()(x), network(x), strict=True):
        torch.testing.assert_close(a, b)


def test_modules_are_named_by_their_result_or_what_they_read() -> None:
    net, x = FunctionalCNN().eval(), torch.rand(3, 1, 8, 8)
    features = foreign(net, pooled="hidden.input", stages=["conv2", "hidden"]).forward_features(x)
    torch.testing.assert_close(features.pooled, net.maps(x)[1].mean((2, 3)))
    assert [tuple(stage.shape) for stage in features.stages] == [(3, 8, 4, 4), (3, 7, 1, 1)]
    assert len(foreign(net, pooled="conv1").forward_features(x).stages) == 2


REFUSED = [
    ({"pooled": "hiden"}, "theirs: features: it has no module 'hiden'; did you mean 'hidden'?"),
    ({"stages": ["nothing.like.it"]}, "no module 'nothing.like.it' (it has conv1, conv2, hidden, drop, out)"),
    ({"pooled": "spare"}, "features: spare has no tensor in a pass; name a module that is called"),
]


@pytest.mark.parametrize(("named", "said"), REFUSED)
def test_names_that_lead_nowhere_are_one_line(named: dict[str, Any], said: str) -> None:
    net = FunctionalCNN()
    if "spare" in said:
        net.spare = nn.Linear(2, 2)
    with pytest.raises(CompressError) as fault:
        foreign(net, **named).found((1, 8, 8))
    assert said in str(fault.value) and "\n" not in str(fault.value)


def test_one_of_ours_takes_no_names_and_a_users_own_features_are_checked() -> None:
    about = network_files.describe_network("resnet8", (1, 8, 8), ("a", "b"), features={"pooled": "linear"})
    with pytest.raises(CompressError, match="resnet8 has features of its own; leave pooled out"):
        network_files.build_described(about)

    class Maps(Classifier):
        def forward_features(self, x: Tensor) -> Features:
            return Features(x.mean((2, 3)), x, ())

    with pytest.raises(CompressError, match=r"Features have a tensor \(2, 1, 8, 8\) in pooled for 2 images; \(N, D\)"):
        guarded(Maps(), "maps")(torch.rand(2, 1, 8, 8))


def test_stages_of_unequal_number_are_paired_from_the_last_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    student, teacher = foreign(TinyViT("class")), foreign(FunctionalCNN(), stages=["conv1", "conv2", "conv2"])
    x = torch.rand(6, 1, 8, 8)
    projections = Projections("learned", "stages", student, teacher, [x])
    assert [p.shape[1] for p in projections.student(student.forward_features(x))] == [8, 8]
    assert "the student gives 2 stages, the teacher 3: the last 2 of each are compared" in capsys.readouterr().err
    with pytest.raises(CompressError, match="the teacher gives no feature maps; use penultimate, or name modules"):
        Projections("learned", "stages", student, foreign(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), [x])


class CheckedLogits(nn.Module):
    """Takes numbers over a whole batch: one of its logits, one behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.convolution(x)
        assert bool((maps.sum() * 0 == 0).all())
        logits: Tensor = self.head((maps / maps.abs().max()).mean((2, 3)))
        assert not logits.isnan().any()
        return logits


def test_one_number_of_a_whole_batch_has_no_channels() -> None:
    """Found with an ensemble of a public zoo that asserts that its logits are numbers."""
    features = foreign(CheckedLogits()).forward_features(torch.rand(4, 1, 8, 8))
    assert features.pooled.shape == (4, 6) and [stage.shape for stage in features.stages] == [(4, 6, 6, 6)]


def test_a_call_that_is_another_in_training_is_no_stage() -> None:
    class Dropping(FunctionalCNN):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(functional.relu(x) if self.training else x)

    network = foreign(Dropping())
    assert network.found((1, 8, 8)).as_metrics() == {"pooled": "out.input (7)", "stages": []}
    assert not network.training and not network.net.training


SHORT = {"epochs": 1, "batch_size": 64, "lr": 0.01, "attack.steps": 1, "validate_steps": 1, "test_steps": 1}


def test_vgap_by_and_to_networks_of_others_says_which_features_and_analyze_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call: Call = caller(capsys)
    digits = load_dataset("digits")
    np.savez("few.npz", images=digits.images[:300], labels=digits.labels[:300])
    assert call(f"teacher import {HERE}:class_token --data npz:few.npz --no-check --out T")[0] == 0
    words = {"pooled": "head.input (6)", "stages": ["layers.0 (6)", "layers.1 (6)"]}
    named = {"pooled": "same (8)", "stages": ["stem (6)", "down (8)"]}
    options = {"options.features": "stages", "options.projection": "learned"}
    modules = {"features.pooled": "same", "features.stages": "[stem,down]"}
    settings = " ".join(f"--set {key}={value}" for key, value in {**SHORT, **options, **modules}.items())
    code, out, err = call(
        f"distill --teacher T --student {HERE}:group_norm --data npz:few.npz --eps 0.1 --method vgap "
        f"--allow-non-robust {settings} --out S --json"
    )
    assert code == 0, err
    assert json.loads(out)["metrics"]["features"] == {"student": named, "teacher": words}
    assert f"teacher {HERE}:class_token: features are head.input (6); stages layers.0 (6), layers.1 (6)" in err
    assert json.loads(Path("S/model.json").read_text())["features"]["pooled"] == "same"
    x = torch.rand(2, 1, 8, 8)
    student = folders.load("S")
    assert isinstance(student, Foreign)
    stem, down, same = (student.net.get_submodule(name) for name in ("stem", "down", "same"))
    torch.testing.assert_close(student.forward_features(x).pooled, same(down(stem(x))).mean((2, 3)))
    code, out, err = call(
        "analyze T S --images 30 --eps 0.1 --steps 1 --radii 0,0.05,0.1 --bootstrap 100 --out A --json"
    )
    assert code == 0 and "T: features are" not in out, err
    assert [model["pooled"] for model in json.loads(out)["analysis"]["models"]] == ["head.input (6)", "same (8)"]


def test_without_any_one_line_says_what_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call: Call = caller(capsys)
    assert call(f"teacher import {HERE}:scripted_whole --data digits --no-check --out T")[0] == 0
    why = f"no linear layer was seen that the logits of {HERE}:scripted_whole depend on"
    code, _, err = call("distill --teacher T --student resnet8 --data digits --method gacd --allow-non-robust --out S")
    assert code == 2 and err.splitlines()[-1].startswith(f"compress: T: {why}") and "compares features" in err
    code, _, err = call("analyze T --images 40 --out A")
    assert code == 2 and why in err.splitlines()[-1] and "leave this model out" in err
    assert [path.name for path in Path().iterdir()] == ["T"]
