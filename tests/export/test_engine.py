"""The targets tensorrt and tensorrt-rtx as a stage: built for real where no GPU is needed, deferred where one is."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import export.stage
from compress.cli.execute import execute
from compress.config import ExportConfig, parse
from compress.data.split import to_float
from compress.folders import load
from edge.core import artifact
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.core.targets import Target
from edge.runtimes.tensorrt import cuda, library, preflight, recipe
from export.targets.onnx import graph
from export.targets.tensorrt import emission
from tests.edge.tensorrt import fake, graphs, parts
from tests.edge.tensorrt.graphs import CONVS
from tests.export import untrained

ONE_GPU = {"compute_capabilities": ["8.6"]}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return untrained.student(tmp_path_factory.mktemp("s") / "student")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, student: Stage) -> Stage:
    return untrained.quantized(tmp_path_factory.mktemp("q") / "quantized", student, runtime="tensorrt")


@pytest.fixture(scope="module", autouse=True)
def graphs_made_once() -> Iterator[None]:
    """Torch's exporter takes a second; what it gives for one stage and precision is kept."""
    emit, kept = graph.emit_graph, {}

    def remembered(source: Stage, target: Target, **asked: Any) -> graph.EmittedGraph:
        key = (source.identity, *sorted(asked.items()))
        if key not in kept:
            kept[key] = emit(source, target, **asked)
        return replace(kept[key], target=target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "emit_graph", remembered)
        yield


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine that has one: what is built for it there would not be what is expected here."""
    monkeypatch.setattr(cuda, "cuda_device", lambda: None)


def exported(source: Stage, out: Path, target: str = "tensorrt-rtx", **config: Any) -> Stage:
    brief = {"data": "digits", "target": target, "parity_images": 64, **config}
    return export.stage.run(parse(ExportConfig, brief, "test"), export.stage.ExportInputs(model=source.path), out)


def refused(source: Stage, out: Path, match: str, **config: Any) -> None:
    with pytest.raises(CompressError, match=match) as fault:
        exported(source, out, **config)
    assert "\n" not in str(fault.value)
    assert not out.exists() and not out.with_name(out.name + ".partial").exists()


def test_an_rtx_engine_lies_beside_its_graph_recipe_and_what_it_was_built_for(quantized: Stage, tmp_path: Path) -> None:
    parts.rtx()
    made = exported(quantized, tmp_path / "e", engine=ONE_GPU, batch={"min": 1, "opt": 4, "max": 8})
    assert {"model.onnx", "recipe.json", "engine.plan", "engine.json"} <= set(made.manifest["payload"])
    assert "layers.json" in made.manifest["records"]
    content = made.file("engine.plan").read_bytes()
    about = recipe.read_sidecar(made.file("engine.json").read_bytes(), "e")
    assert about["sha256"] == made.metrics["engine_sha256"] == artifact.bytes_sha256(content)
    assert about["compute_capabilities"] == ["8.6"] and about["batch"] == [1, 4, 8] and about["device"] is None
    assert about["onnx_sha256"] == made.manifest["payload"]["model.onnx"]["sha256"]
    assert preflight.written_by(content, "e") == about["library"]["version"] and len(content) == about["bytes"]
    how = recipe.read_recipe(made.file("recipe.json").read_bytes(), "r")
    layers = json.loads(made.file("layers.json").read_text())
    assert how.int8 == how.weighted == tuple(layers["weighted"]) and len(how.int8) == 8
    # the builder seldom takes fp16 kernels for INT8 convolutions: whatever it took is what is told
    told, chosen = made.metrics["layers"], set(layers["weighted"].values())
    assert "int8" in chosen <= set(told["precisions"])
    assert set(told["not_int8"]) == {node for node, precision in layers["weighted"].items() if precision != "int8"}
    assert made.metrics["engine"] == "built" and made.metrics["executed"] is False
    assert made.metrics["status"] == "builds; INT8 execution unverified"
    assert made.metrics["bytes"] == len(content) and made.metrics["parity"]["passed"]


@pytest.mark.parametrize(("asked", "precision"), [("float32", "float32"), ("auto", "fp16")])
def test_a_float_engine_computes_in_what_was_asked_for(
    student: Stage, tmp_path: Path, asked: str, precision: str
) -> None:
    parts.rtx()
    made = exported(student, tmp_path / "e", precision=asked, engine=ONE_GPU)
    assert made.metrics["layers"]["precisions"] == {precision: 8} and made.metrics["layers"]["unseen"] == []
    assert made.metrics["precision"] == precision and "status" not in made.metrics


def test_the_same_export_gives_the_same_identity(student: Stage, tmp_path: Path) -> None:
    """Here, where builds for one compute capability repeat bit by bit."""
    parts.rtx()
    assert (
        exported(student, tmp_path / "a", engine=ONE_GPU).identity
        == exported(student, tmp_path / "b", engine=ONE_GPU).identity
    )


def test_rebuilds_say_how_builds_differ(student: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts.rtx()
    made = exported(student, tmp_path / "e", engine={**ONE_GPU, "rebuilds": 2})
    assert made.metrics["rebuilds"] == {"n": 2, "identical_bytes": 1.0, "max_abs": None, "argmax_agreement": None}
    assert (
        "2 builds: 100% have the first one's bytes; their logits were not compared, no GPU" in capsys.readouterr().err
    )


def test_without_a_gpu_an_engine_is_deferred_with_the_reason(
    quantized: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = exported(quantized, tmp_path / "e", "tensorrt")
    assert set(made.manifest["payload"]) == {"model.onnx", "recipe.json", "contract.json"}
    assert made.metrics["engine"] == "deferred" and made.metrics["executed"] is False
    said = capsys.readouterr().err
    assert (
        "no engine is built here: TensorRT builds for the GPU that it finds, and there is none; it is deferred" in said
    )


def test_deferred_on_request_and_where_the_library_is_missing(
    student: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(student, tmp_path / "a", engine={"deferred": True}).metrics["engine"] == "deferred"
    monkeypatch.setattr(library, "MODULES", {"tensorrt-rtx": "a_tensorrt_that_is_not_there"})
    monkeypatch.setattr(library, "_loaded", {})
    assert exported(student, tmp_path / "b").metrics["engine"] == "deferred"
    said = capsys.readouterr().err
    assert "deferred was asked for" in said and "is not installed here; pip install tensorrt-rtx-cu13" in said


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"engine": {"compute_capabilities": ["9.9"]}}, r"compute capability 9\.9: TensorRT-RTX .* knows 7\.5, 8\.0"),
        ({"target": "tensorrt", "engine": ONE_GPU}, r"tensorrt builds for the GPU that it finds; leave it out, or use"),
        ({"engine": {"hardware_compatibility": "ampere+"}}, "builds for the GPUs that --compute-capability names"),
        ({"engine": {"version_compatible": True}}, "version compatible: not of tensorrt-rtx; leave it out"),
        ({"engine": {"dla": 0}}, "dla 0: desktop GPUs have none; use --target tensorrt"),
        ({"target": "tensorrt", "engine": {"dla": 0}}, "dla 0: takes one batch size, not 1:1:64"),
        ({"engine": {"timing_cache": "/"}}, r"/: cannot be read as a timing cache \(Is a directory\)"),
    ],
)
def test_what_cannot_be_built_leaves_nothing(student: Stage, tmp_path: Path, config: dict[str, Any], line: str) -> None:
    parts.rtx()
    refused(student, tmp_path / "e", line, **config)


def test_with_a_gpu_the_engine_is_executed_compared_and_its_builds_spread(
    student: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flow there, its library and GPU stood in for: what is real in it has tests of its own."""
    found = fake.library()
    monkeypatch.setattr(cuda, "cuda_device", lambda: replace(parts.ORIN, name="A GPU"))
    monkeypatch.setattr(library, "load_library", lambda target: found)
    answered: list[tuple[str, int]] = []
    model = load(student)

    class Runner:
        def __init__(self, opened: Any, trt: Any, cuda: Any, *, where: str, batch_size: int) -> None:
            self.asked, self.batch_size = opened, batch_size

        def __enter__(self) -> "Runner":
            return self

        def __exit__(self, *fault: object) -> None: ...

        def infer(self, images: np.ndarray) -> np.ndarray:
            answered.append((self.asked.about["sha256"], self.batch_size))
            off = 1e-3 * len(answered)
            with torch.no_grad():
                return model(to_float(torch.from_numpy(images))).numpy() + np.float32(off)

    monkeypatch.setattr(emission, "TensorRTRunner", Runner)
    monkeypatch.setattr(emission, "Cuda", lambda: None)
    cache = tmp_path / "timings"
    made = exported(student, tmp_path / "e", "tensorrt", engine={"rebuilds": 3, "timing_cache": str(cache)})
    assert made.metrics["executed"] and made.metrics["engine_parity"]["batch_sizes"] == [1, 64]
    assert [size for _, size in answered] == [1, 64, 1, 1, 1]
    assert {sha for sha, _ in answered} == {made.metrics["engine_sha256"]}
    assert made.metrics["rebuilds"]["max_abs"] == pytest.approx(2e-3, rel=1e-2)
    assert made.metrics["rebuilds"]["argmax_agreement"] == 1.0
    assert cache.read_bytes() == b"+timed"
    assert "logits differ by up to 0.002, predictions agree on 100.0%" in capsys.readouterr().err


