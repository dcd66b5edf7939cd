"""An ONNX file as student: the network that its graph is, its training mode, and the stages that start from it."""

import io
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import export.stage
from compress import networks
from compress.cli.execute import execute
from compress.config import ExportConfig, QuantizeConfig, StudentConfig, parse
from compress.folders import load
from compress.networks.foreign_network import Foreign
from compress.networks.graph.student_graph import StudentGraph, read_student, with_zeros, without_values
from compress.networks.graph.trainable import OnnxNetwork
from compress.quantization.lowering import lower
from compress.stages import distill, quantize
from edge.core import artifact
from edge.core.errors import CompressError
from tests.conftest import BRIEF

IMAGE = (1, 8, 8)
QUICK = {**BRIEF, "epochs": 1, "calibration_images": 64}


class Plain(nn.Module):
    """Convolutions with BatchNorm, a shortcut, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.3) / 0.2
        x = self.bn1(self.conv1(x)).relu()
        x = (x + self.blocks(x)).relu()
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


class Tokens(nn.Module):
    """A transformer's block with a class token and positions, whose shapes hang on the number of images."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 16, 4, 4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 5, 16))
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        q, k, v = self.qkv(self.norm(x)).reshape(x.shape[0], x.shape[1], 3, 2, 8).permute(2, 0, 3, 1, 4)
        x = x + self.out((q @ k.transpose(-1, -2) / 8**0.5).softmax(-1).matmul(v).transpose(1, 2).flatten(2))
        return self.head(x[:, 0])


def exported(net: nn.Module, *, free: bool = True, **options: Any) -> bytes:
    """By torch's exporter that traces."""
    file = io.BytesIO()
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.zeros(2 if free else 1, *IMAGE),),
            file,
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes=axes,
            **options,
        )
    return file.getvalue()


UNFOLDED = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}


def plain() -> Plain:
    torch.manual_seed(0)
    net = Plain()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return net


