"""A budget for the attacks without gradients: what is open when it ends is said, from both sides."""

from pathlib import Path

import jsonschema
import numpy as np
import pytest

from compress.stages import verify
from compress.statement_check import statement_schema
from edge.statement import gate, statement
from edge.statement.statement import Statement
from tests.edge.stages import World, config


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World.make(tmp_path)
    found.export("onnx", found.twin)
    return found


def run(world: World, out: str, **more: object) -> "tuple[dict, dict[str, np.ndarray]]":
    attacks = world.attack_set({"onnx": world.twin})
    inputs = verify.VerifyInputs(exported=world.stages["onnx"].path, attack_set=attacks.path)
    stage = verify.run(config(**more), inputs, world.root / out)
    stated = statement.read_statement(stage.path).as_json()
    jsonschema.Draft202012Validator(statement_schema()).validate(stated)
    return stated, dict(np.load(stage.file("verdicts.npz")))


def test_a_budget_that_ends_at_once_leaves_every_standing_image_open(world: World) -> None:
    _, table = run(world, "whole")
    stands = int(((table["clean_predictions"] == table["labels"]) & ~table["broken"][:-2].any(0)).sum())
    stated, cut = run(world, "cut", budget=1e-9)
    figures = stated["predicate"]["figures"]
    assert stands > 0 and figures["robust"] is None
    open_ = figures["inconclusive"]
    assert (open_["undecided"], open_["budget_seconds"]) == (stands, 1e-9)
    assert open_["if_all_fall"]["count"] == 0 and open_["if_all_stand"]["count"] == stands
    assert figures["upper_bound"] == open_["if_all_stand"]
    assert cut["undecided"].sum() == stands and not (cut["undecided"] & cut["broken"].any(0)).any()
    assert (cut["queries"] == 1).all()
    page = (world.root / "cut" / "report.html").read_text()
    assert f"{stands} images were undecided when the budget ended" in page and "Not covered" not in page
    (outcome,) = gate.judge_requirements(Statement.of(stated), [gate.parse_requirement("robust>=0.1")])
    assert not outcome.passed and f"inconclusive, {stands} images undecided when the budget of 1e-09 s" in outcome.why


def test_a_budget_that_lasts_changes_nothing(world: World) -> None:
    whole, table = run(world, "whole")
    stated, same = run(world, "same", budget=3600.0)
    assert stated["predicate"]["figures"] == whole["predicate"]["figures"]
    assert stated["predicate"]["figures"]["inconclusive"] is None
    assert all(np.array_equal(table[name], same[name]) for name in table)


def test_the_time_is_shared_out_among_the_attacks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 s with a clock that stands still, the first of two attacks gets half, the second all that is left."""
    from edge.verify import verdicts

    given = []

    def watched(name, runner, ask, attacks, config, deadline):  # type: ignore[no-untyped-def]
        given.append(deadline)
        return attack(name, runner, ask, attacks, config, float("inf"))

    attack = verdicts._attack
    monkeypatch.setattr(verdicts, "_attack", watched)
    monkeypatch.setattr(verdicts.time, "monotonic", lambda: 1000.0)
    run(world, "shared", budget=100.0)
    assert given == [1050.0, 1100.0]
