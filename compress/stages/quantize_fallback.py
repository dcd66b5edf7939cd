"""Layers go back to floating point, most sensitive first, until INT8 costs no more robust accuracy than allowed."""

from collections.abc import Callable, Sequence
from typing import Any

from compress.stages.quantize_judge import Judge
from compress.stages.quantize_sensitivity import Sensitivity, Subject
from edge.core.errors import CheckFailed
from edge.core.progress import say


def fall_back(
    subject: Subject, judge: Judge, allowed: float, always_float: Sequence[str], sensitivity: Callable[[], Sensitivity]
) -> tuple[list[str], dict[str, Any]]:
    """The layers in floating point with which at most `allowed` percentage points are lost, and what was found.

    `sensitivity` is asked only where the quantized network loses more. CheckFailed when no layer could stay INT8.
    """
    in_float, chosen = list(always_float), list(always_float)
    subject.leave_float(subject.layers)
    reference = judge(subject.model)
    subject.leave_float(in_float)
    found = first = judge(subject.model)
    if found.drop(reference) > allowed:
        for layer in sensitivity().ranking:
            chosen.append(layer)
            if len(chosen) == len(subject.layers):
                raise CheckFailed(
                    f"max_robust_drop {allowed:g}: INT8 loses {first.drop(reference):.2f} points of robust validation "
                    f"accuracy (n={found.n}), and still {found.drop(reference):.2f} with every layer but {layer} in "
                    f"floating point; nothing was kept; allow more, or --mode qat"
                )
            subject.leave_float(chosen)
            found = judge(subject.model)
            say(f"fallback: {layer} in floating point, {found.drop(reference):.2f} points lost (n={found.n})")
            if found.drop(reference) <= allowed:
                break
    sizes = {name: subject.model.get_submodule(name).weight.numel() for name in subject.layers}  # type: ignore[operator]
    return [name for name in subject.layers if name in chosen], {
        **judge.described,
        "max_robust_drop": allowed,
        "float": reference.as_dict(),
        "int8": {**first.as_dict(), "drop_points": first.drop(reference)},
        "kept": {**found.as_dict(), "drop_points": found.drop(reference)},
        "float_layers": [name for name in subject.layers if name in chosen],
        "float_weights": sum(sizes[name] for name in chosen) / sum(sizes.values()),
    }
