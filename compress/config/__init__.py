"""The configuration: what can be set, its defaults, and every fault of a file reported at once.

One YAML file describes a whole run (`Run`). Its sections are the stages; `data`, `threat` and `seed` are shared. A
stage on its own is configured by `TeacherConfig`, `StudentConfig`, …: the shared part and its section in one model.
"""

from compress.config.deployment import Analyze, Attack, Batch, Engine, Evaluate, Export, Latency, Verify
from compress.config.networks import CleanTeacher, Imported, Quantize, Student, Teacher
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
from compress.config.values import Common, Threat

__all__ = [
    "Analyze",
    "AnalyzeConfig",
    "Attack",
    "AttackConfig",
    "Batch",
    "BenchConfig",
    "CleanTeacher",
    "Common",
    "Engine",
    "Evaluate",
    "EvaluateConfig",
    "Export",
    "ExportConfig",
    "ImportConfig",
    "Imported",
    "Latency",
    "Quantize",
    "QuantizeConfig",
    "Run",
    "Student",
    "StudentConfig",
    "Teacher",
    "TeacherConfig",
    "Threat",
    "TrainAttack",
    "Training",
    "Verify",
    "VerifyConfig",
    "load_run",
    "merged",
    "parse",
    "read_yaml",
]
