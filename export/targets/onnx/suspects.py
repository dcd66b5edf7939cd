"""Whether a file of another tool wants other images than it is given: its accuracy under the usual suspects.

Each suspect is another normalization, range, layout, channel or class order. One is better by more than chance allows
where McNemar's exact test on the same validation images says so, at 5 % shared among all that were tried (Bonferroni).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compress.zoo.catalog import NORMALIZATIONS, normalization_constants
from edge.core.errors import CompressError
from edge.core.proportions import mcnemar
from edge.validity.logits import distributions
from export.targets.onnx.foreign_graph import ForeignClassifier
from export.targets.onnx.input_form import BYTES, InputForm

LEVEL = 0.05
#: A class order is fitted on each half of the images, and both must agree; fewer of a class tell nothing.
IMAGES_OF_A_CLASS = 8
MOST_NAMED = 3  # forms that are as good as the best are told
SMALL = 64  # pixels a side, up to which images are more likely normalized as CIFAR's


@dataclass(frozen=True)
class Answers:
    """What a file says of the validation images in one form: logits (N,K), and which are right (N,)."""

    form: InputForm
    logits: np.ndarray
    right: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    def surprise(self, labels: np.ndarray) -> np.ndarray:
        """Cross entropy (N,): it tells forms apart that accuracies do not."""
        rows = self.logits.astype(np.float64)
        rows = np.log(np.clip(rows, 1e-9, None)) if distributions(rows).all() else rows
        rows = rows - rows.max(1, keepdims=True)
        return np.asarray(np.log(np.exp(rows).sum(1)) - rows[np.arange(len(labels)), labels])


@dataclass(frozen=True)
class Improvement:
    """`better` than `asked` on the same images; `as_good`: options of what chance does not tell from it."""

    asked: Answers
    better: Answers
    p: float
    as_good: tuple[str, ...] = ()

    @property
    def wording(self) -> str:
        """`148 of 200 validation images are right with --normalize cifar10, 49 as it is (McNemar p 3e-20)`."""
        n, before, after = len(self.asked.right), int(self.asked.right.sum()), int(self.better.right.sum())
        as_it_is = self.asked.form.options == InputForm().options
        without = "as it is" if as_it_is else f"with {self.asked.form.options}"
        more = f" and {len(self.as_good) - MOST_NAMED} more" if len(self.as_good) > MOST_NAMED else ""
        alike = f"; as good as chance can tell: {', '.join(self.as_good[:MOST_NAMED])}{more}" if self.as_good else ""
        return (
            f"{after} of {n} validation images are right with {self.better.form.options}, {before} {without} "
            f"({after / n:.1%} and {before / n:.1%}, McNemar p {self.p:.1g}{alike})"
        )


@dataclass
class SuspectSearch:
    """Forms tried on images uint8 (N,C,H,W) with labels (N,). `layouts`: those that the file's sizes leave open."""

    classifier: ForeignClassifier
    images: np.ndarray
    labels: np.ndarray
    layouts: "Sequence[str]" = ()
    tried: "dict[InputForm, Answers | None]" = field(default_factory=dict)

    def answers(self, form: InputForm) -> "Answers | None":
        """None where the file does not take such images, or gives no finite logits."""
        if form not in self.tried:
            try:
                logits = self.classifier.ask(form.pixels(self.images))
                finite = bool(np.isfinite(logits).all())
            except CompressError:
                logits, finite = np.empty(0), False
            right = logits.argmax(1) == self.labels if finite else None
            self.tried[form] = None if right is None else Answers(form, logits, right)
        return self.tried[form]

    def search(self, form: InputForm) -> "Improvement | None":
        """From `form` on, what is better: layouts and normalizations first, the order of channels with the best."""
        asked = self.answers(form) if len(self.labels) else None
        if asked is None or self._cannot_show(asked):
            return None
        forms = [*_renormalized(form, self.images.shape[1:]), *(replace(form, layout=each) for each in self.layouts)]
        best = self._best(asked, forms)
        if self.images.shape[1] == 3:
            swapped = replace(best.form, channels="rgb" if best.form.channels == "bgr" else "bgr")
            best = self._best(best, [swapped])
            if best.form == swapped:  # what seemed best in the wrong order need not be
                best = self._likeliest([swapped, *_renormalized(swapped, self.images.shape[1:])]) or best
        if best.form == form:
            return None
        alike = [each for each in self._others(best) if each.form.channels == best.form.channels]
        names = [each.form.options.replace("--normalize ", "") for each in alike]
        return Improvement(asked, best, self._p(asked, best), tuple(names))

    def _best(self, asked: Answers, forms: "Sequence[InputForm]") -> Answers:
        """The likeliest of `forms`, where the most accurate is better than what is asked by more than chance allows."""
        known = [each for each in map(self.answers, forms) if each is not None]
        most = max(known, key=lambda each: each.right.sum(), default=asked)
        if most.right.sum() <= asked.right.sum() or self._p(asked, most) > LEVEL / max(len(forms), 1):
            return asked
        return self._likeliest(forms) or asked

    def _likeliest(self, forms: "Sequence[InputForm]") -> "Answers | None":
        """Of those that chance does not tell from the most accurate the least surprised.

        Of several that neither accuracy nor cross entropy tells apart the first of `forms`: the likelier beforehand.
        """
        known = [each for each in map(self.answers, forms) if each is not None]
        if not known:
            return None
        most = max(known, key=lambda each: each.right.sum())
        alike = [each for each in known if each is most or self._p(most, each) > LEVEL]
        surprises = [each.surprise(self.labels) for each in alike]
        least = min(surprises, key=np.mean)
        return next(each for each, own in zip(alike, surprises, strict=True) if _alike(own, least))

    def _others(self, best: Answers) -> "Iterator[Answers]":
        for each in self.tried.values():
            comparable = each is not None and each is not best and each.form.layout == best.form.layout
            if each is not None and comparable and self._p(best, each) > LEVEL:
                yield each

    def _p(self, one: Answers, other: Answers) -> float:
        """Of McNemar's exact test on the same images."""
        return mcnemar(int((one.right & ~other.right).sum()), int((~one.right & other.right).sum()))

    def _cannot_show(self, asked: Answers) -> bool:
        """Whether too few are wrong for any suspect to be better by more than chance."""
        return mcnemar(0, int((~asked.right).sum())) > LEVEL / (len(NORMALIZATIONS) + 1)


