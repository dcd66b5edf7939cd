"""What Torch-TensorRT is given: the twin's logits in every arithmetic, as a program of any batch; who is refused."""

import copy
import functools
import io
import json
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from compress import networks
from compress.cli.main import main
from compress.config import ExportConfig, parse
from compress.networks.base import Classifier
from compress.quantization import int8
from compress.quantization.grids import TENSORRT
from edge.core import artifact, targets
from edge.core.errors import CompressError
from export.targets.torch_tensorrt import emission, program_runner, versions
from export.targets.torch_tensorrt.preparation import QuantizeOperator, export_program, kernels, prepare_network

IMAGE = (1, 8, 8)


def images(n: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (n, *IMAGE), generator=torch.Generator().manual_seed(seed)).float() / 255


@functools.cache
def network(name: str = "resnet8") -> Classifier:
    """Random weights, statistics that fit such images. No test changes it."""
    torch.manual_seed(0)
    model = networks.build_network(name, channels=1, classes=10)
    with torch.no_grad():
        for seed in range(5):
            model.train()(images(64, seed))
    return model.eval().requires_grad_(False)


@functools.cache
def quantized(name: str = "resnet8") -> Classifier:
    """The twin of the runtime tensorrt."""
    twin = copy.deepcopy(network(name))
    twin, layout = int8.quantize_network(twin, [images(64)])
    int8.lay_out(twin, TENSORRT.layout(layout))
    return twin.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def modelopt() -> Any:
    """ModelOpt defines the operator that quantizers become; CI has it."""
    if not os.environ.get("CI"):
        pytest.importorskip("modelopt.torch.quantization", reason="nvidia-modelopt is not installed")
    import modelopt.torch.quantization as mtq

    return mtq