def test_nodes_meant_for_int8_are_those_whose_operands_both_come_out_of_integers() -> None:
    for kind, int8 in (("float32", ()), ("fp16", ()), ("int8", CONVS)):
        assert emission.nodes(onnx.load_model_from_string(graphs.graph(kind))) == (CONVS, int8)
    proto = onnx.load_model_from_string(graphs.graph("int8"))
    conv = next(node for node in proto.graph.node if node.name == "conv2")
    conv.input[0] = "r1"  # its image side left float
    assert emission.nodes(proto) == (CONVS, ("conv1", "fc"))


def test_the_command_line_reaches_every_setting(student: Stage, tmp_path: Path) -> None:
    parts.rtx()
    out = tmp_path / "e"
    line = (
        f"export {student.path} --target tensorrt-rtx --batch 1:2:4 --workspace 32 --compute-capability 8.6 "
        f"--compute-capability 8.9 --rebuilds 2 --set parity_images=16 --out {out}"
    )
    assert execute(shlex.split(line)) == 0
    how = recipe.read_recipe((out / "recipe.json").read_bytes(), "r")
    assert (how.batch, how.workspace_mib, how.compute_capabilities, how.rebuilds) == ((1, 2, 4), 32, ("8.6", "8.9"), 2)
    line = (
        f"export {student.path} --target tensorrt --batch 2 --dla 1 --hardware-compatibility ampere+ "
        f"--version-compatible --timing-cache {tmp_path / 'c'} --deferred --set parity_images=16 --out {out}-2"
    )
    assert execute(shlex.split(line)) == 0
    how = recipe.read_recipe((tmp_path / "e-2" / "recipe.json").read_bytes(), "r")
    assert (how.batch, how.dla, how.hardware_compatibility, how.version_compatible) == ((2, 2, 2), 1, "ampere+", True)


def test_a_product_of_activations_has_no_weights_though_a_constant_token_leads_them() -> None:
    make = onnx.helper.make_node
    steps = [
        make("Concat", ["token", "image"], ["tokens"], "cat", axis=1),
        make("Transpose", ["tokens"], ["turned"], "turn", perm=[0, 2, 1]),
        make("MatMul", ["tokens", "turned"], ["scores"], "attention"),
        make("Transpose", ["stored"], ["weight"], "stored_turned", perm=[1, 0]),
        make("MatMul", ["scores", "weight"], ["logits"], "layer"),
    ]
    stored = [
        onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in (("token", (1, 1, 4)), ("stored", (10, 3)))
    ]
    sides = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 2, 4]), ("logits", [1, 3, 10]))
    ]
    graph = onnx.helper.make_graph(steps, "attention", sides[:1], sides[1:], stored)
    assert emission.nodes(onnx.helper.make_model(graph)) == (("layer",), ())
