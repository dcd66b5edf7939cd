"""Files that ONNX Runtime's own quantizer writes, operators on integers and all: the twin says what they say."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from torch import Tensor, nn

from compress.networks.graph import onnx_twin
from tests.compress import graphs

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter, which is deprecated and writes what people have
SHAPE = (3, 8, 8)


class SmallConvolutions(nn.Module):
    """Beside layers what the quantizer has integer operators for: pools, sums, products, concatenation, activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        y = nn.functional.leaky_relu(self.grouped(x), 0.1)
        z = nn.functional.silu(y) + y
        both = torch.cat([z * y, nn.functional.avg_pool2d(z, 3, 1, 1)], 1)
        return self.head(both.mean((2, 3)))


class SmallAttention(nn.Module):
    """Patches, one head, softmax over tokens, a token's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.mixed, self.hidden, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        query, key, value = self.mixed(self.norm(tokens)).chunk(3, -1)
        tokens = tokens + torch.softmax(query @ key.transpose(1, 2) / 4, -1) @ value
        return self.head(nn.functional.gelu(self.hidden(tokens))[:, 0])


class RandomImages(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.batches: Iterator[np.ndarray] = iter([generator.random((8, *SHAPE), np.float32) for _ in range(2)])

    def get_next(self) -> "dict[str, np.ndarray] | None":
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


@pytest.fixture(scope="module", params=[SmallConvolutions, SmallAttention])
def floats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    torch.onnx.export(request.param().eval(), (torch.rand(2, *SHAPE),), file, dynamo=False, opset_version=17, **names)
    path = tmp_path_factory.mktemp("floats") / "model.onnx"
    path.write_bytes(file.getvalue())
    return path


@pytest.mark.parametrize("way", ["operators", "operators, signed and by channel", "pairs", "dynamic"])
def test_the_twin_of_a_quantized_file(floats: Path, way: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    signed = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    if way == "dynamic":
        quantize_dynamic(floats, path)
    else:
        layout = QuantFormat.QDQ if way == "pairs" else QuantFormat.QOperator
        quantize_static(floats, path, RandomImages(), quant_format=layout, **(signed if "signed" in way else {}))
    written = {node.op_type for node in onnx.load(path).graph.node}
    wanted = {"dynamic": {"ConvInteger", "MatMulInteger"}, "pairs": {"DequantizeLinear"}}.get(way, {"QLinearConv"})
    assert wanted <= written
    content, x = path.read_bytes(), np.random.default_rng(9).random((4, *SHAPE), np.float32)
    twin, leaf = onnx_twin.build_twin(content, where="g"), torch.from_numpy(x).requires_grad_()
    logits = twin(leaf)
    want = graphs.run(content, x)
    np.testing.assert_allclose(logits.detach().numpy(), want, atol=1e-5 * np.abs(want).max())
    with torch.no_grad():
        assert torch.equal(twin(leaf), logits.detach())
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    exact = onnx_twin.build_twin(floats.read_bytes(), where="f")
    (slope,) = torch.autograd.grad(exact(leaf)[:, 0].sum(), leaf)
    alike = nn.functional.cosine_similarity(gradient.flatten(1), slope.flatten(1))
    assert alike.median() > 0.9  # zero where the logit lies beyond what was calibrated


def test_the_levels_of_a_batch_depend_on_its_images() -> None:
    """As ONNX Runtime computes them: a brighter image beside it makes an image's levels coarser."""
    nodes = [
        onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        onnx.helper.make_node("Flatten", ["d"], ["y"]),
    ]
    content = graphs.model(nodes, {})
    x = np.random.default_rng(0).random((2, *graphs.SHAPE), np.float32)
    twin = onnx_twin.build_twin(content, where="g")
    for batch in (x[:1], np.concatenate([x[:1], 9 * x[1:]])):
        np.testing.assert_array_equal(twin(torch.from_numpy(batch)).numpy(), graphs.run(content, batch))
