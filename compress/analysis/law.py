"""The law put to the test: within a model over radii, and across models at one radius, beside rival predictors.

Every interval is a percentile interval of a bootstrap. Over images: all radii and all models are computed on the same
resample of images. Over models: whole models are drawn, a draw counting only when it holds enough different ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.analysis.measurement import GAPS
from compress.analysis.statistics import interval, partial, pearson, spearman, varies

MODELS_FOR_R = 3
MODELS_FOR_PARTIAL = 5  # two covariates and a line leave one degree of freedom
MODELS_ENOUGH = 20

LABELS = {
    "variance_gap": "variance gap",
    "covariance_gap": "covariance gap",
    "class_gram_gap": "class Gram gap",
    "image_gram_gap": "image Gram gap",
    "relative_variance_gap": "relative variance gap",
    "relative_covariance_gap": "relative covariance gap",
    "relative_class_gram_gap": "relative class Gram gap",
    "relative_image_gram_gap": "relative image Gram gap",
    "clean_margin": "clean margin",
    "clean_accuracy": "clean accuracy",
    "clean_confidence": "clean confidence",
}
RIVALS = ("clean_margin", "clean_accuracy", "clean_confidence")
GIVEN = ("clean_margin", "clean_accuracy")

Measured = Mapping[str, np.ndarray]


def relative(measured: Measured, gap: str) -> np.ndarray:
    """The gap as a share of the clean statistic, (R,M); NaN where that is 0."""
    of = np.broadcast_to(measured[f"of_{gap}"], measured[gap].shape)
    return np.divide(measured[gap], of, out=np.full(of.shape, np.nan), where=of > 0)


def over_radii(measured: Measured) -> dict[str, Any]:
    """For each gap r and ρ with robust accuracy over the radii; relative gaps give the same."""
    robust = measured["robust"].T
    return {
        gap: {
            "pearson": _entry(pearson(measured[gap].T, robust), _why_not(measured, gap)),
            "spearman": _entry(spearman(measured[gap].T, robust), _why_not(measured, gap)),
        }
        for gap in GAPS
    }


def _why_not(measured: Measured, gap: str) -> str:
    if not varies(measured["robust"][:, 0]):
        return "robust accuracy is the same at every radius"
    if measured[f"of_{gap}"][0] == 0:
        return "its features have no variance"
    return "the gap is the same at every radius"


def _entry(values: np.ndarray, why_not: str) -> dict[str, Any]:
    """The sample's value and the interval of its resamples, from (M,); what is undefined is None, with the reason."""
    if not np.isfinite(values[0]):
        return {"r": None, "interval": None, "reason": why_not}
    return {"r": float(values[0]), "interval": _listed(interval(values[1:]))}


def _listed(bounds: "tuple[float, float] | None") -> "list[float] | None":
    return None if bounds is None else list(bounds)


def across_models(models: Sequence[Measured], at: int, *, seed: int) -> dict[str, Any]:
    """r of every predictor with robust accuracy at radius number `at` over the models, the strongest first.

    For the gaps also the partial correlation given the mean clean margin and clean accuracy.
    """
    n = len(models)
    if n < MODELS_FOR_R:
        why = f"{n} model{'s' if n > 1 else ''} given, {MODELS_FOR_R} are needed for a correlation across models"
        return {"n": n, "reason": why}
    robust = _by_model([measured["robust"][at] for measured in models])
    predictors = {key: _by_model([_predictor(measured, key, at) for measured in models]) for key in LABELS}
    covariates = np.stack([predictors[key] for key in GIVEN], axis=-1)
    count = robust.shape[0] - 1
    drawn = np.random.default_rng([seed, n, count]).integers(n, size=(count, n))
    rows = []
    for key, values in predictors.items():
        row: dict[str, Any] = {"name": key, "label": LABELS[key], "kind": "rival" if key in RIVALS else "gap"}
        row |= _tested(values, robust, drawn)
        if key not in RIVALS:
            row["partial"] = _tested(values, robust, drawn, covariates)
        rows.append(row)
    rows.sort(key=lambda row: -1 if row["r"] is None else abs(row["r"]), reverse=True)
    note = f"{n} models, the interval is wide" if n < MODELS_ENOUGH else None
    return {"n": n, "note": note, "given": [LABELS[key] for key in GIVEN], "predictors": rows}


def _by_model(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Models' values (M,) as (M,m): for each resample of images a sample of models."""
    return np.stack(columns, axis=-1)


def _predictor(measured: Measured, key: str, at: int) -> np.ndarray:
    rivals = {"clean_margin": "margin", "clean_accuracy": "robust", "clean_confidence": "confidence"}
    if key in rivals:
        return measured[rivals[key]][0]
    gap = key.removeprefix("relative_").removesuffix("_gap")
    return relative(measured, gap)[at] if key.startswith("relative_") else measured[gap][at]


def _tested(x: np.ndarray, y: np.ndarray, drawn: np.ndarray, covariates: "np.ndarray | None" = None) -> dict[str, Any]:
    """r, or the partial r, of (M,m) values with both its intervals."""
    needed = MODELS_FOR_R if covariates is None else MODELS_FOR_PARTIAL
    if x.shape[1] < needed:
        why = f"needs {needed} models"
        return {"r": None, "over_models": None, "over_images": None, "reason": why}
    values = pearson(x, y) if covariates is None else partial(x, y, covariates)
    if not np.isfinite(values[0]):
        return {"r": None, "over_models": None, "over_images": None, "reason": _why_undefined(x[0], y[0])}
    bx, by = x[0][drawn], y[0][drawn]
    by_models = pearson(bx, by) if covariates is None else partial(bx, by, covariates[0][drawn])
    different = 1 + (np.diff(np.sort(drawn, axis=1), axis=1) > 0).sum(1)
    over_models = interval(np.where(different >= needed, by_models, np.nan))
    entry: dict[str, Any] = {"r": float(values[0])}
    entry |= {"over_models": _listed(over_models), "over_images": _listed(interval(values[1:]))}
    if over_models is None:
        entry["reason"] = f"no interval over models: most draws of {x.shape[1]} hold fewer than {needed} different ones"
    return entry


def _why_undefined(x: np.ndarray, y: np.ndarray) -> str:
    if not np.isfinite(x).all():
        return "the features of a model have no variance"
    if not varies(y):
        return "robust accuracy is the same for every model"
    if not varies(x):
        return "it is the same for every model"
    return f"{' and '.join(LABELS[key] for key in GIVEN)} explain it, or robust accuracy, entirely"
