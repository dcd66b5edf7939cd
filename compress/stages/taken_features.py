"""Which features networks of others give to a stage: said, kept in its manifest; where there are none, refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from compress import names
from compress.folders import numbered
from compress.methods import registry
from compress.networks.base import Classifier
from compress.networks.foreign_network import Foreign
from edge.core.artifact import Stage
from edge.core.errors import CompressError
from edge.core.progress import say


def refuse_without_features(
    method: "str | Sequence[str]", teacher: "Classifier | None", inputs: Mapping[str, Stage]
) -> None:
    """A method that compares features needs a teacher that gives some."""
    if registry.reads_features(method) and teacher is not None and not teacher.has_features:
        folders = ", ".join(str(inputs[role].path) for role in numbered("teacher", inputs))
        raise CompressError(
            f"{folders}: {why_none(teacher)}, method {names.written(method)} compares features; choose another "
            f"--method, e.g. rslad"
        )


def taken_features(networks: "Mapping[str, Classifier | None]") -> dict[str, Any]:
    """The metric `features`, by role; CompressError for a network without any. Of our own networks nothing is said."""
    taken = {}
    for role, network in networks.items():
        if network is not None and not network.has_features:
            raise CompressError(f"{role}: {why_none(network)}")
        members = foreign_parts(network)
        for number, member in enumerate(members, 1):
            features = member.found(member.shape).as_metrics()
            taken[role if len(members) == 1 else f"{role}-{number}"] = features
            stages = ", ".join(features["stages"]) or "none"
            say(f"{role} {member.name}: features are {features['pooled']}; stages {stages}")
    return {"features": taken} if taken else {}


def foreign_parts(network: "Classifier | None") -> list[Foreign]:
    """The networks of others in one: itself, a wrapper's, an ensemble's."""
    return [] if network is None else [part for part in network.modules() if isinstance(part, Foreign)]


def why_none(network: Classifier) -> str:
    """Why a network has no features, and of one of others which modules may be named."""
    found_none = [part.nothing_found() for part in foreign_parts(network) if not part.has_features]
    return found_none[0] if found_none else "gives nothing but logits"
