"""The quantized stage: what it is fine-tuned by, what each layer costs, which are left in floating point."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compress import chain, config
from compress.attacks.pgd import accuracy, robust_accuracy
from compress.cli.execute import execute
from compress.config import QuantizeConfig, parse
from compress.data import load_dataset
from compress.data.split import Split
from compress.folders import load
from compress.networks import network_files
from compress.networks.base import Classifier
from compress.quantization import int8
from compress.stages import quantize, sensitivity
from compress.stages.sensitivity import CalibratedNetwork, LayerSensitivity, RobustJudge, RobustVerdict, Sensitivity
from edge.core import artifact
from edge.core.errors import CheckFailed, CompressError
from tests.conftest import BRIEF

QUICK = {**BRIEF, "epochs": 1, "calibration_images": 64}


def settled(**more: Any) -> QuantizeConfig:
    return parse(QuantizeConfig, {**QUICK, **more}, "quantize")


@pytest.fixture(scope="module")
def planted(chain: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain's student, computing what it computed, with one channel ten thousand times as large inside a block.

    What reads that tensor in 8 bits sees nothing else.
    """
    student = artifact.read(chain.student)
    model = network_files.load_network(network_files.read_architecture(student.path), student.path)
    block, factor = model.get_submodule("layer2.0"), 1e4
    with torch.no_grad():
        live = int(block.bn1.weight.abs().argmax())
        block.bn1.weight[live] *= factor
        block.bn1.bias[live] *= factor
        block.conv2.weight[:, live] /= factor
    out = tmp_path_factory.mktemp("planted") / "student"
    plan = artifact.Plan(student.kind, {**student.config, "planted": 1}, 0, student.data, {})

    def make(work: artifact.Work) -> None:
        network_files.write_network(work, network_files.read_architecture(student.path), model)

    artifact.build(out, plan, make)
    x = torch.rand(16, 1, 8, 8)
    torch.testing.assert_close(load(out)(x), load(chain.student)(x), atol=1e-3, rtol=1e-3)
    return out


# ------------------------------------------------------------------------------------------- fine-tuning


def test_fine_tuning_by_another_method_through_another_runtimes_grid_with_learned_ranges(
    chain: SimpleNamespace, tmp_path: Path
) -> None:
    """Of a teacher, which is no student of anyone: the host objective needs none."""
    given = settled(method="trades", options={"beta": 3.0}, runtime="tensorrt", ranges="learned", lr=0.02)
    made = quantize.run(given, quantize.QuantizeInputs(student=chain.teacher), tmp_path / "q")
    assert set(made.manifest["plan"]["inputs"]) == {"student"}
    assert made.config["options"]["beta"] == 3.0
    metrics = made.metrics
    assert (metrics["method"], metrics["runtime"], metrics["ranges"]) == ("trades", "tensorrt", "learned")
    assert metrics["parameters"] == sum(weight.numel() for weight in load(made).parameters())
    assert int8.read_layout(made.path)["runtime"] == "tensorrt"

    ptq = settled(mode="ptq", ranges="mse", runtime="tensorrt")
    calibrated = load(quantize.run(ptq, quantize.QuantizeInputs(student=chain.teacher), tmp_path / "ptq"), "tensorrt")
    start, end = dict(int8.quantizers(calibrated)), dict(int8.quantizers(load(made, "tensorrt")))
    assert {*start} == {*end}
    fused = int8.read_layout(made.path)["fused"]
    moved = {name for name in end if not torch.equal(start[name].amax, end[name].amax)}
    assert moved == {*end} - {*fused, "conv1.input_quantizer"}, "all that are on, but the image's"
    assert float(end["conv1.input_quantizer"].amax) == 1.0

    test = Split.of(load_dataset("digits"), "test", torch.device("cpu"))
    assert accuracy(load(made, "tensorrt"), test, 64) == metrics["test"]["clean"]
    x = torch.rand(8, 1, 8, 8)
    assert not torch.equal(load(made)(x), load(made, "tensorrt")(x))


