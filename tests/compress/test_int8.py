"""The twin: values on their grids, ranges as seen, gradients straight through, and exact after a reload."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from compress import networks
from compress.networks.base import Activation, Classifier
from compress.networks.foreign_network import Foreign
from compress.quantization import grids, int8
from compress.quantization.lowering import lower
from compress.quantization.sites import fused_sites, image_sites, quantizer_sites, site_layers
from edge.core.errors import CompressError


def student(name: str = "resnet8") -> Classifier:
    torch.manual_seed(0)
    model = networks.build_network(name, channels=1, classes=10)
    model.train()(torch.rand(64, 1, 8, 8))
    return model.eval()


def images(n: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_reloaded_twin_is_exact() -> None:
    twin = student()
    twin, layout = int8.quantize_network(twin, [images()])
    again = networks.build_network("resnet8", channels=1, classes=10)
    again = int8.restore(again, (1, 8, 8), layout, twin.state_dict())
    assert torch.equal(again(images(8, seed=2)), twin(images(8, seed=2)))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("conv1.input_quantizer.amax", None, "conv1.input_quantizer.amax is missing"),
        ("conv9.weight", torch.ones(1), "conv9.weight is unknown"),
        ("relu.output_quantizer.amax", torch.tensor(0.0), "INT8 without ranges: relu.output_quantizer has 0"),
        ("relu.output_quantizer.amax", torch.tensor(torch.nan), "relu.output_quantizer has nan, not above 0"),
        ("linear.weight_quantizer.amax", torch.tensor([1.0] * 9 + [torch.inf]), "linear.weight_quantizer has inf"),
        ("linear.weight_quantizer.amax", torch.tensor([1.0] * 9 + [-2.0]), "linear.weight_quantizer has -2"),
    ],
)
def test_a_state_without_ranges_or_of_another_network_is_one_line(
    name: str, value: "torch.Tensor | None", fault: str
) -> None:
    twin = student()
    twin, layout = int8.quantize_network(twin, [images()])
    weights = {**twin.state_dict(), name: value}
    if value is None:
        del weights[name]
    with pytest.raises(CompressError, match=f"^runs/q: .*{fault}.*; quantize again$"):
        int8.restore(networks.build_network("resnet8", channels=1, classes=10), (1, 8, 8), layout, weights, "runs/q")


def test_a_state_of_another_version_is_one_line(tmp_path: Path) -> None:
    """Ranges by another name, and a layout that knows signs alone."""
    twin = student()
    twin, layout = int8.quantize_network(twin, [images()])
    old = {name.replace("quantizer.amax", "quantizer._amax"): value for name, value in twin.state_dict().items()}
    with pytest.raises(CompressError, match=r"do not fit the quantized network, .* quantize again"):
        int8.restore(networks.build_network("resnet8", channels=1, classes=10), (1, 8, 8), layout, old)
    (tmp_path / "quantizer.json").write_text(json.dumps({"bits": 8, "unsigned": layout["unsigned"]}))
    with pytest.raises(CompressError, match=r"quantizer.json lacks fused, .*another version wrote it; quantize again"):
        int8.read_layout(tmp_path)
    (tmp_path / "quantizer.json").write_text(json.dumps(layout))
    assert int8.read_layout(tmp_path) == layout


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-4"])
def test_quantization_moves_logits_a_little_and_only_a_little(name: str) -> None:
    model = student(name)
    x = images()
    want = model(x)
    model, _ = int8.quantize_network(model, [x])
    got = model(x)
    error, scale = float((got - want).detach().abs().max()), float(want.detach().abs().max())
    assert 0 < error < 0.1 * scale


def test_the_image_is_kept_exactly_on_the_8_bit_grid() -> None:
    model = student()
    x = images()
    x[0, 0, 0, 0] = 1.0
    model, layout = int8.quantize_network(model, [x])
    assert layout["unsigned"]["conv1.input_quantizer"] is True
    pixels = torch.arange(256, dtype=torch.float32).reshape(4, 1, 8, 8) / 255
    quantizer = model.get_submodule("conv1.input_quantizer")
    torch.testing.assert_close(quantizer(pixels), pixels, atol=1e-7, rtol=0)
    off_grid = torch.full((1, 1, 8, 8), 0.3 / 255)
    assert float(quantizer(off_grid).abs().max()) == 0.0


def test_weights_and_signed_activations_against_naive_rounding() -> None:
    model = student()
    model, layout = int8.quantize_network(model, [images()])
    conv = model.get_submodule("layer1.0.conv1")
    weight = conv.weight.detach().numpy().astype(np.float64)
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
    naive = np.clip(np.rint(weight / scale), -128, 127) * scale
    np.testing.assert_allclose(conv.weight_quantizer(conv.weight).detach().numpy(), naive, atol=1e-6)
    assert layout["unsigned"]["layer1.0.add.a_quantizer"] is False
    quantizer = model.get_submodule("layer1.0.add.a_quantizer")
    step = float(quantizer.amax) / 127
    values = torch.linspace(-200, 200, 401) * step
    naive_values = np.clip(np.rint(values.numpy() / step), -128, 127) * step
    np.testing.assert_allclose(quantizer(values).numpy(), naive_values, atol=step * 1e-3)


def test_gradients_pass_the_rounding() -> None:
    model = student()
    model, _ = int8.quantize_network(model, [images()])
    x = images(4).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert float(gradient.abs().max()) > 0
    model.conv1.weight.grad = None
    model(images(4)).square().sum().backward()
    assert float(model.conv1.weight.grad.abs().max()) > 0


FAMILIES = {
    "resnet20": 1,
    "resnet18": 3,
    "wrn-10-4": 3,
    "preactresnet18": 3,
    "mobilenetv2-0.5": 3,
    "mobilenetv3-small": 3,
    "cnn": 1,
}


def family(name: str) -> tuple[Classifier, torch.Tensor]:
    torch.manual_seed(0)
    model = networks.build_network(name, channels=FAMILIES[name], classes=10).eval()
    side = 64 if "v3" in name else 16
    return model, torch.rand(2, FAMILIES[name], side, side)


@pytest.mark.parametrize("name", ["resnet20", "wrn-10-4", "mobilenetv2-0.5", "mobilenetv3-small", "cnn"])
def test_every_runtimes_twin_follows_from_one_state(name: str) -> None:
    model, x = family(name)
    want = model(x)
    model, layout = int8.quantize_network(model, [x])
    state = model.state_dict()
    for runtime in ("onnx", "tensorrt"):
        again, laid = family(name)[0], grids.dialect(runtime).layout(layout)
        again = int8.restore(again, tuple(x.shape[1:]), laid, state)
        assert float((again(x) - want).detach().abs().max()) < 0.25 * float(want.detach().abs().max()), runtime
        on = {site for site, quantizer in int8.quantizers(again) if quantizer.is_enabled}
        assert on == {*laid["unsigned"], *(f"{layer}.weight_quantizer" for layer in int8.quantized_layers(again))}
    assert grids.dialect("onnx").layout(layout) == layout
    signed = grids.dialect("tensorrt").layout(layout)["unsigned"]
    assert not any(signed.values()) and {*signed} == {*layout["unsigned"]} - {*layout["fused"]}


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(CompressError, match="unknown runtime 'tensorRT'; did you mean 'tensorrt'"):
        grids.dialect("tensorRT")


def test_a_signed_grid_halves_the_levels_of_what_is_never_negative() -> None:
    twin = student()
    twin, layout = int8.quantize_network(twin, [images()])
    spread = torch.linspace(-1, 2, 5000) * float(twin.relu.output_quantizer.amax)
    counts = {}
    for runtime in ("onnx", "tensorrt"):
        int8.lay_out(twin, grids.dialect(runtime).layout(layout))
        counts[runtime] = len(twin.relu.output_quantizer(spread.relu()).unique())
    assert counts == {"onnx": 256, "tensorrt": 128}


@pytest.mark.parametrize(
    ("name", "fused", "kept"),
    [
        # option A: the shortcut is no convolution
        ("resnet20", ["layer1.0.add.a_quantizer", "layer2.0.add.a_quantizer"], ["layer2.0.add.b_quantizer"]),
        # both sides are convolutions: the shortcut's keeps its own
        ("resnet18", ["layer2.0.add.a_quantizer"], ["layer2.0.add.b_quantizer"]),
        # the side that is a sum, or that goes elsewhere too
        ("preactresnet18", ["layer1.1.add.a_quantizer"], ["layer1.1.add.b_quantizer"]),
        # here the branch stands second
        ("mobilenetv3-small", ["features.3.add.b_quantizer"], ["features.3.add.a_quantizer"]),
        ("cnn", [], ["layers.0.0.input_quantizer"]),
    ],
)
def test_of_each_sum_the_last_convolutions_side_is_fused(name: str, fused: list[str], kept: list[str]) -> None:
    model, x = family(name)
    model = lower(model, tuple(x.shape[1:]))
    sites, found = quantizer_sites(model), fused_sites(model)
    assert {*fused} <= {*found} <= {*sites}
    assert {*kept} <= {*sites} - {*found}
    assert len({site.rpartition(".")[0] for site in found}) == len(found), "one side a sum"


def test_what_a_site_is_there_for() -> None:
    model, x = family("resnet18")
    model = lower(model, tuple(x.shape[1:]))
    serves = site_layers(model)
    assert serves["conv1.input_quantizer"] == {"conv1"} and image_sites(model) == {"conv1.input_quantizer"}
    assert serves["layer2.0.relu1.output_quantizer"] == {"layer2.0.conv2"}
    assert serves["layer2.0.add.a_quantizer"] == {"layer2.0.conv2", "layer2.0.shortcut.0"}
    # read by the next convolution and by the sum that its block's last one feeds
    assert serves["layer1.0.relu.output_quantizer"] == {"layer1.1.conv1", "layer1.1.conv2"}
    assert serves["linear.input_quantizer"] == {"linear"}
    model, x = family("mobilenetv3-small")
    squeezed = site_layers(lower(model, tuple(x.shape[1:])))
    gate = "features.1.block.1"
    assert squeezed[f"{gate}.fc1.input_quantizer"] == {f"{gate}.fc1"}
    assert squeezed[f"{gate}.activation.output_quantizer"] == {f"{gate}.fc2"}


@pytest.mark.parametrize("name", ["resnet20", "wrn-10-4", "mobilenetv3-small", "cnn"])
def test_a_network_left_float_layer_by_layer_ends_as_the_float_one(name: str) -> None:
    model, x = family(name)
    model = lower(model, tuple(x.shape[1:]))
    want = model(x)
    model, layout = int8.quantize_network(model, [x])
    names = int8.quantized_layers(model)
    assert len(names) == sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in model.modules())
    for some in ([], names[:1], names[-1:], names[:-1], names):
        left = int8.leave_float(model, layout, some)
        int8.lay_out(model, left)
        on = {site for site, quantizer in int8.quantizers(model) if quantizer.is_enabled}
        assert left["float_layers"] == list(some)
        assert {f"{layer}.weight_quantizer" for layer in names} - on == {f"{layer}.weight_quantizer" for layer in some}
        serves = site_layers(model)
        for site in layout["unsigned"]:
            assert (site in on) == bool(serves[site] - {*some}), site
    assert not on
    torch.testing.assert_close(model(x), want)


def test_the_weights_are_shared_and_keep_their_names() -> None:
    model = student()
    model = lower(model, (1, 8, 8))
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    model, _ = int8.quantize_network(model, [images()])
    after = {name: value.data_ptr() for name, value in model.state_dict().items() if "_quantizer." not in name}
    assert after == before and all(isinstance(model.get_submodule(name), Activation) for name in ("relu",))


def test_the_batchnorm_of_a_users_network_is_folded() -> None:
    """Before any call of it: features are found by one, whose operations are not the network's."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    )
    lowered = lower(Foreign(net, "plain", 10), (1, 8, 8))
    assert not [layer for layer in lowered.modules() if isinstance(layer, torch.nn.BatchNorm2d)]


