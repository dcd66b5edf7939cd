"""The names a user can choose from, with what each stands for. Standard library only.

The command line offers these without importing torch; the packages that implement them are held to the same
names by tests.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from edge.core import choices
from edge.core.errors import CompressError

#: A dataset is written `KIND` or `KIND:PATH`.
DATASETS = {
    "digits": "scikit-learn's 1,797 handwritten digits, 8×8, one channel, 10 classes",
    "cifar10": "CIFAR-10, the official python pickles: folder or tar.gz; downloaded when no path is given",
    "cifar100": "CIFAR-100, likewise",
    "imagefolder": "image files in train/CLASS/ and test/CLASS/ (or only CLASS/): folder, tar or zip",
    "idx": "MNIST's IDX files in a folder, plain or .gz",
    "npz": "a NumPy archive: images and labels, or x_train, y_train, x_test, y_test",
    "parquet": "Hugging Face layout, image bytes and label: a file or a folder of train-*, test-*",
}

#: Kinds that need no path.
WITHOUT_PATH = ("digits", "cifar10", "cifar100")

#: The radius that the field uses; the other kinds have none that follows from the name.
DEFAULT_EPS = {
    "digits": "40/255",
    "cifar10": "8/255",
    "cifar100": "8/255",
}

#: Models to train; `+FLAG` chooses a variant, any depth and width of a family is known.
MODELS = {
    "resnet8": "CIFAR ResNet, 1 block a stage (75 k parameters)",
    "resnet20": "CIFAR ResNet, 3 blocks a stage (270 k)",
    "resnet32": "CIFAR ResNet, 5 blocks a stage (464 k)",
    "resnet56": "CIFAR ResNet, 9 blocks a stage (853 k)",
    "resnet18": "ResNet-18 for small images (11 M)",
    "resnet34": "ResNet-34 for small images (21 M)",
    "resnet50": "ResNet-50 for small images (24 M)",
    "preactresnet18": "PreActResNet-18 for small images (11 M)",
    "preactresnet34": "PreActResNet-34 for small images (21 M)",
    "wrn-10-4": "WideResNet, depth 10, width 4 (1.2 M)",
    "wrn-16-2": "WideResNet, depth 16, width 2 (692 k)",
    "wrn-28-10": "WideResNet, depth 28, width 10 (36 M)",
    "wrn-34-10": "WideResNet, depth 34, width 10 (46 M)",
    "wrn-34-20": "WideResNet, depth 34, width 20 (185 M)",
    "wrn-70-16": "WideResNet, depth 70, width 16 (267 M)",
    "mobilenetv2": "MobileNet-V2 for small images, width 1 (2.3 M); mobilenetv2-0.5 has half the width",
    "mobilenetv3-small": "MobileNetV3 small, for images around 224×224 (1.5 M)",
    "mobilenetv3-large": "MobileNetV3 large, for images around 224×224 (4.2 M)",
    "cnn": "four plain convolutions (131 k)",
}

#: Whole families beside the names above: the name without its flags, and which depths its arithmetic allows.
MODEL_FAMILIES: "dict[str, Callable[[int], bool]]" = {
    r"resnet(\d+)": lambda depth: depth >= 8 and (depth - 2) % 6 == 0,
    r"wrn-(\d+)-[1-9]\d*": lambda depth: depth >= 10 and (depth - 4) % 6 == 0,
    r"wrn-(34)-r|wrn-a(4)": lambda depth: True,
    r"mobilenetv(2)-(?!0+(?:\.0+)?$)\d+(?:\.\d+)?": lambda width: True,
}

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

#: What "auto" stands for: where a mirrored image may be another class, nothing.
DEFAULT_AUGMENT = {
    "digits": "none",
    "cifar10": "crop-flip",
    "cifar100": "crop-flip",
    "imagefolder": "crop-flip",
    "idx": "none",
    "npz": "none",
    "parquet": "crop-flip",
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


def dataset(name: str) -> "tuple[str, str | None]":
    """`KIND:PATH` in its two parts, the kind a known one; the path only where that kind can have one."""
    kind, colon, path = name.partition(":")
    choices.known("data", kind, DATASETS)
    if not colon and kind not in WITHOUT_PATH:
        raise CompressError(f"data {kind!r} needs a path: {kind}:PATH ({DATASETS[kind]})")
    if colon and (kind == "digits" or not path):
        raise CompressError(f"data {name!r}: {kind} takes {'no path' if path else 'a path after the colon'}")
    return kind, path or None


def model(name: str) -> str:
    """`name` itself when its family is known; whether that depth or flag exists is for the family to say."""
    base = name.partition("+")[0]
    for pattern, allowed in MODEL_FAMILIES.items():
        found = re.fullmatch(pattern, base)
        if found and allowed(int(next(filter(None, found.groups())))):
            return name
    choices.known("model", base, MODELS)
    return name


def model_pattern() -> str:
    """What an editor lets pass beside the names above: the families, and flags behind any name. Loading is stricter."""
    families = [*MODELS, r"resnet(14|26|38|44|110)", r"wrn-\d+-\d+", "wrn-34-r", "wrn-a4", r"mobilenetv2-\d+(\.\d+)?"]
    return rf"^({'|'.join(families)})(\+[a-z0-9_-]+)*$"


def written(method: "str | Sequence[str]") -> str:
    """A method as one word: `vgap`, `adaad+vgap`."""
    return method if isinstance(method, str) else "+".join(method)
