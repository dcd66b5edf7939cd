"""Names that stand at more than one place because one of these must import nothing heavy: all say the same."""

import importlib
from typing import Any, get_args

from compress.cli import engine, latency
from compress.config import Engine, Latency
from edge.bench import measure
from edge.core import targets
from edge.runtimes.runner import OPENERS
from export.candidates import CANDIDATES
from export.stage import WRITERS


def literals(annotation: Any) -> "tuple[Any, ...]":
    """The values of a Literal, or of one in a list."""
    (*first,) = get_args(annotation)
    return get_args(first[0]) if get_args(first[0]) else tuple(first)


def test_every_target_has_a_runtime_a_runner_a_device_and_is_a_candidate() -> None:
    every = set(targets.TARGETS)
    assert set(OPENERS) == every == set(CANDIDATES) == set(WRITERS)
    assert sorted(target for served in targets.RUNTIMES.values() for target in served) == sorted(every)
    assert {target for executed in targets.EXECUTED.values() for target in executed} == every
    assert set(targets.EXECUTED) == set(targets.DEVICES)


def test_every_runner_is_where_the_table_says() -> None:
    for place in OPENERS.values():
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), place


def test_the_command_line_offers_what_the_configuration_takes() -> None:
    assert literals(Engine.model_fields["hardware_compatibility"].annotation) == engine.LEVELS
    assert literals(Latency.model_fields["scenarios"].annotation) == latency.SCENARIOS
    assert latency.SCENARIOS == (measure.SINGLE, measure.OFFLINE, measure.CAMERA)
