"""`compress analyze` on the tiny chain: figures against the models themselves, folders, checkpoints, refusals."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import compress.stages.analyze as analyze
from compress import data, folders
from compress.analysis import figure, measurement
from compress.cli.execute import execute
from compress.config import AnalyzeConfig, parse
from compress.data.split import to_float
from compress.networks import network_files
from compress.stages.attack import chosen_test_images
from edge.core import artifact
from edge.core.artifact import Plan, Work
from edge.core.errors import CompressError
from edge.core.progress import Progress

BRIEF: dict[str, Any] = {
    "data": "digits",
    "threat": {"eps": "40/255"},
    "images": 60,
    "steps": 2,
    "radii": ["0", "20/255", "40/255"],
    "bootstrap": 100,
}
FLAGS = ["--images", "60", "--steps", "2", "--radii", "20/255,40/255", "--bootstrap", "100"]


def run(out: Path, *folders: Path, **options: Any) -> artifact.Stage:
    return analyze.run(parse(AnalyzeConfig, {**BRIEF, **options}, "test"), analyze.AnalyzeInputs(models=folders), out)


def sample(count: int = 60) -> measurement.Sample:
    digits = data.load_dataset("digits")
    index = chosen_test_images(digits, count)
    return measurement.Sample(digits.images[index], digits.labels[index], index)


def remade(source: Path, out: Path, *, scale: float) -> Path:
    """A stage like `source` with all its weights times `scale`: another identity, the same data."""
    stage = artifact.read(source)
    model = folders.load(stage)
    weights = {
        name: value * scale if value.is_floating_point() else value for name, value in model.state_dict().items()
    }

    def make(work: Work) -> None:
        network_files.write_architecture(work, network_files.read_architecture(source))
        network_files.write_weights(work.add_payload(network_files.WEIGHTS), weights)

    plan = stage.manifest["plan"]
    artifact.build(out, Plan(stage.kind, plan["config"], plan["seed"], plan["data"], plan["inputs"]), make)
    return out


def with_checkpoints(source: Path, out: Path) -> Path:
    """A copy of a stage that kept two epochs, the second of them the one that was shipped."""
    shutil.copytree(source, out)
    weights = network_files.read_weights(out)
    early = {name: value * 0.5 if name.endswith("weight") else value for name, value in weights.items()}
    manifest = json.loads((out / "manifest.json").read_text())
    for number, kept in ((1, early), (2, weights)):
        path = out / f"epoch-{number:04d}.safetensors"
        network_files.write_weights(path, kept)
        manifest["records"][path.name] = {"sha256": artifact.file_sha256(path), "bytes": path.stat().st_size}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


@pytest.fixture(scope="module")
def in_run(chain: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder that was analyzed from the command line."""
    root = tmp_path_factory.mktemp("analyzed") / "first"
    for name in ("teacher", "student", "quantized"):
        shutil.copytree(getattr(chain, name), root / name)
    assert execute(["analyze", str(root), *FLAGS]) == 0
    return root


@pytest.fixture(scope="module")
def found(in_run: Path) -> dict[str, Any]:
    return analyze.read(artifact.read(in_run / "analysis"))


def test_the_figures_are_those_of_the_models(found: dict[str, Any], chain: SimpleNamespace) -> None:
    assert [model["name"] for model in found["models"]] == ["teacher", "student", "quantized"]
    given = sample()
    for model in found["models"]:
        net = folders.load(getattr(chain, model["name"]))
        with torch.no_grad():
            logits = net(to_float(torch.from_numpy(given.images))).double()
        clean, low, high = model["radii"]
        assert clean["robust"] == (logits.argmax(1).numpy() == given.labels).mean()
        assert clean["confidence"] == pytest.approx(float(logits.softmax(1).amax(1).mean()))
        assert [row["eps"] for row in model["radii"]] == ["0", "20/255", "40/255"]
        assert clean["variance_gap"] == clean["covariance_gap"] == clean["image_gram_gap"] == 0
        assert clean["robust"] > low["robust"] > high["robust"] and clean["margin"] > low["margin"] > high["margin"]
        assert low["interval"][0] < low["robust"] < low["interval"][1]
        assert 0 < low["image_gram_gap"] < high["image_gram_gap"]
        r = model["over_radii"]["class_gram"]["pearson"]
        assert r["r"] < -0.8 and r["interval"][0] <= r["r"] <= r["interval"][1]
    across = found["across_models"]
    assert across["n"] == 3 and across["note"] == "3 models, the interval is wide"