def executed(content: bytes, images: Tensor, batch: int = 0) -> Tensor:
    """Through ONNX Runtime, `batch` images a call where that is fixed."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    parts = images.split(batch) if batch else [images]
    return torch.cat([torch.from_numpy(session.run(None, {entry.name: part.numpy()})[0]) for part in parts])


def student_of(content: bytes) -> tuple[StudentGraph, OnnxNetwork]:
    graph = read_student(content, IMAGE, "net.onnx")
    return graph, OnnxNetwork(graph.proto, "net.onnx")


def images_of(count: int) -> Tensor:
    return torch.rand(count, *IMAGE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("make", "options", "free"),
    [(plain, UNFOLDED, True), (Tokens, {}, False)],
    ids=["unfolded, any batch", "tokens, one image"],
)
def test_logits_and_gradients_are_the_files(make: Any, options: dict[str, Any], free: bool) -> None:
    content, images = exported(make(), free=free, **options), images_of(5)
    graph, network = student_of(content)
    wanted = executed(content, images, 0 if free else 1)
    assert torch.allclose(network.eval()(images), wanted, atol=1e-5 * float(wanted.std()))
    assert len(graph.notes) == (0 if free else 1)
    lowered = lower(Foreign(network, "net.onnx", 10), IMAGE)
    assert torch.allclose(lowered(images), wanted, atol=1e-5 * float(wanted.std()))
    network.train()(images).square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name


def test_weights_bear_their_names_and_normalization_is_none() -> None:
    _, network = student_of(exported(plain(), **UNFOLDED))
    assert {*network.state_dict()} == {*plain().state_dict()}
    _, network = student_of(exported(Tokens()))
    assert {*network.state_dict()} == {*Tokens().state_dict()}


def test_in_training_it_is_the_network_in_training() -> None:
    net, images = plain(), images_of(6)
    _, network = student_of(exported(net, **UNFOLDED))
    net.train()
    assert torch.allclose(network.train()(images), net(images), atol=1e-5)
    for name, value in net.state_dict().items():
        if "running" in name:
            assert torch.allclose(network.state_dict()[name], value, atol=1e-6), name
    assert not torch.allclose(network.train()(images), network.eval()(images), atol=1e-2)


def of_nodes(nodes: list[Any], **constants: "np.ndarray[Any, Any]") -> bytes:
    entry = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *IMAGE])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [entry], [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


WEIGHT = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
FLAT = helper.make_node("Flatten", ["image"], ["flat"])


def test_dropout_drops_in_training_alone() -> None:
    drop = [FLAT, helper.make_node("Dropout", ["flat", "ratio"], ["kept"])]
    content = of_nodes(
        [*drop, helper.make_node("MatMul", ["kept", "w"], ["logits"])], w=WEIGHT, ratio=np.array(0.5, np.float32)
    )
    _, network = student_of(content)
    images = images_of(3)
    assert torch.allclose(network.eval()(images), executed(content, images), atol=1e-5)
    assert not torch.allclose(network.train()(images), network(images))


def test_logits_stand_before_the_softmax_and_half_precision_trains_in_float32() -> None:
    nodes = [
        FLAT,
        helper.make_node("Cast", ["flat"], ["short"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["short", "w"], ["scores"]),
        helper.make_node("Cast", ["scores"], ["long"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["long"], ["logits"], axis=-1),
    ]
    content = of_nodes(nodes, w=WEIGHT.astype(np.float16))
    graph, network = student_of(content)
    images = images_of(4)
    assert not graph.probabilities and len(graph.notes) == 2 and "float32" in graph.notes[1]
    assert torch.allclose(network.eval()(images).softmax(1), executed(content, images), atol=1e-2)
    assert [weight.dtype for weight in network.parameters()] == [torch.float32]


def test_a_bare_graph_takes_the_values_of_a_state() -> None:
    graph, network = student_of(exported(plain(), **UNFOLDED))
    bare = without_values(graph.proto, "net.onnx")
    assert len(bare) < len(graph.proto.SerializeToString()) / 2
    again, images = OnnxNetwork(with_zeros(bare), "net.onnx"), images_of(3)
    assert not torch.allclose(again.eval()(images), network.eval()(images))
    again.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(again(images), network(images))


SCALE = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
REFUSED = {
    "quantized": (
        of_nodes(
            [
                FLAT,
                helper.make_node("QuantizeLinear", ["flat", "s", "z"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
                helper.make_node("MatMul", ["d", "w"], ["logits"]),
            ],
            w=WEIGHT,
            **SCALE,
        ),
        r"is quantized already \(1 QuantizeLinear, 1 DequantizeLinear\); give the float file",
    ),
    "of another's operator": (
        of_nodes([FLAT, helper.make_node("Own", ["flat", "w"], ["logits"], domain="own")], w=WEIGHT),
        r"no gradient is known of its operator own\.Own",
    ),
    "no graph": (b"not a graph", "no ONNX model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_student_is_told_in_one_line(case: str) -> None:
    content, line = REFUSED[case]
    with pytest.raises(CompressError, match=line):
        student_of(content)


def test_images_that_a_fixed_batch_mixes_are_refused() -> None:
    content = of_nodes(
        [
            helper.make_node("Reshape", ["image", "sizes"], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "first"], ["sum"], keepdims=1),
            helper.make_node("MatMul", ["sum", "w"], ["logits"]),
        ],
        w=WEIGHT[:32],
        sizes=np.array([2, 32], np.int64),
        first=np.array([0], np.int64),
    )
    proto = onnx.load_model_from_string(content)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(
        CompressError, match=r"a batch of 1 and, rewritten, no other \(gives \(1, 10\) for 2 images\); export it"
    ):
        student_of(proto.SerializeToString())


def test_images_that_a_free_batch_mixes_are_refused() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["image", "mean"], ["apart"]),
        helper.make_node("Flatten", ["apart"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["logits"]),
    ]
    with pytest.raises(CompressError, match=r"mixes the images of a batch \(.*\); a student must answer each image"):
        student_of(of_nodes(nodes, w=WEIGHT))


class Transformer(nn.Module):
    """Attention over rows, (rows, images, width) inside, as torch's own has it."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = (
            nn.Parameter(torch.randn(1, 1, 8)),
            nn.TransformerEncoderLayer(8, 2, 8, batch_first=True),
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.cat([self.token.expand(len(x), -1, -1), x.squeeze(1)], 1)
        return self.head(self.layer(rows)[:, 0])


