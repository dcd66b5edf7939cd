"""Every verb asks what the list says, and a fault is told by the verb that meets it first."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import export.stage
from compress import data
from compress.config import BenchConfig, EvaluateConfig, ExportConfig, ImportConfig, StudentConfig, parse
from compress.folders import load
from compress.stages import distill, evaluate, teacher_import
from compress.stages.network_training import load_guide
from edge import open_runner
from edge.bench.run import run_bench
from edge.core import artifact
from edge.core.errors import CompressError
from edge.core.proportions import clopper_pearson
from edge.statement.gate import judge_requirements, parse_requirement
from edge.statement.statement import read_statement
from edge.statement.wording import statement_text
from edge.validity import rules
from edge.validity.logits import artifact_checks
from tests.compress import graphs
from tests.compress.test_attack_stage import attacked, verified

IMPORT: dict[str, Any] = {"data": "digits", "threat": {"eps": "40/255"}, "images": 60, "steps": 3, "queries": 30}
UNCONDITIONAL = {rule.name for rule in rules.RULES} - {rules.FREE}  # which needs an ensemble of both kinds


def asked(checks: "list[dict[str, Any]]") -> set[str]:
    return {check["name"] for check in checks}


def fired(checks: "list[dict[str, Any]]") -> set[str]:
    return {check["name"] for check in checks if check["fired"]}


def listed(verb: str) -> set[str]:
    return {rule.name for rule in rules.rules_of(verb)} & UNCONDITIONAL


# ------------------------------------------------------------------------------------------- factories


class Teacher(nn.Module):
    """A linear network of the digits, trained in closed form; `mode` says what is wrong with it."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        images, labels = data.load_dataset("digits").part("train")
        x = torch.from_numpy(images).flatten(1).float() / 255
        self.norm = nn.BatchNorm1d(64, affine=False)
        self.norm.running_mean, self.norm.running_var = x.mean(0), x.var(0)
        x = torch.cat([self.norm.eval()(x), torch.ones(len(x), 1)], 1)
        targets = torch.eye(10)[torch.from_numpy(labels)] * 10
        self.head = nn.Parameter(torch.linalg.solve(x.T @ x + 30 * torch.eye(65), x.T @ targets))
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.mode == "batch":  # left in training mode, whatever eval() says
            normal = (x - x.mean(0)) / (x.var(0, unbiased=False) + self.norm.eps).sqrt()
        else:
            normal = self.norm(x)
        z = torch.cat([normal, torch.ones_like(x[:, :1])], 1) @ self.head
        if self.mode == "dropout":
            z = nn.functional.dropout(z, 0.3, training=True)
        if self.mode == "nan":  # of bright digits alone, not of noise
            z = torch.where(((x.mean(1) > 0.32) & (x.std(1) > 0.34))[:, None], torch.nan, z)
        if self.mode == "place":
            z = z * (1 + torch.arange(len(z)) / len(z))[:, None]
        if self.mode == "instance":  # statistics of each image alone are none of the batch
            z = z * (1 + x.std(1, keepdim=True))
        change = {
            "softmax": lambda z: z.softmax(1),
            "masked": lambda z: z * 1e6,
            "constant": lambda z: 0 * z + self.head[0],
        }
        change |= {"logsoftmax": lambda z: z.log_softmax(1), "sigmoid": lambda z: (3 * z - 10).sigmoid()}
        change |= {"half": lambda z: z.softmax(1).half().float(), "cold": lambda z: (z / 0.5).softmax(1)}
        return change.get(self.mode, lambda z: z)(z)


MODES = (
    *("plain", "softmax", "masked", "constant", "logsoftmax", "sigmoid", "half", "cold", "batch"),
    *("dropout", "nan", "place", "instance"),
)
for _mode in MODES:
    globals()[f"make_{_mode}"] = lambda mode=_mode: Teacher(mode)


def brought_in(mode: str, out: Path, **options: Any) -> artifact.Stage:
    config = parse(ImportConfig, {"source": f"{__name__}:make_{mode}", **IMPORT, **options}, "test")
    return teacher_import.run(config, teacher_import.ImportInputs(), out)


@pytest.fixture(autouse=True)
def three_channels_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Factories are asked for the channels of photographs; these take the digits' one."""
    monkeypatch.setattr("compress.zoo.check.refuse_mismatch", lambda *args: None)


# ------------------------------------------------------------------------------------------- teacher import, distill