def test_gaps_are_those_of_what_the_model_makes_of_the_attacked_images(chain: SimpleNamespace) -> None:
    net, given, eps = folders.load(chain.student), sample(), 40 / 255
    options: dict[str, Any] = {"steps": 2, "seed": 0, "batch_size": 25}
    rows = measurement.measure(net, "s", given, measurement.draw(60, 3, 0), [0, eps], **options)
    clean, attacked = (
        measurement.observe(net, "s", given, radius, bar=Progress("s", 60), **options) for radius in (0, eps)
    )
    before, after = (np.cov(seen.features.T) for seen in (clean, attacked))
    assert rows["variance"][1, 0] == pytest.approx(np.trace(after) - np.trace(before))
    assert rows["covariance"][1, 0] == pytest.approx(np.linalg.norm(after - before))
    assert rows["of_variance"][0] == pytest.approx(np.trace(before))
    gram = attacked.scores @ attacked.scores.T - clean.scores @ clean.scores.T
    assert rows["image_gram"][1, 0] == pytest.approx(np.linalg.norm(gram) / 60)
    assert rows["robust"][1, 0] == (clean.right & attacked.right).mean()
    margins = np.sort(np.log(clean.scores), axis=1)
    true = np.log(clean.scores)[np.arange(60), given.labels]
    other = np.where(true == margins[:, -1], margins[:, -2], margins[:, -1])
    assert rows["margin"][0, 0] == pytest.approx((true - other).mean(), rel=1e-5)


def test_the_attack_does_not_depend_on_batches(chain: SimpleNamespace) -> None:
    net = folders.load(chain.student)
    seen = [
        measurement.observe(net, "s", sample(), 0.1, steps=2, seed=0, batch_size=size, bar=Progress("s", 60))
        for size in (7, 60)
    ]
    close = np.isclose(seen[0].features, seen[1].features, atol=1e-3).all(1)
    assert close.mean() > 0.9  # a rounding that turns a gradient's sign may move an image


def test_text_and_report_show_it(in_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["analyze", str(in_run), *FLAGS]) == 0
    out = capsys.readouterr().out
    assert "complete already" in out.splitlines()[0]
    assert [line.split()[0] for line in out.splitlines()[3:6]] == ["teacher", "student", "quantized"]
    assert "across 3 models at eps 40/255: 3 models, the interval is wide" in out
    assert "nothing is shown" in out and str(in_run / "report.html") in out
    page = (in_run / "report.html").read_text()
    assert 'id="analysis"' in page and "data:image/png;base64," in page
    assert "Robust accuracy across 3 models at eps 40/255" in page


