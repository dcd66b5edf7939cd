"""Correlations, their intervals and the law's test, against definitions and planted data."""

import numpy as np
import pytest
import scipy.stats
import torch

from compress.analysis import law, statistics
from compress.analysis.measurement import GAPS, Sample, draw, measure
from compress.analysis.statistics import interval, partial, pearson, spearman
from compress.networks.base import Classifier, Features

RNG = np.random.default_rng


def test_correlations_against_scipy() -> None:
    x, y = RNG(0).normal(size=(2, 4, 12)).round(1)
    for row, (a, b) in enumerate(zip(x, y, strict=True)):
        assert pearson(x, y)[row] == pytest.approx(scipy.stats.pearsonr(a, b).statistic, abs=1e-12)
        assert spearman(x, y)[row] == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)


def test_a_constant_has_no_correlation() -> None:
    x = np.array([[0.1, 0.1, 0.1], [1, 2, 3], [1, np.nan, 3]])
    y = np.array([1.0, 5, 4])
    assert np.isnan(pearson(x, y)).tolist() == [True, False, True]
    assert np.isnan(spearman(x, y)).tolist() == [True, False, True]
    assert np.isnan(pearson(x, np.full(3, 0.3))).all()


@pytest.mark.parametrize("covariates", [1, 2])
def test_the_partial_correlation_is_that_of_regression_residuals(covariates: int) -> None:
    sampled = RNG(1)
    given = sampled.normal(5, 1, (6, 15, covariates))
    x = given.sum(-1) + sampled.normal(size=(6, 15))
    y = -given[..., 0] + x / 2 + sampled.normal(size=(6, 15))
    for row, found in enumerate(partial(x, y, given)):
        design = np.column_stack([np.ones(15), given[row]])
        rests = [values[row] - design @ np.linalg.lstsq(design, values[row], rcond=None)[0] for values in (x, y)]
        assert found == pytest.approx(float(np.corrcoef(*rests)[0, 1]), abs=1e-10)


def test_what_the_covariates_explain_entirely_has_no_partial_correlation() -> None:
    given = RNG(2).normal(size=(15, 2))
    y = RNG(3).normal(size=15)
    assert np.isnan(partial(given @ [2.0, -1.0] + 4, y, given))
    repeated = np.concatenate([given, given[:, :1], np.ones((15, 1))], axis=1)  # nothing more to know
    x = RNG(4).normal(size=15)
    assert partial(x, y, repeated) == pytest.approx(float(partial(x, y, given)), abs=1e-12)


