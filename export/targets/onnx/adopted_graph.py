"""From a file of another tool to the graph that is shipped: its input form, its class order, what is put around it."""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.config import Adopt
from compress.data.dataset import Dataset
from edge.core.errors import CheckFailed, CompressError
from edge.runtimes.onnxruntime.runner import OnnxRunner
from edge.runtimes.runner import BATCH_SIZE
from edge.validity.logits import sampled
from export.targets.onnx.class_names import ClassOrder, names_in_file, names_in_metadata, ordered
from export.targets.onnx.foreign_file import ForeignFile
from export.targets.onnx.foreign_graph import ForeignClassifier
from export.targets.onnx.input_form import BYTES, InputForm, checked_form, fitting_layouts
from export.targets.onnx.suspects import SMALL, FittedOrder, Improvement, SuspectSearch, described, fitted_order

CHECKED, CHECKED_LARGE = 256, 128  # validation images, at most, that suspects are compared on, by their size
COMPARED = 16  # of them that the graph is executed on once more with what was put around it
SAME = 0.1  # of the logits' spread: what a rounding before the graph may change, where it is quantized


@dataclass(frozen=True)
class AdoptedGraph:
    """`content`: what is shipped; `form`: what the file takes, made in front of it; `classes`: names and order."""

    content: bytes
    form: InputForm
    classes: ClassOrder
    suspects: dict[str, Any]
    notes: list[str]


def graph_to_ship(adopt: Adopt, foreign: ForeignFile, dataset: Dataset) -> AdoptedGraph:
    """The graph as it is shipped, once its input, its classes and their order are known."""
    classifier = ForeignClassifier.read(foreign, adopt.output)
    images, labels = dataset.part("val")
    chosen = sampled(len(labels), CHECKED if max(images.shape[2:]) <= SMALL else CHECKED_LARGE)
    images, labels = images[chosen], labels[chosen]
    form, open_layouts = _asked_form(adopt, classifier, dataset)
    classifier, note = _one_at_a_time(classifier, form, dataset)
    notes = [note] if note else []
    search = SuspectSearch(classifier, images, labels, open_layouts)
    # of sizes that tell no layout, but one executes
    if open_layouts and len(labels) and search.answers(form) is None:
        other = dataclasses.replace(form, layout=open_layouts[0])
        if search.answers(other) is not None:
            form = other
            notes.append(f"executes on images (H,W,C) alone; adopted as --layout {form.layout}")
    one = images[:1] if len(images) else dataset.part("test")[0][:1]
    told = int(classifier.ask(form.pixels(one)).shape[1])
    if told != len(dataset.classes):
        raise CompressError(
            f"{foreign.path}: tells {told} classes apart, {dataset.name} has {len(dataset.classes)}; give the --data "
            f"it is for"
        )
    classes = _classes(adopt, foreign, told, dataset)
    if classes.order is not None:  # what is right is told by names
        search = SuspectSearch(classifier, images, np.array(classes.order)[labels], open_layouts)
    improvement, automatic = search.search(form), adopt.normalize == "auto"
    if form.layout != "nchw" and adopt.layout == "auto" and not open_layouts:
        notes.append(f"takes images (H,W,C), as its sizes {classifier.sizes} show; adopted as --layout {form.layout}")
    if improvement is not None:
        form, note = _improved_form(adopt, form, improvement)
        notes.append(note)
    elif automatic:
        notes.append(f"of {len(labels)} validation images none of the suspects has more right than chance allows")
    if not len(labels):
        notes.append("the data has no validation images, so how it reads images is not compared with anything")
    answers = search.answers(form) if len(labels) else None
    if classes.note:
        notes.append(classes.note)
    fitted = fitted_order(answers, labels) if answers is not None and classes.order is None else None
    if fitted is not None:
        classes, note = _in_fitted_order(classes, fitted, automatic=automatic)
        notes.append(note)
    content = classifier.adopted(form, dataset.images.shape[1:], told, classes.order)
    if content != foreign.content:
        _check_same(content, classifier, form, classes, images if len(images) else one)
    return AdoptedGraph(content, form, classes, described(improvement, search), notes)


def _improved_form(adopt: Adopt, form: InputForm, improvement: Improvement) -> "tuple[InputForm, str]":
    """As much of what is better as `auto` was asked for; and what is said."""
    better = improvement.better.form
    if adopt.normalize == "auto":
        return better, f"{improvement.wording}; it is adopted so"
    if adopt.layout != "auto" or better.layout == form.layout:
        return form, f"{improvement.wording}: adopt it with that, or with --normalize auto"
    form = dataclasses.replace(form, layout=better.layout)
    rest = "" if form == better else f", the rest of it by {better.options} or --normalize auto"
    return form, f"{improvement.wording}; it is adopted with --layout {form.layout}{rest}"


