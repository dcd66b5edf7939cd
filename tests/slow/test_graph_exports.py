"""Networks as people write them, by both of torch's exporters, and the models of the onnx wheel: the twin of each."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from tests.compress.exported_networks import NETWORKS
from tests.compress.test_onnx_twin_graphs import assert_twin, legacy_export

pytestmark = pytest.mark.slow

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
#: Of its nine; the others are of the same kinds, and larger.
WHEEL = ["densenet121", "inception_v1", "shufflenet", "squeezenet"]
#: The legacy exporter has no rms_norm; the other takes seconds for each network.
EXPORTS = [(name, False) for name in NETWORKS if name != "RMSNorm"]
EXPORTS += [(name, True) for place, name in enumerate(NETWORKS) if place % 5 < 3]


@pytest.mark.parametrize(("name", "dynamo"), EXPORTS)
def test_exports_of_torch(name: str, dynamo: bool) -> None:
    """With a free batch, every second network with a batch of one."""
    torch.manual_seed(0)
    network, free = NETWORKS[name](), list(NETWORKS).index(name) % 2 == 0
    content = dynamo_export(network, free) if dynamo else legacy_export(network, free)
    assert_twin(content, (2, 5))


def dynamo_export(network: torch.nn.Module, free: bool) -> bytes:
    batch = ({0: torch.export.Dim("batch", min=1, max=4096)},) if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (torch.rand(2 if free else 1, 3, 32, 32),),
            dynamo=True,
            dynamic_shapes=batch,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()  # type: ignore[no-any-return]


def with_weights(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The wheel's models hold one number in place of each weight: these are drawn, as an initialization draws them."""
    graph = proto.graph
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        shape = stored[node.input[0]].tolist()
        spread = np.sqrt(2 / max(np.prod(shape[1:]), 1))
        values = rng.normal(scale=spread, size=shape) if len(shape) > 1 else rng.uniform(0.9, 1.1, shape)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    return proto


@pytest.mark.parametrize("name", WHEEL)
def test_models_of_the_wheel(name: str) -> None:
    """Two of them give (N,1000,1,1), which a classifier does not: their output is laid out first."""
    proto = with_weights(onnx.load(LIGHT / f"light_{name}.onnx"), np.random.default_rng(0))
    output = proto.graph.output[0]
    if len(output.type.tensor_type.shape.dim) == 4:
        proto.graph.node.append(helper.make_node("Flatten", [output.name], ["flat"]))
        output.CopyFrom(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [1, 1000]))
    assert_twin(proto.SerializeToString(), (2,))