@pytest.mark.parametrize("mode", ["plain", "logsoftmax", "instance"])
def test_an_honest_teacher_fires_nothing(mode: str, tmp_path: Path) -> None:
    stage = brought_in(mode, tmp_path / "t")
    assert asked(stage.metrics["checks"]) == listed("teacher import") and not fired(stage.metrics["checks"])
    assert stage.metrics["chance"] == 0.1 and "note" not in stage.metrics


@pytest.mark.parametrize("mode", ["softmax", "half", "cold"])
def test_probabilities_are_imported_as_their_logarithm_and_that_is_said(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = brought_in(mode, tmp_path / "t")
    assert "outputs are probabilities, their logarithm is taken as logits" in capsys.readouterr().err
    # the gradient of a logarithm leaves the range of half precision, and that is told
    assert "logarithm" in stage.metrics["note"]
    assert fired(stage.metrics["checks"]) == ({rules.EXPLODING} if mode == "half" else set())
    images = torch.from_numpy(data.load_dataset("digits").part("val")[0][:20]).float() / 255
    want, got = Teacher("plain")(images).log_softmax(1), load(stage)(images)
    scale = 2.0 if mode == "cold" else 1.0
    if mode != "half":
        torch.testing.assert_close(got.log_softmax(1), (want * scale).log_softmax(1), atol=1e-3, rtol=1e-3)
    unchecked = brought_in(mode, tmp_path / "u", check=False)
    torch.testing.assert_close(load(unchecked)(images), got)


def test_sigmoids_are_refused_and_probabilities_of_an_older_import_do_not_teach(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="as a sigmoid's do; a teacher gives logits"):
        brought_in("sigmoid", tmp_path / "s")
    stage = brought_in("softmax", tmp_path / "t")
    described = json.loads((stage.path / "model.json").read_text())
    assert described.pop("outputs") == "probabilities"
    (stage.path / "model.json").write_text(json.dumps(described))
    with pytest.raises(
        CompressError, match=r"sum to 1 on 100.0% of images, and a teacher gives logits; import it again"
    ):
        load_guide("teacher", {"teacher": stage}, data.load_dataset("digits"))


def graph_ending_in(nodes: "list[Any]", constants: "dict[str, np.ndarray]", path: Path) -> Path:
    """The linear digits' graph with more nodes, from `before` to its output `y`."""
    model = onnx.load_model_from_string(graphs.linear_digits(scale=10))
    (last,) = [node for node in model.graph.node if "y" in node.output]
    last.output[0] = "before"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, path)
    return path


