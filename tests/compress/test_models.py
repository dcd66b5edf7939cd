"""Parameter counts to the digit, one forward pass for logits and features, folding that changes nothing."""

import pytest
import torch

from compress import models, names
from compress.errors import CompressError
from compress.models.base import parameters
from compress.models.folding import fold, quantizer_sites


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet8", 75_290), ("resnet20", 269_722), ("wrn-16-2", 691_674), ("wrn-28-10", 36_479_194)],
)
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    assert parameters(models.build(name, channels=3, classes=10)) == count


@pytest.mark.parametrize("name", [n for n in names.MODELS if not n.endswith("-10")])
def test_every_known_model_gives_logits_and_the_features_behind_them(name: str) -> None:
    torch.manual_seed(0)
    model = models.build(name, channels=1, classes=7).eval()
    x = torch.rand(3, 1, 8, 8)
    out = model.forward_features(x)
    assert out.logits.shape == (3, 7) and len(out.stages) == 3
    assert torch.equal(model(x), out.logits)
    head = model.get_submodule("linear" if name.startswith("resnet") else "fc")
    torch.testing.assert_close(head(out.pooled), out.logits)
    torch.testing.assert_close(out.stages[-1].mean((2, 3)), out.pooled)


@pytest.mark.parametrize("name", ["resnet9", "wrn-11-2", "vgg"])
def test_unknown_models_are_refused(name: str) -> None:
    with pytest.raises(CompressError, match="unknown model"):
        models.build(name, channels=1, classes=10)


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-4"])
def test_folding_keeps_the_function_and_removes_what_it_can(name: str) -> None:
    torch.manual_seed(0)
    model = models.build(name, channels=1, classes=10)
    for _ in range(3):  # give the BatchNorms statistics that matter
        model.train()(torch.rand(32, 1, 8, 8) * 3)
    model.eval()
    x = torch.rand(16, 1, 8, 8)
    before = model(x)
    bns = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    fold(model)
    left = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
    assert left == (0 if name == "resnet8" else bns - 4)  # those that follow a sum stay


def test_quantizers_stand_behind_every_activation_and_before_what_comes_from_elsewhere() -> None:
    sites = quantizer_sites(models.build("resnet8", channels=1, classes=10))
    assert "conv1.input_quantizer" in sites and "linear.input_quantizer" in sites
    assert "layer1.0.conv1.input_quantizer" not in sites  # its input is an activation's output already
    assert {"layer1.0.add.a_quantizer", "layer2.0.add.a_quantizer", "layer2.0.add.b_quantizer"} <= set(sites)
    assert "layer1.0.add.b_quantizer" not in sites
    assert sum(name.endswith("output_quantizer") for name in sites) == 7