def gap(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


# ------------------------------------------------------------------------------------------- the module


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-4", "cnn"])
@pytest.mark.parametrize(("floats", "most"), [("float32", 1e-5), ("fp16", 1e-2), ("bf16", 8e-2)])
def test_the_prepared_network_says_what_the_network_says(name: str, floats: str, most: float) -> None:
    model, x = network(name), images(32, seed=9)
    prepared = prepare_network(model, floats, IMAGE)
    logits = prepared(x)
    assert logits.dtype == torch.float32
    assert gap(logits, model(x)) < most
    held = {value.dtype for value in prepared.state_dict().values() if value.is_floating_point()}
    assert held == {{"float32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[floats]}


def test_batchnorm_is_folded_into_a_copy_and_the_network_stays_as_it_was() -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    prepared = prepare_network(model, "fp16", IMAGE)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in prepared.modules())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-4"])
def test_the_operators_compute_the_twins_very_logits(modelopt: Any, name: str) -> None:
    twin, x = quantized(name), images(32, seed=9)
    with kernels():
        assert torch.equal(prepare_network(twin, "float32", IMAGE)(x), twin(x))
        assert (
            gap(prepare_network(twin, "fp16", IMAGE)(x), twin(x)) < 0.1
        )  # a level more or less where a sum meets its boundary
        assert gap(prepare_network(network(name), "float32", IMAGE)(x), twin(x)) > 1e-4  # the quantizers do something


def test_ranges_stay_float32_and_weights_are_quantized_by_channel(modelopt: Any) -> None:
    twin = quantized()
    enabled = {name: quantizer for name, quantizer in int8.quantizers(twin) if quantizer.is_enabled}
    found = {
        name: module
        for name, module in prepare_network(twin, "fp16", IMAGE).named_modules()
        if isinstance(module, QuantizeOperator)
    }
    assert {f"network.{name}" for name in enabled} == set(found)
    for name, quantizer in enabled.items():
        amax = found[f"network.{name}"].amax
        assert amax.dtype == torch.float32
        assert torch.equal(amax.flatten(), quantizer.amax.flatten())
        assert amax.ndim in (0, 2, 4) and (amax.ndim > 0) == name.endswith(".weight_quantizer")


def test_modelopts_own_quantizers_agree(modelopt: Any) -> None:
    """Its rounding multiplies by 127 / amax where ours divides by amax / 127: a level may differ at a boundary."""
    from modelopt.torch.quantization.config import QuantizerAttributeConfig
    from modelopt.torch.quantization.nn import TensorQuantizer

    twin, x = quantized(), images(64, seed=9)
    theirs = prepare_network(twin, "float32", IMAGE)
    for name, module in list(theirs.named_modules()):
        if isinstance(module, QuantizeOperator):
            axis = 0 if module.amax.ndim else None
            grid = QuantizerAttributeConfig(num_bits=8, axis=axis, unsigned=module.unsigned, narrow_range=False)
            parent, _, last = name.rpartition(".")
            setattr(theirs.get_submodule(parent), last, TensorQuantizer(grid, amax=module.amax))
    got, want = theirs(x), twin(x)
    assert gap(got, want) < 0.05
    assert float((got.argmax(1) == want.argmax(1)).float().mean()) >= 0.98


def test_outside_of_the_block_the_operator_is_modelopts_again(modelopt: Any) -> None:
    x, amax = images(2), torch.tensor(1.0)
    with kernels():
        levels = torch.ops.tensorrt.quantize_op(x, amax, 8, 0, False, False) * 127
        assert (
            torch.equal(levels.round(), levels.round().clamp(0, 127))
            and float((levels - levels.round()).abs().max()) < 1e-4
        )
    if not torch.cuda.is_available():
        with pytest.raises(AttributeError):  # its kernel is CUDA alone
            torch.ops.tensorrt.quantize_op(x, amax, 8, 0, False, False)


# ------------------------------------------------------------------------------------------- the program


@pytest.mark.parametrize("floats", ["float32", "fp16"])
def test_the_program_takes_any_batch_in_its_range(floats: str) -> None:
    model = network()
    prepared = prepare_network(model, floats, IMAGE)
    program = export_program(prepared, IMAGE, (1, 64))
    for n in (1, 2, 64):
        assert torch.equal(program.module()(images(n)), prepared(images(n)))
    with pytest.raises((AssertionError, RuntimeError)):
        program.module()(images(65))


def test_a_program_of_one_batch_size_takes_that_one_alone() -> None:
    program = export_program(prepare_network(network(), "float32", IMAGE), IMAGE, (8, 8))
    assert program.module()(images(8)).shape == (8, 10)
    with pytest.raises((AssertionError, RuntimeError)):
        program.module()(images(4))


def test_a_range_above_two_is_exported_from_within_it() -> None:
    program = export_program(prepare_network(network(), "float32", IMAGE), IMAGE, (4, 16))
    assert program.module()(images(16)).shape == (16, 10)


def test_the_int8_program_holds_one_operator_a_quantizer_and_says_what_the_twin_says(modelopt: Any) -> None:
    twin = quantized()
    with kernels():
        program = export_program(prepare_network(twin, "float32", IMAGE), IMAGE, (1, 64))
        for n in (1, 64):
            assert torch.equal(program.module()(images(n)), twin(images(n)))
    operators = Counter(str(node.target) for node in program.graph.nodes)["tensorrt.quantize_op.default"]
    assert operators == sum(quantizer.is_enabled for _, quantizer in int8.quantizers(twin)) > 10


def test_every_operator_of_a_program_is_told_with_its_layer() -> None:
    """Nothing is compiled here, so everything stays in torch."""
    prepared = prepare_network(network("wrn-10-1+standardize"), "fp16", IMAGE)
    program = export_program(prepared, IMAGE, (1, 64))
    told = emission.in_torch(program.run_decompositions().module(), program, prepared)
    convolutions = [line.partition(": ")[0] for line in told if line.endswith(": convolution")]
    layers = [name for name, layer in prepared.named_modules() if isinstance(layer, nn.Conv2d)]
    assert {f"network.{name}" for name in convolutions} == set(layers) and len(convolutions) == len(layers)
    # a function of the graph, no module of it, and parts of one that is decomposed
    assert {"preprocess: sub", "preprocess: div"} < set(told)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("target", ["torch-tensorrt", "torch-tensorrt-rtx"])
def test_the_command_refuses_in_one_line_and_leaves_nothing(
    chain: SimpleNamespace, tmp_path: Path, target: str
) -> None:
    wrong = versions.version_fault(target, versions.installed_versions(target))
    if wrong is None:
        pytest.skip(f"{target} is installed and fits this torch")
    out = tmp_path / "out"
    with pytest.raises(CompressError) as caught:
        arguments = ["export", str(chain.student), "--target", target, "--out", str(out)]
        CliRunner().invoke(main, arguments, catch_exceptions=False, standalone_mode=False)
    assert str(caught.value) == str(wrong) and caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"dla": 0}, "engine.dla 0 .* --target tensorrt"),
        ({"compute_capabilities": ["8.6"]}, "built for the GPU that is here"),
        ({"rebuilds": 3}, "engine.rebuilds 3"),
        ({"deferred": True}, "engine.deferred True"),
        ({"hardware_compatibility": "same-compute-capability"}, "give none or ampere"),
    ],
)
def test_what_torch_tensorrt_cannot_be_told_is_refused_first(engine: dict[str, Any], words: str) -> None:
    config = parse(ExportConfig, {"data": "digits", "target": "torch-tensorrt", "engine": engine}, "test")
    with pytest.raises(CompressError, match=words):
        emission.emit_program(targets.get(config.target), None, None, None, config)  # type: ignore[arg-type]


