"""Every family of networks, exported float and INT8: the twin from the graph, ONNX Runtime and the torch network."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress import networks
from compress.networks.base import Classifier
from compress.networks.graph import onnx_twin
from compress.quantization import int8
from compress.quantization.grids import ONNX_RUNTIME
from edge.runtimes.onnxruntime.runner import OnnxRunner
from export.targets.onnx import float32, qdq
from tests.slow.families import FAMILIES

pytestmark = pytest.mark.slow


def images(shape: tuple[int, int, int], seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (64, *shape), generator=torch.Generator().manual_seed(seed)).float() / 255


def built(name: str) -> Classifier:
    """A network whose statistics fit such images and whose logits lie apart."""
    torch.manual_seed(0)
    model = networks.build_network(name, channels=FAMILIES[name][0], classes=10, size=FAMILIES[name][1:])
    with torch.no_grad():
        for _ in range(20):
            model.train()(images(FAMILIES[name]))
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        last.weight *= 10
    return model.eval().requires_grad_(False)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf, y = x.clone().requires_grad_(), torch.arange(len(x)) % 10
    return torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0].flatten(1)


def compared(name: str, content: bytes, original: nn.Module) -> tuple[float, float, Tensor]:
    """Agreement of predictions, largest difference over the largest logit, cosines of the gradients."""
    twin, x = onnx_twin.build_twin(content, where=name), images(FAMILIES[name], seed=2)
    with OnnxRunner(content, where=name, batch_size=64, threads=1) as runner:
        want = runner.infer(x.numpy())
    got = twin(x).numpy()
    gap = np.abs(got - want).max() / np.abs(want).max()
    print(f"{name}: largest logit difference {gap:.2e} of the largest logit")
    alike = nn.functional.cosine_similarity(gradient(twin, x), gradient(original, x))
    return float((got.argmax(1) == want.argmax(1)).mean()), float(gap), alike


@pytest.mark.parametrize("name", FAMILIES)
def test_float(name: str) -> None:
    model = built(name)
    proto, _ = float32.emit_float32(model, torch.zeros(FAMILIES[name]), 20)
    same, gap, alike = compared(name, proto.SerializeToString(), model)
    assert same >= 0.99 and gap <= 1e-3 and float(alike.min()) > 0.999


@pytest.mark.parametrize("name", FAMILIES)
def test_int8(name: str) -> None:
    twin = built(name)
    twin, layout = int8.quantize_network(twin, [images(FAMILIES[name])])
    proto, origin = float32.emit_float32(int8.float_copy(twin), torch.zeros(FAMILIES[name]), 20)
    qdq.insert_pairs(proto, origin, qdq.Scales.of(twin, layout, ONNX_RUNTIME))
    same, gap, alike = compared(name, proto.SerializeToString(), twin)
    # int32 biases are the file's alone: levels and ReLUs flip, the more the deeper
    assert same >= 0.98 and gap <= 0.05 and float(alike.median()) > 0.8
