"""`compress evaluate`: figures that follow from the verdicts, resumed, failed where not to be trusted."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress import data, folders
from compress.cli import show
from compress.config import EvaluateConfig, parse
from compress.data.corruptions import CORRUPTIONS, corrupted
from compress.stages import evaluate
from edge.core.errors import CheckFailed, CompressError

BRIEF: dict[str, Any] = {"data": "digits", "threat": {"eps": "24/255"}, "images": 40, "attack": ["pgd-5", "square-20"]}


def run(model: Path, out: Path, others: "tuple[Path, ...]" = (), **options: Any) -> Any:
    config = parse(EvaluateConfig, {**BRIEF, **options}, "test")
    return evaluate.run(config, evaluate.EvaluateInputs(model=model, others=others), out)


@pytest.fixture(scope="module")
def evaluated(chain: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    out = tmp_path_factory.mktemp("evaluated") / "e"
    stage = run(
        chain.student,
        out,
        (chain.teacher,),
        curve=["8/255", "24/255"],
        unseen="0.3",
        corruptions=True,
        allow_invalid=True,
    )
    with np.load(stage.file("verdicts.npz")) as arrays:
        return SimpleNamespace(stage=stage, found=evaluate.read_evaluation(stage), table=dict(arrays))


def test_a_figure_without_the_whole_ensemble_is_called_an_upper_bound(evaluated: SimpleNamespace) -> None:
    brief, whole = (show.evaluation(evaluated.found | {"attack": names}) for names in (["pgd", "rays"], ["standard"]))
    assert "an upper bound" in brief[2] and brief[2].startswith(whole[2]) and "upper bound" not in whole[2]


def test_the_figures_follow_from_the_verdicts(evaluated: SimpleNamespace) -> None:
    found, table = evaluated.found, evaluated.table
    assert found["n"] == 40 and list(table["attacks"]) == ["pgd", "square"]
    assert found["clean"] == table["right"].mean() and found["robust"] == table["robust"].mean()
    assert (table["robust"] == (table["right"] & ~table["broken"].any(0))).all()
    assert found["interval"][0] < found["robust"] < found["interval"][1]
    for number, count in found["by_class"].items():
        of_class = table["labels"] == int(number)
        assert count["n"] == of_class.sum() and count["robust"] == table["robust"][of_class].mean()
    worst = found["by_class"][str(found["worst_class"])]["robust"]
    assert worst == min(count["robust"] for count in found["by_class"].values())


def test_every_adversarial_image_is_there_and_does_what_its_verdict_says(
    evaluated: SimpleNamespace, chain: SimpleNamespace
) -> None:
    import torch

    table = evaluated.table
    clean = data.load_dataset("digits").images[table["index"]].astype(np.float32) / 255
    assert table["adversarial"].shape == clean.shape
    assert np.abs(table["adversarial"] - clean).max() <= 24 / 255 + 1e-6
    with torch.no_grad():
        wrong = folders.load(chain.student)(torch.from_numpy(table["adversarial"])).argmax(1).numpy() != table["labels"]
    assert (wrong[table["broken_by"] >= 0]).all()
    assert not wrong[table["robust"]].any()


def test_the_curve_falls_and_ends_in_the_measured_figure(evaluated: SimpleNamespace) -> None:
    curve = evaluated.found["curve"]
    assert [row["eps"] for row in curve] == ["8/255", "24/255"]
    robust = [row["robust"] for row in curve]
    assert robust[0] >= robust[1] and robust[1] == evaluated.found["robust"]
    assert evaluated.found["unseen"]["norm"] == "l2"


def test_transfer_is_weaker_than_the_attack_itself(evaluated: SimpleNamespace) -> None:
    accuracy = evaluated.found["transfer"]["accuracy"]
    assert accuracy["model"]["model"] == evaluated.found["robust"]
    assert accuracy["other-0"]["model"] >= accuracy["model"]["model"]


def test_the_same_call_is_complete_and_another_is_refused(evaluated: SimpleNamespace, chain: SimpleNamespace) -> None:
    with pytest.raises(CompressError, match="holds a stage made otherwise"):
        run(chain.student, evaluated.stage.path)


def test_a_budget_leaves_images_inconclusive_never_passed(chain: SimpleNamespace, tmp_path: Path) -> None:
    stage = run(chain.student, tmp_path / "e", budget="0.01s", batch_size=10, allow_invalid=True)
    assert stage.metrics["robust"] is None and stage.metrics["inconclusive"] > 0
    low, high = stage.metrics["robust_bounds"]
    assert low < high


def test_a_figure_not_to_be_trusted_is_written_and_fails(
    chain: SimpleNamespace, tmp_path: Path, monkeypatch: Any
) -> None:
    import torch

    class Saturated(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x).detach() * 1e4 + 0 * self.inner(x)

    load = evaluate.load
    monkeypatch.setattr(evaluate, "load", lambda stage: Saturated(load(stage)).eval())
    with pytest.raises(CheckFailed, match=r"the figure is not to be trusted: .*gradient"):
        run(chain.student, tmp_path / "e")
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["n"] == 40


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attack": ["apgd-x"]}, "attack 'apgd-x': not known"),
        ({"budget": "soon"}, "'soon' is no time; write it like 90s, 20m or 2h"),
        ({"curve": ["8"]}, "8 is outside"),
        ({"images": 1000}, "1000 asked for, the test split of digits has 359"),
    ],
)
def test_a_fault_is_one_line(options: Any, said: str, chain: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(CompressError) as fault:
        run(chain.student, tmp_path / "e", **options)
    assert said in str(fault.value) and "\n" not in str(fault.value) and not (tmp_path / "e").exists()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_deterministic_and_grows_with_severity(name: str, channels: int) -> None:
    draw = np.random.default_rng(0)
    smooth = draw.integers(60, 196, (4, channels, 5, 5)).repeat(7, 2).repeat(7, 3)[:, :, :32, :32].astype(np.uint8)
    found = [corrupted(smooth, name, severity) for severity in (1, 3, 5)]
    assert all(each.shape == smooth.shape and each.dtype == np.uint8 for each in found)
    changes = [np.abs(each.astype(int) - smooth).mean() for each in found]
    assert 0 < changes[0] < changes[1] < changes[2]
    assert (corrupted(smooth, name, 3) == found[1]).all()