def _classes(adopt: Adopt, foreign: ForeignFile, told: int, dataset: Dataset) -> ClassOrder:
    """As --labels names the outputs, else the file's metadata."""
    named = names_in_metadata(foreign.proto, told) if adopt.labels is None else names_in_file(Path(adopt.labels), told)
    return ordered(named, dataset.classes, dataset.name)


def _one_at_a_time(classifier: ForeignClassifier, form: InputForm, dataset: Dataset) -> "tuple[ForeignClassifier, str]":
    """The classifier with its batch fixed at 1, and a line, where it says any number and executes for one alone."""
    pair = form.pixels(dataset.part("test")[0][:2])
    if classifier.fixed_batch or len(pair) < 2:
        return classifier, ""
    try:
        classifier.ask(pair)
    except CompressError:
        single = dataclasses.replace(classifier, fixed_batch=1)
        with contextlib.suppress(CompressError):
            single.ask(pair)
            return single, "says that it takes any number of images, and fails on two; its batch is fixed at 1"
    return classifier, ""


def _asked_form(adopt: Adopt, classifier: ForeignClassifier, dataset: Dataset) -> "tuple[InputForm, tuple[str, ...]]":
    """The form as asked for, `auto` as far as types and sizes decide it; and the layouts that they leave open."""
    where, shape = str(classifier.file.path), dataset.images.shape[1:]
    fitting = fitting_layouts(classifier.sizes, shape)
    if not fitting or adopt.layout not in ("auto", *fitting):
        takes = f"({', '.join('?' if size is None else str(size) for size in classifier.sizes)})"
        fix = f"leave --layout {adopt.layout} out" if fitting else "give the --data it is for"
        raise CompressError(f"{where}: takes images {takes}, {dataset.name} has {shape}; {fix}")
    full_scale = (255 if classifier.kind == BYTES else 1) if adopt.range == "auto" else int(adopt.range)
    form = InputForm(
        "none" if adopt.normalize == "auto" else adopt.normalize,
        full_scale,
        adopt.channels,
        fitting[0] if adopt.layout == "auto" else adopt.layout,
        classifier.kind,
    )
    if form.channels == "bgr" and shape[0] != 3:
        raise CompressError(f"{where}: --channels bgr is of three channels, {dataset.name} has {shape[0]}")
    return checked_form(form, where), tuple(fitting[1:]) if adopt.layout == "auto" else ()


def _in_fitted_order(classes: ClassOrder, fitted: FittedOrder, *, automatic: bool) -> "tuple[ClassOrder, str]":
    """The classes as they are shipped: in the order that labels show where that was asked for; and what is said."""
    listed = " ".join(map(str, fitted.order))
    seen = (
        f"{fitted.in_order:.1%} of validation images are right with its outputs in the order {listed}, "
        f"{fitted.as_it_is:.1%} as they stand (McNemar p {fitted.p:.1g})"
    )
    if automatic:
        return dataclasses.replace(classes, order=tuple(fitted.order)), f"{seen}; it is adopted so"
    return (
        classes,
        f"{seen}: its classes have another order; name them by --labels FILE, or give --normalize auto",
    )


def _check_same(
    content: bytes, classifier: ForeignClassifier, form: InputForm, classes: ClassOrder, images: np.ndarray
) -> None:
    """CheckFailed where the graph with what was put around it gives other logits than the file itself.

    A file whose logits depend on the call is told by what is measured of every artifact.
    """
    some = images[sampled(len(images), COMPARED)]
    want = classifier.ask(form.pixels(some))
    want = want if classes.order is None else want[:, list(classes.order)]
    where = str(classifier.file.path)
    with OnnxRunner(content, where=where, batch_size=BATCH_SIZE, threads=0) as runner:
        got = runner.infer(some)
    apart = float(np.abs(got - want).max())
    if apart > SAME * float(np.ptp(want)) and _depends_on_call(classifier, form.pixels(some)):
        return
    if apart > SAME * float(np.ptp(want)):
        raise CheckFailed(
            f"{where}: with {form.options} in front, logits differ by {apart:.3g} from those of the file itself; "
            f"report this, with the file"
        )


def _depends_on_call(classifier: ForeignClassifier, pixels: np.ndarray) -> bool:
    """Whether an image has other logits alone than among others."""
    together = classifier.ask(pixels)
    alone = np.concatenate([classifier.ask(pixels[place : place + 1]) for place in range(len(pixels))])
    return float(np.abs(together - alone).max()) > SAME * float(np.ptp(together))
