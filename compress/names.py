"""Names that a user can choose from, and how those of installed packages join them. Standard library only.

The command line offers methods without importing any; their files are held to these lines by a test. Networks and
datasets have their rows in `compress.networks` and `compress.data`.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edge.core import plugins
from edge.core.errors import CompressError
from edge.core.user_code import in_words

#: A method's file is `compress/methods/NAME.py`, with _ for -.
METHODS = {
    "normal": "cross-entropy on clean images: no robustness, the row to compare with",
    "pgd-at": "adversarial training (Madry et al. 2018)",
    "trades": "clean accuracy traded for stability of the predictions (Zhang et al. 2019)",
    "mart": "adversarial training that minds misclassified images (Wang et al. 2020)",
    "n-fgsm": "single-step adversarial training from noisy images (de Jorge et al. 2022)",
    "rslad": "robust soft labels (Zi et al. 2021)",
    "ard": "tempered distillation on adversarial images (Goldblum et al. 2020)",
    "ltd": "adversarial training towards sharpened soft labels (Chen & Lee 2021)",
    "iad-i": "a teacher trusted as far as it stands, else the student itself (Zhu et al. 2022)",
    "iad-ii": "the same with labels and a clean teacher (Zhu et al. 2022)",
    "akd2": "labels, a robust and a clean teacher on adversarial images (Chen et al. 2021)",
    "mtard": "a robust and a clean teacher, balanced on the way (Zhao et al. 2022)",
    "adaad": "the teacher asked about the adversarial image, in attack and update (Huang et al. 2023)",
    "adaiad": "iad-i under adaad's attack (Huang et al. 2023)",
    "dgad": "clean or adversarial images by whether the teacher is right (Park & Min 2024)",
    "saad": "images weighed by the teacher's doubt under attack (Lee et al. 2026)",
    "vgap": "feature covariance and Gram alignment, VGap-style (Dong et al. 2024); on a host",
    "gacd": "teacher-anchored contrast of features, GACD-style (Bai et al. 2020); on a host",
    "igdm": "the teacher's gradients by the image, matched (Lee et al. 2023); on a host",
    "fair-ard": "classes that fall sooner count more (Yue et al. 2023); on a host",
}

#: Those that need no teacher themselves. All else about a method its file tells; help alone must name these.
TEACHER_METHODS = ("normal", "pgd-at", "trades", "mart", "n-fgsm")

AUGMENTATIONS = {
    "auto": "what suits the dataset",
    "none": "images as they are",
    "crop-flip": "pad, crop, flip",
    "crop-flip-cutout": "the same and Cutout (DeVries & Taylor 2017)",
    "cropshift": "flip and CropShift (Li & Spratling 2023)",
    "idbh-weak": "flip, CropShift, one colour operation, Random Erasing (Li & Spratling 2023, their cifar10-weak)",
}

CLEAN_TEACHER_METHODS = ("iad-ii", "akd2", "mtard")  # those with a second teacher, trained on clean images

#: How the range of an activation's quantizer is found.
RANGES = {
    "max": "the largest value seen",
    "percentile": "that below which a share of all values lies",
    "mse": "that of least mean squared rounding and clipping error",
    "entropy": "that whose levels lose least of the distribution, in KL divergence",
    "learned": "trained with the weights (LSQ, Esser et al. 2020), from mse on",
}


class SchemaOnDemand:
    """pydantic: the JSON schema of a value whose names are known only when it is asked for."""

    def __init__(self, make: "Callable[[], dict[str, Any]]") -> None:
        self.make = make

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> "dict[str, Any]":
        return self.make()


def method_names() -> "tuple[str, ...]":
    """Our methods, then those of installed packages."""
    return with_installed("methods", METHODS)


def with_installed(group: str, own: "Iterable[str]") -> "tuple[str, ...]":
    """Our own names and those that installed packages add to a group; CompressError where one is there twice."""
    own = tuple(own)
    for name, point in plugins.installed(group).items():
        if name in own:
            raise CompressError(f"{group} {name!r}: {point.value} has the name of one of ours; uninstall it")
    return (*own, *plugins.installed(group))


def resolved(place: "str | Callable[..., Any]") -> "Callable[..., Any]":
    """The function at "module:function", imported now; a function is itself.

    CompressError where an installed package's cannot be imported; a fault of ours stays one.
    """
    if not isinstance(place, str):
        return place
    module, _, function = place.partition(":")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as fault:  # whatever another package raises while it is imported
        if module.partition(".")[0] == "compress":
            raise
        raise CompressError(
            f"{place} cannot be imported ({in_words(fault)}); uninstall the package that names it"
        ) from None
    return loaded


def written(method: "str | Sequence[str]") -> str:
    """A method as one word: `vgap`, `adaad+vgap`."""
    return method if isinstance(method, str) else "+".join(method)
