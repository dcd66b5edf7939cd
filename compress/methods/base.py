"""What a method is: its name, its options and what makes its objective; options that methods share.

Options are read without torch, so methods take `torch` and `functional` from here: each is imported when one of its
names is first asked for. Types of tensors and networks are for annotations alone; where an annotation names `torch`
itself, `from __future__ import annotations` goes with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from compress import names
from edge.core import errors
from edge.core.errors import CompressError

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor
    from torch.nn import functional as functional

    from compress.methods.objective import Addition, Objective
    from compress.networks.base import Classifier as Classifier
    from compress.networks.base import Features as Features
else:
    Tensor = Classifier = Features = Any

    class LateModule:
        """Stands for a module until one of its names is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self._name), name)

    torch, functional = LateModule("torch"), LateModule("torch.nn.functional")


class MethodOptions(BaseModel):
    """The options of one method; every field has a default and a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Preparation:
    """What a method may prepare itself on: networks, batches of clean training images, how many images there are."""

    student: Classifier
    network: Classifier | None
    clean: Iterable[Tensor]
    images: int

    @property
    def teacher(self) -> Classifier:
        """The teacher, for methods that need one."""
        assert self.network is not None, "a method that needs a teacher was built without one"
        return self.network


@dataclass(frozen=True)
class Method:
    """One training method. Its file holds all of it; an installed package adds one as an entry point.

    `objective(options, preparation)` makes an `Objective`, or an `Addition` where the method has a `host`.
    """

    name: str
    options: type[MethodOptions]
    objective: Callable[[Any, Preparation], Objective | Addition]
    #: one line on it; our own methods have theirs in `compress.names`
    about: str = ""
    #: how many teachers it asks itself: none, one, or also a second that was trained on clean images
    teachers: int = 1
    #: of a method that is added to another one: that which it is added to unless one is named
    host: str | None = None
    #: whether it compares features, which a teacher of nothing but logits does not have
    reads_features: bool = False


def _known_host(name: str) -> str:
    from compress.methods import registry  # which imports every method

    try:
        return errors.known_name("host", name, registry.hosts())
    except CompressError as fault:
        raise ValueError(str(fault)) from None


def _host_schema() -> dict[str, Any]:
    from compress.methods import registry

    return {"type": "string", "enum": list(registry.hosts())}


Host = Annotated[str, AfterValidator(_known_host), names.SchemaOnDemand(_host_schema)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Supervised(MethodOptions):
    """Methods that learn from labels."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label that is spread over all classes")


class Taught(MethodOptions):
    """Methods that learn from a teacher's scores."""

    teacher_temperature: Positive = Field(
        1.0, description="the teacher's logits are divided by it: below 1 its scores are sharper (LTD)"
    )


class Tempered(Taught):
    """Methods that soften the teacher's scores and the student's alike."""

    temperature: Positive = Field(
        1.0, description="teacher's and student's logits are divided by it, KL times its square"
    )


class Added(MethodOptions):
    """Methods that add to another one."""

    host: Host = Field(description="the method that this one is added to")
