"""The exported stage: which precision comes of what is asked, what is refused, what consumers read."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import export.stage
from compress import data
from compress.cli.execute import execute
from compress.config import ExportConfig, parse
from compress.networks.base import Classifier
from edge import open_runner
from edge.core.artifact import Stage
from edge.core.errors import CheckFailed, CompressError
from tests.export import untrained


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return untrained.student(tmp_path_factory.mktemp("s") / "student")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, student: Stage) -> Stage:
    return untrained.quantized(tmp_path_factory.mktemp("q") / "quantized", student)


def exported(source: Stage, out: Path, **config: Any) -> Stage:
    config = {"data": "digits", "parity_images": 64, **config}
    return export.stage.run(parse(ExportConfig, config, "test"), export.stage.ExportInputs(model=source.path), out)


def refused(source: Stage, out: Path, match: str, kind: type = CompressError, **config: Any) -> None:
    with pytest.raises(kind, match=match) as fault:
        exported(source, out, **config)
    assert "\n" not in str(fault.value)
    assert not out.exists() and not out.with_name(out.name + ".partial").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, student: Stage, quantized: Stage) -> dict[str, Stage]:
    """One export of each precision."""
    root = tmp_path_factory.mktemp("made")
    found = {name: exported(student, root / name, precision=name) for name in ("float32", "fp16", "bf16")}
    return found | {"int8": exported(quantized, root / "int8")}


def kinds(stage: Stage) -> set[int]:
    return {entry.data_type for entry in onnx.load(stage.file("model.onnx")).graph.initializer}


def test_int8_is_executed_in_integers_and_says_nearly_the_same(made: dict[str, Stage]) -> None:
    plain, eight = made["float32"], made["int8"]
    assert plain.metrics["precision"] == "float32" and plain.metrics["executed"]
    assert eight.metrics["precision"] == "int8" and eight.metrics["executed"]
    assert TensorProto.INT8 in kinds(eight) and TensorProto.INT8 not in kinds(plain)
    assert eight.metrics["bytes"] < 0.35 * plain.metrics["bytes"]
    assert eight.metrics["floating_layers"] == [] and eight.metrics["integer_layers"] == 8
    x = untrained.images(64, "val").numpy()
    with open_runner(plain.path) as float_runner, open_runner(eight.path) as runner:
        want, got = float_runner.infer(x), runner.infer(x)
    assert 0 < np.abs(got - want).max() < 0.2 * np.abs(want).max(), "another file that says nearly the same"


def test_fp16_is_half_as_large_and_says_nearly_the_same(made: dict[str, Stage]) -> None:
    plain, half = made["float32"], made["fp16"]
    assert half.metrics["precision"] == "fp16" and half.metrics["executed"]
    assert half.metrics["bytes"] < 0.52 * plain.metrics["bytes"] and TensorProto.FLOAT not in kinds(half)
    found = half.metrics["parity"]
    assert 0 < found["max_abs"] < 0.02 * found["scale"] and found["batch_sizes"] == [1, 64]
    with open_runner(half.path) as runner:
        assert runner.infer(untrained.images(3).numpy()).dtype == np.float32


def test_bf16_is_written_and_never_said_to_be_executed_where_nothing_executes_it(made: dict[str, Stage]) -> None:
    stage = made["bf16"]
    assert TensorProto.FLOAT not in kinds(stage) and TensorProto.BFLOAT16 in kinds(stage)
    assert stage.metrics["parity"]["passed"]
    try:
        onnxruntime.InferenceSession(stage.file("model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    except Exception:  # the runtime's exceptions share no base class
        assert not stage.metrics["executed"]
    else:
        assert stage.metrics["executed"]


def test_int8_of_what_has_no_ranges_and_floats_of_what_was_made_for_int8(
    student: Stage, quantized: Stage, tmp_path: Path
) -> None:
    refused(student, tmp_path / "e", "is a student without INT8 ranges; first: compress quantize", precision="int8")
    for precision in ("float32", "fp16", "bf16"):
        refused(
            quantized, tmp_path / "e", f"is quantized, {precision} was asked for; export .*student", precision=precision
        )


def test_another_grid_than_that_of_the_fine_tuning_is_told_once(
    student: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode, lines in (("qat", 1), ("ptq", 0)):
        source = untrained.quantized(tmp_path / mode, student, runtime="tensorrt", mode=mode)
        capsys.readouterr()
        exported(source, tmp_path / f"{mode}-e")
        told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("ALARM")]  # untrained
        assert len(told) == sum("fine-tuned on the INT8 grid of tensorrt" in line for line in told) == lines


def grown(factor: float, *names: str) -> "Any":
    def change(model: Classifier) -> None:
        for name in names:
            module: Any = model.get_submodule(name)
            module.weight.data.mul_(factor)

    return change


def test_overflow_of_half_precision_is_named_with_its_layer(tmp_path: Path) -> None:
    weights = untrained.student(tmp_path / "w", change=grown(1e7, "linear"))
    refused(weights, tmp_path / "e", r"layer linear: .* fp16 ends at 65504; use --precision bf16", precision="fp16")
    # each layer's weights are within the range, what they give together is not
    values = untrained.student(tmp_path / "v", change=grown(1e3, "layer2.0.bn1", "layer2.0.bn2"))
    refused(
        values, tmp_path / "e", r"layer layer2\.0\.bn2: gives up to \S+ on validation images, fp16", precision="fp16"
    )
    assert exported(values, tmp_path / "fine").metrics["precision"] == "float32"


def test_parity_that_fails_keeps_nothing(student: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = export.targets.onnx.graph.float32.emit_float32

    def wrong(*args: Any) -> Any:
        proto, modules = real(*args)
        weight = next(entry for entry in proto.graph.initializer if entry.name == "linear.weight")
        weight.raw_data = (-np.frombuffer(weight.raw_data, np.float32)).tobytes()
        return proto, modules

    monkeypatch.setattr(export.targets.onnx.graph.float32, "emit_float32", wrong)
    refused(student, tmp_path / "e", "the exported float32 file and the torch model disagree", CheckFailed)


def test_the_contract_says_what_a_consumer_needs(made: dict[str, Stage]) -> None:
    stage = made["float32"]
    said = json.loads(stage.file("contract.json").read_text())
    assert "contract.json" in stage.manifest["payload"]
    assert said["model"] == {"file": "model.onnx", "sha256": stage.manifest["payload"]["model.onnx"]["sha256"]}
    assert (said["target"], said["runtime"], said["precision"]) == ("onnx", "onnx", "float32")
    session = onnxruntime.InferenceSession(stage.file("model.onnx"), providers=["CPUExecutionProvider"])
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert (said["input"]["name"], said["output"]["name"]) == (entry.name, result.name)
    assert said["input"]["shape"] == ["batch", *entry.shape[1:]] and said["output"]["shape"] == ["batch", 10]
    assert said["input"]["batch"] == {"min": 1, "opt": None, "max": None}
    assert said["labels"] == list(data.load_dataset("digits").classes)
    # as a consumer that knows nothing but the contract: 8-bit levels times the factor
    levels = data.load_dataset("digits").part("test")[0][:4]
    scaled = (levels * np.float64(said["deepstream"]["net-scale-factor"])).astype(np.float32)
    (logits,) = session.run([said["output"]["name"]], {said["input"]["name"]: scaled})
    with open_runner(stage.path) as runner:
        np.testing.assert_allclose(logits, runner.infer(levels), atol=1e-4)
    assert said["input"]["colour"] == "GRAY" and said["deepstream"]["model-color-format"] == 2


ODD = """
import torch
from torch import nn