def test_how_a_program_is_stored_decides_about_programs_alone() -> None:
    def semantic(target: str, program: str) -> dict[str, Any]:
        return parse(ExportConfig, {"data": "digits", "target": target, "engine": {"program": program}}, "t").semantic()

    assert semantic("tensorrt", "ep") == semantic("tensorrt", "aoti")
    assert semantic("torch-tensorrt", "ep") != semantic("torch-tensorrt", "aoti")


def stage(folder: Path, program: bytes) -> artifact.Stage:
    """A complete stage with such a program, which nothing executes."""
    contract = {
        "model": {"file": "program.ep"},
        "input": {"shape": ["batch", *IMAGE], "batch": {"min": 1, "opt": 1, "max": 16}},
        "labels": [str(digit) for digit in range(10)],
    }

    def make(work: artifact.Work) -> None:
        artifact.write_atomic(work.add_payload("contract.json"), json.dumps(contract))
        artifact.write_atomic(work.add_payload("program.ep"), program)

    config = {"target": "torch-tensorrt", "engine": {"program": "ep"}}
    return artifact.build(folder, artifact.Plan("exported", config, 0, {}, {}), make)


def test_a_program_runs_on_a_gpu_only(tmp_path: Path) -> None:
    made = stage(tmp_path / "e", b"program")
    with pytest.raises(CompressError, match="runs on --device cuda, not on cpu"):
        program_runner.open_stage(made, batch_size=4, threads=0, device="cpu")


def test_bytes_that_the_manifest_does_not_name_are_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(target: str) -> Any:
        raise AssertionError("loaded")

    monkeypatch.setattr(program_runner, "load_torch_tensorrt", load)
    made = stage(tmp_path / "e", b"program")
    (tmp_path / "e" / "program.ep").write_bytes(b"another")
    with pytest.raises(CompressError, match=r"program\.ep has sha256 .* the manifest says"):
        program_runner.open_stage(made, batch_size=4, threads=0, device="cuda")


@pytest.mark.parametrize("program", ["ep", "aoti"])
def test_bytes_that_are_no_program_are_one_line(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(program_runner, "load_torch_tensorrt", lambda target: None)
    with pytest.raises(CompressError, match=r"e: the program does not load here .* export it again") as caught:
        program_runner.TorchTensorRTRunner(
            np.random.default_rng(0).bytes(500),
            where="e",
            file="program.ep",
            target="torch-tensorrt",
            program=program,
            batch_size=4,
            input_shape=IMAGE,
            classes=10,
        )
    assert "\n" not in str(caught.value)


def test_the_runner_takes_any_number_of_images_in_calls_of_its_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without engines, on the processor: loading, padding, types and shapes are those of any program."""
    monkeypatch.setattr(program_runner, "load_torch_tensorrt", lambda target: None)
    monkeypatch.setattr(program_runner, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    model, stored = network(), io.BytesIO()
    torch.export.save(export_program(prepare_network(model, "fp16", IMAGE), IMAGE, (8, 8)), stored)
    options = {"file": "program.ep", "target": "torch-tensorrt", "program": "ep", "batch_size": 8, "input_shape": IMAGE}
    levels = (images(21) * 255).round().to(torch.uint8).numpy()
    with program_runner.TorchTensorRTRunner(stored.getvalue(), where="e", classes=10, **options) as runner:
        got = runner.infer(levels)
        assert np.array_equal(got, runner.infer(images(21).numpy()))
        assert runner.sha256 == artifact.bytes_sha256(stored.getvalue()) and runner.open_ms > 0
        assert (runner.file, runner.size) == ("program.ep", len(stored.getvalue()))
    assert got.shape == (21, 10) and gap(torch.from_numpy(got), model(images(21))) < 1e-2
    with (
        program_runner.TorchTensorRTRunner(stored.getvalue(), where="e", classes=9, **options) as runner,
        pytest.raises(CompressError, match=r"e: gives logits \(8, 10\) for 8 images"),
    ):
        runner.infer(levels)
