"""ONNX files of both of torch's exporters, and public ones, as students: values, gradients, graphs, names, features."""

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from compress import networks
from compress.networks.foreign_network import Foreign
from compress.networks.graph.student_graph import read_student
from compress.networks.graph.trainable import OnnxNetwork
from compress.quantization.lowering import lower

pytestmark = pytest.mark.slow

SHAPE = (3, 16, 16)
PUBLIC = Path(__file__).parents[2].parent / "shared/data/onnx"
UNFOLDED = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = networks.build_network(name, channels=3, classes=10, size=SHAPE[1:]).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return net


def exported(net: nn.Module, how: str) -> bytes:
    images, file = torch.zeros(2, *SHAPE), io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if how == "dynamo":
            shapes = ({0: torch.export.Dim("batch", min=1, max=999)},)
            program = torch.onnx.export(net, (images,), dynamo=True, dynamic_shapes=shapes, verbose=False)
            assert program is not None
            return program.model_proto.SerializeToString()
        torch.onnx.export(
            net,
            (images,),
            file,
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            **(UNFOLDED if how == "unfolded" else {}),
        )
    return file.getvalue()


def held_against_its_file(content: bytes, shape: "tuple[int, ...]", batch: int = 0) -> OnnxNetwork:
    """The network of a file, its logits, those of its lowered graph and all gradients asked for."""
    network = OnnxNetwork(read_student(content, shape, "net.onnx").proto, "net.onnx").eval()
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    parts = images.split(batch) if batch else [images]
    wanted = torch.from_numpy(np.concatenate([session.run(None, {entry.name: part.numpy()})[0] for part in parts]))
    spread = float(wanted.std())
    assert float((network(images) - wanted).abs().max().detach()) < 1e-5 * spread
    whole = Foreign(network, "net.onnx", wanted.shape[1])
    assert float((lower(whole, shape)(images) - wanted).abs().max().detach()) < 1e-5 * spread
    assert whole.found(shape).pooled and whole.found(shape).stages
    network.train()(images).square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
    return network


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("resnet8", "legacy"),
        ("resnet8", "unfolded"),
        ("resnet8", "dynamo"),
        ("mobilenetv2-0.5", "unfolded"),
        ("vit-nano-2", "legacy"),
        ("vit-nano-2", "dynamo"),
        ("convnext-yocto-1", "legacy"),
        ("wrn-10-4+silu+normalize", "unfolded"),
    ],
)
def test_exports_of_torch(name: str, how: str) -> None:
    net = network_of(name)
    network = held_against_its_file(exported(net, how), SHAPE)
    if how == "unfolded":
        constants = {"preprocess.mean", "preprocess.std"}  # normalization learns nothing
        assert {*network.state_dict()} == {*net.state_dict()} - constants


@pytest.mark.parametrize(
    ("file", "batch", "layer"),
    [("resnet_2b", 1, "layer1.0.shortcut.0"), ("vit_ibp", 0, "1.0.0.fn.1.query")],
)
def test_public_files(file: str, batch: int, layer: str) -> None:
    path = PUBLIC / f"{file}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    network = held_against_its_file(path.read_bytes(), (3, 32, 32), batch)
    assert isinstance(network.get_submodule(layer), nn.Conv2d | nn.Linear)


def test_what_compress_exports_itself_learns_again() -> None:
    from export.targets.onnx.float32 import emit_float32

    proto, _ = emit_float32(networks.build_network("resnet8", channels=3, classes=10), torch.zeros(SHAPE), 20)
    assert isinstance(proto, onnx.ModelProto)
    held_against_its_file(proto.SerializeToString(), SHAPE)