@pytest.mark.parametrize(
    ("given", "who", "fault"),
    [
        ({"method": "rslad"}, "teacher", "method rslad needs a teacher, .*teacher was made without; give --teacher"),
        ({"method": "mtard"}, "student", "method mtard needs a clean teacher, .*; give --clean-teacher FOLDER"),
        ({"float_layers": ["conv2"], "mode": "ptq"}, "student", "unknown layer 'conv2'; did you mean 'conv1'"),
    ],
)
def test_what_is_missing_is_one_line(
    given: dict[str, Any], who: str, fault: str, chain: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(CompressError, match=fault) as found:
        quantize.run(settled(**given), quantize.QuantizeInputs(student=getattr(chain, who)), tmp_path / "q")
    assert "\n" not in str(found.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"options": {"beta": 1.0}}, r"options.beta: options of no method; name the method too"),
        ({"method": "trades", "options": {"bata": 1.0}}, r"options.bata: unknown key; did you mean 'beta'"),
        ({"max_robust_drop": 0.5}, "max_robust_drop is for mode ptq; .*; add --mode ptq"),
        ({"mode": "ptq", "ranges": "learned"}, "ranges: learned is for mode qat"),
        ({"mode": "ptq", "method": "trades"}, "method: trades is for mode qat"),
        ({"ranges": "maximum"}, "unknown ranges 'maximum'; did you mean 'max'"),
        ({"runtime": "tensor"}, "unknown runtime 'tensor'; did you mean 'tensorrt'"),
        ({"percentile": 0}, "percentile: input should be greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_named(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(CompressError, match=fault) as found:
        settled(**given)
    assert "\n" not in str(found.value)


def test_an_imported_network_says_how_it_can_be_quantized(chain: SimpleNamespace, tmp_path: Path) -> None:
    teacher = artifact.read(chain.teacher)
    plan = artifact.Plan("teacher", {"data": "digits", "source": "theirs.pt"}, 0, teacher.data, {})

    def make(work: artifact.Work) -> None:
        network_files.write_network(work, network_files.read_architecture(teacher.path), load(teacher))

    artifact.build(tmp_path / "t", plan, make)
    with pytest.raises(CompressError, match=r"was imported, .*; give --method, e.g. pgd-at, or --mode ptq"):
        quantize.run(settled(), quantize.QuantizeInputs(student=tmp_path / "t"), tmp_path / "q")
    made = quantize.run(
        settled(method="rslad"), quantize.QuantizeInputs(student=tmp_path / "t", teacher=chain.teacher), tmp_path / "q"
    )
    assert made.manifest["plan"]["inputs"]["teacher"] == teacher.identity and made.metrics["method"] == "rslad"


def test_a_run_hands_the_teachers_of_its_fine_tuning_on() -> None:
    def inputs(**section: Any) -> Any:
        run = config.parse(config.Run, {"data": "digits", "quantize": section, "student": {"method": "pgd-at"}}, "run")
        steps = {step.name: step for step in chain.steps(run, Path("r"))}
        return steps["quantized"].inputs, "teacher" in steps

    student, teacher = Path("r/student"), Path("r/teacher")
    assert inputs() == (quantize.QuantizeInputs(student), False)
    assert inputs(method="rslad") == (quantize.QuantizeInputs(student, teacher), True)
    assert inputs(mode="ptq") == (quantize.QuantizeInputs(student), False)


# ------------------------------------------------------------------------------------------- what layers cost


@pytest.fixture
def subject(chain: SimpleNamespace) -> CalibratedNetwork:
    model = load(chain.student)
    digits = load_dataset("digits")
    model, found = int8.quantize_network(
        model, [x for x, _ in Split.of(digits, "train", torch.device("cpu")).batches(64)][:2]
    )
    return CalibratedNetwork(model, found, "onnx")


def test_the_judge_is_the_validation_attack(subject: CalibratedNetwork, chain: SimpleNamespace) -> None:
    digits, given = load_dataset("digits"), settled(sensitivity_images=10_000)
    validation = Split.of(digits, "val", torch.device("cpu"))
    verdict = RobustJudge(digits, given, torch.device("cpu"))(subject.model)
    eps = given.threat.radius
    assert verdict.n == len(validation.labels)
    assert verdict.robust == robust_accuracy(subject.model, validation, 64, eps=eps, steps=2, seed=0)
    few = RobustJudge(digits, settled(sensitivity_images=40), torch.device("cpu"))
    assert few.split.labels.bincount().tolist() == [4] * 10 and few.described["n"] == 40


class Planned:
    """A judge that knows what each layer costs, in images of 100, and counts how often it was asked."""

    def __init__(self, subject: CalibratedNetwork, cost: dict[str, int]) -> None:
        self.subject, self.cost, self.asked = subject, cost, 0
        self.described = {"n": 100}

    def __call__(self, model: Classifier) -> RobustVerdict:
        self.asked += 1
        on = [
            name for name in int8.quantized_layers(model) if model.get_submodule(f"{name}.weight_quantizer").is_enabled
        ]
        return RobustVerdict(100, 90 - sum(self.cost.get(name, 0) for name in on), -1.0)


def test_sensitivity_asks_each_layer_alone_in_int8_and_alone_in_float(subject: CalibratedNetwork) -> None:
    cost = {"conv1": 3, "layer2.0.conv1": 20, "linear": 1}
    judge: Any = Planned(subject, cost)
    found = sensitivity.measure_sensitivity(subject, judge, ["linear"])
    assert (found.in_float.stood, found.in_int8.stood) == (90, 67)
    assert found.ranking[:2] == ["layer2.0.conv1", "conv1"] and "linear" not in found.ranking
    rows = {row.layer: row for row in found.rows}
    assert rows["conv1"].alone_int8.stood == 87 and rows["conv1"].alone_float.stood == 70
    assert rows["conv1"].weights == subject.model.conv1.weight.numel()
    assert judge.asked == 2 + 2 * len(rows) == 2 + 2 * (len(subject.layers) - 1)
    as_dict = found.as_dict()
    assert as_dict["layers"][0]["alone_int8"]["drop_points"] == pytest.approx(3.0)
    low, high = as_dict["float"]["interval"]
    assert low < 0.9 < high and json.loads(json.dumps(as_dict)) == as_dict


def test_of_equal_counts_the_larger_loss_of_margin_is_more_sensitive() -> None:
    def row(name: str, stood: int, margin: float) -> LayerSensitivity:
        return LayerSensitivity(name, 1, RobustVerdict(10, stood, margin), RobustVerdict(10, 10, 0.0))

    rows = [row("a", 9, -2.0), row("b", 8, -5.0), row("c", 9, -1.0)]
    assert Sensitivity(rows[0].alone_int8, rows[0].alone_int8, rows).ranking == ["b", "c", "a"]


@pytest.mark.parametrize(("allowed", "in_float"), [(30, []), (23.5, ["layer2.0.conv1"]), (0.5, "all but the free")])
def test_fallback_takes_the_fewest_layers_in_order(subject: CalibratedNetwork, allowed: float, in_float: Any) -> None:
    cost = {"conv1": 3, "layer2.0.conv1": 20, "linear": 1, "layer3.0.conv2": 2}
    judge: Any = Planned(subject, {**cost, "layer1.0.conv1": 0})
    if allowed == 23.5:
        allowed = 6
    calls = []

    def measured() -> Sensitivity:
        calls.append(1)
        return sensitivity.measure_sensitivity(subject, judge)

    chosen, found = sensitivity.fall_back(subject, judge, allowed, [], measured)
    want = [name for name in subject.layers if cost.get(name)] if isinstance(in_float, str) else in_float
    assert chosen == want == found["float_layers"]
    assert len(calls) == bool(want), "no layer is asked about where nothing is lost"
    assert found["kept"]["drop_points"] <= allowed < found["int8"]["drop_points"] or not want
    sizes = {name: subject.model.get_submodule(name).weight.numel() for name in subject.layers}
    assert found["float_weights"] == pytest.approx(sum(sizes[name] for name in want) / sum(sizes.values()))


def test_fallback_that_leaves_nothing_in_int8_fails(subject: CalibratedNetwork) -> None:
    judge: Any = Planned(subject, dict.fromkeys(subject.layers, 2))
    with pytest.raises(CheckFailed, match=r"still 2.00 with every layer but \S+ in floating point; nothing was kept"):
        sensitivity.fall_back(subject, judge, 1.0, [], lambda: sensitivity.measure_sensitivity(subject, judge))


def test_a_layer_that_int8_ruins_goes_back_to_floating_point(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"quantize {planted} --mode ptq --batch-size 64 --set validate_steps=2 --set test_steps=2 --data digits"
    line += " --eps 40/255 --set calibration_images=64 --set sensitivity_images=60"
    plain = call(f"{line} --out {tmp_path / 'plain'}", capsys)
    assert plain[0] == 0
    code, out, err = call(f"{line} --max-robust-drop 5 --out {tmp_path / 'q'}", capsys)
    assert code == 0, err
    made = artifact.read(tmp_path / "q")
    assert made.metrics["float_layers"] == ["layer2.0.conv2"] == int8.read_layout(made.path)["float_layers"]
    assert "layer2.0.relu1.output_quantizer" not in int8.read_layout(made.path)["unsigned"]
    found = made.metrics["fallback"]
    assert found["kept"]["drop_points"] <= 5 < found["int8"]["drop_points"] and found["n"] == 60
    assert "fallback: layer2.0.conv2 in floating point" in err
    # the table of what each layer costs, the most sensitive first
    table = out[out.index("robust validation accuracy of the float network") :].splitlines()
    assert table[2].split()[0] == "layer2.0.conv2" and len(table) == 2 + len(int8.quantized_layers(load(made)))
    assert json.loads((made.path / sensitivity.RECORD).read_text())["most_sensitive_first"][0] == "layer2.0.conv2"
    assert made.metrics["test"]["robust"] > artifact.read(tmp_path / "plain").metrics["test"]["robust"] + 0.05
    code, out, _ = call(f"{line} --max-robust-drop 5 --json --out {tmp_path / 'q'}", capsys)
    assert json.loads(out)["sensitivity"]["split"] == "val" and json.loads(out)["complete_already"]


def test_a_drop_that_cannot_be_met_exits_3_and_keeps_nothing(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., RobustVerdict] = RobustJudge.__call__

    def worse(self: RobustJudge, model: Classifier) -> RobustVerdict:
        quantized = any(quantizer.is_enabled for _, quantizer in int8.quantizers(model))
        found = real(self, model)
        return replace(found, stood=0) if quantized else found

    monkeypatch.setattr(RobustJudge, "__call__", worse)
    line = f"quantize {planted} --mode ptq --max-robust-drop 0.5 --set validate_steps=1 --set sensitivity_images=10"
    code, _, err = call(f"{line} --set calibration_images=16 --out {tmp_path / 'q'}", capsys)
    assert code == 3 and "nothing was kept" in err.splitlines()[-1] and not list(tmp_path.iterdir())


def call(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    code = execute(line.split())
    done = capsys.readouterr()
    return code, done.out, done.err


def test_a_network_that_is_always_wrong_is_attacked_on_nothing(subject: CalibratedNetwork) -> None:
    judge = RobustJudge(load_dataset("digits"), settled(sensitivity_images=8), torch.device("cpu"))
    absent = min({*range(10)} - {*judge.split.labels.tolist()})
    with torch.no_grad():
        subject.model.linear.weight.zero_()
        subject.model.linear.bias.zero_()[absent] = 1.0
    assert judge(subject.model) == RobustVerdict(8, 0, 1.0)
