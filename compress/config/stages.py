"""A stage on its own: the shared part and its section in one model, which is also what its manifest records."""

import re
from pathlib import Path
from typing import Any

from pydantic import Field

from compress import names
from compress.config.deployment import Attack, Export, Latency, Verify
from compress.config.measuring import Analyze, Evaluate
from compress.config.networks import Imported, Quantize, Student, Teacher
from compress.config.shared import Common, Threat
from compress.config.values import Data, Device, Target, seconds


class TeacherConfig(Common, Teacher):
    """A teacher stage on its own."""


class ImportConfig(Imported):
    """An imported teacher on its own. Without data nothing is checked."""

    data: "Data | None" = Field(None, description="the dataset that it is checked on, KIND or KIND:PATH")
    threat: Threat = Field(Threat(eps="8/255"), description="what the attacker may do; eps 8/255 if not given")
    seed: int = Field(0, ge=0, description="seeds the starts of the check's attack")

    def semantic(self) -> dict[str, Any]:
        """What decides the result; where files lie on this machine does not, their content does."""
        kind = names.dataset(self.data)[0] if self.data else None
        described = {**self.model_dump(mode="json", exclude={"weights", "models"}), "data": kind}
        scheme = self.source.partition(":")[0]
        is_path = ":" not in self.source or not re.fullmatch(r"[A-Za-z_][\w.]*", scheme)
        return {**described, "source": Path(self.source).name if is_path else self.source}


class StudentConfig(Common, Student):
    """A student stage on its own."""


class QuantizeConfig(Common, Quantize):
    """A quantized stage on its own."""


class ExportConfig(Common, Export):
    """An exported stage on its own."""

    target: Target = Field("onnx", description="runtime to export for")

    def semantic(self) -> dict[str, Any]:
        """As of every stage; what is said of engines decides nothing about an ONNX file."""
        found = super().semantic()
        if self.target == "onnx":
            del found["batch"], found["engine"]
        else:
            del found["engine"]["timing_cache"]
            if not self.target.startswith("torch-"):
                del found["engine"]["program"]
        return found


class AttackConfig(Common, Attack):
    """An attack-set stage on its own."""


class EvaluateConfig(Common, Evaluate):
    """An evaluated stage on its own."""

    def semantic(self) -> dict[str, Any]:
        """As of every stage; what is done about an alarm changes no verdict."""
        return {key: value for key, value in super().semantic().items() if key != "allow_invalid"}


class AnalyzeConfig(Common, Analyze):
    """An analyzed stage on its own."""


class VerifyConfig(Common, Verify):
    """A verified stage on its own."""

    device: Device = Field("cpu", description="where the artifact is executed")

    def semantic(self) -> dict[str, Any]:
        """As of every stage, the budget in seconds: 1m and 60s are one."""
        return {**super().semantic(), "budget": seconds(self.budget)}


class BenchConfig(Latency):
    """Latency alone, of exported artifacts."""

    seed: int = Field(0, ge=0, description="seeds noise, which answers are asked again, and resampling")
    device: Device = Field("cpu", description="where the artifacts are executed")
    threads: int = Field(0, ge=0, description="threads of the runtime; 0: all cores")
    preprocess: "str | None" = Field(None, description="your pipeline between camera and model, module:function; timed")
    frames: "str | None" = Field(None, description="npy file of frames for it, uint8 (N, …)")
