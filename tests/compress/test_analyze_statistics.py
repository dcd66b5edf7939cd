"""The gaps of an analysis against float64 loops over the drawn images, one by one."""

from itertools import product

import numpy as np
import pytest

from compress.analysis import statistics
from compress.analysis.measurement import draw

N, D, K = 9, 4, 3


@pytest.fixture(params=[3, 512], ids=["blocks", "one block"])
def weights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(statistics, "BLOCK", request.param)
    return draw(N, 5, seed=3)


def features(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 1, (N, D)) * np.arange(1, D + 1)


def scores(seed: int) -> np.ndarray:
    values = np.exp(np.random.default_rng(seed).normal(0, 2, (N, K)))
    return values / values.sum(1, keepdims=True)


def listed(values: np.ndarray, row: np.ndarray) -> list[list[float]]:
    """The drawn images, an image drawn twice standing there twice."""
    return [values[i].tolist() for i in range(len(values)) for _ in range(int(row[i]))]


def covariance(rows: list[list[float]]) -> list[list[float]]:
    n, width = len(rows), len(rows[0])
    mean = [sum(row[j] for row in rows) / n for j in range(width)]
    return [
        [sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in rows) / (n - 1) for j in range(width)]
        for i in range(width)
    ]


def class_gram(rows: list[list[float]]) -> list[list[float]]:
    width = len(rows[0])
    return [[sum(row[i] * row[j] for row in rows) / len(rows) for j in range(width)] for i in range(width)]


def image_gram(rows: list[list[float]]) -> list[list[float]]:
    return [[sum(p * q for p, q in zip(a, b, strict=True)) / len(rows) for b in rows] for a in rows]


def frobenius(a: list[list[float]], b: list[list[float]]) -> float:
    return float(sum((a[i][j] - b[i][j]) ** 2 for i, j in product(range(len(a)), repeat=2)) ** 0.5)


def test_the_first_row_is_the_sample_and_the_others_are_resamples(weights: np.ndarray) -> None:
    assert (weights[0] == 1).all() and (weights.sum(1) == N).all() and (weights[1:] != 1).any(1).all()
    assert (draw(N, 5, seed=3) == weights).all() and (draw(N, 5, seed=4) != weights).any()


def test_traces(weights: np.ndarray) -> None:
    f = features(0)
    for found, row in zip(statistics.traces(f, weights), weights, strict=True):
        matrix = covariance(listed(f, row))
        assert found == pytest.approx(sum(matrix[i][i] for i in range(D)), rel=1e-12)


@pytest.mark.parametrize(
    ("distance", "matrix", "values"),
    [
        (statistics.covariance_distance, covariance, features),
        (statistics.class_gram_distance, class_gram, scores),
        (statistics.image_gram_distance, image_gram, scores),
    ],
)
def test_distances(distance, matrix, values, weights: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    a, c = values(0), values(1)
    for found, row in zip(distance(a, c, weights), weights, strict=True):
        assert found == pytest.approx(frobenius(matrix(listed(a, row)), matrix(listed(c, row))), rel=1e-10)
    assert distance(a, c, weights) == pytest.approx(distance(c, a, weights), rel=1e-12)
    assert distance(a, a, weights) == pytest.approx(0, abs=1e-6)


def test_the_norm_is_the_distance_from_nothing(weights: np.ndarray) -> None:
    f = features(0)
    expected = [frobenius(covariance(listed(f, row)), [[0.0] * D] * D) for row in weights]
    assert statistics.covariance_norm(f, weights) == pytest.approx(np.array(expected), rel=1e-10)


def test_covariances_scale_with_the_square_and_ignore_a_shift(weights: np.ndarray) -> None:
    a, c = features(0), features(1)
    assert statistics.traces(3 * a + 100, weights) == pytest.approx(9 * statistics.traces(a, weights), rel=1e-9)
    there = statistics.covariance_distance(3 * a + 100, 3 * c - 50, weights)
    assert there == pytest.approx(9 * statistics.covariance_distance(a, c, weights), rel=1e-9)