def test_a_graph_says_what_its_values_do_not(tmp_path: Path) -> None:
    """Percents and sigmoids far from their ends look like logits."""
    percent = [helper.make_node("Softmax", ["before"], ["p"]), helper.make_node("Mul", ["p", "hundred"], ["y"])]
    sigmoid = [helper.make_node("Mul", ["before", "little"], ["m"]), helper.make_node("Sigmoid", ["m"], ["y"])]
    for name, nodes, constants in (
        ("percent", percent, {"hundred": np.array(100, np.float32)}),
        ("sigmoid", sigmoid, {"little": np.array(0.01, np.float32)}),
    ):
        file = graph_ending_in(nodes, constants, tmp_path / f"{name}.onnx")
        with pytest.raises(CompressError, match="a teacher gives logits: export the values before them"):
            teacher_import.run(
                parse(ImportConfig, {"source": str(file), **IMPORT}, "test"),
                teacher_import.ImportInputs(),
                tmp_path / name,
            )


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("masked", {rules.ZERO, rules.EXPLODING, rules.RISING}),
        ("constant", {rules.CHANCE, rules.ZERO, rules.RISING}),
        ("batch", {rules.BATCH}),
        ("place", {rules.BATCH}),
        ("dropout", {rules.RANDOM, rules.UNSTEADY}),
        ("nan", {rules.FINITE, rules.RISING}),  # attacks walk into what is no number
    ],
)
def test_a_faulty_teacher_is_told_by_its_import_and_does_not_teach(
    mode: str, names: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = brought_in(mode, tmp_path / "t")
    assert fired(stage.metrics["checks"]) == names
    told = capsys.readouterr().err
    assert all(told.count(f": {name}: ") == 1 for name in names)
    student = parse(StudentConfig, {"data": "digits", "model": "cnn", "method": "rslad", "teacher_floor": 0.01}, "test")
    with pytest.raises(CompressError, match=r"is not to be trusted|is not above chance|a teacher needs"):
        distill.plan(student, distill.StudentInputs(teacher=stage.path))


def test_a_constant_classifier_of_three_classes_does_not_teach_whatever_the_floor(tmp_path: Path) -> None:
    """33.3 % clean and robust, above a floor of 20 %."""
    at = tmp_path / "t"
    n = 300

    def make(work: artifact.Work) -> None:
        test = {"n": n, "clean": 1 / 3, "robust": 1 / 3, "attack": "pgd", "steps": 20, "eps": "8/255"}
        work.metrics = {"test": test, "chance": 1 / 3, "checks": []}

    known = {"name": "digits", "fingerprint": "0" * 64, "split": "0" * 64}
    artifact.build(at, artifact.Plan("teacher", {}, 0, known, {}), make)
    student = parse(StudentConfig, {"data": "digits", "model": "cnn", "method": "rslad"}, "test")
    with pytest.raises(CompressError, match=r"not above chance: a constant classifier is right on 33.3%"):
        distill.plan(student, distill.StudentInputs(teacher=at))
    assert clopper_pearson(100, n)[0] < 1 / 3 < clopper_pearson(130, n)[0]


# ------------------------------------------------------------------------------------------- the whole chain


def test_each_stage_of_a_chain_asks_what_the_list_says(chain: SimpleNamespace) -> None:
    for verb, folder in (("teacher train", chain.teacher), ("distill", chain.student), ("quantize", chain.quantized)):
        stage = artifact.read(folder)
        assert asked(stage.metrics["checks"]) == listed(verb), verb
        assert not fired(stage.metrics["checks"]), verb
        assert stage.metrics["chance"] == pytest.approx(0.1, abs=0.01)
    for folder in (chain.e, chain.ef):
        checks = artifact.read(folder).metrics["checks"]
        assert asked(checks) == listed("export") and not fired(checks)
    made = artifact.read(chain.a).metrics
    artifacts = {name: rows for name, rows in made["checks"].items() if name in ("e", "ef")}
    networks = {name: rows for name, rows in made["checks"].items() if name not in artifacts}
    assert len(artifacts) == 2 and len(networks) >= 2 and made["alarms"] == []
    assert all(asked(rows) == listed("attack") - {rules.TWIN} for rows in networks.values())
    assert all(asked(rows) == listed("export") for rows in artifacts.values())


# ------------------------------------------------------------------------------------------- an artifact


def batch_statistics(path: Path, batch: "int | str") -> Path:
    """A graph of the digits with BatchNormalization in training mode before its last layer, right in batches of 64."""
    model = onnx.load_model_from_string(graphs.linear_digits(batch))
    graph = model.graph
    (last,) = [node for node in graph.node if graph.output[0].name in node.output]
    last.output[0] = "before"
    ones, zeros = np.ones(10, np.float32), np.zeros(10, np.float32)
    for name, value in {"scale": ones * 3, "shift": zeros, "mean": zeros, "var": ones}.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    graph.node.append(
        helper.make_node(
            "BatchNormalization",
            ["before", "scale", "shift", "mean", "var"],
            [graph.output[0].name, "next_mean", "next_var"],
            training_mode=1,
        )
    )
    onnx.save(model, path)
    return path


def test_a_masked_teacher_does_not_pass_a_floor_that_its_figure_is_above(tmp_path: Path) -> None:
    """Gradients are zero, so PGD finds next to nothing, and its figure says nothing."""
    stage = brought_in("masked", tmp_path / "t")
    test = stage.metrics["test"]
    assert test["robust"] > 0.6
    assert brought_in("plain", tmp_path / "p").metrics["test"]["robust"] < 0.4
    student = parse(StudentConfig, {"data": "digits", "model": "cnn", "method": "rslad", "teacher_floor": 0.3}, "test")
    with pytest.raises(CompressError, match="not to be trusted, its checks fired: zero gradients"):
        distill.plan(student, distill.StudentInputs(teacher=stage.path))
    allowed = student.model_copy(update={"teacher_floor": 0})
    distill.plan(allowed, distill.StudentInputs(teacher=stage.path))


@pytest.mark.parametrize("batch", ["N", 32])
def test_batch_statistics_in_a_foreign_file_are_told_by_each_verb_and_fail_the_gate(
    batch: "int | str", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a file that takes 32 images and cannot be asked alone."""
    file = batch_statistics(tmp_path / "model.onnx", batch)
    config = parse(ExportConfig, {"data": "digits"}, "test")
    stage = export.stage.run(config, export.stage.ExportInputs(file), tmp_path / "e")
    assert stage.metrics["clean"]["value"] > 0.6 and fired(stage.metrics["checks"]) == {rules.BATCH}
    assert asked(stage.metrics["checks"]) == listed("export")
    assert "ALARM model.onnx: predictions depend on the batch" in capsys.readouterr().err
    found = attacked(tmp_path, stage)
    assert [(alarm["name"], alarm["model"]) for alarm in found.about["alarms"]] == [(rules.BATCH, "e")]
    stated = verified(tmp_path, stage, found)
    assert {alarm["name"] for alarm in stated["alarms"]} == listed("verify") - {rules.TWIN, rules.ZERO, rules.RISING}
    assert [alarm["name"] for alarm in stated["alarms"] if alarm["fired"]] == [rules.BATCH]
    statement = read_statement(tmp_path / "v")
    (outcome,) = judge_requirements(statement, [parse_requirement("clean>=0.2")])
    assert not outcome.passed and outcome.why.startswith(f"alarm fired: {rules.BATCH}")
    text = statement_text(statement)
    assert ("latency     timed at batch 1, which is not" in text) == (batch == "N")
    assert ("latency     p50" in text) == (batch == 32)
    with open_runner(stage, batch_size=1) as single:  # has no company, and is asked in calls of more images
        images = data.load_dataset("digits").part("test")[0]
        assert rules.BATCH in {check.name for check in artifact_checks(single, images, precision=None) if check.fired}
    timed = run_bench([stage.path], bench_config())["artifacts"][0]["alarms"]
    assert asked(timed) == listed("bench") and fired(timed) == {rules.BATCH}


def bench_config() -> dict[str, Any]:
    brief = {"samples": 5, "warmup": 1, "seconds": 0.01}
    return parse(BenchConfig, brief, "test").model_dump(mode="json")


def test_times_of_a_softmax_are_no_worse_for_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graphs.linear_digits(scale=8, softmax=True))
    alarms = run_bench([tmp_path / "model.onnx"], bench_config())["artifacts"][0]["alarms"]
    assert asked(alarms) == listed("bench") and rules.PROBABILITIES not in fired(alarms)


@pytest.mark.parametrize(("scale", "blind"), [(8, False), (1e6, True)])
def test_a_graph_whose_answers_show_random_search_no_way(scale: float, blind: bool, tmp_path: Path) -> None:
    """A saturated softmax: Square finds nothing, on any network, and that is no robustness."""
    (tmp_path / "model.onnx").write_bytes(graphs.linear_digits(scale=scale, softmax=True))
    config = parse(ImportConfig, {"source": str(tmp_path / "model.onnx"), **IMPORT}, "test")
    stage = teacher_import.run(config, teacher_import.ImportInputs(), tmp_path / "t")
    assert fired(stage.metrics["checks"]) == ({rules.RISING} if blind else set())
    if not blind:  # and its evaluation speaks of no gradient, as there is none
        settings = {"attack": ["square-30"], "images": 20, "data": "digits"}
        done = evaluate.run(
            parse(EvaluateConfig, settings, "test"), evaluate.EvaluateInputs(model=stage.path), tmp_path / "v"
        )
        assert not fired(done.metrics["checks"])


def test_a_twin_without_gradients_is_an_alarm_of_the_statement(tmp_path: Path) -> None:
    """Saturated inside: the replayed images are those of attacks that saw nothing."""
    nodes = [helper.make_node(op, list(given), [made]) for op, given, made in SATURATED]
    constants = {"off": np.float32(0.1), "steep": np.float32(1e6), "r": np.eye(10, dtype=np.float32) * 3 - 1}
    file = graph_ending_in(nodes, {name: np.asarray(value) for name, value in constants.items()}, tmp_path / "m.onnx")
    config = parse(ExportConfig, {"data": "digits"}, "test")
    stage = export.stage.run(config, export.stage.ExportInputs(file), tmp_path / "e")
    found = attacked(tmp_path, stage)
    stated = verified(tmp_path, stage, found)
    names = {alarm["name"] for alarm in stated["alarms"] if alarm["fired"]}
    assert names >= {rules.ZERO, rules.RISING}
    (outcome,) = judge_requirements(read_statement(tmp_path / "v"), [parse_requirement("robust>=0.01")])
    assert not outcome.passed and rules.ZERO in outcome.why


SATURATED = (
    ("Sub", ("before", "off"), "a"),
    ("Mul", ("a", "steep"), "far"),
    ("Sigmoid", ("far",), "ends"),
    ("MatMul", ("ends", "r"), "y"),
)
