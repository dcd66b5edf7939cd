"""Every method by name. To add one: a function of `Views`, its options, a row here and in `compress.names`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compress import names
from compress.methods.adaad import adaad
from compress.methods.adaiad import adaiad
from compress.methods.addition import Addition, Combined
from compress.methods.akd2 import akd2
from compress.methods.ard import ard
from compress.methods.dgad import dgad
from compress.methods.fair_ard import FairClasses
from compress.methods.gacd import GuidedContrast
from compress.methods.iad_i import iad_i
from compress.methods.iad_ii import iad_ii
from compress.methods.igdm import GradientMatching
from compress.methods.ltd import ltd
from compress.methods.mart import mart
from compress.methods.mtard import MultiTeacher
from compress.methods.nfgsm import NoisySingleStep
from compress.methods.objective import Function, Objective
from compress.methods.options import METHOD_OPTIONS
from compress.methods.rslad import rslad
from compress.methods.saad import from_corrected_teacher, saad
from compress.methods.searches import from_itself, from_labels, from_teacher, from_teacher_there
from compress.methods.supervised import CleanTraining, pgd_at
from compress.methods.trades import trades
from compress.methods.vgap import VarianceGap
from compress.networks import Classifier


@dataclass(frozen=True)
class Given:
    """What a method may prepare itself on: networks, batches of clean training images, how many images there are."""

    student: Classifier
    network: "Classifier | None"
    clean: Iterable[Tensor]
    images: int

    @property
    def teacher(self) -> Classifier:
        """The teacher, for methods that need one."""
        assert self.network is not None, "a method that needs a teacher was built without one"
        return self.network


Build = Callable[[Any, Given], Objective]


def function(terms: Callable[..., Any], search: Callable[..., Any]) -> Build:
    """The builder of a method without a state: terms(views, options) under the attack `search`."""
    return lambda options, given: Function(
        lambda views: terms(views, options), search, getattr(options, "teacher_temperature", 1.0)
    )


#: name → (options, what is given) → objective
HOSTS: dict[str, Build] = {
    "normal": lambda options, given: CleanTraining(options),
    "pgd-at": function(pgd_at, from_labels),
    "trades": function(trades, from_itself),
    "mart": function(mart, from_labels),
    "n-fgsm": lambda options, given: NoisySingleStep(options),
    "rslad": function(rslad, from_teacher),
    "ard": function(ard, from_labels),
    "ltd": function(ltd, from_teacher),
    "iad-i": function(iad_i, from_labels),
    "iad-ii": function(iad_ii, from_labels),
    "akd2": function(akd2, from_labels),
    "mtard": lambda options, given: MultiTeacher(options),
    "adaad": function(adaad, from_teacher_there),
    "adaiad": function(adaiad, from_teacher_there),
    "dgad": function(dgad, from_teacher_there),
    "saad": lambda options, given: Function(
        lambda views: saad(views, options),
        lambda student, batch: from_corrected_teacher(student, batch, options.correction),
        options.teacher_temperature,
    ),
}

#: name → (options, what is given) → what is added to a host
ADDITIONS: dict[str, Callable[[Any, Given], Addition]] = {
    "vgap": lambda options, given: VarianceGap(options, given.student, given.teacher, given.clean),
    "gacd": lambda options, given: GuidedContrast(options, given.student, given.teacher, given.clean, given.images),
    "igdm": lambda options, given: GradientMatching(options),
    "fair-ard": lambda options, given: FairClasses(options),
}


def build(
    method: "str | Sequence[str]",
    options: Mapping[str, Any],
    student: Classifier,
    teacher: "Classifier | None" = None,
    clean: Iterable[Tensor] = (),
    *,
    images: int = 0,
) -> Objective:
    """The objective of that name, or of several: a host and what is added to it, `options` then by name.

    `clean` is read only by methods that prepare themselves on training images; `images` is how many there are, for
    those that remember each.
    """
    given = Given(student, teacher, clean, images)
    host, *added = names.parts(method, options)
    single = options if isinstance(method, str) else {}

    def settled(name: str) -> Any:
        own = single if name == method else {} if isinstance(method, str) else options.get(name, {})
        return METHOD_OPTIONS[name](**own)

    found = HOSTS[host](settled(host), given)
    if not added:
        return found
    return Combined(found, [ADDITIONS[name](settled(name), given) for name in added])
