"""Signs that a figure is better than the artifact: gradients masked, another network attacked, answers that vary."""

from collections.abc import Callable, Mapping
from typing import Any

from edge.core.interval import clopper_pearson
from edge.verify.verdicts import Verdicts

MIN_AGREEMENT = 0.99
FREE_POINTS, FREE_IMAGES = 0.002, 3  # masking: more than the larger of these, by attacks without gradients alone


def judge(
    verdicts: Verdicts, agreement: "Mapping[str, Any] | None", why: Callable[[], str] = str
) -> list[dict[str, Any]]:
    """Every alarm, fired or not; that of the twin only where agreement was measured.

    `why` is asked for the likeliest fault, "" for none, when artifact and twin differ on clean images.
    """
    compared = [] if agreement is None else [_twin(agreement, why)]
    return [_masking(verdicts), *compared, _unsteady(verdicts)]


def _masking(verdicts: Verdicts) -> dict[str, Any]:
    n, replayed, broken = len(verdicts.labels), len(verdicts.replayed), verdicts.broken
    count = int((broken[replayed:].any(0) & ~broken[:replayed].any(0)).sum())
    threshold = max(FREE_POINTS * n, FREE_IMAGES)
    return {
        "name": "masking",
        "fired": replayed > 0 and count > threshold,  # where no gradient was asked, none is masked
        "count": count,
        "threshold": threshold,
        "interval": list(clopper_pearson(count, n)),
        "meaning": f"{count} of {n} images fall to attacks without gradients and to no replayed gradient attack",
    }


def disagreement(agreement: Mapping[str, Any]) -> tuple[str, float, int, int]:
    """Of clean and adversarial the side that agrees less: its name, share of agreement, differing predictions, of n."""
    side = min(("clean", "adversarial"), key=lambda name: float(agreement[name]["argmax_agreement"]))
    n, share = agreement[side]["n"], agreement[side]["argmax_agreement"]
    return side, share, round((1 - share) * n), n


def _twin(agreement: Mapping[str, Any], why: Callable[[], str]) -> dict[str, Any]:
    """Clean images and candidates each on their own: the side that agrees less decides."""
    side, share, count, n = disagreement(agreement)
    likely = why() if float(agreement["clean"]["argmax_agreement"]) < MIN_AGREEMENT else ""
    differ = f"{count} of {n} predictions on {side} images differ"
    other = "the artifact does not compute what the network that the gradients came from computes: "
    return {
        "name": "twin disagrees",
        "fired": share < MIN_AGREEMENT,
        "count": count,
        "threshold": (1 - MIN_AGREEMENT) * n,
        "interval": list(clopper_pearson(count, n)),
        "meaning": f"{other if share < MIN_AGREEMENT else ''}{differ}{f'; {likely}' if likely else ''}",
    }


def _unsteady(verdicts: Verdicts) -> dict[str, Any]:
    n = len(verdicts.labels)
    return {
        "name": "predictions differ between calls",
        "fired": verdicts.unsteady > 0,
        "count": verdicts.unsteady,
        "threshold": 0,
        "interval": list(clopper_pearson(verdicts.unsteady, n)),
        "meaning": f"two passes over the same {n} clean images gave {verdicts.unsteady} of them different logits",
    }
