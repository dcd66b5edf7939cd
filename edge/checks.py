"""The independent check of every success, in numpy float64: inside the ball, inside the range, misclassified."""

import numpy as np

TOLERANCE = 1e-6


def admissible(x_adv: np.ndarray, x: np.ndarray, eps: float) -> np.ndarray:
    """Which images (N,C,H,W) obey ‖x_adv − x‖∞ ≤ eps + 1e-6 and lie in [0, 1]; bool (N,). uint8 means k/255."""
    moved, clean = _pixels(x_adv), _pixels(x)
    inside = np.isfinite(moved) & (moved >= 0) & (moved <= 1) & (np.abs(moved - clean) <= eps + TOLERANCE)
    return inside.reshape(len(moved), -1).all(1)


def wrong(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which rows of logits (N,K) have their largest entry elsewhere than at the label; bool (N,)."""
    return logits.argmax(1) != labels


def _pixels(x: np.ndarray) -> np.ndarray:
    return x / 255.0 if x.dtype == np.uint8 else x.astype(np.float64)