class OnlyOffTheGrid(Classifier):
    """Takes every image for class 1, but any that is not on the 8-bit grid for class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward_features(self, x: torch.Tensor) -> Features:
        off = ((x * 255).round() - x * 255).abs().amax((1, 2, 3)) > 1e-3
        logits = (
            torch.stack([off.float(), torch.full_like(off, 0.5, dtype=torch.float32)], 1) + 0 * x.sum() * self.weight
        )
        return Features(logits, x.flatten(1), ())


def test_an_image_that_is_wrong_as_it_is_does_not_become_robust_by_an_attack() -> None:
    images = RNG(0).integers(0, 256, (40, 1, 2, 2)).astype(np.uint8)
    given = Sample(images, np.zeros(40, np.int64), np.arange(40))
    found = measure(OnlyOffTheGrid(), "m", given, draw(40, 2, 0), [0, 0.1], steps=2, seed=0, batch_size=40)
    assert (found["robust"] == 0).all() and found["margin"][0, 0] == -0.5


def test_an_interval_needs_half_of_its_draws() -> None:
    draws = np.array([np.nan, 1, 2, 3])
    assert interval(draws, level=0.5) == (1.5, 2.5)
    assert interval(np.array([np.nan, np.nan, np.nan, 1])) is None


def planted(robust: np.ndarray, gap: np.ndarray, *, margin: float = 1.0, noise: float = 0, seed: int = 0) -> dict:
    """What `measure` would give: robust accuracy and gaps (R,) with 200 resamples of that noise around them."""
    sampled = RNG(seed)

    def resampled(values: np.ndarray) -> np.ndarray:
        around = values[:, None] + noise * sampled.normal(size=(len(values), 200))
        return np.concatenate([values[:, None], around], axis=1)

    ones = np.ones(201)
    rows = len(robust)
    return {
        "robust": resampled(robust),
        "margin": resampled(np.full(rows, margin)),
        "confidence": resampled(np.full(rows, RNG(seed).uniform(0.5, 1))),
        **{name: resampled(gap) for name in GAPS},
        **{f"of_{name}": 2 * ones for name in GAPS},
    }


def test_a_planted_law_is_found_over_radii_and_its_interval_covers_it() -> None:
    radii = np.linspace(0, 1, 9)
    found = law.over_radii(planted(0.9 - 0.7 * radii, 3 * radii, noise=0.02))["variance"]
    assert found["pearson"]["r"] == pytest.approx(-1) and found["spearman"]["r"] == pytest.approx(-1)
    low, high = found["pearson"]["interval"]
    assert -1 <= low < high < -0.98


@pytest.mark.parametrize(
    ("robust", "gap", "of", "said"),
    [
        ([0.9, 0.5, 0.1], [0.0, 0, 0], 2, "the gap is the same at every radius"),
        ([0.1, 0.1, 0.1], [0.0, 1, 2], 2, "robust accuracy is the same at every radius"),
        ([0.9, 0.5, 0.1], [0.0, 0, 0], 0, "its features have no variance"),
    ],
)
def test_an_undefined_r_is_null_with_its_reason(robust: list, gap: list, of: int, said: str) -> None:
    found = planted(np.array(robust), np.array(gap)) | {"of_variance": np.full(201, float(of))}
    assert law.over_radii(found)["variance"]["pearson"] == {"r": None, "interval": None, "reason": said}


def models(count: int, *, slope: float, seed: int = 0) -> list[dict]:
    """Models whose robust accuracy at radius 1 follows the gap by `slope`, and the margin not at all."""
    sampled = RNG(seed)
    gaps, margins = sampled.uniform(0, 1, count), sampled.uniform(1, 2, count)
    clean = 0.9 + 0.05 * sampled.uniform(size=count)
    robust = 0.5 + slope * (gaps - 0.5) + 0.02 * sampled.normal(size=count)
    return [
        planted(np.array([clean[k], robust[k]]), np.array([0, gaps[k]]), margin=margins[k], noise=0.002, seed=k)
        for k in range(count)
    ]


def by_name(found: dict) -> dict:
    return {row["name"]: row for row in found["predictors"]}


def test_a_planted_law_across_models_stands_before_its_rivals() -> None:
    found = law.across_models(models(24, slope=-0.6), 1, seed=0)
    assert found["n"] == 24 and found["note"] is None
    assert [row["kind"] for row in found["predictors"]] == ["gap"] * 8 + ["rival"] * 3
    gap = by_name(found)["variance_gap"]
    assert -1 <= gap["over_models"][0] <= gap["r"] <= gap["over_models"][1] < -0.9
    assert gap["over_images"][1] - gap["over_images"][0] < 0.05
    assert gap["partial"]["r"] < -0.9 and gap["partial"]["over_models"][1] < -0.9
    low, high = by_name(found)["clean_margin"]["over_models"]
    assert low < 0 < high
    strengths = [abs(row["r"]) for row in found["predictors"]]
    assert strengths == sorted(strengths, reverse=True)


def test_where_there_is_no_law_the_interval_says_so() -> None:
    found = by_name(law.across_models(models(24, slope=0), 1, seed=0))
    low, high = found["variance_gap"]["over_models"]
    assert low < 0 < high


def test_a_gap_that_only_follows_the_margin_has_no_partial_correlation_to_show() -> None:
    sampled = RNG(5)
    margins = sampled.uniform(1, 2, 30)
    found = [
        planted(
            np.array([0.9 + 0.05 * sampled.uniform(), 0.4 * m - 0.2 + 0.02 * sampled.normal()]),
            np.array([0, 3 - m + 0.05 * sampled.normal()]),
            margin=m,
        )
        for m in margins
    ]
    row = by_name(law.across_models(found, 1, seed=0))["variance_gap"]
    assert row["r"] < -0.9
    assert row["partial"]["over_models"][0] < 0 < row["partial"]["over_models"][1]


@pytest.mark.parametrize(("count", "least"), [(5, 0.75), (24, 0.87)])
def test_how_often_the_interval_over_models_holds_a_known_truth(count: int, least: float) -> None:
    """Of 400 samples of models with y = −0.6 x + noise; with few models less often than the 95 % it is named after."""
    slope, noise, held = 0.6 * 12**-0.5, 0.2, 0
    truth = -slope / (slope**2 + noise**2) ** 0.5
    for seed in range(400):
        sampled = RNG([seed, count])
        x = sampled.uniform(size=count)
        y = -0.6 * x + noise * sampled.normal(size=count)
        drawn = sampled.integers(count, size=(200, count))
        different = np.array([len(set(row)) for row in drawn.tolist()])
        low, high = interval(np.where(different >= law.MODELS_FOR_R, pearson(x[drawn], y[drawn]), np.nan)) or (0, 0)
        held += low <= truth <= high
    assert least < held / 400 < 0.99


def test_the_interval_over_images_holds_a_known_truth() -> None:
    """The variance gap of features N(0, 2) and N(0, 1) in three dimensions is 3, in 95 % of the intervals."""
    held = 0
    for seed in range(200):
        sampled = RNG(seed)
        weights = draw(80, 200, seed)
        a, c = (statistics.traces(scale * sampled.normal(size=(80, 3)), weights) for scale in (2**0.5, 1))
        low, high = interval((a - c)[1:]) or (0, 0)
        held += low <= 3 <= high
    assert 0.87 < held / 200 < 0.99


def test_intervals_are_deterministic_per_seed() -> None:
    given = models(12, slope=-0.6)
    assert law.across_models(given, 1, seed=0) == law.across_models(given, 1, seed=0)
    assert law.across_models(given, 1, seed=0) != law.across_models(given, 1, seed=1)


def test_few_models_are_said_to_be_few() -> None:
    assert law.across_models(models(2, slope=-1), 1, seed=0) == {
        "n": 2,
        "reason": "2 models given, 3 are needed for a correlation across models",
    }
    found = law.across_models(models(4, slope=-0.6), 1, seed=0)
    assert found["note"] == "4 models, the interval is wide"
    assert by_name(found)["variance_gap"]["partial"]["reason"] == "needs 5 models"
    three = by_name(law.across_models(models(3, slope=-0.6), 1, seed=0))["variance_gap"]
    assert three["r"] is not None and three["over_models"] is None and "fewer than 3 different" in three["reason"]


def test_a_dead_network_among_the_models_leaves_relative_gaps_undefined() -> None:
    given = models(6, slope=-0.6)
    given[2]["of_variance"] = np.zeros(201)
    rows = by_name(law.across_models(given, 1, seed=0))
    assert rows["relative_variance_gap"]["r"] is None
    assert rows["relative_variance_gap"]["reason"] == "the features of a model have no variance"
    assert rows["relative_covariance_gap"]["r"] is not None
