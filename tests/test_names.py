"""Names that stand at more than one place because one of these must import nothing heavy: all say the same."""

from typing import Any, get_args

from compress.cli import options
from compress.config import Engine, Latency
from compress.quantization import grids
from edge.bench import measure
from edge.core import targets
from edge.doctor import diagnose, examine


def literals(annotation: Any) -> "tuple[Any, ...]":
    """The values of a Literal, or of one in a list."""
    (*first,) = get_args(annotation)
    return get_args(first[0]) if get_args(first[0]) else tuple(first)


def test_every_target_names_code_that_is_there_and_a_device_that_executes_it() -> None:
    assert {target for device in targets.DEVICES for target in targets.executed_by(device)} == {*targets.names()}
    for target in targets.every():
        assert callable(targets.emitter_of(target)) and callable(targets.opener_of(target))
        assert target.dialect is None or isinstance(grids.dialect(target.dialect), grids.Int8Dialect)
        assert {*target.devices} <= {*targets.DEVICES}
        assert {*target.candidates, target.auto, target.rest} <= {*target.precisions, "int8"} <= {*targets.PRECISIONS}
        assert {*target.refuses} <= {*Engine.model_fields}


def test_the_standing_of_every_target_can_be_asked() -> None:
    known = diagnose(examine(), targets.every())
    assert [*known.targets] == [*targets.names()]


def test_the_command_line_offers_what_the_configuration_takes() -> None:
    assert literals(Engine.model_fields["hardware_compatibility"].annotation) == options.LEVELS
    assert literals(Latency.model_fields["scenarios"].annotation) == options.SCENARIOS
    assert options.SCENARIOS == (measure.SINGLE, measure.OFFLINE, measure.CAMERA)
