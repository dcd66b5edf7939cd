"""The INT8 graph: what the twin computes, in integers throughout, in the same bytes each time."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from compress import networks
from compress.networks.base import Classifier
from compress.networks.foreign_network import Foreign
from compress.quantization import int8
from compress.quantization.grids import ONNX_RUNTIME
from export.targets.onnx import float32, layers, qdq


def images(n: int, seed: int = 1) -> torch.Tensor:
    levels = torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return levels.float() / 255


def made(name: str) -> tuple[Classifier, onnx.ModelProto]:
    """A twin and the graph emitted from it."""
    torch.manual_seed(0)
    twin = networks.build_network(name, channels=1, classes=10)
    for _ in range(3):
        twin.train()(images(64))
    twin, layout = int8.quantize_network(twin, [images(64)])
    return twin, emit(name, twin, layout)


@pytest.fixture(scope="module")
def pair() -> tuple[Classifier, onnx.ModelProto]:
    return made("resnet8")


def emit(name: str, twin: Classifier, layout: dict) -> onnx.ModelProto:
    proto, origin = float32.emit_float32(int8.float_copy(twin), torch.zeros(1, 8, 8), 20)
    qdq.insert_pairs(proto, origin, qdq.Scales.of(twin, layout, ONNX_RUNTIME))
    return proto


def test_the_graph_is_valid_and_takes_any_batch(pair: tuple[Classifier, onnx.ModelProto]) -> None:
    _, proto = pair
    onnx.checker.check_model(proto, full_check=True)
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param and not batch.dim_value


def test_the_reference_evaluator_computes_what_the_twin_computes(
    pair: tuple[Classifier, onnx.ModelProto],
) -> None:
    twin, proto = pair
    x = images(16, seed=2)
    (got,) = ReferenceEvaluator(proto).run(None, {"image": x.numpy()})
    want = twin(x).detach().numpy()
    # an activation may land one step away where a float sum falls on a rounding boundary
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()
    assert np.abs(got - want).mean() < 0.01 * np.abs(want).max()
    assert (got.argmax(1) == want.argmax(1)).all()
    float_want = torch.nn.functional.linear(torch.zeros(1, 64), twin.linear.weight, twin.linear.bias)
    assert np.abs(got - float_want.detach().numpy()).max() > 0.1 * np.abs(want).max()  # the images matter


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-4+silu"])
def test_every_layer_runs_in_integers(name: str) -> None:
    """Sums too, but where an activation other than ReLU reads them; SiLU itself is computed in floats."""
    twin, proto = made(name)
    content = proto.SerializeToString()
    before = Counter(node.op_type for node in proto.graph.node)
    after = Counter(node.op_type for node in layers.optimised(content).graph.node)
    assert after["QLinearConv"] == before["Conv"] > 0 and after["QGemm"] == before["Gemm"] == 1
    assert after["Conv"] == after["FusedConv"] == after["Gemm"] == 0
    assert before["Add"] == 3 and (after["QLinearAdd"], after["Add"]) == ((3, 0) if name == "resnet8" else (0, 3))
    executed = layers.executed_layers(content)
    assert sorted(executed.integer) == sorted(int8.quantized_layers(twin)) and executed.floating == []


def test_a_layer_left_float_is_told_apart_with_the_one_whose_output_it_alone_reads() -> None:
    torch.manual_seed(0)
    twin = networks.build_network("resnet8", channels=1, classes=10)
    twin, layout = int8.quantize_network(twin, [images(32)])
    layout = int8.leave_float(twin, layout, ["conv1", "layer2.0.conv2"])
    int8.lay_out(twin, layout)
    content = emit("resnet8", twin, layout).SerializeToString()
    executed = layers.executed_layers(content)
    assert sorted(executed.floating) == ["conv1", "layer2.0.conv1", "layer2.0.conv2"] and len(executed.integer) == 5
    x = images(16, seed=2)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"image": x.numpy()})
    want = twin(x).detach().numpy()
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


class Recurrent(nn.Module):
    """Calls a large linear layer over tokens more than once; an exporter leaves its weight to be transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.shared, self.head = nn.Linear(8, 128), nn.Linear(128, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x.squeeze(1))
        for _ in range(3):
            x = x + self.shared(x.relu())
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def test_a_layer_over_tokens_may_be_called_more_than_once() -> None:
    torch.manual_seed(0)
    twin, layout = int8.quantize_network(Foreign(Recurrent(), "recurrent", 10).eval(), [images(64)])
    proto = emit("recurrent", twin, layout)
    stored = [entry.name for entry in proto.graph.initializer if "shared.weight" in entry.name]
    assert sorted(stored) == [f"net.shared.weight_{part}" for part in ("int8", "scale", "zero_point")]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = images(16, seed=2)
    np.testing.assert_allclose(session.run(None, {"image": x.numpy()})[0], twin(x).detach().numpy(), atol=0.02)


def test_weights_are_stored_as_int8_and_biases_as_int32(pair: tuple[Classifier, onnx.ModelProto]) -> None:
    twin, proto = pair
    stored = {entry.name: entry for entry in proto.graph.initializer}
    levels = numpy_helper.to_array(stored["conv1.weight_int8"])
    scale = numpy_helper.to_array(stored["conv1.weight_scale"])
    fake = twin.conv1.weight_quantizer(twin.conv1.weight).detach().numpy()
    np.testing.assert_allclose(levels * scale.reshape(-1, 1, 1, 1), fake, atol=1e-6)
    assert stored["conv1.bias_int32"].data_type == TensorProto.INT32
    bias_scale = numpy_helper.to_array(stored["conv1.bias_scale"])
    bias = numpy_helper.to_array(stored["conv1.bias_int32"]) * bias_scale
    assert np.abs(bias - twin.conv1.bias.detach().numpy()).max() <= bias_scale.max() / 2 * 1.01
    floats = [e for e in proto.graph.initializer if e.data_type == TensorProto.FLOAT]
    assert all("_scale" in entry.name for entry in floats)


def test_nothing_of_the_source_or_the_machine_is_in_the_bytes(
    pair: tuple[Classifier, onnx.ModelProto],
) -> None:
    _, proto = pair
    content = proto.SerializeToString()
    for word in (b"/work", b"site-packages", b"pkg.torch", b".py", b"torch"):
        assert word not in content, word


def test_equal_weights_give_equal_bytes() -> None:
    def once() -> bytes:
        torch.manual_seed(0)
        twin = networks.build_network("resnet8", channels=1, classes=10)
        twin, layout = int8.quantize_network(twin, [images(32)])
        return emit("resnet8", twin, layout).SerializeToString(deterministic=True)

    assert once() == once()