class Odd(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

def net(middle):
    inner = nn.Sequential(nn.ReLU(), middle)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), inner, nn.Flatten(), nn.Linear(256, 10))

def bessel():
    return net(Odd())

def branch():
    return net(Branch())
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("bessel", r"layer net\.1\.1: \S*bessel_j0 has no counterpart in ONNX"),
        (
            "branch",
            r"layer net\.1\.1: what it computes cannot be read off one pass "
            r"\(a branch .*'s values at odd_layers\.py:\d+\); write it without branches",
        ),
    ],
)
def test_what_onnx_cannot_express_is_named_with_its_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], function: str, message: str
) -> None:
    (tmp_path / "odd_layers.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    source = untrained.student(tmp_path / "t", f"factory:odd_layers:{function}", kind="teacher")
    capfd.readouterr()
    refused(source, tmp_path / "e", message)
    said = capfd.readouterr()
    assert said.out == said.err == "", "the exporter's own messages stay away"


def test_the_command(student: Stage, quantized: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(shlex.split(f"export {student.path} --precision fp16 --out {tmp_path / 'h'}")) == 0
    assert "fp16" in capsys.readouterr().out
    assert execute(shlex.split(f"export {quantized.path} --precision fp16 --out {tmp_path / 'e'}")) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert execute(shlex.split(f"export {student.path} --precision fp61 --out {tmp_path / 'e'}")) == 2
    assert "did you mean 'fp16'?" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_equal_stages_give_equal_bytes(made: dict[str, Stage], student: Stage, tmp_path: Path) -> None:
    again = exported(student, tmp_path / "again", precision="fp16")
    assert again.identity == made["fp16"].identity
