"""The names a user can choose from, with what each stands for. Standard library only.

The command line offers these without importing torch; the packages that implement them are held to the same
names by tests.
"""

from difflib import get_close_matches

from compress.errors import CompressError

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

MODELS = {
    "resnet8": "CIFAR ResNet, 1 block a stage (75 k parameters)",
    "resnet20": "CIFAR ResNet, 3 blocks a stage (270 k)",
    "resnet32": "CIFAR ResNet, 5 blocks a stage (464 k)",
    "resnet56": "CIFAR ResNet, 9 blocks a stage (853 k)",
    "wrn-10-4": "WideResNet, depth 10, width 4 (1.2 M)",
    "wrn-16-2": "WideResNet, depth 16, width 2 (692 k)",
    "wrn-28-10": "WideResNet, depth 28, width 10 (36 M)",
    "wrn-34-10": "WideResNet, depth 34, width 10 (46 M)",
}

METHODS = {
    "normal": "cross-entropy on clean images: no robustness, the row to compare with",
    "pgd-at": "adversarial training (Madry et al. 2018)",
    "rslad": "robust soft labels (Zi et al. 2021)",
    "vgap": "feature covariance and Gram alignment, VGap-style (Dong et al. 2024)",
}

TEACHER_METHODS = ("normal", "pgd-at")  # those that need no teacher themselves

TARGETS = {
    "onnx": "ONNX for ONNX Runtime: float, or INT8 (U8 activations) from a quantized stage",
}

DEVICES = {
    "cpu": "this machine's processor, through ONNX Runtime",
}


def dataset(name: str) -> "tuple[str, str | None]":
    """`KIND:PATH` in its two parts, the kind a known one; the path only where that kind can have one."""
    kind, colon, path = name.partition(":")
    check("data", kind, DATASETS)
    if not colon and kind not in WITHOUT_PATH:
        raise CompressError(f"data {kind!r} needs a path: {kind}:PATH ({DATASETS[kind]})")
    if colon and (kind == "digits" or not path):
        raise CompressError(f"data {name!r}: {kind} takes {'no path' if path else 'a path after the colon'}")
    return kind, path or None


def nearest(name: str, known: "list[str] | tuple[str, ...] | dict[str, str]") -> str:
    """`; did you mean 'x'?` for a name close to a known one, else an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def check(kind: str, name: str, known: "tuple[str, ...] | dict[str, str]") -> str:
    """`name` itself when it is known; otherwise one line with the nearest name and all of them."""
    if name not in known:
        raise CompressError(f"unknown {kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    return name
