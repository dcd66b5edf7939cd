"""The twin: values on their grids, ranges as seen, gradients straight through, and exact after a reload."""

import numpy as np
import pytest
import torch

from compress import models
from compress.models import int8


def student(name: str = "resnet8") -> models.Classifier:
    torch.manual_seed(0)
    model = models.build(name, channels=1, classes=10)
    model.train()(torch.rand(64, 1, 8, 8))
    return model.eval()


def images(n: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_reloaded_twin_is_exact() -> None:
    twin = student()
    layout = int8.quantize(twin, [images()])
    again = models.build("resnet8", channels=1, classes=10)
    int8.restore(again, layout, twin.state_dict(), images(1)[0][None])
    assert torch.equal(again(images(8, seed=2)), twin(images(8, seed=2)))


def test_a_strict_load_refuses_weights_of_another_layout() -> None:
    twin = student()
    layout = int8.quantize(twin, [images()])
    weights = {name: value for name, value in twin.state_dict().items() if name != "conv1.input_quantizer._amax"}
    with pytest.raises(RuntimeError, match="conv1"):
        int8.restore(models.build("resnet8", channels=1, classes=10), layout, weights, images(1))


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-4"])
def test_quantization_moves_logits_a_little_and_only_a_little(name: str) -> None:
    model = student(name)
    x = images()
    want = model(x)
    int8.quantize(model, [x])
    got = model(x)
    error, scale = float((got - want).detach().abs().max()), float(want.detach().abs().max())
    assert 0 < error < 0.1 * scale


def test_the_image_is_kept_exactly_on_the_8_bit_grid() -> None:
    model = student()
    x = images()
    x[0, 0, 0, 0] = 1.0
    layout = int8.quantize(model, [x])
    assert layout["unsigned"]["conv1.input_quantizer"] is True
    pixels = torch.arange(256, dtype=torch.float32).reshape(4, 1, 8, 8) / 255
    quantizer = model.get_submodule("conv1.input_quantizer")
    torch.testing.assert_close(quantizer(pixels), pixels, atol=1e-7, rtol=0)
    off_grid = torch.full((1, 1, 8, 8), 0.3 / 255)
    assert float(quantizer(off_grid).abs().max()) == 0.0


def test_weights_and_signed_activations_against_naive_rounding() -> None:
    model = student()
    layout = int8.quantize(model, [images()])
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
    int8.quantize(model, [images()])
    x = images(4).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert float(gradient.abs().max()) > 0
    model.conv1.weight.grad = None
    model(images(4)).square().sum().backward()
    assert float(model.conv1.weight.grad.abs().max()) > 0


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    int8.quantize(student(), [images()])
    assert capsys.readouterr().out == ""
