"""The teacher stage: a network trained without a teacher of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.config import TeacherConfig
from compress.folders import plan_of
from compress.training.train import train
from edge.core.artifact import Plan, Stage


def plan(config: TeacherConfig, inputs: Mapping[str, Any]) -> Plan:
    """What decides the result."""
    return plan_of("teacher", config, {})


def run(config: TeacherConfig, inputs: Mapping[str, Any], out: "Path | str", *, replace: bool = False) -> Stage:
    """Train a robust teacher from scratch into `out`."""
    return train("teacher", config, {}, out, replace=replace)