def test_the_time_of_a_deep_network_grows_with_its_depth() -> None:
    """The paths through 64 sums are 2**64."""

    class Deep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)
            for _ in range(64):
                x = x + x.relu()
            return self.head(x)

    assert lower(Foreign(Deep(), "deep", 10), (1, 8, 8)).eval()(images(2)).shape == (2, 10)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    int8.quantize_network(student(), [images()])
    assert capsys.readouterr().out == ""


class TwoOfOneWeight(torch.nn.Module):
    """A network in which two convolutions have one weight and a bias each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Conv2d(1, 1, 3, padding=1)
        self.second.weight = self.first.weight
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x).relu()).relu().flatten(1))


def test_a_network_that_ties_weights_is_restored_as_its_loaded_stage_was_quantized() -> None:
    loaded = Foreign(TwoOfOneWeight(), "tied", 10)
    loaded.load_state_dict({name: value.clone() for name, value in loaded.state_dict().items()}, assign=True)
    twin, layout = int8.quantize_network(loaded, [images()])
    again = int8.restore(Foreign(TwoOfOneWeight(), "tied", 10), (1, 8, 8), layout, twin.state_dict())
    assert int8.quantized_layers(again) == ["net.first", "net.second", "net.head"]
    assert torch.equal(again(images(8, seed=2)), twin(images(8, seed=2)))
