"""Square and RayS on linear classifiers, whose nearest boundary is known: never nearer than it, reaching it in time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge.attacks import checks
from edge.attacks.rays import rays
from edge.attacks.search import Ball, QueryAttackResult, whose_turn
from edge.attacks.square import SCHEDULE, side, square
from tests.edge import linear

RNG = np.random.default_rng(3)
WEIGHTS = linear.balanced(RNG)
DRAWN = RNG.integers(80, 176, (60, *linear.SHAPE), dtype=np.uint8)
CLEAN = DRAWN[linear.radii(WEIGHTS, DRAWN, linear.logits(WEIGHTS, DRAWN).argmax(1)).min(1) > 2][:24]
LABELS = linear.logits(WEIGHTS, CLEAN).argmax(1)
NEED = linear.radii(WEIGHTS, CLEAN, LABELS).min(1)  # in grey levels
IDS = 500 + np.arange(len(CLEAN))
ATTACKS = [pytest.param(square, id="square"), pytest.param(rays, id="rays")]

Attack = Callable[..., QueryAttackResult]


class Watched:
    """A linear classifier that keeps what it was asked."""

    def __init__(self, weights: np.ndarray = WEIGHTS) -> None:
        self.weights, self.asked = weights, list[np.ndarray]()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.asked.append(images.copy())
        return linear.logits(self.weights, images)


def attack(which: Attack, radius: float, queries: int, infer: Any = None, **more: Any) -> QueryAttackResult:
    given = {"seed": 0, "ids": IDS} | more
    return which(infer or Watched(), CLEAN, LABELS, eps=radius / 255, queries=queries, **given)


def test_the_images_try_both_sides_of_the_radii_used() -> None:
    assert len(NEED) == 24 and (NEED < 5).sum() >= 3 and (NEED > 8).sum() >= 3


@pytest.mark.parametrize("which", ATTACKS)
@pytest.mark.parametrize("radius", [2, 5, 10, 20])
def test_no_success_beyond_what_is_possible(which: Attack, radius: int) -> None:
    found = attack(which, radius, 200)
    assert not found.broken[np.ceil(NEED) > radius].any()
    assert checks.admissible(found.adversarial, CLEAN, radius / 255).all()
    wrong = checks.wrong(linear.logits(WEIGHTS, found.adversarial), LABELS)
    np.testing.assert_array_equal(wrong, found.broken)
    assert found.adversarial.dtype == np.uint8


@pytest.mark.parametrize(("which", "queries"), [pytest.param(square, 400), pytest.param(rays, 1500)])
def test_boundaries_that_are_well_inside_are_found(which: Attack, queries: int) -> None:
    found = attack(which, 20, queries)
    assert found.broken[NEED < 14].all()
    assert found.queries[found.broken].max() <= queries
    assert (found.queries[~found.broken] == queries).all()


@pytest.mark.parametrize("which", ATTACKS)
def test_an_image_already_wrong_takes_one_query_and_is_returned_as_it_is(which: Attack) -> None:
    labels = LABELS.copy()
    labels[::3] = (labels[::3] + 1) % 3
    found = which(Watched(), CLEAN, labels, eps=1 / 255, queries=20, seed=0)
    assert (found.queries[::3] == 1).all() and found.broken[::3].all()
    np.testing.assert_array_equal(found.adversarial[::3], CLEAN[::3])
    assert (np.delete(found.queries, np.s_[::3]) > 1).all()


@pytest.mark.parametrize("which", ATTACKS)
def test_the_budget_is_never_exceeded_and_counts_what_was_asked(which: Attack) -> None:
    for queries in (1, 2, 3, 17):
        infer = Watched()
        found = attack(which, 10, queries, infer)
        assert found.queries.max() <= queries
        assert found.queries.sum() == sum(len(asked) for asked in infer.asked)


@pytest.mark.parametrize("which", ATTACKS)
def test_an_images_fate_depends_on_no_other_image(which: Attack) -> None:
    every, some = attack(which, 10, 80), np.arange(1, 24, 5)
    few = which(Watched(), CLEAN[some], LABELS[some], eps=10 / 255, queries=80, seed=0, ids=IDS[some])
    for name in ("adversarial", "broken", "queries"):
        np.testing.assert_array_equal(getattr(every, name)[some], getattr(few, name))


@pytest.mark.parametrize("which", ATTACKS)
@pytest.mark.parametrize("batch_size", [5, 7, 16, 64])
def test_scheduling_changes_nothing(which: Attack, batch_size: int) -> None:
    one, other = attack(which, 10, 80), attack(which, 10, 80, batch_size=batch_size)
    for name in ("adversarial", "broken", "queries"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("which", ATTACKS)
def test_batches_are_full_as_long_as_enough_images_stand(which: Attack) -> None:
    infer = Watched()
    found = attack(which, 1, 120, infer, batch_size=16)
    assert not found.broken.any()
    calls = sum(-(-len(asked) // 16) for asked in infer.asked)
    assert calls <= 24 * 120 / 16 + 3  # 240 where every round asks all 24 images


def test_turns_are_whole_batches_of_the_least_queried() -> None:
    spent = np.array([9, 3, 1, 3, 2, 3, 0])
    assert whose_turn(np.array([1, 2, 3, 4, 5]), spent, 2).tolist() == [1, 2, 3, 4]
    assert whose_turn(np.array([1, 2, 3]), spent, 4).tolist() == [1, 2, 3]
    assert whose_turn(np.array([0, 5]), spent, 1).tolist() == [0, 5]


@pytest.mark.parametrize("which", ATTACKS)
def test_another_seed_asks_otherwise_and_the_same_asks_the_same(which: Attack) -> None:
    asked = []
    for seed in (1, 1, 2):
        infer = Watched()
        attack(which, 1, 300, infer, seed=seed)
        asked.append(np.concatenate(infer.asked))
    assert (asked[0] == asked[1]).all() and not np.array_equal(asked[0], asked[2])


@pytest.mark.parametrize("which", ATTACKS)
def test_floats_stay_floats_in_the_ball(which: Attack) -> None:
    clean = (CLEAN / 255).astype(np.float32)
    found = which(Watched(), clean, LABELS, eps=20.5 / 255, queries=300, seed=0)
    assert found.adversarial.dtype == np.float32 and found.broken[NEED < 10].all()
    assert not found.broken[NEED > 20.6].any()
    assert checks.admissible(found.adversarial, clean, 20.5 / 255).all()


@pytest.mark.parametrize("which", ATTACKS)
def test_no_images(which: Attack) -> None:
    found = which(Watched(), CLEAN[:0], LABELS[:0], eps=0.1, queries=5, seed=0)
    assert found.adversarial.shape == (0, *linear.SHAPE) and len(found.broken) == len(found.queries) == 0


@pytest.mark.parametrize("which", ATTACKS)
def test_pixels_at_the_ends_of_the_range(which: Attack) -> None:
    ends = np.where(RNG.random(CLEAN.shape) < 0.5, 0, 255).astype(np.uint8)
    labels = linear.logits(WEIGHTS, ends).argmax(1)
    found = which(Watched(), ends, labels, eps=200 / 255, queries=60, seed=0)
    assert found.broken.any() and checks.admissible(found.adversarial, ends, 200 / 255).all()


def test_the_radius_on_the_grid_is_the_whole_number_below() -> None:
    for k in range(1, 256):
        assert Ball.around(CLEAN, k / 255).radius == k
        assert Ball.around(CLEAN, (k + 0.5) / 255).radius == k


# ---------------------------------------------------------------------------------------------- Square


def _alone(which: Attack, radius: int, queries: int) -> tuple[np.ndarray, Watched]:
    """All that is asked about the image farthest from every boundary, after the clean one: (queries − 1, D)."""
    infer, last = Watched(), [int(NEED.argmax())]
    which(infer, CLEAN[last], LABELS[last], eps=radius / 255, queries=queries, seed=0)
    return np.concatenate(infer.asked[1:]).reshape(queries - 1, -1).astype(int), infer


def test_square_always_asks_something_else_than_its_best() -> None:
    asked, _ = _alone(square, 1, 300)
    margins = linear.logits(WEIGHTS, asked.reshape(-1, *linear.SHAPE).astype(np.uint8))
    label = LABELS[NEED.argmax()]
    best, lowest = asked[0], np.inf
    for candidate, logits in zip(asked, margins, strict=True):
        margin = logits[label] - np.delete(logits, label).max()
        assert lowest == np.inf or (candidate != best).any()
        if margin < lowest:
            best, lowest = candidate, margin


def test_square_starts_with_stripes_and_goes_on_with_one_window() -> None:
    asked, _ = _alone(square, 3, 40)
    moved = (asked - CLEAN[NEED.argmax()].reshape(-1).astype(int)).reshape(-1, 4, 4)
    assert set(np.unique(moved)) == {-3, 3}  # no pixel of these images is near 0 or 255
    assert (moved[0] == moved[0][:1]).all() and len(np.unique(moved[0])) == 2
    change = moved[1] != moved[0]
    rows, columns = np.flatnonzero(change.any(1)), np.flatnonzero(change.any(0))
    reach = side(1, 40, 4, 4)
    assert 0 < np.ptp(rows) + 1 <= reach and np.ptp(columns) + 1 <= reach
    assert len(np.unique(moved[1][change])) == 1


def test_squares_go_up_and_down_equally_often() -> None:
    clean = np.full((400, 1, 8, 8), 128, np.uint8)
    infer = Watched(np.stack([np.ones(64), np.zeros(64)]))  # the first class, always

    def three_times(images: np.ndarray) -> np.ndarray:
        if len(infer.asked) == 3:
            raise InterruptedError
        return infer(images)

    with pytest.raises(InterruptedError):
        square(three_times, clean, np.zeros(400, int), eps=3 / 255, queries=10_000, seed=0)
    _, stripes, windows = infer.asked
    up = (windows.astype(int) > stripes).any((1, 2, 3))  # windows of 7×7 meet stripes of both signs
    assert 150 < up.sum() < 250


def test_square_accepts_only_what_lowers_the_margin() -> None:
    found = attack(square, 1, 100)
    rows = np.arange(len(LABELS))

    def margin(images: np.ndarray) -> np.ndarray:
        logits = linear.logits(WEIGHTS, images)
        others = np.where(np.eye(3, dtype=bool)[LABELS], -np.inf, logits).max(1)
        return logits[rows, LABELS] - others

    infer = Watched()
    attack(square, 1, 100, infer)
    assert not found.broken.any()
    asked = np.stack(infer.asked[1:])
    np.testing.assert_allclose(margin(found.adversarial), np.min([margin(images) for images in asked], axis=0))
    assert (margin(found.adversarial) < margin(asked[0])).any()


def test_the_side_follows_the_papers_schedule() -> None:
    sides = [side(query, 10_000, 32, 32) for query in range(1, 10_000)]
    assert sides[0] == 29 and sides[-1] == 1 and sides == sorted(sides, reverse=True)
    for upto, divisor in SCHEDULE[:-1]:
        assert side(int(upto * 1000), 1000, 32, 32) == max(1, round((0.8 / divisor) ** 0.5 * 32))
    assert side(1, 1000, 3, 40) == 3  # never higher than the image


def test_a_tie_that_argmax_gives_to_the_label_is_no_success() -> None:
    tied = np.zeros((2, 16))
    found = square(Watched(tied), CLEAN[:2], np.array([0, 1]), eps=8 / 255, queries=9, seed=0)
    assert found.broken.tolist() == [False, True]


# ---------------------------------------------------------------------------------------------- RayS


@pytest.mark.parametrize("queries", [9, 20, *range(30, 50), 70])
def test_rays_loses_no_hit_inside_the_ball(queries: int) -> None:
    radius, order, hits = 12, [], np.zeros(len(CLEAN), bool)
    infer = Watched()
    for i in range(len(CLEAN)):  # one image at a time, so that each question has an owner
        before = len(infer.asked)
        found = rays(infer, CLEAN[[i]], LABELS[[i]], eps=radius / 255, queries=queries, seed=0, ids=IDS[[i]])
        asked = np.concatenate(infer.asked[before:])
        near = np.abs(asked.astype(int) - CLEAN[i]).max((1, 2, 3)) <= radius
        wrong = checks.wrong(linear.logits(WEIGHTS, asked), np.full(len(asked), LABELS[i]))
        hits[i] = (near & wrong).any()
        order.append(found.broken[0])
        if hits[i]:
            assert near[-1] and wrong[-1] and not (near & wrong)[:-1].any()  # it stops there
    assert order == hits.tolist()
    assert hits.any() or queries < 30


def test_rays_asks_hardly_anything_twice() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 64))  # of 16 pixels each new start would come to the same nearest boundary
    clean = rng.integers(80, 176, (1, 1, 8, 8), dtype=np.uint8)
    infer = Watched(weights)
    rays(infer, clean, infer(clean).argmax(1), eps=1 / 255, queries=1000, seed=0)
    asked = np.concatenate(infer.asked[1:]).reshape(-1, 64)
    assert len(asked) == 1000 and len(np.unique(asked, axis=0)) > 950


def test_what_stands_is_returned_moved_towards_the_nearest_boundary_seen() -> None:
    infer, i = Watched(), int(NEED.argmax())
    found = rays(infer, CLEAN[[i]], LABELS[[i]], eps=2 / 255, queries=300, seed=0)
    asked = np.concatenate(infer.asked)
    moved = asked.astype(int) - CLEAN[i]
    distance = np.abs(moved).max((1, 2, 3)) + 1000 * (infer(asked).argmax(1) == LABELS[i])
    np.testing.assert_array_equal(found.adversarial[0], CLEAN[i] + 2 * np.sign(moved[distance.argmin()]))


def test_rays_uses_predictions_alone() -> None:
    def labels_only(images: np.ndarray) -> np.ndarray:
        return np.eye(3)[linear.logits(WEIGHTS, images).argmax(1)]

    one, other = attack(rays, 10, 80), attack(rays, 10, 80, labels_only)
    np.testing.assert_array_equal(one.adversarial, other.adversarial)


def test_rays_first_question_is_a_ray_of_one_sign_and_radii_shrink_to_the_boundary() -> None:
    asked, _ = _alone(rays, 1, 200)
    clean = CLEAN[NEED.argmax()].reshape(-1).astype(int)
    assert (asked[0] == 255).all()
    distances = np.abs(asked - clean).max(1)
    wrong = checks.wrong(
        linear.logits(WEIGHTS, asked.reshape(-1, *linear.SHAPE).astype(np.uint8)),
        np.full(len(asked), LABELS[NEED.argmax()]),
    )
    assert NEED.max() <= distances[wrong].min() < 2 * NEED.max()