def _alike(surprise: np.ndarray, least: np.ndarray) -> bool:
    """Whether the mean of one is no larger than that of the other by more than two standard errors, image by image."""
    difference = surprise - least
    return bool(difference.mean() <= 2 * difference.std() / max(len(difference) - 1, 1) ** 0.5)


def _renormalized(form: InputForm, shape: "tuple[int, ...]") -> "Iterator[InputForm]":
    """The same under every other normalization known for images (C,H,W), the likelier first, and on [0, 255]."""
    if form.kind == BYTES:
        return
    if (form.normalize, form.full_scale) != ("none", 1):
        yield replace(form, normalize="none", full_scale=1)
    if form.full_scale != 255:
        yield replace(form, normalize="none", full_scale=255)
    channels, small = shape[0], max(shape[1:]) <= SMALL
    for name in sorted(NORMALIZATIONS, key=lambda name: name.startswith("cifar") != small):
        try:
            normalization_constants(name, channels)
        except CompressError:
            continue  # of images of other channels
        if (form.normalize, form.full_scale) != (name, 1):
            yield replace(form, normalize=name, full_scale=1)


@dataclass(frozen=True)
class FittedOrder:
    """`order`: the file's class in the place of each of the dataset's; shares that are right as they stand, and so."""

    order: list[int]
    as_it_is: float
    in_order: float
    p: float


def fitted_order(answers: Answers, labels: np.ndarray) -> "FittedOrder | None":
    """Where another order of classes is better by more than chance allows.

    None where two halves of the images fit two orders, or where they hold too few of a class.
    """
    classes = answers.logits.shape[1]
    if classes < 2 or len(labels) < IMAGES_OF_A_CLASS * classes:
        return None
    half = np.arange(len(labels)) % 2 == 0
    predicted = answers.logits.argmax(1)
    first, second = (_assignment(predicted[part], labels[part], classes) for part in (half, ~half))
    if not np.array_equal(first, second) or np.array_equal(first, np.arange(classes)):
        return None
    right = predicted == first[labels]
    p = mcnemar(int((answers.right & ~right).sum()), int((~answers.right & right).sum()))
    if p > LEVEL or right.sum() <= answers.right.sum():
        return None
    return FittedOrder(first.tolist(), answers.accuracy, float(right.mean()), p)


def _assignment(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """To each label the prediction that it is best matched by, one to one."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return np.asarray(linear_sum_assignment(-counts)[1])


def described(improvement: "Improvement | None", search: SuspectSearch) -> dict[str, Any]:
    """For the manifest: how many images, the accuracy under all that was tried, and what was better."""
    return {
        "n": len(search.labels),
        "accuracy": {form.options: each.accuracy for form, each in search.tried.items() if each is not None},
        "better": None if improvement is None else {"options": improvement.better.form.options, "p": improvement.p},
    }
