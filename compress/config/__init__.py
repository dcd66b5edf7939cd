"""The configuration: what can be set, its defaults, and every fault of a file reported at once.

One YAML file describes a whole run (`Run`). Its sections are the stages; `data`, `threat` and `seed` are shared. A
stage on its own is configured by `TeacherConfig`, `StudentConfig`, …: the shared part and its section in one model.
"""

from compress.config.deployment import Adopt, Engine, Latency
from compress.config.networks import Imported, Quantize, Teacher
from compress.config.reading import load_run, merged, parse, read_yaml
from compress.config.run import (
    AnalyzeConfig,
    AttackConfig,
    BenchConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    QuantizeConfig,
    Run,
    StudentConfig,
    TeacherConfig,
    VerifyConfig,
)
from compress.config.training import TrainAttack, Training
from compress.config.values import Common

__all__ = [
    "Adopt",
    "AnalyzeConfig",
    "AttackConfig",
    "BenchConfig",
    "Common",
    "Engine",
    "EvaluateConfig",
    "ExportConfig",
    "ImportConfig",
    "Imported",
    "Latency",
    "Quantize",
    "QuantizeConfig",
    "Run",
    "StudentConfig",
    "Teacher",
    "TeacherConfig",
    "TrainAttack",
    "Training",
    "VerifyConfig",
    "load_run",
    "merged",
    "parse",
    "read_yaml",
]