def test_another_call_on_the_run_replaces_its_analysis_and_the_report_says_when_it_is_old(
    in_run: Path, chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(in_run, tmp_path / "second"))
    shutil.rmtree(root / "teacher")
    remade(chain.teacher, root / "teacher", scale=1.01)
    assert execute(["report", str(root)]) == 0
    assert "networks that are not in this folder any more" in (root / "report.html").read_text()
    assert execute(["analyze", str(root), *FLAGS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not told["complete_already"] and told["analysis"]["models"][0]["name"] == "teacher"
    assert "networks that are not in this folder any more" not in (root / "report.html").read_text()


def test_the_same_call_gives_the_same_identity_and_another_seed_another(chain: SimpleNamespace, tmp_path: Path) -> None:
    identities = [
        run(tmp_path / name, chain.student, seed=seed).identity for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert identities[0] == identities[1] != identities[2]


def test_every_epoch_counts_each_of_its_weights_once(chain: SimpleNamespace, tmp_path: Path) -> None:
    source = with_checkpoints(chain.student, tmp_path / "student")
    stage = run(tmp_path / "out", source, every_epoch=True)
    found = analyze.read(stage)
    assert [(model["name"], model["epoch"]) for model in found["models"]] == [("student@1", 1), ("student", None)]
    first, last = (model["radii"][0] for model in found["models"])
    assert first["margin"] != last["margin"]
    assert stage.manifest["plan"]["inputs"].keys() == {"model-0", "checkpoints-0"}
    with Image.open(stage.file("figure.png")) as picture:
        assert picture.width > 1000


def test_a_killed_analysis_goes_on_with_the_next_model(
    chain: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    plain = analyze.measure

    def killed_at_the_second(model: Any, name: str, *args: Any, **more: Any) -> Any:
        called.append(name)
        if called == ["teacher", "student"]:
            raise KeyboardInterrupt
        return plain(model, name, *args, **more)

    monkeypatch.setattr(analyze, "measure", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", chain.teacher, chain.student)
    assert not (tmp_path / "out").exists()
    stage = run(tmp_path / "out", chain.teacher, chain.student)
    assert called == ["teacher", "student", "student"]
    assert stage.identity == run(tmp_path / "anew", chain.teacher, chain.student).identity


def test_a_dead_network_is_said_to_be_one(
    chain: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = remade(chain.student, tmp_path / "dead", scale=0.0)
    out = tmp_path / "out"
    assert execute(["analyze", str(dead), str(chain.student), str(chain.teacher), *FLAGS, "--out", str(out)]) == 0
    text = (out / "analysis.json").read_text()
    assert "NaN" not in text
    first = json.loads(text)["models"][0]
    assert first["radii"][1]["relative_variance_gap"] is None
    assert first["over_radii"]["variance"]["pearson"]["reason"] == "robust accuracy is the same at every radius"
    printed = capsys.readouterr().out
    assert "dead: r undefined, robust accuracy is the same at every radius" in printed
    assert "relative variance gap: undefined, the features of a model have no variance" in printed


def test_models_are_named_by_what_tells_them_apart_and_counted_once(chain: SimpleNamespace, tmp_path: Path) -> None:
    other = remade(chain.student, tmp_path / "other" / "student", scale=1.01)
    held = measurement.network_stages([chain.student, other, chain.root, chain.student])
    assert measurement.short_names(held) == [f"{chain.root.name}/student", "other/student", "teacher", "quantized"]


def test_the_default_grid_goes_to_twice_eps() -> None:
    config = parse(AnalyzeConfig, {"data": "digits", "threat": {"eps": "8/255"}}, "test")
    assert analyze.grid(config) == ["0", *(f"{k}/255" for k in range(2, 17, 2))]
    wide = parse(AnalyzeConfig, {"data": "digits", "threat": {"eps": "0.5"}}, "test")
    assert analyze.grid(wide)[-1] == "255/255" and "0.5" in analyze.grid(wide)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"radii": ["0", "8/255", "16/255"]}, "radii: 0, 8/255, 16/255 are without eps 40/255"),
        ({"radii": ["40/255"]}, "radii: 40/255 make no line; give at least 3"),
        ({"radii": ["0", "40"]}, "40 is outside"),
        ({"images": 10}, "images: 10 are too few for intervals; give at least 30"),
        ({"images": 1000}, "1000 asked for, the test split of digits has 359"),
        ({"bootstrap": 5}, "bootstrap"),
        ({"every_epoch": True}, "keeps no checkpoints"),
    ],
)
def test_a_fault_of_the_options_is_one_line(options: Any, said: str, chain: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(CompressError) as fault:
        run(tmp_path / "out", chain.student, **options)
    assert said in str(fault.value) and "\n" not in str(fault.value)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_analyzed(chain: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CompressError, match=r"empty: no manifest\.json there"):
        run(tmp_path / "out", tmp_path / "empty")
    with pytest.raises(CompressError, match="is a stage of kind exported; needed here: teacher or student"):
        run(tmp_path / "out", chain.e)
    with pytest.raises(CompressError, match="is a stage of kind student; needed here: analyzed"):
        analyze.read(artifact.read(chain.student))
    x, y = np.zeros((100, 1, 8, 8), np.uint8), np.arange(100) % 10
    x[:, 0, 0, 0] = np.arange(100)
    np.savez(tmp_path / "other.npz", images=x, labels=y)
    with pytest.raises(CompressError, match="made from another dataset"):
        run(tmp_path / "out", chain.student, data=f"npz:{tmp_path / 'other.npz'}")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_network_of_nothing_but_logits_is_refused_by_name(chain: SimpleNamespace, tmp_path: Path) -> None:
    def make(work: Work) -> None:
        network_files.write_architecture(
            work, {**network_files.read_architecture(chain.student), "model": network_files.ONNX}
        )
        shutil.copy(chain.ef / "model.onnx", work.add_payload("model.onnx"))

    artifact.build(tmp_path / "graph", Plan("teacher", {"source": "graph.onnx"}, 0, {}, {}), make)
    with pytest.raises(CompressError, match=r"graph: gives nothing but logits.*leave this model out"):
        run(tmp_path / "out", chain.student, tmp_path / "graph")


def test_a_network_that_gives_no_numbers_is_refused_by_name(chain: SimpleNamespace, tmp_path: Path) -> None:
    broken = remade(chain.student, tmp_path / "broken", scale=float("nan"))
    with pytest.raises(CompressError, match=r"^broken: gives values that are no finite numbers"):
        run(tmp_path / "out", broken)
    assert not (tmp_path / "out").exists()


def test_without_out_one_run_is_needed(chain: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["analyze", str(chain.student)]) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_twenty_models_fit_the_figure(found: dict[str, Any], tmp_path: Path) -> None:
    many = [{**found["models"][0], "name": f"model-{k}", "identity": str(k)} for k in range(20)]
    figure.draw({**found, "models": many}, tmp_path / "few.png")
    with Image.open(tmp_path / "few.png") as picture:
        assert picture.format == "PNG" and picture.width > picture.height
