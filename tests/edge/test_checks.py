"""The independent check against a loop over pixels, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.attacks.checks import admissible, wrong
from edge.core.errors import CompressError

GREY = st.integers(0, 255)


@given(st.lists(st.tuples(GREY, GREY), min_size=1, max_size=12), st.integers(0, 255))
def test_grey_levels_against_integers(pairs: list[tuple[int, int]], radius: int) -> None:
    moved, clean = (np.array(side, np.uint8).reshape(-1, 1, 1, 1) for side in zip(*pairs, strict=True))
    want = [abs(a - b) <= radius for a, b in pairs]
    assert admissible(moved, clean, radius / 255).tolist() == want
    floats = (moved / np.float32(255)).astype(np.float32)
    assert admissible(floats, clean, radius / 255).tolist() == want


@pytest.mark.parametrize(
    ("pixel", "inside"),
    [(0.5, True), (0.6, True), (0.6 + 5e-7, True), (0.6 + 2e-6, False), (0.4 - 2e-6, False)],
)
def test_the_slack_is_a_millionth(pixel: float, inside: bool) -> None:
    clean = np.full((1, 1, 2, 2), 0.5)
    moved = clean.copy()
    moved[0, 0, 1, 1] = pixel
    assert admissible(moved, clean, 0.1).tolist() == [inside]


@pytest.mark.parametrize("pixel", [-1e-9, 1 + 1e-9, np.nan, np.inf, -np.inf])
def test_outside_the_range_or_not_finite(pixel: float) -> None:
    clean = np.array([0.0, 1.0]).reshape(2, 1, 1, 1)
    moved = clean.copy()
    moved[1 if pixel > 0 or pixel != pixel else 0] = pixel
    assert admissible(moved, clean, 0.5).sum() == 1
    assert not admissible(np.full((1, 1, 1, 1), np.inf), np.full((1, 1, 1, 1), np.inf), 0.5).any()


def test_one_pixel_decides_for_its_image_alone() -> None:
    clean = np.full((5, 3, 4, 4), 100, np.uint8)
    moved = clean.copy()
    moved[3, 2, 3, 3] = 109
    assert admissible(moved, clean, 8 / 255).tolist() == [True, True, True, False, True]


def test_no_images() -> None:
    none = np.zeros((0, 1, 8, 8), np.uint8)
    assert admissible(none, none, 0.1).shape == (0,)
    assert wrong(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize(
    ("moved", "clean"),
    [((5, 1, 8, 8), (1, 1, 8, 8)), ((5, 1, 8, 8), (5, 1, 8, 1)), ((5, 1, 8, 8), (8, 8)), ((4,), (4,))],
)
def test_shapes_that_do_not_match_are_refused(moved: tuple[int, ...], clean: tuple[int, ...]) -> None:
    with pytest.raises(CompressError, match="give one candidate an image"):
        admissible(np.zeros(moved, np.uint8), np.zeros(clean, np.uint8), 0.1)


def test_other_types_are_refused() -> None:
    with pytest.raises(CompressError, match="images of type int64; uint8 or float"):
        admissible(np.zeros((1, 1, 2, 2), np.int64), np.zeros((1, 1, 2, 2), np.uint8), 0.1)


@given(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=6), st.data())
def test_wrong_against_a_loop(rows: list[list[int]], data: Any) -> None:
    labels = [data.draw(st.integers(0, 2)) for _ in rows]
    want = [row.index(max(row)) != label for row, label in zip(rows, labels, strict=True)]
    assert wrong(np.array(rows, np.float32), np.array(labels)).tolist() == want


@pytest.mark.parametrize(("logits", "labels"), [((3, 4), (2,)), ((3,), (3,)), ((3, 4), (3, 1)), ((1, 4), (3,))])
def test_labels_of_other_images_are_refused(logits: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(CompressError, match="needed"):
        wrong(np.zeros(logits), np.zeros(labels, int))


@pytest.mark.parametrize("eps", [0.0, 1 / 255, 8 / 255, 8.5 / 255, 0.03, 40 / 255, 0.999, 1.0, 2.0])
def test_whole_grey_levels_are_judged_as_their_fractions(eps: float) -> None:
    x, x_adv = (grey.reshape(-1, 1, 1, 1).astype(np.uint8) for grey in np.mgrid[0:256, 0:256])
    fractions = admissible(x_adv.astype(np.float64) / 255, x.astype(np.float64) / 255, eps)
    assert np.array_equal(admissible(x_adv, x, eps), fractions)
    assert int(fractions.sum()) == sum(
        256 - k if k == 0 else 2 * (256 - k) for k in range(256) if k / 255 <= eps + 1e-6
    )
