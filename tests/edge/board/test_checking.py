"""`check`: an artifact that still computes what its attack set says passes; another one does not."""

import json
from pathlib import Path

import numpy as np
import pytest

from edge.board import verbs
from edge.core.errors import CompressError
from edge.statement.statement import as_json
from tests.edge.stages import World


def test_the_artifact_of_the_set_passes(world: World) -> None:
    found = verbs.check_artifact(world.stages["exported"].path, world.stages["attack-set"].path)
    assert found["passed"] and found["sha256"] == world.sha256("exported")
    assert found["frozen"] == {"n": 100, "different": 0, "passed": True}
    assert json.loads(json.dumps(as_json(found)))["golden"]["verdict"] == found["golden"].verdict
    assert verbs.check_lines(found)[-1] == "passed"


def test_one_that_computes_something_else_fails(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.export("other", world.student)
    attacks = world.attack_set({"other": world.twin})  # said to have computed what it does not
    found = verbs.check_artifact(world.stages["other"].path, attacks.path)
    assert not found["passed"] and found["frozen"]["different"] > 1
    assert found["golden"].verdict in ("different predictions", "logits differ")
    assert verbs.check_lines(found)[-1].startswith("FAILED")


def test_the_frozen_images_are_half_clean_and_from_every_attack(world: World) -> None:
    from edge.verify.attack_set import AttackSet

    attacks = AttackSet.read(world.stages["attack-set"])
    place = attacks.place(world.stages["exported"].identity)
    assert place is not None
    images, said = verbs._frozen(attacks, place)
    n, a = len(attacks.clean), len(attacks.adversarial)
    assert len(images) == len(said) == min(100, min(n, 50) + n * a)
    assert (images[: min(n, 50)] == attacks.clean[:50]).all()
    for k, image in enumerate(images[min(n, 50) :]):
        assert (image == attacks.adversarial[k % a, k // a]).all()
        assert said[min(n, 50) + k] == attacks.predictions[k % a, place, k // a]
    assert np.isin(said, np.arange(3)).all()


def test_an_artifact_that_is_not_in_the_set_is_refused(world: World) -> None:
    world.export("stranger", world.student)
    with pytest.raises(CompressError, match="does not hold"):
        verbs.check_artifact(world.stages["stranger"].path, world.stages["attack-set"].path)