def test_a_fixed_batch_of_torchs_attention_becomes_any() -> None:
    torch.manual_seed(0)
    content, images = exported(Transformer(), free=False), images_of(5)
    graph, network = student_of(content)
    assert graph.notes == ("its batch of 1 became any number of images",)
    wanted = executed(content, images, batch=1)
    assert float((network.eval()(images) - wanted).detach().abs().max()) < 1e-5 * float(wanted.std())


def test_features_behind_a_reshape_are_found_in_a_trace() -> None:
    """As a channel shuffle has it: reshapes are told apart by their count, which is that of every pass."""
    sizes = {"apart": [0, 2, 4, -1], "back": [0, 8, 16]}
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["maps"], strides=[2, 2]),
        helper.make_node("Reshape", ["maps", "apart"], ["groups"]),
        helper.make_node("Transpose", ["groups"], ["shuffled"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["shuffled", "back"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["flat"], axes=[2], keepdims=0),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    kernel = np.random.default_rng(0).standard_normal((8, 1, 2, 2)).astype(np.float32)
    content = of_nodes(nodes, kernel=kernel, w=WEIGHT[:8], **{k: np.array(v) for k, v in sizes.items()})
    network = Foreign(student_of(content)[1], "shuffled.onnx", 10)
    images = images_of(3)
    assert torch.allclose(lower(network, (1, 8, 8))(images), network(images), atol=1e-5)


def test_one_normalization_of_two_epsilons_is_two_layers_and_names_may_begin_alike() -> None:
    values = {
        "a.weight": np.ones(64, np.float32),
        "a": WEIGHT[:64, 0],
        "a.weight.mean": WEIGHT[:64, 1],
        "v": WEIGHT[:64, 2] ** 2,
    }
    norm = ["a.weight", "a", "a.weight.mean", "v"]
    nodes = [
        FLAT,
        helper.make_node("BatchNormalization", ["flat", *norm], ["first"]),
        helper.make_node("BatchNormalization", ["first", *norm], ["second"], epsilon=0.5),
        helper.make_node("Mul", ["second", "a"], ["scaled"]),
        helper.make_node("Add", ["scaled", "a.weight.mean"], ["moved"]),
        helper.make_node("MatMul", ["moved", "w"], ["logits"]),
    ]
    content, images = of_nodes(nodes, w=WEIGHT, **values), images_of(3)
    wanted = executed(content, images)
    assert float((student_of(content)[1].eval()(images) - wanted).detach().abs().max()) < 1e-5 * float(wanted.std())


# ------------------------------------------------------------------------------------------- stages


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(exported(plain(), **UNFOLDED))
    return path


def ptq(**more: Any) -> QuantizeConfig:
    return parse(QuantizeConfig, {**QUICK, "mode": "ptq", **more}, "test")


def test_a_file_is_quantized_and_exported_and_no_more_needed(file: Path, tmp_path: Path) -> None:
    stage = quantize.run(ptq(), quantize.QuantizeInputs(file), tmp_path / "q")
    assert stage.manifest["plan"]["inputs"] == {"student": artifact.file_sha256(file)}
    assert stage.metrics["int8_layers"] == 3 and stage.metrics["start"] == "starts from the weights in the file"
    file.unlink()
    out = export.stage.run(
        parse(ExportConfig, {"data": "digits"}, "test"), export.stage.ExportInputs(model=stage.path), tmp_path / "e"
    )
    assert out.metrics["parity"]["passed"] and not out.metrics["floating_layers"]
    images = images_of(3)
    near = executed(exported(plain(), **UNFOLDED), images)
    assert float((load(stage)(images) - near).abs().max()) < 0.1 * float(near.std())


def test_a_file_learns_and_its_stage_is_a_student(file: Path, chain: SimpleNamespace, tmp_path: Path) -> None:
    brief = {**BRIEF, "epochs": 1, "model": str(file), "method": "vgap", "teacher_floor": 0}
    config = parse(StudentConfig, {**brief, "options": {"projection": "learned"}}, "test")
    stage = distill.run(config, distill.StudentInputs(teacher=chain.teacher), tmp_path / "s")
    assert stage.config["model"] == "small.onnx" and stage.config["graph"] == artifact.file_sha256(file)
    assert stage.metrics["features"]["student"]["pooled"].startswith("head.input")
    file.unlink()
    network = load(stage)
    moved = (network.state_dict()["net.conv1.weight"] - plain().conv1.weight.detach()).abs().max()
    assert 0 < float(moved) < 1 and int(network.state_dict()["net.bn1.num_batches_tracked"]) > 0
    tuned = parse(QuantizeConfig, QUICK, "test")
    quantized = quantize.run(tuned, quantize.QuantizeInputs(stage.path), tmp_path / "q")
    assert quantized.metrics["method"] == "vgap"


def test_an_adopted_file_is_quantized_and_no_other_export(file: Path, chain: SimpleNamespace, tmp_path: Path) -> None:
    adopted = export.stage.run(
        parse(ExportConfig, {"data": "digits"}, "test"), export.stage.ExportInputs(model=file), tmp_path / "a"
    )
    stage = quantize.run(ptq(), quantize.QuantizeInputs(adopted.path), tmp_path / "q")
    assert stage.manifest["plan"]["inputs"] == {"student": adopted.identity}
    assert artifact.read(stage.path).metrics["int8_layers"] == 3
    with pytest.raises(CompressError, match="is exported already; quantize the stage that it was made from"):
        quantize.plan(ptq(), quantize.QuantizeInputs(chain.e))


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("quantize {file} --data digits --eps 0.1 --out {out}", "an ONNX file: was imported, so no method"),
        ("quantize {file}.onnx --data digits --eps 0.1 --out {out}", "no such file; give an ONNX file"),
        ("distill --student {file} --data digits --method pgd-at --weights {file} --out {out}", "has its own, which"),
        ("quantize {file} --mode ptq --out {out}", "data"),
    ],
)
def test_faults_are_one_line(
    command: str, line: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(command.format(file=file, out=tmp_path / "o").split()) == 2
    said = capsys.readouterr().err
    assert line in said and "Traceback" not in said and not (tmp_path / "o").exists()


def test_levels_of_an_8_bit_image_are_scaled_to_and_other_floats_are_float32() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["levels"]),
        helper.make_node("Cast", ["levels"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Flatten", ["wide"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Cast", ["scores"], ["logits"], to=TensorProto.FLOAT),
    ]
    content = of_nodes(
        nodes, w=WEIGHT.astype(np.float64), scale=np.array(1 / 255, np.float32), zero=np.array(0, np.uint8)
    )
    graph, network = student_of(content)
    images = (images_of(4) * 255).round() / 255
    wanted = executed(content, images)
    assert torch.allclose(network.eval()(images), wanted, atol=1e-5 * float(wanted.std()))
    assert [weight.dtype for weight in network.parameters()] == [torch.float32]
    assert len(graph.notes) == 2 and "double" in graph.notes[1]


def test_an_ending_in_capitals_is_one_too(tmp_path: Path) -> None:
    file = tmp_path / "NET.ONNX"
    with pytest.raises(CompressError, match=r"NET\.ONNX: no such file; give an ONNX file$"):
        networks.graph_path(str(file))
    file.write_bytes(b"")
    assert networks.graph_path(str(file)) == file and networks.is_graph_file(file)
    assert networks.graph_path("resnet8") is None and not networks.is_graph_file(tmp_path)
